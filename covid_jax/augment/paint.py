"""Augmentations that hide a part of one volume [depth, height, width, channels], float32 in [0, 1], in and out. Key first.

CMT-CNN section 3.2.1 (2): painted with a constant. The paper gives no numbers; those here are of the code of Models Genesis
(Zhou et al. 2019), whose laws the paper adopts. Windows reach through all slices. `jax.vmap` over keys and volumes makes the
batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

MOST = 5  # windows
CONTINUED = 0.95  # probability of a further window, if there is the one before it
BORDER = 3  # pixels that a window keeps from the border of the plane, where there are as many


class Windows(NamedTuple):
    """there: bool [windows]. inside: bool [windows, height, width], whether a pixel lies in it."""

    there: jax.Array
    inside: jax.Array


def in_paint(key: jax.Array, volume: jax.Array) -> jax.Array:
    """One to five blocks are filled, each with a constant U(0, 1) of its own; a later block covers an earlier one.

    The sides of a block are uniform in L // 6 .. L // 3 whole pixels of an axis of L pixels, at least 1.
    """
    k_windows, k_value = jax.random.split(key)
    windows = _windows(k_windows, volume, [(length // 6, length // 3) for length in volume.shape[1:3]])
    value = jax.random.uniform(k_value, (MOST,))
    for there, inside, constant in zip(*windows, value, strict=True):
        volume = jnp.where((there & inside)[None, :, :, None], constant, volume)
    return volume


def out_paint(key: jax.Array, volume: jax.Array) -> jax.Array:
    """One to five windows are kept; all else becomes one constant U(0, 1).

    The sides of a window are uniform in L - 4 L // 7 .. L - 3 L // 7 whole pixels of an axis of L pixels.
    """
    k_windows, k_value = jax.random.split(key)
    there, inside = _windows(k_windows, volume, [(n - 4 * n // 7, n - 3 * n // 7) for n in volume.shape[1:3]])
    kept = jnp.any(there[:, None, None] & inside, 0)
    return jnp.where(kept[None, :, :, None], volume, jax.random.uniform(k_value))


def _windows(key, volume, sides):
    """Windows of `volume` whose sides are drawn from (least, most) of each axis of the plane."""
    k_there, k_rows, k_columns = jax.random.split(key, 3)
    further = jax.random.bernoulli(k_there, CONTINUED, (MOST,)).at[0].set(True)
    rows = _intervals(k_rows, volume.shape[1], *sides[0])
    columns = _intervals(k_columns, volume.shape[2], *sides[1])
    return Windows(jnp.cumprod(further).astype(bool), rows[:, :, None] & columns[:, None, :])


def _intervals(key, length, least, most):
    """bool [windows, length]: whether a pixel of an axis lies in the window's interval, uniform in side, then in place."""
    k_side, k_start = jax.random.split(key)
    side = jax.random.randint(k_side, (MOST, 1), max(least, 1), max(most, 1) + 1)
    border = jnp.minimum(BORDER, (length - side) // 2)
    start = jax.random.randint(k_start, (MOST, 1), border, length - side - border + 1)
    at = jnp.arange(length)
    return (at >= start) & (at < start + side)
