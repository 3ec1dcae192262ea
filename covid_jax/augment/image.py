"""Augmentations of the plane of one volume [depth, height, width, channels], in and out: its perspective. Key first.

CMT-CNN section 3.2.1 (3). Each draws once for a volume, so that all its slices are treated alike; values only move, so they
stay in their range. `jax.vmap` over keys and volumes makes the batch.
"""

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


def flip(key: jax.Array, volume: jax.Array) -> jax.Array:
    """The plane mirrored, left and right or top and bottom, each as likely."""
    return jnp.where(jax.random.bernoulli(key), volume[:, ::-1], volume[:, :, ::-1])
