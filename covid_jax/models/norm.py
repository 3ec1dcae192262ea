"""Normalisation of images, and normalisation layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from covid_jax import UserError


def as_volume(image, mean, std, dtype, least=(1, 1, 1)):
    """Images as every trunk takes them: (image - mean) / std in `dtype`, an image as a volume of one slice.

    image: [batch, depth, height, width, channels] or without depth, in [0, 1]; mean, std: of all channels, or of each.
    least: the smallest depth, height and width that the network's strides leave something of; UserError below it.
    """
    volume = image if image.ndim == 5 else image[:, None]
    if any(n < m for n, m in zip(volume.shape[1:4], least, strict=True)):
        wanted, given = ('x'.join(map(str, size)) for size in (least, volume.shape[1:4]))
        raise UserError(f'this network takes no less than {wanted} (depth, height, width), not {given}: set '
                        '--config.prep.size, and for a volume --config.method.depth')
    mean, std = (jnp.asarray(m, jnp.promote_types(image.dtype, jnp.float32)) for m in (mean, std))
    return ((volume - mean) / std).astype(dtype)


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


class DomainBatchNorm(nn.Module):
    """Batch normalisation with statistics, scale and bias of each site apart: Chang et al., "Domain-Specific Batch
    Normalization" (2019), as contrastive cross-site learning has it (section III.B.1). All [sites, channels].

    The batch may mix the sites in any order. What a site's rows sum to is a product with the one-hot sites, so nothing is
    sliced out of a sharded batch, and the statistics are those of the global batch. A site without a row keeps its running
    statistics, and its parameters have a zero gradient. A row whose site is none of them (negative, or `sites` and above)
    counts in no statistics and comes out as zeros: what to do with such a row is the network's to say.
    momentum and the running variance are as in `BatchNorm`, which is the case of one site.
    """

    sites: int
    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x, site):
        """x [batch, ..., channels], site int32 [batch] -> the shape of x."""
        shape = (self.sites, x.shape[-1])
        scale = self.param('scale', nn.initializers.ones, shape)
        bias = self.param('bias', nn.initializers.zeros, shape)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
        running_var = self.variable('batch_stats', 'var', jnp.ones, shape)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        member = jax.nn.one_hot(site, self.sites, dtype=wide.dtype)  # [batch, sites]
        rows = member.sum(0)[:, None]

        def of_row(table):
            """[sites, channels] -> what belongs to each row, to broadcast with x."""
            return jnp.expand_dims(jnp.dot(member, table, precision='highest'), range(1, x.ndim - 1))

        def by_site(x):
            """Mean over each site's rows and their space, [sites, channels]; zero for a site without a row."""
            return jnp.dot(member.T, jnp.mean(x, range(1, x.ndim - 1)), precision='highest') / jnp.maximum(rows, 1)

        if self.use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            mean = by_site(wide)
            var = by_site(jnp.square(wide - of_row(mean)))
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_var, var)):
                    moved = self.momentum * running.value + (1 - self.momentum) * new
                    running.value = jnp.where(rows > 0, moved, running.value)
        factor = scale * lax.rsqrt(var + self.epsilon)
        return (x * of_row(factor) + of_row(bias - mean * factor)).astype(self.dtype)


def _moments(x):
    """[..., channels] -> mean, variance [channels], float32 (float64 for float64)."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    if x.size == len(x) * x.shape[-1]:  # one number a row: of rows that are alike one pass leaves only rounding
        return mean, jnp.mean(jnp.square(x - mean), axes)
    return mean, jnp.maximum(jnp.mean(x * x, axes) - mean * mean, 0)
