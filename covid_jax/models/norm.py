"""Normalisation layers."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015); statistics in float32.

    Under jit with a sharded batch the statistics are those of the global batch, without an axis name. momentum 0.9 is
    torch's 0.1; the running variance is the biased one (torch keeps n / (n - 1) times it).
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, *pieces):
        """pieces: arrays [..., channels] whose channels stand side by side in the parameters (the groups of a convolution,
        never joined). Returns them normalised; one array for one."""
        widths = [x.shape[-1] for x in pieces]
        shape = (sum(widths),)
        scale = self.param('scale', nn.initializers.ones, shape)
        bias = self.param('bias', nn.initializers.zeros, shape)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
        running_var = self.variable('batch_stats', 'var', jnp.ones, shape)
        if self.use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            mean, var = (jnp.concatenate(m) for m in zip(*map(_moments, pieces), strict=True))
            if not self.is_initializing():
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * var
        factor = scale * lax.rsqrt(var + self.epsilon)
        shift = bias - mean * factor
        ends = np.cumsum(widths)[:-1]
        y = [(x * f + s).astype(self.dtype)
             for x, f, s in zip(pieces, jnp.split(factor, ends), jnp.split(shift, ends), strict=True)]
        return y[0] if len(y) == 1 else y


def _moments(x):
    """[..., channels] -> mean, variance [channels], float32 (float64 for float64)."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    return mean, jnp.maximum(jnp.mean(x * x, axes) - mean * mean, 0)
