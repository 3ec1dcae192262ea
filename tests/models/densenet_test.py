import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.models.conv import Conv
from covid_jax.models.densenet import DenseLayer, Transition, torch_name
from covid_jax.models.norm import BatchNorm

TINY = partial(network('_DenseNetTiny'), classes=2)


def started(net, image):
    """Variables with shifts, most of them below zero: where a ReLU lets all through to the next normalisation, the scale
    before it has no gradient but rounding."""
    rng, variables = np.random.default_rng(1), jax.jit(net.init)(jax.random.key(0), image)

    def shifted(path, x):
        shift = 0.2 * rng.normal(size=x.shape).astype('f') - 0.2 * (path[-1].key == 'bias')
        return x + shift if x.ndim == 1 else x

    return {**variables, 'params': jax.tree_util.tree_map_with_path(shifted, variables['params'])}


@pytest.mark.parametrize(('name', 'count', 'dim'), [('DenseNet121', 7_978_856, 1024), ('DenseNet169', 14_149_480, 1664)])
def test_published_numbers_and_shapes(name, count, dim):
    net = network(name)(classes=1000)
    image = jax.ShapeDtypeStruct((2, 224, 224, 3), 'float32')
    (logits, out), variables = jax.eval_shape(partial(net.init_with_output, jax.random.key(0)), image)
    assert sum(x.size for x in jax.tree.leaves(variables['params'])) == count  # torchvision
    assert (logits.shape, out['map'].shape, out['features'].shape) == ((2, 1000), (2, 7, 7, dim), (2, dim))
    assert logits.dtype == out['features'].dtype == np.float32


def test_widths_of_table_1():
    """DenseNet121: 64 + 6 * 32 = 256, halved 128 + 12 * 32 = 512, halved 256 + 24 * 32 = 1024, halved 512 + 16 * 32."""
    net = network('DenseNet121')(classes=2)
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), np.zeros((1, 64, 64, 3), 'f'))
    p = shapes['params']
    assert [p[f'transition{i}']['conv']['kernel'].shape[-2:] for i in (1, 2, 3)] == [(256, 128), (512, 256), (1024, 512)]
    assert p['denseblock4_denselayer16']['conv1']['kernel'].shape == (1, 1, 1, 512 + 15 * 32, 128)
    assert p['denseblock4_denselayer16']['conv2']['kernel'].shape == (1, 3, 3, 128, 32)


def torch_widths(sizes, classes, growth=32, width=64):
    """{torch's name: shape}, with 4 * growth channels in a bottleneck."""
    shapes = {'features.conv0': (width, 3, 7, 7), 'features.norm0': (width,)}
    for i, size in enumerate(sizes, 1):
        for j in range(1, size + 1):
            at = f'features.denseblock{i}.denselayer{j}'
            shapes |= {f'{at}.norm1': (width,), f'{at}.conv1': (4 * growth, width, 1, 1), f'{at}.norm2': (4 * growth,),
                       f'{at}.conv2': (growth, 4 * growth, 3, 3)}
            width += growth
        if i < len(sizes):
            shapes |= {f'features.transition{i}.norm': (width,), f'features.transition{i}.conv': (width // 2, width, 1, 1)}
            width //= 2
    return shapes | {'features.norm5': (width,), 'classifier': (classes, width)}


def test_every_module_has_its_name_in_torch():
    net = network('DenseNet169')(classes=5)
    params = jax.eval_shape(partial(net.init, jax.random.key(0)), np.zeros((1, 32, 32, 3), 'f'))['params']
    ours = {}
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        *modules, leaf = [p.key for p in path]
        old = re.sub(r'(denselayer\d+\.(norm|conv))(\d)', r'\1.\3', torch_name(modules))
        assert torch_name(modules, 'torchvision') == old
        if leaf != 'bias':
            order = {5: (4, 3, 1, 2), 2: (1, 0), 1: (0,)}[x.ndim]
            ours[torch_name(modules)] = tuple(x.shape[axis] for axis in order)
    assert ours == torch_widths((6, 12, 32, 32), 5)


def test_a_layer_and_a_transition_see_pieces_as_the_whole(rng):
    """The transition's 1x1 convolution before its pool, as the paper has it; an odd last row or column is left out."""
    x = rng.normal(size=(3, 1, 5, 7, 10)).astype('f')
    pieces = jnp.split(x, [2, 5], -1)
    conv, norm = partial(Conv, form='planar'), partial(BatchNorm, use_running_average=False)
    for module in (DenseLayer(4, 4, conv, norm), Transition(conv, norm)):
        variables = module.init(jax.random.key(0), x)
        expected, state = module.apply(variables, x, mutable=['batch_stats'])
        given, after = module.apply(variables, *pieces, mutable=['batch_stats'])
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


def outputs(net, variables, image):
    return jax.jit(net.apply)(variables, image)


def test_the_map_is_through_relu_and_the_features_are_its_mean(rng):
    image = rng.random((4, 48, 32, 3), np.float32)
    variables = started(TINY(), image)
    logits, out = outputs(TINY(), variables, image)
    assert out['map'].shape == (4, 6, 4, 15)  # 6 + 2 * 4 channels, halved, and 2 * 4 more
    assert np.min(out['map']) == 0  # through ReLU: Grad-CAM and the mean see no negative number
    np.testing.assert_allclose(out['features'], np.mean(out['map'], (1, 2)), rtol=1e-5)


def test_it_has_no_third_dimension():
    with pytest.raises(UserError, match='DenseNet121 has no --config.model.taps'):
        network('DenseNet121', taps=3)


@pytest.mark.parametrize('form', ['planar', 'native'])
def test_an_image_that_pools_to_nothing_is_one_line(form):
    with pytest.raises(UserError, match='no less than 1x32x32 .*, not 1x16x32'):
        net = network('DenseNet121')(classes=2, compute=Compute(form=form))
        jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 16, 32, 1), 'f'))
