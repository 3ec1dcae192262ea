from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from covid_jax import UserError
from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.models.pool import adaptive_avg_pool


def tiny(form='native', **fields):
    return network('_VGGTiny')(classes=2, compute=Compute(mean=0.35, std=0.3, form=form), **fields)


def start(net, image):
    return jax.jit(net.init)(jax.random.key(0), image)


@pytest.mark.parametrize('name, classes, image, taps, count, last', [
    ('VGG16', 1000, (1, 224, 224, 3), 1, 138_357_544, (7, 7)),  # torchvision
    ('VGG19', 1000, (1, 224, 224, 3), 1, 143_667_240, (7, 7)),  # torchvision
    ('VGG19', 3, (1, 512, 512, 1), 1, 139_581_379, (16, 16)),  # X-rays of CMT-CNN: two colours and 997 classes fewer
    # CT of CMT-CNN: 2,224,192 pairs of channels x 27 + 5,504; 32,768 x 4096 + 4096; 4096 x 4096 + 4096; 4096 x 2 + 2
    ('VGG19', 2, (1, 128, 128, 128, 1), 3, 211_070_018, (4, 4, 4)),
])
def test_published_numbers_of_parameters_and_the_papers_shapes(name, classes, image, taps, count, last):
    start = partial(network(name)(classes=classes, taps=taps).init_with_output, jax.random.key(0))
    (_, out), variables = jax.eval_shape(start, jax.ShapeDtypeStruct(image, 'float32'))
    assert sum(x.size for x in jax.tree.leaves(variables['params'])) == count
    assert out['map'].shape == (1, *last, 512) and out['features'].shape == (1, 4096)


@pytest.mark.parametrize('places, windows, means', [
    (7, 7, [0, 1, 2, 3, 4, 5, 6]),
    (14, 7, [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5]),
    (16, 7, [1, 3, 5, 7.5, 10, 12, 14]),  # of 3 places, but 6 to 9 in the middle; 2, 4, 6, 9, 11 and 13 counted twice
    (3, 2, [0.5, 1.5]),
    (2, 7, [0, 0, 0, 0.5, 1, 1, 1]),
    (1, 7, [0] * 7),
])
def test_adaptive_windows_by_hand(places, windows, means):
    x = np.arange(places, dtype='f')
    pooled = adaptive_avg_pool(10 * x[None, :, None, None] + x[None, None, :, None], (windows, windows))
    expected = 10 * np.float32(means)[:, None] + np.float32(means)
    np.testing.assert_allclose(pooled[0, :, :, 0], expected, rtol=1e-6, atol=1e-6)


