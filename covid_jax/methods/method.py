"""What a method is: pure functions, made from a config. The loop knows nothing else of it."""

from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp

from covid_jax import UserError
from covid_jax.augment import volume
from covid_jax.data.exams import class_names
from covid_jax.models import NETWORKS, has, network
from covid_jax.models.compute import Compute
from covid_jax.models.conv import form_for


class Method(NamedTuple):
    """init(key, batch)                        -> params, state        state: all without a gradient (batch statistics)
    loss(params, state, batch, key, step)   -> scalar, (state, scalars)
    predict(params, state, batch, key=None) -> {'features' [batch, dim], 'logits' [batch, classes]}; a key draws the
                                               method's test-time augmentation
    frozen(params)                          -> tree of bool: what the optimizer must not touch; None: nothing
    """

    init: Callable
    loss: Callable
    predict: Callable
    frozen: Callable = lambda params: None


def row_keys(key, name, draw):
    """One key for each row, from its draw (uint32 [batch]) and never from its place in the batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, crc32(name.encode())), draw)


def dropout_key(key, step):
    """The key of a step's dropout, which only some networks have."""
    return jax.random.fold_in(jax.random.fold_in(key, crc32(b'dropout')), step)


def to_float(image):
    """Stored integers (uint8) -> float32 in [0, 1]."""
    return image.astype(jnp.float32) / 255


def build_network(config, mesh):
    """The config's network, in the compute type and the form of convolution that suit the mesh's platform; of a family in 2D
    and 3D the 2D one, where a prepared scan has one slice."""
    platform = mesh.devices.flat[0].platform
    dtype = config.model.dtype
    if dtype == 'auto':
        dtype = 'float32' if platform == 'cpu' else 'bfloat16'
    m = config.model
    own = {name: m[name] for name in ('taps', 'stem_plane', 'depth_strides', 'sites') if m[name]}
    if config.prep.size[0] == 1 and m.name in NETWORKS and has(m.name, 'taps'):
        own.setdefault('taps', 1)
    compute = Compute(mean=m.mean, std=m.std, dtype=dtype, form=form_for(platform), remat=m.remat)
    return network(m.name, **own)(classes=len(class_names(config.data.classes)), compute=compute)


def view_depth(config):
    """Slices of a training view. UserError where a prepared scan has fewer."""
    if not 1 <= config.method.depth <= config.prep.size[0]:
        raise UserError(f'--config.method.depth={config.method.depth} must be from 1 to the depth of a prepared scan, '
                        f'{config.prep.size[0]}' + ('; for single images set it to 1' if config.prep.size[0] == 1 else ''))
    return config.method.depth


def random_views(key, image, draw, depth):
    """One random view of every scan: crop of the plane, crop of `depth` slices, contrast and brightness; CMC-COV19D 3.2.

    image float32 [batch, depth0, height, width, 1] -> [batch, depth, height, width, 1].
    """

    def view(key, x):
        k_depth, k_crop, k_intensity = jax.random.split(key, 3)
        x = volume.random_depth_crop(k_depth, x, depth)
        return volume.random_contrast_brightness(k_intensity, volume.random_resized_crop(k_crop, x))

    return jax.vmap(view)(row_keys(key, 'view', draw), image)


def predictor(net):
    """predict() of every method that answers with its network's logits.

    With a key each scan is seen through the random crop of the plane and the change of contrast, at full depth: one pass
    of CMC-COV19D's intra-model ensemble (section 3.4.2).
    """

    def predict(params, state, batch, key=None):
        image = to_float(batch['image'])
        if key is not None:
            image = random_views(key, image, batch['draw'], image.shape[1])
        logits, out = net.apply({'params': params['network'], **state}, image, site=batch['site'])
        return {'features': out['features'], 'logits': logits}

    return predict
