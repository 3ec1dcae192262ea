"""Grad-CAM, against maps worked out apart from it, and on the scan's own grid."""

from functools import partial
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config

from covid_jax import UserError
from covid_jax.data.pipeline import prep_of
from covid_jax.data.prep import Prep
from covid_jax.methods.method import Method, abstract_batch, seen_in_test, to_float
from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.phantom import address
from covid_jax.report import gradcam
from covid_jax.scans.decode import decode

VOLUMES = ('_ResNetTiny', '_ResNetGRUTiny', '_ResNeStTiny', '_EfficientNetTiny', '_VGGTiny')
IMAGES = ('_DenseNetTiny', '_CRNetTiny', '_COVIDNetTiny', '_COVIDNetRedesignTiny')
SIZES = {'_CRNetTiny': 40, '_DenseNetTiny': 32}


def case(name, depth=1, rows=3, **compute):
    """A method of the network with weights far from zero, and a batch."""
    side = SIZES.get(name, 16)
    rng = np.random.default_rng(0)
    batch = {'image': rng.integers(0, 256, (rows, depth, side, side, 1)).astype(np.uint8), 'site': np.arange(rows) % 2}
    flat = {'taps': 1} if depth == 1 and name in VOLUMES else {}
    net = network(name, **flat)(classes=3, compute=Compute(mean=0.4, std=0.3, **compute))
    shapes = jax.eval_shape(net.init, jax.random.key(0), to_float(batch['image']))
    variables = jax.tree.map(lambda x: rng.uniform(0.2, 1, x.shape).astype('f') * rng.choice([-0.5, 1], x.shape), shapes)
    variables['batch_stats'] = jax.tree.map(np.abs, variables.get('batch_stats', {}))
    params = {'network': variables.pop('params')}

    def predict(params, state, batch, key=None):
        logits, out = net.apply({'params': params['network'], **state['network']}, to_float(batch['image']), site=batch['site'])
        return {'features': out['features'], 'logits': logits}

    return Method(net, None, None, predict), params, {'network': variables}, batch


def by_hand(net, params, state, batch, target, site):
    """Trunk and head apart: the loop over channels as the paper writes it."""
    variables = {'params': params['network'], **state['network']}
    x = jax.jit(partial(net.apply, method='trunk'))(variables, to_float(batch['image']), site=site)

    def logit(x, i):
        return net.apply(variables, x, site=site, method='head')[0][i, target[i]]

    heat = np.zeros(x.shape[:-1])
    target = jnp.asarray(target)
    derivative = jax.jit(jax.grad(logit))
    for i in range(len(x)):
        slope = np.asarray(derivative(x, i)[i], float)
        for k in range(x.shape[-1]):
            heat[i] += slope[..., k].mean() * np.asarray(x[i, ..., k], float)
    return np.maximum(heat, 0)