def test_3d_equals_scipy_and_torchs_order_of_flattening(rng):
    """Convolutions, ReLUs, pools of 2x2x2 over an odd depth and a dense layer on [c, d, h, w], written without jax."""
    x = rng.random((2, 5, 8, 12, 1), np.float32)
    shapes = jax.eval_shape(partial(tiny().init, jax.random.key(0)), x)
    params = jax.tree.map(lambda p: rng.normal(0, 0.5, p.shape).astype('f'), shapes['params'])
    y = np.moveaxis((x.astype('d') - 0.35) / 0.3, -1, 1)
    for conv in ('conv0', 'conv3'):
        kernel = np.moveaxis(params[conv]['kernel'], (3, 4), (1, 0))
        bias = params[conv]['bias']
        y = np.stack([[sum(correlate(c, k, 'same', 'direct') for c, k in zip(image, out, strict=True)) for out in kernel]
                      for image in y]) + bias[:, None, None, None]
        d, h, w = (n // 2 for n in y.shape[2:])
        y = np.maximum(y, 0)[:, :, :2 * d, :2 * h, :2 * w].reshape(2, -1, d, 2, h, 2, w, 2).max((3, 5, 7))
    fc1 = np.moveaxis(params['fc1']['kernel'], (3, 4), (1, 0)).reshape(8, -1)  # torch's [out, c * d * h * w]
    features = np.maximum(y.reshape(2, -1) @ fc1.T + params['fc1']['bias'], 0)
    hidden = np.maximum(features @ params['fc2']['kernel'] + params['fc2']['bias'], 0)
    logits = hidden @ params['classifier']['Dense_0']['kernel'] + params['classifier']['Dense_0']['bias']
    for form in ('native', 'planar'):
        ours, out = jax.jit(tiny(form).apply)({'params': params}, x)
        assert out['map'].shape == (2, 1, 2, 3, 8)
        np.testing.assert_allclose(out['features'], features, rtol=1e-4, atol=1e-4 * features.max())
        np.testing.assert_allclose(ours, logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())


def test_slices_are_seen_alone_and_averaged(rng):
    volume = rng.random((2, 3, 20, 12, 1), np.float32)
    net = tiny(taps=1)
    variables = start(net, volume[:, 0])
    run = jax.jit(net.apply)
    averaged, of_three = run(variables, volume)
    whole = of_three['map']
    np.testing.assert_allclose(whole[:, 0], run(variables, volume[:, 0])[1]['map'], rtol=1e-5, atol=1e-6)
    of_mean = jax.jit(partial(net.apply, method='head'))(variables, whole.mean(1))[0]
    np.testing.assert_allclose(averaged, of_mean, rtol=1e-4, atol=1e-6)


def test_dropout_is_after_both_dense_layers_in_training_alone(rng):
    image = rng.random((64, 8, 8, 1), np.float32)
    net = tiny(taps=1, dense=64)
    variables = start(net, image)
    train = jax.jit(lambda variables, i: net.apply(variables, image, True, rngs={'dropout': jax.random.key(i)}))
    logits, out = jax.jit(net.apply)(variables, image)
    a, b, c = (train(variables, i) for i in (0, 1, 0))
    np.testing.assert_array_equal(a[0], c[0])
    assert np.abs(a[0] - b[0]).max() > 0
    # r is what comes before the first dropout
    np.testing.assert_allclose(a[1]['features'], out['features'], rtol=1e-4, atol=1e-6)
    none = jax.jit(partial(tiny(taps=1, dense=64, dropout=0.0).apply, train=True))(variables, image)[0]
    np.testing.assert_allclose(none, logits, rtol=1e-4, atol=1e-6)
    # what is kept is doubled, in both: half of the units of each layer are nought
    variables['params'] |= {'fc1': {'kernel': jnp.zeros((7, 7, 8, 64)), 'bias': jnp.ones(64)},
                            'fc2': {'kernel': jnp.eye(64), 'bias': jnp.zeros(64)},
                            'classifier': {'Dense_0': {'kernel': jnp.eye(64)[:, :2], 'bias': jnp.zeros(2)}}}
    values, counts = np.unique(train(variables, 2)[0], return_counts=True)
    assert values.tolist() == [0, 4] and 0.1 < counts[1] / 128 < 0.4  # a quarter


def test_another_size_than_the_first_is_one_line(rng):
    net = tiny()
    scan = rng.random((1, 8, 16, 20, 1), np.float32)
    variables = start(net, scan)
    line = 'size it was started on, 8x16x20, and was given 8x16x16: set --config.prep.size'
    run = jax.jit(net.apply)
    assert run(variables, scan)[0].shape == run(variables, np.pad(scan, ((0, 0), (0, 3), (0, 0), (0, 0), (0, 0))))[0].shape
    with pytest.raises(UserError, match=line):
        run(variables, scan[:, :, :, :16])
    with pytest.raises(UserError, match=line):
        net.apply(variables, np.zeros((1, 2, 4, 4, 8), 'f'), method='head')
    with pytest.raises(UserError, match='8x16x20, and was given 4x16x20: set --config.views.depth=8'):
        run(variables, scan[:, :4])


@pytest.mark.parametrize('taps, size, line', [
    (3, (3, 16, 16), '4x4x4 .* not 3x16x16'), (1, (1, 16, 3), '1x4x4 .* not 1x16x3'), (3, (16, 3), '1x4x4 .* not 1x16x3')])
def test_an_image_that_pools_to_nothing_is_one_line(taps, size, line):
    with pytest.raises(UserError, match=line):
        tiny(taps=taps).init(jax.random.key(0), np.zeros((1, *size, 1), 'f'))
