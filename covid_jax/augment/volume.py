"""Augmentations of one volume [depth, height, width, channels], float32 in [0, 1], in and out. Key first.

Every function draws once for a volume, so that all its slices are treated alike. `jax.vmap` over keys and volumes makes
the batch; nothing crosses rows, so nothing crosses devices.
"""

import jax
import jax.numpy as jnp

Range = tuple[float, float]

AREA = (0.7, 1.0)  # of a crop, in units of the plane's
RATIO = (3 / 4, 4 / 3)  # of its width to its height
TRIES = 10  # draws of a box, of which the first that fits is taken


def random_depth_crop(key: jax.Array, volume: jax.Array, depth: int) -> jax.Array:
    """`depth` neighbouring slices from a uniformly drawn start. CMC-COV19D section 3.2, augmentation 2.

    depth must be at least 1 and at most the volume's.
    """
    start = jax.random.randint(key, (), 0, volume.shape[0] - depth + 1)
    return jnp.take(volume, start + jnp.arange(depth), 0)


def random_resized_crop(key: jax.Array, volume: jax.Array, area: Range = AREA, ratio: Range = RATIO, plane: int = 0,
                        extent: jax.Array | None = None) -> jax.Array:
    """A random box of the transverse plane, resized to plane x plane; 0: back to the plane. CMC-COV19D section 3.2,
    augmentation 1.

    The box has `area` times the plane's area (uniform) and width / height drawn log-uniformly from `ratio`; of ten draws
    the first that fits is taken, else the whole plane (the law of torchvision's RandomResizedCrop, without its rounding
    to whole pixels).

    extent: int32 [2], height and width of what there is at the top left of the volume, the plane meant above; None: all is.
    """
    height, width = volume.shape[1:3] if extent is None else extent
    k_area, k_ratio, k_top, k_left = jax.random.split(key, 4)
    box_area = jax.random.uniform(k_area, (TRIES,), minval=area[0], maxval=area[1]) * height * width
    aspect = jnp.exp(jax.random.uniform(k_ratio, (TRIES,), minval=jnp.log(ratio[0]), maxval=jnp.log(ratio[1])))
    w = jnp.sqrt(box_area * aspect)
    h = jnp.sqrt(box_area / aspect)
    fits = (w <= width) & (h <= height)
    taken = jnp.argmax(fits)  # the first that fits
    h = jnp.where(fits[taken], h[taken], height)
    w = jnp.where(fits[taken], w[taken], width)
    top = jax.random.uniform(k_top) * (height - h)
    left = jax.random.uniform(k_left) * (width - w)
    return resized_crop(volume, top, left, h, w, plane)


def resized_crop(volume: jax.Array, top: jax.Array | float, left: jax.Array | float, height: jax.Array | float,
                 width: jax.Array | float, plane: int = 0) -> jax.Array:
    """The box (top, left, height, width), in pixels and fractions of them, resized to plane x plane (0: to the whole plane):
    linear in each axis, half-pixel centres, edges of the volume repeated."""
    volume = _interpolate(volume, 1, top, height, plane or volume.shape[1])
    return _interpolate(volume, 2, left, width, plane or volume.shape[2])


def squash(volume: jax.Array, plane: int, extent: jax.Array | None = None) -> jax.Array:
    """The whole plane resized to plane x plane, whatever its aspect: linear, and where it shrinks the mean under a triangle two
    steps wide, so that no pixel is passed over; half-pixel centres. What Pillow calls bilinear, without its rounding.

    extent: int32 [2], height and width of what there is at the top left of the volume, and nothing else is read; None: all is.
    """
    height, width = volume.shape[1:3] if extent is None else extent
    rows = _triangles(volume.shape[1], height, plane)
    columns = _triangles(volume.shape[2], width, plane)
    volume = jnp.einsum('ph,dhwc->dpwc', rows, volume, precision='highest')
    return jnp.einsum('qw,dpwc->dpqc', columns, volume, precision='highest')


def _triangles(size, length, samples):
    """float32 [samples, size]: the weight in each sample of each pixel, of which the first `length` are there, at least
    one."""
    step = length / samples
    middle = (jnp.arange(samples) + 0.5) * step
    apart = jnp.abs(jnp.arange(size) + 0.5 - middle[:, None])
    weight = jnp.maximum(1 - apart / jnp.maximum(step, 1), 0) * (jnp.arange(size) < jnp.maximum(length, 1))
    return weight / jnp.sum(weight, 1, keepdims=True)


def _interpolate(x, axis, start, length, samples):
    n = x.shape[axis]
    at = jnp.clip(start + (jnp.arange(samples) + 0.5) * length / samples - 0.5, 0, n - 1)
    low = jnp.floor(at).astype(jnp.int32)
    weight = (at - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    below = jnp.take(x, low, axis)
    above = jnp.take(x, jnp.minimum(low + 1, n - 1), axis)
    return below + weight * (above - below)


def random_contrast_brightness(key: jax.Array, volume: jax.Array, contrast: Range = (0.8, 1.2),
                               brightness: Range = (-0.1, 0.1)) -> jax.Array:
    """clip(c * volume + b, 0, 1), c and b uniform. CMC-COV19D section 3.2, augmentation 3.

    The ranges are the authors' code, which adds b on a scale of 0 to 255, where it does nothing; here the scale is [0, 1].
    """
    k_c, k_b = jax.random.split(key)
    c = jax.random.uniform(k_c, minval=contrast[0], maxval=contrast[1])
    b = jax.random.uniform(k_b, minval=brightness[0], maxval=brightness[1])
    return jnp.clip(c * volume + b, 0.0, 1.0)
