"""Laws of views by name: how one scan [depth, height, width, channels], float32 in [0, 1], becomes one view of it.

A law is a pure function (key, volume, depth) -> [depth, height, width, channels], in [0, 1] too. A single image is a
volume of one slice. `jax.vmap` over keys and volumes makes the batch.
"""

from collections.abc import Callable

import jax

from covid_jax import UserError
from covid_jax.augment.volume import random_contrast_brightness, random_depth_crop, random_resized_crop

View = Callable[[jax.Array, jax.Array], jax.Array]  # (key, volume) -> view


def train_view(name: str, depth: int = 0) -> View:
    """(key, volume) -> a view of training by the law called `name`, of `depth` slices; 0: of all that the volume has.

    depth must not exceed the volume's. UserError for an unknown name.
    """
    law, _ = _laws(name)
    return lambda key, volume: law(key, volume, depth or volume.shape[0])


def test_view(name: str) -> View:
    """(key, volume) -> a view of test-time augmentation by the law called `name`, at full depth.

    UserError for an unknown name.
    """
    _, law = _laws(name)
    return lambda key, volume: law(key, volume, volume.shape[0])


def cmc(key: jax.Array, volume: jax.Array, depth: int) -> jax.Array:
    """Crop of neighbouring slices, crop of the plane, contrast and brightness. CMC-COV19D section 3.2."""
    k_depth, k_crop, k_intensity = jax.random.split(key, 3)
    volume = random_depth_crop(k_depth, volume, depth)
    volume = random_resized_crop(k_crop, volume)
    return random_contrast_brightness(k_intensity, volume)


def none(key: jax.Array, volume: jax.Array, depth: int) -> jax.Array:
    """The middle slices as they are, whatever the key: for probes and baselines."""
    start = (volume.shape[0] - depth) // 2
    return volume[start:start + depth]


def _laws(name):
    if name not in LAWS:
        raise UserError(f'no views are called {name!r}: set --config.views.name={"|".join(LAWS)}')
    return LAWS[name]


LAWS = {  # of training, of test-time augmentation
    'cmc': (cmc, cmc),
    'none': (none, none),
}
