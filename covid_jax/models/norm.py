"""Normalisation layers. All are called alike: layer(*pieces, site=..., group=...), and take what they need.

pieces: arrays [batch, ..., channels] whose channels stand side by side in the parameters (the groups of a convolution, never
  joined). They come back normalised: one array for one, a list for more.
site: int [batch], the site of each row.
group: one-hot [batch, groups], the rows that are normalised together in training; None: all of them.

What the rows of a set sum to is a product with a one-hot array, so that nothing is sliced out of a sharded batch, and the
statistics are those of the global batch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015); statistics in float32.

    Under jit with a sharded batch the statistics are those of the global batch, without an axis name. momentum 0.9 is
    torch's 0.1; the running variance is the biased one (torch keeps n / (n - 1) times it).

    By `group`, each row is normalised in training with the statistics of its group, as if each group were a batch of its
    own (MoCo normalises by device: He et al., "Momentum Contrast", 2020, section 3.3). The running statistics move by the
    mean of those of the groups that have a row. A row of no group comes out as zeros.
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, *pieces: jax.Array, site: jax.Array | None = None,
                 group: jax.Array | None = None) -> jax.Array | list[jax.Array]:
        scale, bias, running = _variables(self, (sum(x.shape[-1] for x in pieces),))
        if self.use_running_average:
            group = None
            mean, var = (statistic.value for statistic in running)
        else:
            mean, var = _moments(pieces, group)
            if not self.is_initializing():
                for statistic, new in zip(running, (mean, var), strict=True):
                    if group is not None:
                        new = jnp.mean(new, 0, where=_has_a_row(group))
                    statistic.value = self.momentum * statistic.value + (1 - self.momentum) * new
        factor = scale * lax.rsqrt(var + self.epsilon)
        return _affine(pieces, factor, bias - mean * factor, self.dtype, group)


class DomainBatchNorm(nn.Module):
    """Batch normalisation with statistics, scale and bias of each site apart: Chang et al., "Domain-Specific Batch
    Normalization" (2019), as contrastive cross-site learning has it (section III.B.1). All [sites, channels].

    The batch may mix the sites in any order. A site without a row keeps its running statistics, and its parameters have a
    zero gradient. A row whose site is none of them (negative, or `sites` and above) counts in no statistics and comes out
    as zeros: what to do with such a row is the network's to say. One site is for all rows, whatever `site` says.
    momentum and the running variance are as in `BatchNorm`, which is the case of one site.

    ValueError in training by group, and without `site` where there are several.
    """

    sites: int
    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, *pieces: jax.Array, site: jax.Array | None = None,
                 group: jax.Array | None = None) -> jax.Array | list[jax.Array]:
        scale, bias, running = _variables(self, (self.sites, sum(x.shape[-1] for x in pieces)))
        if site is None and self.is_initializing():
            site = jnp.zeros(pieces[0].shape[0], jnp.int32)
        member = of_sites(site, self.sites, pieces[0].shape[0])
        if self.use_running_average:
            mean, var = (statistic.value for statistic in running)
        elif group is not None:
            raise ValueError('a normalisation by site has no groups: leave group as None')
        else:
            mean, var = _moments(pieces, member)
            if not self.is_initializing():
                for statistic, new in zip(running, (mean, var), strict=True):
                    moved = self.momentum * statistic.value + (1 - self.momentum) * new
                    statistic.value = jnp.where(_has_a_row(member), moved, statistic.value)
        factor = scale * lax.rsqrt(var + self.epsilon)
        return _affine(pieces, factor, bias - mean * factor, self.dtype, member)


def of_sites(site: jax.Array | None, sites: int, rows: int) -> jax.Array:
    """Which rows are of which site, one-hot float32 [rows, sites]; zeros for a row of another (negative, or `sites` and above). One
    site is for all rows, whatever `site` says. ValueError where there are several and `site` is None."""
    if sites == 1:
        return jnp.ones((rows, 1))
    if site is None:
        raise ValueError(f'a layer of {sites} sites needs the site of each row')
    return jax.nn.one_hot(site, sites, dtype='float32')


def _variables(module, shape):
    """Scale, bias, and the running mean and variance."""
    scale = module.param('scale', nn.initializers.ones, shape)
    bias = module.param('bias', nn.initializers.zeros, shape)
    mean = module.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = module.variable('batch_stats', 'var', jnp.ones, shape)
    return scale, bias, (mean, var)


def _moments(pieces, member=None):
    """Mean and variance of the channels of all pieces, float32 (float64 for float64): [channels], or of the rows of each set
    where `member` is one-hot [batch, sets]: [sets, channels], zeros for a set without a row."""
    wide = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in pieces]
    moments = [_of_all(x) if member is None else _of_each_set(x, member) for x in wide]
    mean, var = (jnp.concatenate(m, -1) for m in zip(*moments, strict=True))
    return mean, var


def _of_all(x):
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    if x.size == len(x) * x.shape[-1]:  # one number a row: of rows that are alike one pass leaves only rounding
        return mean, jnp.mean(jnp.square(x - mean), axes)
    return mean, jnp.maximum(jnp.mean(x * x, axes) - mean * mean, 0)


def _of_each_set(x, member):
    """The variance of a set is the mean of its rows' own, and the variance of their means: rows are of one size."""
    space = tuple(range(1, x.ndim - 1))
    rows = jnp.maximum(member.sum(0), 1)[:, None]

    def of_set(row):
        return jnp.dot(member.T, row, precision='highest') / rows

    row_mean = jnp.mean(x, space)
    mean = of_set(row_mean)
    apart = row_mean - jnp.dot(member, mean, precision='highest')
    return mean, of_set(jnp.var(x, space) + jnp.square(apart))


def _has_a_row(member):
    return jnp.any(member > 0, 0)[:, None]


def _affine(pieces, factor, shift, dtype, member):
    """Each piece times its channels of `factor`, plus those of `shift`: [channels], or [sets, channels] by `member`."""
    ends = np.cumsum([x.shape[-1] for x in pieces])[:-1]
    tables = zip(jnp.split(factor, ends, -1), jnp.split(shift, ends, -1), strict=True)
    normalised = []
    for x, table in zip(pieces, tables, strict=True):
        if member is not None:
            space = range(1, x.ndim - 1)
            table = [jnp.expand_dims(jnp.dot(member, t, precision='highest'), space) for t in table]
        f, s = table
        normalised.append((x * f + s).astype(dtype))
    return normalised[0] if len(normalised) == 1 else normalised
