"""How a network computes, apart from what it is: one field of every family, and what its trunk takes from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax import UserError
from covid_jax.models.conv import Conv
from covid_jax.models.norm import BatchNorm


@dataclass(frozen=True)
class Compute:
    """mean, std: images in [0, 1] become (image - mean) / std, of all channels or of each.
    dtype: of what is computed; parameters, statistics and heads are float32.
    form: of convolutions, see conv.py.
    remat: compute blocks again in the backward pass instead of keeping what is inside them.
    norm: makes the layers of normalisation (norm.py), as norm(use_running_average=, dtype=, name=).
    groups: how many groups of rows `group` tells apart.
    adapter: makes what each site adds to some convolutions (adapters.py), as conv(adapter)(features, strides, name=)(x, site),
      in the networks that say so; None: nothing.
    """

    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    dtype: str = 'float32'
    form: str = 'native'
    remat: bool = False
    norm: Callable = BatchNorm
    groups: int = 1
    adapter: Callable | None = None

    def volume(self, image: jax.Array, least: Sequence[int] = (1, 1, 1)) -> jax.Array:
        """Images as trunks take them: see `as_volume`."""
        return as_volume(image, self.mean, self.std, self.dtype, least)

    def conv(self, layer: Callable[..., nn.Module] = Conv, **fields: Any) -> Callable[..., nn.Module]:
        """Makes convolutions of this dtype and form, with `fields`: conv(features, kernel_size, name='conv1')(x)."""
        return partial(layer, dtype=self.dtype, form=self.form, **fields)

    def norms(self, train: bool, site: jax.Array | None = None, group: jax.Array | None = None,
              **fields: Any) -> Callable[..., Callable]:
        """Makes normalisations of these rows, with `fields`: norm(name='bn1')(x).

        site: int [batch] or None. group: int [batch] from 0 to groups - 1, or None: all rows are one group. Evaluation is
        the same whatever the groups.
        """
        layer = partial(self.norm, use_running_average=not train, **{'dtype': self.dtype} | fields)
        member = None if group is None else jax.nn.one_hot(group, self.groups, dtype='float32')
        return lambda name: partial(layer(name=name), site=site, group=member)

    def block(self, make: Callable) -> Callable:
        """The class of a module, or a function of the network and arrays: computed again in the backward pass if `remat`."""
        return nn.remat(make) if self.remat else make


def as_volume(image: jax.Array, mean: float | tuple[float, ...], std: float | tuple[float, ...], dtype: str,
              least: Sequence[int] = (1, 1, 1)) -> jax.Array:
    """Images as every trunk takes them: (image - mean) / std in `dtype`, an image as a volume of one slice.

    image: [batch, depth, height, width, channels] or without depth, in [0, 1]; mean, std: of all channels, or of each.
    least: the smallest depth, height and width that the network's strides leave something of; UserError below it.
    """
    volume = image if image.ndim == 5 else image[:, None]
    if any(n < m for n, m in zip(volume.shape[1:4], least, strict=True)):
        wanted, given = ('x'.join(map(str, size)) for size in (least, volume.shape[1:4]))
        raise UserError(f'this network takes no less than {wanted} (depth, height, width), not {given}: set '
                        '--config.prep.size, and for a volume --config.views.depth')
    wide = jnp.promote_types(image.dtype, jnp.float32)  # integers too are divided as floats
    return ((volume - jnp.asarray(mean, wide)) / jnp.asarray(std, wide)).astype(dtype)
