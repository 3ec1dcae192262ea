from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.models.conv import Conv
from covid_jax.models.efficientnet import SqueezeExcite, rounded

RNGS = {'dropout': jax.random.key(1)}


def tiny(**fields):
    return network('_EfficientNetTiny')(classes=2, compute=Compute(mean=0.35, std=0.3), **fields)


@pytest.fixture(scope='module')
def started():
    """Rows and variables, all of them off the start: a bias of zero hides much."""
    rng = np.random.default_rng(1)
    x = rng.random((4, 6, 16, 16, 1), np.float32)
    variables = jax.jit(tiny().init)(jax.random.key(0), x)
    return x, jax.tree.map(lambda w: w + 0.2 * rng.random(w.shape, np.float32), variables)


def shapes(name, image, **fields):
    net = network(name)(**fields)
    return jax.eval_shape(partial(net.init, jax.random.key(0)), jax.ShapeDtypeStruct(image, 'float32'))


@pytest.mark.parametrize('name, count', [
    ('EfficientNetB0', 5_288_548), ('EfficientNetB1', 7_794_184), ('EfficientNetB4', 19_341_616)])
def test_published_numbers_of_parameters(name, count):
    params = shapes(name, (1, 32, 32, 3), classes=1000, taps=1)['params']
    assert sum(x.size for x in jax.tree.leaves(params)) == count  # timm and torchvision


def test_b4_is_the_table_of_cmt_cnn_in_two_and_three_dimensions():
    """Kernel, features and blocks of each stage; the squeeze is a quarter of the block's input."""
    flat, deep = (shapes('EfficientNetB4', image, classes=2, taps=taps)['params']
                  for image, taps in (((1, 64, 64, 1), 1), ((1, 32, 32, 32, 1), None)))
    table = ((3, 24, 2), (3, 32, 4), (5, 56, 4), (3, 112, 6), (5, 160, 6), (5, 272, 8), (3, 448, 2))
    assert sum(name.startswith('blocks') for name in flat) == sum(blocks for *_, blocks in table) == 32
    width = 48
    for i, (k, features, blocks) in enumerate(table):
        for j in range(blocks):
            wide = width if i == 0 else 6 * width
            a, b = (params[f'blocks{i}_{j}'] for params in (flat, deep))
            assert a['conv_dw']['kernel'].shape == (1, k, k, 1, wide) and b['conv_dw']['kernel'].shape == (k, k, k, 1, wide)
            last = 'conv_pw' if i == 0 else 'conv_pwl'
            assert a[last]['kernel'].shape == b[last]['kernel'].shape == (1, 1, 1, wide, features)
            for block in (a, b):
                assert block['se']['conv_reduce']['kernel'].shape == (1, 1, 1, wide, width // 4)
            width = features
    assert flat['conv_stem']['kernel'].shape == (1, 3, 3, 1, 48) and deep['conv_stem']['kernel'].shape == (3, 3, 3, 1, 48)
    assert flat['conv_head']['kernel'].shape == deep['conv_head']['kernel'].shape == (1, 1, 1, 448, 1792)
    assert 'conv_pwl' not in flat['blocks0_0'] and 'bn3' not in flat['blocks0_1']


@pytest.mark.parametrize('width, expected', [(44.8, 48), (22.4, 24), (33.6, 32), (156.8, 160), (268.8, 272), (3, 8),
                                             (20, 24), (12, 16), (17, 16), (26, 24), (11.9, 16)])
def test_widths_are_multiples_of_8_that_lose_less_than_a_tenth(width, expected):
    assert rounded(width) == expected  # 11.9 would become 8, a third less


def test_with_one_slice_kernels_every_slice_of_a_constant_volume_is_the_image(rng):
    image = rng.random((2, 24, 24, 1), np.float32)
    net = tiny(taps=1)
    variables = jax.jit(net.init)(jax.random.key(0), image)
    run = jax.jit(net.apply)
    logits, out = run(variables, image)
    again, whole = run(variables, np.repeat(image[:, None], 5, 1))
    assert whole['map'].shape == (2, 5, 6, 6, 16)  # depth is never strided
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole['map'][:, -1], out['map'], rtol=1e-4, atol=1e-5)


def test_a_volume_turned_about_gives_the_answer_of_kernels_turned_about(started):
    """Depth is treated as the plane is: exchange the two in the kernels and in the scan, and the map is exchanged too."""
    _, variables = started
    x = np.random.default_rng(2).random((2, 12, 16, 20, 1), np.float32)
    turned = jax.tree.map(lambda w: jnp.swapaxes(w, 0, 2) if w.ndim == 5 else w, variables)
    trunk = jax.jit(partial(tiny().apply, method='trunk'))
    expected = trunk(variables, x)
    given = trunk(turned, np.swapaxes(x, 1, 3))
    np.testing.assert_allclose(np.swapaxes(given, 1, 3), expected, atol=1e-5 * np.abs(expected).max())


