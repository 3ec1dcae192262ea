"""Pools as sums and maxima of slices, channels last: what XLA is slow at on a CPU is their gradient."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def max_pool(x: jax.Array, window: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]]) -> jax.Array:
    """Maximum over windows, one axis after the other as slices: XLA's select-and-scatter gradient is slow on CPUs.

    x [batch, *space, channels]; window, strides by axis; padding (before, after) by axis, with -inf. The values equal
    `nn.max_pool`; between tied maxima the gradient may be shared differently.
    """
    return _pool(x, window, strides, padding, jnp.maximum, -jnp.inf)


def avg_pool(x: jax.Array, window: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]],
             count_include_pad: bool = True) -> jax.Array:
    """Mean over windows as sums of slices. x, window, strides, padding as in `max_pool`; padding counts as zeros,
    or not at all where `count_include_pad` is False."""
    total = _pool(x, window, strides, padding, jnp.add, 0)
    if count_include_pad:
        return total / math.prod(window)
    ones = np.ones((1, *x.shape[1:-1], 1), x.dtype)
    return total / _pool(ones, window, strides, padding, np.add, 0)


def adaptive_avg_pool(x: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Mean of [batch, *space, channels] over windows, as many along each axis as `sizes` says: [batch, *sizes, channels].

    Window i of m over n places is [floor(i n / m), ceil((i + 1) n / m)), as torch has it; windows overlap where m does not
    divide n, and repeat where m > n.
    """
    for axis, m in enumerate(sizes, 1):
        n = x.shape[axis]
        windows = [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        if n != m:
            x = jnp.stack([jnp.mean(x[(slice(None),) * axis + (slice(*w),)], axis) for w in windows], axis)
    return x


def _pool(x, window, strides, padding, combine, fill):
    xp = np if isinstance(x, np.ndarray) else jnp
    for axis, (k, s, pad) in enumerate(zip(window, strides, padding, strict=True), 1):
        if k == 1 and s == 1:
            continue
        x = xp.pad(x, [pad if a == axis else (0, 0) for a in range(x.ndim)], constant_values=fill)
        last = (x.shape[axis] - k) // s * s + 1
        pieces = [x[(slice(None),) * axis + (slice(i, i + last, s),)] for i in range(k)]
        y = pieces[0]
        for piece in pieces[1:]:
            y = combine(y, piece)
        x = y
    return x
