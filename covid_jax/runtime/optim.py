"""Optimizers and schedules: pure functions of `config.train`. A schedule gives the rate of every step."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from covid_jax import UserError


def total_steps(train: ConfigDict, steps_per_epoch: float) -> int:
    """The steps of a whole training. steps_per_epoch need not be whole."""
    return max(1, round(train.epochs * steps_per_epoch))


def steps(train: ConfigDict, steps_per_epoch: float) -> optax.Schedule:
    """The rate is divided by 10 after each share of all steps in `train.lr_steps` (CMC-COV19D section 5.1)."""
    total = total_steps(train, steps_per_epoch)
    scales: dict[int, float] = {}
    for share in train.lr_steps:
        after = round(share * total)
        scales[after] = scales.get(after, 1.0) * 0.1  # in a short training two may fall on one step
    return optax.piecewise_constant_schedule(train.lr, scales)


def cosine(train: ConfigDict, steps_per_epoch: float) -> optax.Schedule:
    """lr / 2 * (1 + cos(pi e / period)), where e epochs are finished (Loshchilov and Hutter 2017, Eq 5).

    The rate is constant within an epoch. After `train.period` epochs (0: all of them) it rises again, as that of
    torch's CosineAnnealingLR does: it is 0 at e = period and lr at e = 2 period.
    """
    epochs = math.ceil(train.epochs)
    # What a device divides may fall short of a whole number, so the ends are whole steps, worked out here; without the
    # rounding 3 * (n / 3) may exceed n and end an epoch one step late.
    ends = np.ceil(np.round(np.arange(1, epochs + 1) * steps_per_epoch, 6)).astype(np.int32)
    finished = np.arange(epochs + 1)
    rates = train.lr / 2 * (1 + np.cos(np.pi * finished / (train.period or train.epochs)))
    return lambda step: jnp.asarray(rates, jnp.float32)[jnp.sum(step >= ends)]


def constant(train: ConfigDict, steps_per_epoch: float) -> optax.Schedule:
    """The rate is lr at every step."""
    return optax.constant_schedule(train.lr)


def check(train: ConfigDict) -> None:
    """UserError for what the optimizer cannot be made from; the data need not be known."""
    if train.optimizer not in OPTIMIZERS:
        raise UserError(f'no optimizer is called {train.optimizer!r}: '
                        f'set --config.train.optimizer={"|".join(OPTIMIZERS)}')
    if train.schedule not in SCHEDULES:
        raise UserError(f'no schedule is called {train.schedule!r}: set --config.train.schedule={"|".join(SCHEDULES)}')
    if not 0 <= train.momentum < 1:
        raise UserError(f'--config.train.momentum={train.momentum} must be at least 0 and below 1')
    if train.momentum and train.optimizer != 'sgd':
        raise UserError(f'--config.train.momentum={train.momentum} does nothing with {train.optimizer}: set it to 0, '
                        f'or --config.train.optimizer=sgd')
    if not 0 <= train.average < 1:
        raise UserError(f'--config.train.average={train.average} must be at least 0 and below 1, as 0.99')
    if not train.epochs > 0:
        raise UserError(f'--config.train.epochs={train.epochs} must be above 0')
    for name in ('clip', 'period'):
        if not train[name] >= 0:
            raise UserError(f'--config.train.{name}={train[name]} must be at least 0')
    rising = all(a < b for a, b in itertools.pairwise([0, *train.lr_steps, 1]))
    if not rising:
        raise UserError(f'--config.train.lr_steps={tuple(train.lr_steps)} must be shares of the training that rise, '
                        f'each above 0 and below 1')


def make(train: ConfigDict, steps_per_epoch: float, frozen: Any = None) -> optax.GradientTransformation:
    """The optimizer of `config.train`: the gradient is clipped, L2 is added to it, then the optimizer takes its step.

    L2 is torch's weight_decay (not AdamW's), and sgd with momentum m is torch's: buffer = m * buffer + (gradient + L2).
    clip is the largest global norm of the gradient, 0: any. A longer gradient is divided by its norm, in torch by its
    norm + 1e-6.

    frozen: tree of bool; what is True gets no update at all, neither gradient nor decay, and counts for no norm.
    """
    check(train)
    clip = [optax.clip_by_global_norm(train.clip)] if train.clip else []
    tx = optax.chain(*clip, optax.add_decayed_weights(train.weight_decay), OPTIMIZERS[train.optimizer](train),
                     optax.scale_by_learning_rate(SCHEDULES[train.schedule](train, steps_per_epoch)))
    if frozen is None:
        return tx
    labels = jax.tree.map(lambda f: 'frozen' if f else 'trained', frozen)
    return optax.partition({'trained': tx, 'frozen': optax.set_to_zero()}, labels)


OPTIMIZERS = {
    'adam': lambda train: optax.scale_by_adam(),
    'sgd': lambda train: optax.trace(train.momentum) if train.momentum else optax.identity(),
}
SCHEDULES = {'steps': steps, 'cosine': cosine, 'constant': constant}
