"""Optimizers and schedules."""

import math

import jax
import optax

from covid_jax import UserError


def schedule(train, steps_per_epoch):
    """The rate by step: divided by 10 after each share of the epochs in `train.lr_steps` (CMC-COV19D section 5.1)."""
    boundaries = [round(math.floor(share * train.epochs) * steps_per_epoch) for share in train.lr_steps]
    scales = {}
    for b in boundaries:
        scales[b] = scales.get(b, 1.0) * 0.1
    return optax.piecewise_constant_schedule(train.lr, scales)


def make(train, steps_per_epoch, frozen=None):
    """The optimizer of `config.train`: L2 is added to the gradient (torch's weight_decay, not AdamW).

    frozen: tree of bool; what is True gets no update at all, neither gradient nor decay.
    """
    inner = {'adam': optax.scale_by_adam, 'sgd': optax.identity}
    if train.optimizer not in inner:
        raise UserError(f'no optimizer is called {train.optimizer!r}: set --config.train.optimizer={"|".join(inner)}')
    tx = optax.chain(optax.add_decayed_weights(train.weight_decay), inner[train.optimizer](),
                     optax.scale_by_learning_rate(schedule(train, steps_per_epoch)))
    if frozen is None:
        return tx
    labels = jax.tree.map(lambda f: 'frozen' if f else 'trained', frozen)
    return optax.partition({'trained': tx, 'frozen': optax.set_to_zero()}, labels)
