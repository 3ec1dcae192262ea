"""What a training carries from step to step, and nothing else."""

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
    gradient was not finite, -1 while there is none."""

    step: jax.Array
    params: Any
    opt_state: Any
    state: Any
    bad: jax.Array


def create(params: Any, state: Any, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.int32(0), params, tx.init(params), state, jnp.int32(-1))


def train_step(method: Any, tx: optax.GradientTransformation) -> Callable:
    """step(train_state, batch, key) -> train_state, scalars. key: the run's, the same at every step.

    method: a methods.Method.
    """

    def step(train, batch, key):
        (loss, (state, scalars)), grads = jax.value_and_grad(method.loss, has_aux=True)(
            train.params, train.state, batch, key, train.step)
        norm = optax.tree.norm(grads)
        updates, opt_state = tx.update(grads, train.opt_state, train.params)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        bad = jnp.where((train.bad < 0) & ~finite, train.step, train.bad)
        new = TrainState(train.step + 1, optax.apply_updates(train.params, updates), opt_state, state, bad)
        return new, {'loss': loss, 'grad_norm': norm, **scalars}

    return step


def jit_step(method: Any, tx: optax.GradientTransformation, mesh: Mesh) -> jax.stages.Wrapped:
    """train_step compiled for the mesh: the state replicated and donated, the batch cut over the devices."""
    return jax.jit(train_step(method, tx), donate_argnums=0, out_shardings=replicated(mesh),
                   in_shardings=(replicated(mesh), by_batch(mesh), replicated(mesh)),
                   compiler_options=compiler_options(mesh))
