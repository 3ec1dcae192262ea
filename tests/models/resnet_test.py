from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.models.gru import SliceGRU
from covid_jax.models.norm import BatchNorm
from covid_jax.models.resnet import BasicBlock


def shapes(name, image, **fields):
    net = network(name)(**fields)
    return jax.eval_shape(partial(net.init, jax.random.key(0)), jax.ShapeDtypeStruct(image, 'float32'))


@pytest.mark.parametrize('name, classes, image, fields, count', [
    ('ResNet18', 1000, (1, 64, 64, 3), {'taps': 1}, 11_689_512),  # torchvision
    ('ResNet50', 1000, (1, 64, 64, 3), {'taps': 1}, 25_557_032),  # torchvision
    ('ResNeSt50', 1000, (1, 64, 64, 3), {'taps': 1}, 27_483_240),  # authors of ResNeSt
    ('ResNeSt50', 2, (1, 8, 64, 64, 1), {'taps': 1, 'stem_plane': 7}, 25_439_042),  # authors of CMC-COV19D
    ('ResNet50', 2, (1, 8, 64, 64, 1), {'taps': 1}, 23_505_858),  # the same, C2D
    ('ResNet18Hara', 2, (1, 8, 64, 64, 1), {}, 33_161_026),  # 3D, stem 7x7x7 (dual-track ranking)
    ('ResNet50Hara', 2, (1, 8, 64, 64, 1), {}, 46_155_072 + 2 * 2048 + 2),
])
def test_published_numbers_of_parameters(name, classes, image, fields, count):
    params = shapes(name, image, classes=classes, **fields)['params']
    assert sum(x.size for x in jax.tree.leaves(params)) == count


@pytest.mark.parametrize('field, value, message', [
    ('depth_strides', (1, 1, 1), 'ResNet50 takes 6 whole numbers'),
    ('depth_strides', (1, 1, 1, 0, 1, 1), 'from 1 up'),
    ('depth_strides', (1, 1, 1, 1, 1, 1.5), 'whole numbers'),
    ('taps', 2, '1, 3'),
    ('taps', -1, '1, 3'),
    ('stem_plane', 4, '1, 3, 5, 7'),
])
def test_fields_that_cannot_be(field, value, message):
    with pytest.raises(UserError, match=message):
        network('ResNet50', **{field: value})


@pytest.mark.parametrize('name, fields, depth', [
    ('ResNet50', {}, 4), ('ResNet50', {'taps': 1}, 32), ('ResNet50Hara', {}, 2), ('ResNeSt50', {'taps': 1}, 4)])
def test_depth_of_the_map(name, fields, depth):
    def trunk(x):
        net = network(name)(classes=2, **fields)
        return net.init_with_output(jax.random.key(0), x, method='trunk')[0]

    x = jax.ShapeDtypeStruct((1, 32, 64, 64, 1), 'float32')
    assert jax.eval_shape(trunk, x).shape == (1, depth, 2, 2, 2048)


@pytest.mark.parametrize('name', ['ResNet14Small', pytest.param('ResNeSt14Small', marks=pytest.mark.slow)])
def test_an_inflated_network_equals_its_parent_inside_a_volume_constant_in_depth(rng, name):
    image = rng.random((2, 32, 32, 1), np.float32)
    parent = network(name)(classes=2, taps=1)
    child = network(name)(classes=2, stem_taps=3)
    variables = jax.jit(parent.init)(jax.random.key(0), image)

    def inflate(path, x):
        if 'fc2' in jax.tree_util.keystr(path):  # attention sees the whole volume, its padded ends too: make it blind
            return 0 * x
        return jnp.repeat(x, 3, 0) / 3 if x.ndim == 5 and x.shape[1] > 1 else x

    blind = jax.tree_util.tree_map_with_path(lambda p, x: 0 * x if 'fc2' in jax.tree_util.keystr(p) else x, variables)
    expected = jax.jit(partial(parent.apply, method='trunk'))(blind, image)
    volume = np.repeat(image[:, None], 64, 1)
    given = jax.jit(partial(child.apply, method='trunk'))(jax.tree_util.tree_map_with_path(inflate, variables), volume)
    assert given.shape == (2, 8, *expected.shape[1:])
    for i in (3, 4):  # three slices at either end have seen the padding
        np.testing.assert_allclose(given[:, i], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(given[:, 0] - expected).max() > 1e-2 * np.abs(expected).max()


def test_the_per_slice_form_sees_each_slice_alone(rng):
    volume = rng.random((2, 3, 24, 24, 1), np.float32)
    net = network('_ResNetTiny')(classes=2, taps=1)
    trunk = jax.jit(partial(net.apply, method='trunk'))
    variables = jax.jit(net.init)(jax.random.key(0), volume)
    whole = trunk(variables, volume)
    for i in range(3):
        np.testing.assert_allclose(trunk(variables, volume[:, i]), whole[:, i], rtol=1e-5, atol=1e-6)


def test_gradients_of_basic_blocks_are_finite_and_reach_every_parameter(rng):
    image = rng.random((4, 3, 24, 24, 1), np.float32)
    net = network('_ResNetTiny')(classes=2, compute=Compute(form='planar'), block=BasicBlock, stem_width=8)
    variables = jax.jit(net.init)(jax.random.key(0), image)

    def loss(params):
        (logits, out), _ = net.apply({**variables, 'params': params}, image, True, mutable=['batch_stats'])
        return jnp.sum(out['features'] ** 2) + jnp.sum(logits)

    for path, g in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables['params'])):
        assert np.isfinite(g).all() and np.abs(g).max() > 0, jax.tree_util.keystr(path)


