"""Augmentations of the grey values of one volume [depth, height, width, channels], float32 in [0, 1], in and out. Key first.

What MoCo v2 (Chen et al. 2020, appendix) does to colour images, on grey ones: its saturation, hue and greyscale change nothing
there. Each draws once for a volume, so that all its slices are treated alike. `jax.vmap` over keys and volumes makes the batch.
"""

import jax
import jax.numpy as jnp

Range = tuple[float, float]

SIGMAS = 3  # of a Gaussian that are summed on each side


def brighten(key: jax.Array, volume: jax.Array, brightness: float) -> jax.Array:
    """The volume times a factor that is drawn uniformly from 1 - brightness to 1 + brightness, cut to [0, 1]."""
    factor = jax.random.uniform(key, minval=1 - brightness, maxval=1 + brightness)
    return jnp.clip(factor * volume, 0.0, 1.0)


def jitter(key: jax.Array, volume: jax.Array, brightness: float, contrast: float) -> jax.Array:
    """Brightness and contrast changed, in an order that is drawn: the law of torchvision's ColorJitter.

    brightness: as in `brighten`. contrast: the distance to the volume's mean times such a factor. The values are cut to [0, 1] after
    each.
    """
    k_brightness, k_contrast, k_order = jax.random.split(key, 3)
    c = jax.random.uniform(k_contrast, minval=1 - contrast, maxval=1 + contrast)

    def brighter(x):
        return brighten(k_brightness, x, brightness)

    def contrasted(x):
        mean = jnp.mean(x)
        return jnp.clip(mean + c * (x - mean), 0.0, 1.0)

    return jnp.where(jax.random.bernoulli(k_order), contrasted(brighter(volume)), brighter(contrasted(volume)))


def blur(key: jax.Array, volume: jax.Array, sigma: Range = (0.1, 2.0)) -> jax.Array:
    """Each slice smoothed by a Gaussian whose standard deviation is drawn uniformly, in pixels; edges are repeated."""
    drawn = jax.random.uniform(key, minval=sigma[0], maxval=sigma[1])
    reach = round(SIGMAS * sigma[1])
    weight = jnp.exp(-0.5 * jnp.square(jnp.arange(-reach, reach + 1) / drawn))
    weight = weight / jnp.sum(weight)
    for axis in (1, 2):
        volume = _weighted(volume, weight, reach, axis)
    return volume


def _weighted(x, weight, reach, axis):
    """The sum of shifted copies along an axis, each times its weight."""
    n = x.shape[axis]
    padded = jnp.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(x.ndim)], mode='edge')
    return sum(jax.lax.slice_in_dim(padded, i, i + n, axis=axis) * weight[i] for i in range(2 * reach + 1))