@pytest.mark.parametrize('name, depth', [*((name, d) for name in VOLUMES for d in (1, 6)), *((name, 1) for name in IMAGES)])
def test_every_network_as_trunk_and_head_apart(name, depth):
    method, params, state, batch = case(name, depth)
    target = np.array([2, 0, 1])
    heat = gradcam.gradcam(method, params, state, batch, target)
    expected = by_hand(method.network, params, state, batch, target, batch['site'])
    assert heat.dtype == np.float32 and expected.max() > 0
    np.testing.assert_allclose(heat, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_where_a_site_is_unknown_the_maps_of_the_sites_count_as_their_answers_do():
    """The derivative of log mean softmax is by each site's logits, worked out here; rows of a known site have their own map."""
    method, params, state, batch = case('_COVIDNetRedesignTiny')
    net = method.network
    last = params['network']['classifier']
    params['network']['classifier'] = jax.tree.map(lambda w: w / 1e6, last)  # logits of about 1
    batch['site'] = np.array([0, -1, 1])
    target = np.array([1, 1, 2])
    heat = gradcam.gradcam(method, params, state, batch, target)
    variables = {'params': params['network'], **state['network']}
    expected = 0
    whole = jax.jit(net.apply)
    trunk = jax.jit(partial(net.apply, method='trunk'))
    logits = [whole(variables, to_float(batch['image']), site=np.full(3, s))[0][1] for s in (0, 1)]
    p = np.stack([jax.nn.softmax(x) for x in logits])
    assert p[:, 1].min() > 0.1
    for s in (0, 1):
        x = trunk(variables, to_float(batch['image']), site=np.full(3, s))

        def answer(x, s=s):
            mine = jax.nn.softmax(net.apply(variables, x, site=np.full(3, s), method='head')[0][1])[1]
            return jnp.log((mine + p[1 - s, 1]) / 2)

        slope = jax.jit(jax.grad(answer))(x)[1, 0].mean((0, 1))
        expected = expected + np.maximum(np.asarray(x[1, 0]) @ np.asarray(slope), 0)
    np.testing.assert_allclose(heat[1, 0], expected, rtol=1e-3, atol=1e-6)
    known = by_hand(net, params, state, batch, target, np.array([0, 0, 1]))
    np.testing.assert_allclose(heat[::2], known[::2], rtol=1e-4, atol=1e-5 * known.max())


def test_a_method_with_a_head_of_its_own_and_a_map_without_depth():
    """Its logits are sums over the left and the right half of the map, so that a channel weighs half, on that side alone."""
    net = network('_ResNetTiny', taps=1)(classes=2)
    image = np.random.default_rng(0).integers(0, 256, (2, 1, 16, 16, 1)).astype(np.uint8)
    batch = {'image': image, 'site': np.zeros(2, int)}
    variables = dict(jax.jit(net.init)(jax.random.key(0), to_float(image)))
    params = {'network': variables.pop('params'), 'head': jnp.linspace(-0.5, 1, 16)}

    def predict(params, state, batch, key=None):
        x = net.apply({'params': params['network'], **state}, to_float(batch['image'])[:, 0], method='trunk')
        score = x @ params['head']
        return {'features': x[:, 0, 0], 'logits': jnp.stack([score[:, :, :2].sum((1, 2)), score[:, :, 2:].sum((1, 2))], 1)}

    heat = gradcam.gradcam(Method(net, None, None, predict), params, variables, batch, 1)
    x = jax.jit(partial(net.apply, method='trunk'))({'params': params['network'], **variables}, to_float(image)[:, 0])
    assert heat.shape == (2, 1, 4, 4) and heat.max() > 0
    np.testing.assert_allclose(heat[:, 0], np.maximum(x @ params['head'] / 2, 0), rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_computed_again_in_the_backward_pass():
    """The output of the only block is the map; that of its first convolution is finer in nothing, but another map."""
    method, params, state, batch = case('_ResNetTiny', 6, remat=True)
    plain = case('_ResNetTiny', 6)[0]
    whole = gradcam.gradcam(method, params, state, batch, 1)
    np.testing.assert_allclose(gradcam.gradcam(method, params, state, batch, 1, 'layer1_0'), whole, rtol=1e-5)
    stem = gradcam.gradcam(method, params, state, batch, 1, 'conv1')
    assert stem.shape == (3, 6, 8, 8) and stem.max() > 0
    np.testing.assert_allclose(stem, gradcam.gradcam(plain, params, state, batch, 1, 'conv1'), rtol=1e-4, atol=1e-7)


def test_without_a_class_the_most_probable_is_asked_about():
    method, params, state, batch = case('_ResNetTiny', 6)
    decided = jax.jit(method.predict)(params, state, batch)['logits'].argmax(-1)
    np.testing.assert_array_equal(gradcam.gradcam(method, params, state, batch, None),
                                  gradcam.gradcam(method, params, state, batch, decided))


@pytest.mark.parametrize('target, layer, words', [
    (3, 'map', 'no class is number 3: there are 0 to 2'), (-1, 'map', 'no class is number -1'),
    (0, 'layer9_0', "no map is called 'layer9_0': take map, or .*layer1_0"), (0, 'classifier', 'no map is called')])
def test_what_there_is_not_is_one_line(target, layer, words):
    method, params, state, batch = case('_ResNetTiny', 6)
    with pytest.raises(UserError, match=words):
        gradcam.gradcam(method, params, state, batch, target, layer)


def test_a_method_that_decides_for_no_class_is_one_line():
    method, params, state, batch = case('_ResNetTiny', 6)
    blind = method._replace(predict=lambda *args: {'features': method.predict(*args)['features']})
    with pytest.raises(UserError, match='gives no logits'):
        gradcam.gradcam(blind, params, state, batch, 0)


class Cells(nn.Module):
    """A map of means over cells, and the logit of class 1 is their sum; class 0 has none."""

    cell: tuple

    def trunk(self, image, train=False, site=None, group=None):
        return nn.avg_pool(image, self.cell, self.cell)

    def __call__(self, image, train=False, site=None, group=None):
        x = self.trunk(image)
        return jnp.stack([jnp.zeros(len(x)), x.sum((1, 2, 3, 4))], 1), {'map': x, 'features': x.reshape(len(x), -1)}


def seeing(prep, cell, classes=('noncovid', 'covid'), tested=lambda batch, key: to_float(batch['image'])):
    net = Cells(cell)

    def predict(params, state, batch, key=None):
        logits, out = net.apply({}, tested(batch, key))
        return {'features': out['features'], 'logits': logits}

    run = SimpleNamespace(method=Method(net, None, None, predict), prep=prep, sites=(), classes=classes)
    return run, SimpleNamespace(params={'network': {}}, state={'network': {}})


CORNERS = [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)]


def found(run, state, scan, at, monkeypatch):
    """How far, in cells by axis, the maximum lies from the one bright voxel of the scan."""
    voxels = np.full(scan.voxels.shape, -1000, np.int16)
    voxels[at] = 3000
    monkeypatch.setattr(gradcam, 'decode', lambda address: scan._replace(voxels=voxels))
    e = gradcam.explain(run, state, 'here', 1)
    assert e.heat.shape == voxels.shape and e.heat.dtype == np.float32 and (e.heat.min(), e.heat.max()) == (0, 1)
    top = np.unravel_index(e.heat.argmax(), e.heat.shape)
    return np.abs(np.subtract(top, at)) / e.cell


@pytest.mark.parametrize('shape, prep', [
    ((17, 37, 45), {}), ((9, 31, 33), {}), ((1, 37, 45), {}),
    ((17, 37, 45), {'spacing': (2.0, 1.5, 1.5)}), ((13, 61, 53), {'spacing': (3.0, 1.0, 1.2)})])
def test_one_bright_voxel_is_found_at_its_place(shape, prep, monkeypatch):
    """At each corner of what is prepared, and in the middle: the maximum is in the cell of that voxel, or where it lies
    between two, in one of them. 1, 8 or 12 x 32 x 40
    voxels are prepared, in cells of 2 x 4 x 8."""
    size = ({1: 1, 9: 8}.get(shape[0], 12), 32, 40)
    run, state = seeing(Prep((-1000.0, 3000.0), size, **prep), (min(shape[0], 2), 4, 8))
    scan = gradcam.Scan(np.zeros(shape), True, (2.1, 1.3, 1.1))
    half = np.multiply(size, np.divide(prep['spacing'], scan.spacing) if prep else np.divide(shape, size)) / 2
    first = np.maximum(np.ceil(np.divide(shape, 2) - half), 0).astype(int)  # a corner of the middle that is kept
    last = np.subtract(shape, 1 + first)
    for corner in [*(tuple(np.where(c, last, first)) for c in CORNERS), tuple(np.divide(shape, 2).astype(int))]:
        apart = found(run, state, scan, tuple(map(int, corner)), monkeypatch)
        assert (apart <= 0.5 + 1 / np.multiply(2, (2, 4, 8))).all(), (corner, apart)


def test_one_bright_voxel_is_found_at_the_corners_of_the_lungs(monkeypatch):
    """Cropped to the box around the lungs: the map is 0 outside it."""
    scan = decode(address(7, 3, 'normal'))
    prep = Prep((-1000.0, 3000.0), (32, 48, 64), lungs='crop')
    where = gradcam.place(scan, prep)
    monkeypatch.setattr(gradcam, 'place', lambda scan, prep: where)  # of one voxel alone there are no lungs
    run, state = seeing(prep, (2, 4, 4))
    for corner in CORNERS:
        at = tuple(side.stop - 1 if c else side.start for side, c in zip(where.box, corner, strict=True))
        assert (found(run, state, scan, at, monkeypatch) <= 0.75).all()
    assert where.box[1].start > 5 and where.box[2].stop < 91


@pytest.mark.parametrize('plane', [0, 16])
@pytest.mark.parametrize('shape', [(1, 40, 70), (1, 70, 40), (1, 50, 50), (1, 30, 90)])
def test_one_bright_voxel_is_found_in_a_scan_that_keeps_its_aspect(shape, plane, monkeypatch):
    """The network sees the scan squashed, in cells of 4 x 4: at the corners and in the middle the maximum is in the voxel's cell,
    or in one of two that it lies between."""
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.prep.update(size=(1, 32, 32), keep_aspect=True, window=(-1000.0, 3000.0))
        c.views.update(name='cross_site', plane=plane)
    run, state = seeing(prep_of(c), (1, 4, 4), tested=seen_in_test(c))
    scan = gradcam.Scan(np.zeros(shape), True, None)
    monkeypatch.setattr(gradcam, 'decode', lambda address: scan)
    shapes = jax.tree.map(jnp.shape, gradcam.one_scan(run, 'here')[2])
    assert shapes == {name: x.shape for name, x in abstract_batch(c, 1).items()}
    _, height, width = shape
    for at in [(0, 0, 0), (0, 0, width - 1), (0, height - 1, 0), (0, height - 1, width - 1), (0, height // 2, width // 3)]:
        apart = found(run, state, scan, at, monkeypatch)
        assert (apart <= 0.75).all(), (at, apart)


def test_an_explanation_and_its_picture(tmp_path):
    """Brighter than all else is the right half; of an image there is one slice, and no speck where nothing speaks for a class."""
    grey = np.zeros((20, 30), np.uint8)
    grey[:, 15:] = 255
    np.save(tmp_path / 'image.npy', grey)
    run, state = seeing(Prep((0.0, 1.0), (1, 16, 32)), (1, 4, 4), ('healthy', 'covid'))
    e = gradcam.explain(run, state, tmp_path / 'image.npy')
    assert e.target == 1 and e.names == ('healthy', 'covid') and e.scan.voxels.shape == e.heat.shape == (1, 20, 30)
    np.testing.assert_allclose(e.heat[0, :, [3, 26]], [[0] * 20, [1] * 20], atol=1e-6)
    np.testing.assert_allclose(e.probability, [0, 1], atol=1e-3)
    gradcam.overlay_png(tmp_path / 'seen.png', e)
    figure = gradcam.overlay_figure(e)
    assert len(figure.axes) == 1 and figure._suptitle.get_text() == 'covid: probability 1.000'
    assert (tmp_path / 'seen.png').read_bytes().startswith(b'\x89PNG')
    other = gradcam.explain(run, state, tmp_path / 'image.npy', 0)
    assert other.target == 0 and not other.heat.any()


def test_of_a_volume_the_hottest_slice_of_each_stretch_is_shown():
    heat = np.zeros((20, 2, 2), 'f')
    heat[[3, 4, 9, 19], 0] = [[0.5], [0.2], [1], [0.1]]
    assert gradcam.hottest(heat, 4) == [3, 9, 10, 19]
    assert gradcam.hottest(heat[:3], 8) == [0, 1, 2]


def test_a_scan_that_cannot_be_prepared_is_named(tmp_path):
    np.save(tmp_path / 'odd.npy', np.full((4, 8, 8), 3000, np.uint16))
    run, state = seeing(Prep((0.0, 1.0), (4, 8, 8), (1.0, 1.0, 1.0)), (1, 4, 4))
    with pytest.raises(UserError, match='odd.npy: '):
        gradcam.explain(run, state, tmp_path / 'odd.npy')
