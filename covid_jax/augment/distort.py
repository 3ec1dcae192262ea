"""Augmentations that distort the values of one volume [depth, height, width, channels], float32 in [0, 1], in and out. Key
first.

CMT-CNN section 3.2.1 (1). Each draws once for a volume, so that all its slices are treated alike; only the noise is of each
voxel by itself. `jax.vmap` over keys and volumes makes the batch: no step is a loop over voxels or windows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

LEVELS = 256  # of the table of a curve: those that a stored scan has
HALVINGS = 22  # of an interval of t: to a rounding of its middle
SHUFFLED = 0.9  # share of the windows that are shuffled: with the borders, 0.83 of the pixels of a plane of 96 x 96
PHOTONS = 30.0, 255.0  # counts of a voxel of value 1, drawn log-uniformly
FEW = 4.0  # counts up to which the Poisson law is inverted term by term
TERMS = 16  # of that: counts from 0; the chance of more is below 2^-17 there, and no draw of 16 bits lies beyond


def hounsfield(key: jax.Array, volume: jax.Array, inversion: bool = True) -> jax.Array:
    """Every value through one curve: a cubic Bezier curve from (0, 0) to (1, 1), both inner control points U(0, 1)^2.

    Its x(t) and y(t) rise. The map is x(t) -> y(t), or, with probability 1/2 where inversion is allowed, x(t) -> y(1 - t), which
    falls (the non-linear transformation of Models Genesis, Zhou et al. 2019, whose code sorts x alone). It is exact at
    k / 255 and linear between.
    """
    k_points, k_falling = jax.random.split(key)
    x1, y1, x2, y2 = jax.random.uniform(k_points, (4,))
    t = _bezier_times(x1, x2)
    if inversion:
        t = jnp.where(jax.random.bernoulli(k_falling), 1 - t, t)
    table = _bezier(t, y1, y2)
    at = volume * (LEVELS - 1)
    below = jnp.clip(at.astype(jnp.int32), 0, LEVELS - 2)
    low = jnp.take(table, below, mode='clip')
    high = jnp.take(table, below + 1, mode='clip')
    return jnp.clip(low + (at - below) * (high - low), 0, 1)


def _bezier_times(first, second):
    """The t at which a coordinate of the curve is 0, 1 / 255 .. 1, by bisection: it rises."""
    x = jnp.linspace(0, 1, LEVELS)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        beyond = _bezier(middle, first, second) > x
        return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

    low, _ = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros(LEVELS), jnp.ones(LEVELS)))
    return jnp.where(x == 1, 1, low)


def _bezier(t, first, second):
    """One coordinate of a cubic Bezier curve from 0 to 1."""
    return 3 * (1 - t)**2 * t * first + 3 * (1 - t) * t**2 * second + t**3


class Tiles(NamedTuple):
    """Tiles of one axis of the plane. side: their length in pixels. tile, within, whole: int [length], int [length], bool
    [length]: of each pixel the tile it lies in, its place there, and whether that tile lies wholly in the plane."""

    side: jax.Array
    tile: jax.Array
    within: jax.Array
    whole: jax.Array


def shuffle_pixels(key: jax.Array, volume: jax.Array) -> jax.Array:
    """Pixels change places within small windows of the plane, the same places in all slices.

    The windows have sides uniform in 1 .. L // 10 whole pixels of an axis of L pixels, drawn once for the volume, and tile the
    plane from a random offset. Those that lie wholly inside are shuffled with probability `SHUFFLED`. One uniformly random
    permutation is drawn for the volume, and each window enters it at a place of its own, so that each window's
    permutation is uniform by itself. Models Genesis (Zhou et al. 2019) shuffles thousands of windows, one by one, each of
    its own size and read from the original. Planes of less than 20 pixels stay as they are.
    """
    depth, height, width, channels = volume.shape
    k_rows, k_columns, k_order, k_windows, k_others = jax.random.split(key, 5)
    rows = _tiles(k_rows, height)
    columns = _tiles(k_columns, width)
    pixels = rows.side * columns.side  # of a window
    place = jnp.arange(_longest(height) * _longest(width))  # in a window
    move = place // columns.side * width + place % columns.side  # from the window's corner, counted along the plane
    move = _shuffled(k_order, move, pixels)
    draw = _mixed(jnp.take(jax.random.bits(k_windows, (height,), jnp.uint32), rows.tile)[:, None]
                  ^ jnp.take(jax.random.bits(k_others, (width,), jnp.uint32), columns.tile))  # uint16 of each window
    chosen = jnp.uint32(SHUFFLED * 2**16)  # of the values that a draw may have
    turn = (draw * pixels.astype(jnp.uint32) // chosen).astype(jnp.int32)
    turned = rows.within[:, None] * columns.side + columns.within + turn
    turned = jnp.where(turned < pixels, turned, turned - pixels)
    own = jnp.arange(height)[:, None] * width + jnp.arange(width)
    corner = own - rows.within[:, None] * width - columns.within
    moved = rows.whole[:, None] & columns.whole & (draw < chosen)
    source = jnp.where(moved, corner + jnp.take(move, turned, mode='clip'), own)
    return jnp.take(volume.reshape(depth, -1, channels), source.ravel(), 1, mode='clip').reshape(volume.shape)


def _longest(length):
    """The longest side of a window in an axis."""
    return max(length // 10, 1)


def _tiles(key, length):
    k_side, k_offset = jax.random.split(key)
    side = jax.random.randint(k_side, (), 1, _longest(length) + 1)
    at = jnp.arange(length)
    shifted = at + jax.random.randint(k_offset, (), 0, side)
    start = at - shifted % side
    return Tiles(side, shifted // side, shifted % side, (start >= 0) & (start + side <= length))


def _mixed(x):
    """uint32 -> its high 16 bits after the finalizer of MurmurHash3: a draw for each pair of a row and a column, without
    one from the key for each, which costs as much as all else here."""
    x = (x ^ x >> 16) * jnp.uint32(0x85EBCA6B)
    x = (x ^ x >> 13) * jnp.uint32(0xC2B2AE35)
    return (x ^ x >> 16) >> 16


def _shuffled(key, x, n):
    """The first n of x in a uniformly random order, then the others. Sorted together, which is one step of the program."""
    bits = jax.random.bits(key, x.shape, jnp.uint32)
    last = jnp.uint32(2**32 - 1)
    return jax.lax.sort((jnp.where(jnp.arange(len(x)) < n, bits, last), x), num_keys=1)[1]


def poisson_noise(key: jax.Array, volume: jax.Array) -> jax.Array:
    """clip(Poisson(x P) / P, 0, 1): the noise of x-rays, of which P reach a voxel of value 1. P is log-uniform in PHOTONS.

    The counts have the mean of the Poisson law within 0.03 % and its variance within 0.25 %, at the worst for means a little
    above `FEW`, and from a mean of 10 on both within 0.01 %. 0 stays 0.
    """
    k_photons, k_count = jax.random.split(key)
    low, high = jnp.log(jnp.array(PHOTONS))
    photons = jnp.exp(jax.random.uniform(k_photons, minval=low, maxval=high))
    uniform = (jax.random.bits(k_count, volume.shape, jnp.uint16).astype(jnp.float32) + 0.5) / 2**16
    return jnp.minimum(poisson_quantile(uniform, volume * photons) / photons, 1)


def poisson_quantile(u: jax.Array, mean: jax.Array) -> jax.Array:
    """The least count whose probability of not being exceeded is at least u in (0, 1), of the Poisson law of this mean.

    Up to a mean of `FEW` it is exact for u of at most 1 - 2^-17. Above it is the expansion about the normal law of Giles
    (2016, "Algorithm 955: approximation of the inverse Poisson cumulative distribution function"), never off by more than 1,
    and by 1 for less than 0.6 % of all u.
    """
    few = jnp.minimum(mean, FEW)
    term = jnp.exp(-few)
    below = term
    count = (u > below).astype(jnp.float32)
    for k in range(1, TERMS):
        term = term * few / k
        below = below + term
        count += u > below
    many = jnp.maximum(mean, FEW)
    root = jnp.sqrt(many)
    w = jnp.sqrt(2.0) * jax.lax.erf_inv(2 * u - 1)
    expansion = many + root * w + (2 + w**2) / 6 - (2 * w + w**3) / 72 / root
    return jnp.where(mean > FEW, jnp.maximum(jnp.floor(expansion), 0), count)