def test_the_gru_sees_the_order_of_slices_and_dropout_acts_in_training_alone(rng):
    slices = rng.normal(size=(3, 5, 8)).astype('f')
    layer = SliceGRU(6, dropout=0.5)
    variables = jax.jit(layer.init)(jax.random.key(0), slices)
    run = jax.jit(layer.apply)
    state = run(variables, slices)
    assert state.shape == (3, 6) and state.dtype == np.float32
    assert np.abs(state - run(variables, slices[:, ::-1])).max() > 1e-2
    train = jax.jit(lambda key: layer.apply(variables, slices, True, mutable=['batch_stats'], rngs={'dropout': key})[0])
    a, b, c = (train(jax.random.key(i)) for i in (0, 1, 0))
    assert np.abs(a - b).max() > 1e-2
    np.testing.assert_array_equal(a, c)


def test_the_gru_forgets_nothing_it_was_told_to_keep():
    """An update gate held open by its bias keeps the first state, zero; held shut, the last slice alone is the state."""
    slices = np.random.default_rng(0).normal(size=(2, 4, 3)).astype('f')
    layer = SliceGRU(5)
    variables = jax.jit(layer.init)(jax.random.key(0), slices)
    run = jax.jit(layer.apply)
    gru = variables['params']['gru']
    gru['iz']['bias'] = jnp.full(5, 50.0)
    np.testing.assert_allclose(run(variables, slices), 0, atol=1e-6)
    gru['iz']['bias'] = gru['ir']['bias'] = jnp.full(5, -50.0)
    seen = np.tanh(slices[:, -1] / np.sqrt(1 + 1e-5) @ gru['in']['kernel'] + gru['in']['bias'])
    np.testing.assert_allclose(run(variables, slices), seen, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_batch_norm_equals_flax_whether_joined_or_in_pieces(rng, dtype):
    x = jnp.asarray(3 + 2 * rng.normal(size=(4, 3, 5, 6, 8)), dtype)
    start = {'params': {'scale': jnp.linspace(0.5, 2, 8), 'bias': jnp.linspace(-1, 1, 8)},
             'batch_stats': {'mean': jnp.linspace(0, 1, 8), 'var': jnp.linspace(1, 2, 8)}}
    for running in (False, True):
        theirs = jax.jit(partial(nn.BatchNorm(running, momentum=0.9, epsilon=1e-5, dtype=dtype).apply, mutable=['batch_stats']))
        ours = jax.jit(partial(BatchNorm(running, dtype=dtype).apply, mutable=['batch_stats']))
        expected, state = theirs(start, x)
        atol = 1e-5 if dtype == 'float32' else 0.02
        for pieces in ([x], jnp.split(x, [3], -1)):
            y, after = ours(start, *pieces)
            y = y if len(pieces) == 1 else jnp.concatenate(y, -1)
            assert y.dtype == dtype
            np.testing.assert_allclose(y.astype('f'), expected.astype('f'), atol=atol)
            for leaf, like in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
                assert leaf.dtype == np.float32
                np.testing.assert_allclose(leaf, like, rtol=1e-5)
