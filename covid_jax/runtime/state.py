"""What a training carries from step to step, and nothing else."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from covid_jax.runtime.mesh import by_batch, compiler_options, replicated


@flax.struct.dataclass
class TrainState:
    """step: updates done; params, opt_state; state: the method's, without gradient; bad: the first step whose loss or
    gradient was not finite, -1 while there is none; average: {'params', 'network'} of params and of state['network'] over the steps,
    where they are averaged."""

    step: jax.Array
    params: Any
    opt_state: Any
    state: Any
    bad: jax.Array
    average: Any = None


def create(params: Any, state: Any, tx: optax.GradientTransformation, average: float = 0) -> TrainState:
    """The state before the first step. average: as in train_step."""
    kept = {'params': params, 'network': state['network']} if average else None
    return TrainState(jnp.int32(0), params, tx.init(params), state, jnp.int32(-1), kept)


def train_step(method: Any, tx: optax.GradientTransformation, average: float = 0) -> Callable:
    """step(train_state, batch, key) -> train_state, scalars. key: the run's, the same at every step.

    method: a methods.Method. average: what the moving average keeps of itself in a step; 0: there is none.
    """

    def step(train, batch, key):
        (loss, (state, scalars)), grads = jax.value_and_grad(method.loss, has_aux=True)(
            train.params, train.state, batch, key, train.step)
        norm = optax.tree.norm(grads)
        updates, opt_state = tx.update(grads, train.opt_state, train.params)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        bad = jnp.where((train.bad < 0) & ~finite, train.step, train.bad)
        params = optax.apply_updates(train.params, updates)
        kept = moved(train.average, {'params': params, 'network': state['network']}, average, train.step) if average else None
        new = TrainState(train.step + 1, params, opt_state, state, bad, kept)
        return new, {'loss': loss, 'grad_norm': norm, **scalars}

    return step


def moved(average: Any, new: Any, decay: float, step: jax.Array) -> Any:
    """The average after a step whose values are `new`: decay * average + (1 - decay) * new, of what is no float `new`.

    Early on the decay is (1 + step) / (10 + step), so that the start of a run is forgotten.
    """
    kept = jnp.minimum(decay, (1 + step) / (10 + step))

    def of_leaf(old, x):
        return (x + kept * (old - x)).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(of_leaf, average, new)


def answering(train: TrainState) -> TrainState:
    """With the params and the network's statistics that answer: their averages, where there are any."""
    if train.average is None:
        return train
    return dataclasses.replace(train, params=train.average['params'], state={**train.state, 'network': train.average['network']})


def jit_step(method: Any, tx: optax.GradientTransformation, mesh: Mesh, average: float = 0) -> jax.stages.Wrapped:
    """train_step compiled for the mesh: the state replicated and donated, the batch cut over the devices."""
    return jax.jit(train_step(method, tx, average), donate_argnums=0, out_shardings=replicated(mesh),
                   in_shardings=(replicated(mesh), by_batch(mesh), replicated(mesh)),
                   compiler_options=compiler_options(mesh))
