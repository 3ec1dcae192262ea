from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.models import network
from covid_jax.models.conv import Conv
from covid_jax.models.densenet import DenseLayer, Transition
from covid_jax.models.norm import BatchNorm

TINY = partial(network('_DenseNetTiny'), classes=2)


def started(net, image):
    """Variables with shifts, most of them below zero: where a ReLU lets all through to the next normalisation, the scale
    before it has no gradient but rounding."""
    rng = np.random.default_rng(1)
    variables = jax.jit(net.init)(jax.random.key(0), image)

    def shifted(path, x):
        shift = 0.2 * rng.normal(size=x.shape).astype('f') - 0.2 * (path[-1].key == 'bias')
        return x + shift if x.ndim == 1 else x

    return {**variables, 'params': jax.tree_util.tree_map_with_path(shifted, variables['params'])}


@pytest.mark.parametrize(('name', 'count'), [('DenseNet121', 7_978_856), ('DenseNet169', 14_149_480)])
def test_published_numbers_of_parameters(name, count):
    net = network(name)(classes=1000)
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), np.zeros((1, 32, 32, 3), 'f'))
    assert sum(x.size for x in jax.tree.leaves(shapes['params'])) == count  # torchvision


def test_a_layer_and_a_transition_see_pieces_as_the_whole(rng):
    """The transition's 1x1 convolution before its pool, as the paper has it; an odd last row or column is left out."""
    x = rng.normal(size=(3, 1, 5, 7, 10)).astype('f')
    pieces = jnp.split(x, [2, 5], -1)
    conv = partial(Conv, form='planar')
    norm = partial(BatchNorm, use_running_average=False)
    for module in (DenseLayer(4, 4, conv, norm), Transition(conv, norm)):
        variables = jax.jit(module.init)(jax.random.key(0), x)
        train = jax.jit(partial(module.apply, mutable=['batch_stats']))
        expected, state = train(variables, x)
        given, after = train(variables, *pieces)
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5)
        for leaf, like in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(leaf, like, rtol=1e-5, atol=1e-6)
    seen = np.maximum((x - x.mean((0, 1, 2, 3))) / np.sqrt(x.var((0, 1, 2, 3)) + 1e-5), 0)
    y = (seen @ variables['params']['conv']['kernel'][0, 0, 0])[:, :, :4, :6]
    assert given.shape == (3, 1, 2, 3, 5)
    np.testing.assert_allclose(given, y.reshape(3, 1, 2, 2, 3, 2, 5).mean((3, 5)), rtol=0, atol=1e-5)


def test_running_statistics_stand_in_the_order_of_the_layers(rng):
    """The stem's channels, then each layer's: before and after the pieces are joined, and in the last normalisation."""
    image = rng.random((4, 32, 32, 1), np.float32)
    net = TINY(stage_sizes=(5,))
    variables = started(net, image)
    keep = partial(net.apply, train=True, mutable=['batch_stats', 'intermediates'],
                   capture_intermediates=lambda module, _: isinstance(module, DenseLayer))
    _, state = jax.jit(keep)(variables, image)
    made = np.concatenate([state['intermediates'][f'denseblock1_denselayer{j}']['__call__'][0].mean((0, 1, 2, 3))
                           for j in range(1, 6)])
    before = variables['batch_stats']
    statistics = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, state['batch_stats'], before)
    for name, layers in (('denseblock1_denselayer4', 3), ('denseblock1_denselayer5', 4)):
        mean = statistics[name]['norm1']['mean']
        assert mean.shape == (6 + 4 * layers,)
        np.testing.assert_allclose(mean[6:], made[:4 * layers], rtol=0, atol=1e-5)
    np.testing.assert_allclose(statistics['norm5']['mean'][6:], made, rtol=0, atol=1e-5)


def test_the_map_is_through_relu_and_the_features_are_its_mean(rng):
    image = rng.random((4, 48, 32, 3), np.float32)
    variables = started(TINY(), image)
    _, out = jax.jit(TINY().apply)(variables, image)
    assert np.min(out['map']) == 0  # through ReLU: Grad-CAM and the mean see no negative number
    np.testing.assert_allclose(out['features'], np.mean(out['map'], (1, 2)), rtol=1e-5)


def test_an_image_that_pools_to_nothing_is_one_line():
    net = network('DenseNet121')(classes=2)
    with pytest.raises(UserError, match='no less than 1x32x32 .*, not 1x16x32'):
        jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 16, 32, 1), 'f'))