def test_squeeze_and_excitation_by_hand():
    layer = SqueezeExcite(1, partial(Conv))
    x = jnp.array([[1.0, 0], [3, 4]]).reshape(1, 2, 1, 1, 2)  # means 2 and 2
    params = {'conv_reduce': {'kernel': jnp.array([1.0, 0.5]).reshape(1, 1, 1, 2, 1), 'bias': -jnp.ones(1)},
              'conv_expand': {'kernel': jnp.array([1.0, 0]).reshape(1, 1, 1, 1, 2), 'bias': jnp.zeros(2)}}
    inner = 2 / (1 + np.exp(-2))  # swish(2 + 1 - 1)
    gate = np.array([1 / (1 + np.exp(-inner)), 0.5])
    np.testing.assert_allclose(layer.apply({'params': params}, x)[0, :, 0, 0], [[1, 0], [3, 4]] * gate, rtol=1e-6)


def test_drop_connect_leaves_rows_out_more_often_the_deeper_and_in_training_alone(rng):
    """Three equal blocks and rate 0.9: left out with probability 0, 0.3 and 0.6, by row, the rest divided by 1, 0.7, 0.4."""
    net = tiny(stages=((3, 1, 1, 8, 3),), taps=1, drop_connect=0.9, dropout=0.0)
    x = np.broadcast_to(rng.random((1, 8, 8, 1), np.float32), (400, 8, 8, 1))
    variables = jax.jit(net.init)(jax.random.key(0), x[:1])

    @partial(jax.jit, static_argnums=0)
    def added(train, key):
        """What blocks 1 and 2 add to each row, the largest number of it."""
        _, state = net.apply(variables, x, train, rngs={'dropout': key}, capture_intermediates=True,
                             mutable=['intermediates', 'batch_stats'])
        maps = [state['intermediates'][f'blocks0_{j}']['__call__'][0] for j in range(3)]
        return [jnp.abs(b - a).max((1, 2, 3, 4)) for a, b in zip(maps, maps[1:], strict=False)]

    once, again = (added(True, jax.random.key(i)) for i in (0, 1))
    evaluated = added(False, jax.random.key(0))
    for a, b, c, rate in zip(once, again, evaluated, (0.3, 0.6), strict=True):
        assert abs(np.mean(a < 1e-6) - rate) < 0.1  # four standard deviations
        assert np.mean((a < 1e-6) != (b < 1e-6)) > 0.2 and c.min() > 1e-6
    kept = once[0][once[0] > 1e-6]
    np.testing.assert_allclose(kept, kept[0], rtol=1e-4)  # equal rows: the same, or nothing


def test_dropout_of_features_is_in_the_logits_alone(started):
    x, variables = started
    net = tiny(drop_connect=0.0)
    run = jax.jit(lambda key: net.apply(variables, x, True, mutable=['batch_stats'], rngs={'dropout': key})[0])
    a, b, c = (run(jax.random.key(i)) for i in (0, 1, 0))
    assert np.abs(a[0] - b[0]).max() > 0
    np.testing.assert_array_equal(a[1]['features'], b[1]['features'])
    np.testing.assert_array_equal(a[0], c[0])
    off = tiny(drop_connect=0.0, dropout=0.0)
    jax.eval_shape(lambda: off.apply(variables, x, True, mutable=['batch_stats']))  # asks for no random number


def test_dropout_grows_with_the_network_as_published():
    """Tan and Le section 5.2: 0.2 for B0, 0.5 for B7, in steps; drop connect 0.2."""
    nets = [network(name)(classes=2) for name in ('EfficientNetB0', 'EfficientNetB1', 'EfficientNetB4')]
    assert [net.dropout for net in nets] == [0.2, 0.2, 0.4]
    assert {net.drop_connect for net in nets} == {0.2}


def test_the_epsilon_and_momentum_of_the_normalisation_are_fields(started):
    x, variables = started

    def moved(momentum):
        _, state = tiny(momentum=momentum).apply(variables, x, True, mutable=['batch_stats'], rngs=RNGS)
        return state['batch_stats']['bn1']['mean'] - variables['batch_stats']['bn1']['mean']

    tenth, hundredth = (jax.jit(moved, static_argnums=0)(momentum) for momentum in (0.9, 0.99))
    np.testing.assert_allclose(tenth, 10 * hundredth, rtol=1e-3)
    a, b = (jax.jit(tiny(epsilon=e).apply)(variables, x)[1]['features'] for e in (1e-5, 1.0))
    assert np.abs(a - b).max() > 0.1 * np.abs(a).max()
