"""What stands on top of a trunk: classifiers and projection heads."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from covid_jax import UserError
from covid_jax.models.conv import zeros


class Classifier(nn.Module):
    """Dense layer [batch, dim] -> [batch, classes] in float32, started at N(0, 0.001^2) (CMC-COV19D, authors' code)."""

    classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        return nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.001))(features.astype(jnp.float32))


class MapDense(nn.Module):
    """Dense layer over a whole map [batch, *space, channels] -> [batch, features], with a kernel [*space, channels, features];
    bias_init as in conv.py. UserError for a map of another size than the first; stride, of the map in the image, is for its
    text."""

    features: int
    kernel_init: nn.initializers.Initializer
    bias_init: Callable = zeros
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*x.shape[1:], self.features)
        if self.has_variable('params', 'kernel'):
            self._check(self.get_variable('params', 'kernel').shape, shape)
        kernel = self.param('kernel', self.kernel_init, shape)
        bias = self.param('bias', self.bias_init, (self.features,), math.prod(x.shape[1:]))
        return jnp.tensordot(x, kernel, x.ndim - 1) + bias

    def _check(self, started, given):
        if started == given:
            return
        here, there = ('x'.join(str(n * self.stride) for n in shape[:-2]) for shape in (started, given))
        depth_alone = len(started) == 5 and started[1:] == given[1:]
        field = f'--config.views.depth={started[0] * self.stride}' if depth_alone else '--config.prep.size'
        raise UserError(f'this network takes images of the size it was started on, {here}, and was given {there}: set {field}')


class Projector(nn.Module):
    """MLP dim -> dim -> ReLU -> out onto the unit sphere, float32: P of CMC-COV19D, section 3.2 (out 128)."""

    out: int = 128

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        x = features.astype(jnp.float32)
        x = nn.relu(nn.Dense(x.shape[-1])(x))
        return unit(nn.Dense(self.out)(x))


def unit(x: jax.Array) -> jax.Array:
    """Rows [..., dim] scaled to length 1; a zero row stays zero, with a finite gradient."""
    return x * lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-12)
