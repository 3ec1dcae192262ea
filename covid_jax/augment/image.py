"""Augmentations of the plane of one volume [depth, height, width, channels], in and out: its perspective. Key first.

rotate, flip: CMT-CNN section 3.2.1 (3). quarter_turn: the self-supervised baseline of Self-Trans. crop, mirror: the authors'
code of contrastive cross-site COVID-Net. Each draws once for a volume, so that all its slices are treated alike; values only
move, so they stay in their range. `jax.vmap` over keys and volumes makes the batch.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from covid_jax import UserError


def rotate(key: jax.Array, volume: jax.Array) -> jax.Array:
    """The plane turned by 90, 180 or 270 degrees, each as likely. UserError for a plane that is not square."""
    height, width = volume.shape[1:3]
    if height != width:
        raise UserError(f'a plane of {height} x {width} is turned by quarters only if it is square: set --config.prep.size, or '
                        'name operations without rotation in --config.views.ops')
    turned = [jnp.rot90(volume, quarters, (1, 2)) for quarters in (1, 2, 3)]
    return jax.lax.select_n(jax.random.randint(key, (), 0, 3), *turned)


def quarter_turn(quarters: jax.Array, volume: jax.Array) -> jax.Array:
    """The plane turned by 90 degrees as often as `quarters` says, int in 0 1 2 3. UserError for a plane that is not square."""
    height, width = volume.shape[1:3]
    if height != width:
        raise UserError(f'a plane of {height} x {width} is turned by quarters only if it is square: set --config.prep.size')
    return jax.lax.select_n(quarters, *(jnp.rot90(volume, k, (1, 2)) for k in range(4)))


def flip(key: jax.Array, volume: jax.Array) -> jax.Array:
    """The plane mirrored, left and right or top and bottom, each as likely."""
    return jnp.where(jax.random.bernoulli(key), volume[:, ::-1], volume[:, :, ::-1])


def crop(key: jax.Array, volume: jax.Array, plane: int, extent: jax.Array | None = None) -> jax.Array:
    """plane x plane pixels from a place that is drawn uniformly among all whole pixels inside the extent.

    extent: int32 [2], height and width of what there is at the top left of the volume, each at least `plane`; None: all is.
    """
    height, width = volume.shape[1:3] if extent is None else extent
    k_top, k_left = jax.random.split(key)
    top = jax.random.randint(k_top, (), 0, height - plane + 1)
    left = jax.random.randint(k_left, (), 0, width - plane + 1)
    return jax.lax.dynamic_slice(volume, (0, top, left, 0), (len(volume), plane, plane, volume.shape[-1]))


def mirror(key: jax.Array, volume: jax.Array, axes: Sequence[int] = (2, 1)) -> jax.Array:
    """The volume mirrored along each of these axes or not, with probability 1/2, whatever became of the others: left and right (2), top
    and bottom (1), first and last slice (0)."""
    coins = jax.random.bernoulli(key, shape=(len(axes),))
    for axis, mirrored in zip(axes, coins, strict=True):
        volume = jnp.where(mirrored, jnp.flip(volume, axis), volume)
    return volume
