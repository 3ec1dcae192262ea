"""Rubik's cube Pro, the self-supervised stage of dual-track ranking (Li et al., IEEE JBHI 2020, section IV.B).

A volume is cut into eight cubes, which are put into another order, turned and masked; one network sees each of them, and a layer on the
features of all tells which order it is, and which cubes are turned. What is learnt are features of whole scans.
"""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.augment import cubes
from covid_jax.losses.classification import cross_entropy
from covid_jax.methods.method import (
    Method,
    after_features,
    build_network,
    dropout_key,
    init_network,
    row_keys,
    see,
    seen_in_test,
    training_view,
)
from covid_jax.models.heads import Classifier

DEFAULTS = {
    'masking': True,  # False: Rubik's cube, without Pro
    'gap': (2, 10, 10),  # z, y, x: voxels by which a cube is smaller than an eighth of the scan
}
AXES = ('about_z', 'about_y')  # horizontal and vertical in the paper


def make(config: ConfigDict, mesh: Mesh) -> Method:
    """The Method of config.rubik. UserError for scans without depth, and for a gap that leaves no cube."""
    options = config.rubik
    check(config)
    net = build_network(config, mesh)
    order = Classifier(cubes.PERMUTATIONS)
    turns = Classifier(cubes.CUBES)
    view = training_view(config)
    tested = seen_in_test(config)

    def init(key, batch, start=None):
        k_net, k_order, *k_turns = jax.random.split(key, 4)
        image = tested(batch, None)[:1]
        weights, collections = init_network(net, k_net, image)
        features = jax.eval_shape(net.apply, {'params': weights, **collections}, image, site=batch['site'][:1])[1]['features']
        octad = jnp.zeros((1, cubes.CUBES * features.shape[1]))
        params = {'network': weights, 'order': order.init(k_order, octad)['params'],
                  **{axis: turns.init(k, octad)['params'] for axis, k in zip(AXES, k_turns, strict=True)}}
        params, collections = start or (params, collections)
        return params, {'network': collections}

    def loss(params, state, batch, key, step):
        scans = see(view, key, batch)
        keys = row_keys(key, 'cubes', batch['draw'])
        seen, number, turned = jax.vmap(lambda k, scan: cubes.scramble(k, scan, tuple(options.gap), options.masking))(keys, scans)
        (_, out), collections = net.apply(
            {'params': params['network'], **state['network']}, seen.reshape(-1, *seen.shape[2:]), train=True, mutable=['batch_stats'],
            site=jnp.repeat(batch['site'], cubes.CUBES), rngs={'dropout': dropout_key(key, step)})
        octad = out['features'].reshape(len(scans), -1)
        orders = order.apply({'params': params['order']}, octad)
        logits = jnp.stack([turns.apply({'params': params[axis]}, octad) for axis in AXES], -1)
        of_order = jnp.mean(cross_entropy(orders, jax.nn.one_hot(number, cubes.PERMUTATIONS)))
        # Eq 2 as printed has no term for a cube that is not turned, and is least where all are told to be.
        of_turns = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, turned))
        scalars = {'permutation': of_order, 'rotation': of_turns,
                   'permutation_accuracy': jnp.mean(jnp.argmax(orders, -1) == number),
                   'rotation_accuracy': jnp.mean((logits > 0) == turned)}
        return of_order + of_turns, ({'network': collections}, scalars)

    def predict(params, state, batch, key=None):
        _, out = net.apply({'params': params['network'], **state['network']}, tested(batch, key), site=batch['site'])
        return {'features': out['features']}

    return Method(net, init, loss, predict, after_features, labelled=False, scores=('permutation_accuracy', 'rotation_accuracy'))


def check(config: ConfigDict) -> None:
    """UserError as `make`."""
    gap = tuple(config.rubik.gap)
    depth, height, width = config.prep.size
    plane = (config.views.plane,) * 2 if config.views.plane else (height, width)
    size = (config.views.depth or depth, *plane)
    if len(gap) != 3 or not all(isinstance(n, int) and n >= 0 for n in gap):
        raise UserError(f'--config.rubik.gap={gap} must be three whole numbers of at least 0, z, y, x')
    if any(n // 2 - g < 2 for n, g in zip(size, gap, strict=True)):
        raise UserError(f'eight cubes need half of each side of a scan and a gap: {size} voxels and --config.rubik.gap={gap} leave less '
                        'than 2; set a larger --config.prep.size, of several slices, or a smaller gap')
