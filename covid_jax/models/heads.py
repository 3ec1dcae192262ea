"""What stands on top of a trunk: classifiers and projection heads."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax


class Classifier(nn.Module):
    """Dense layer [batch, dim] -> [batch, classes] in float32, started at N(0, 0.001^2) (CMC-COV19D, authors' code)."""

    classes: int

    @nn.compact
    def __call__(self, features):
        return nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.001))(features.astype(jnp.float32))


class Projector(nn.Module):
    """MLP dim -> dim -> ReLU -> out onto the unit sphere, float32: P of CMC-COV19D, section 3.2 (out 128)."""

    out: int = 128

    @nn.compact
    def __call__(self, features):
        x = features.astype(jnp.float32)
        x = nn.relu(nn.Dense(x.shape[-1])(x))
        return unit(nn.Dense(self.out)(x))


def unit(x):
    """Rows [..., dim] scaled to length 1; a zero row stays zero, with a finite gradient."""
    return x * lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-12)
