"""What every network is held to: one-block members run, full-size ones as shapes; what is peculiar to a family has its own
file."""

import re
from dataclasses import replace
from functools import partial
from typing import NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from covid_jax import UserError
from covid_jax.models import NETWORKS, network
from covid_jax.models.compute import Compute

RNGS = {'dropout': jax.random.key(1)}


class Tiny(NamedTuple):
    """unfelt: parameters that a normalisation takes away again, by the end of their path, so that their gradient in training is
    nothing but rounding."""

    name: str
    image: tuple
    map: tuple
    dim: int
    fields: dict = {}
    unfelt: tuple = ()


CASES = [
    Tiny('_ResNetTiny', (4, 3, 24, 24, 1), (4, 3, 6, 6, 16), 16),
    Tiny('_ResNetGRUTiny', (4, 3, 24, 24, 1), (4, 3, 6, 6, 16), 4),
    Tiny('_ResNeStTiny', (4, 6, 16, 16, 1), (4, 6, 4, 4, 16), 16, unfelt=('conv2/fc1/bias',)),
    Tiny('_DenseNetTiny', (4, 32, 32, 3), (4, 4, 4, 15), 15),
    Tiny('_EfficientNetTiny', (4, 6, 16, 16, 1), (4, 2, 4, 4, 16), 16,
         unfelt=('blocks0_0/bn2/bias', 'blocks1_0/bn3/bias')),
    Tiny('_VGGTiny', (4, 8, 12, 12, 1), (4, 2, 3, 3, 8), 8),
    Tiny('_VGGTiny', (4, 20, 20, 1), (4, 5, 5, 8), 8, {'taps': 1}),
    Tiny('_CRNetTiny', (4, 40, 40, 1), (4, 4, 4, 5), 20, unfelt=('conv1/bias',)),
    Tiny('_COVIDNetTiny', (8, 16, 16, 3), (8, 2, 2, 32), 128),
    Tiny('_COVIDNetRedesignTiny', (8, 16, 16, 3), (8, 2, 2, 32), 128, unfelt=('conv1/bias', 'c1/bias', 'c2/bias')),
]
FULL = {  # image, map, features: at the size that its paper gives it
    'ResNet18': ((1, 32, 224, 224, 1), (1, 4, 7, 7, 512), 512),
    'ResNet50': ((1, 64, 256, 256, 1), (1, 8, 8, 8, 2048), 2048),
    'ResNet18Hara': ((1, 56, 192, 256, 1), (1, 4, 6, 8, 512), 512),
    'ResNet50Hara': ((1, 56, 192, 256, 1), (1, 4, 6, 8, 2048), 2048),
    'ResNet50GRU': ((1, 64, 224, 224, 1), (1, 64, 7, 7, 2048), 128),
    'ResNet14Small': ((1, 24, 48, 48, 1), (1, 3, 2, 2, 384), 384),
    'ResNet14GRUSmall': ((1, 24, 48, 48, 1), (1, 24, 2, 2, 384), 16),
    'ResNeSt50': ((1, 64, 256, 256, 1), (1, 8, 8, 8, 2048), 2048),
    'ResNeSt14Small': ((1, 24, 48, 48, 1), (1, 3, 2, 2, 384), 384),
    'DenseNet121': ((1, 224, 224, 3), (1, 7, 7, 1024), 1024),
    'DenseNet169': ((1, 224, 224, 3), (1, 7, 7, 1664), 1664),
    'EfficientNetB0': ((1, 1, 224, 224, 3), (1, 1, 7, 7, 1280), 1280),
    'EfficientNetB1': ((1, 1, 240, 240, 3), (1, 1, 8, 8, 1280), 1280),
    'EfficientNetB4': ((1, 128, 128, 128, 1), (1, 4, 4, 4, 1792), 1792),
    'VGG16': ((1, 128, 128, 128, 1), (1, 4, 4, 4, 512), 4096),
    'VGG19': ((1, 128, 128, 128, 1), (1, 4, 4, 4, 512), 4096),
    'CRNet': ((1, 224, 224, 1), (1, 27, 27, 128), 21_632),
    'COVIDNet': ((1, 224, 224, 3), (1, 7, 7, 2048), 100_352),
    'COVIDNetRedesign': ((1, 224, 224, 3), (1, 7, 7, 2048), 8192),
    'COVIDNetSmall': ((1, 224, 224, 3), (1, 7, 7, 256), 12_544),
    'COVIDNetRedesignSmall': ((1, 224, 224, 3), (1, 7, 7, 256), 1024),
}


def drawn(path, like):
    """A parameter or statistic off its start, where zeros and ones hide much. Most biases of normalisations are below zero:
    where a ReLU lets all through to the next one, a scale before it has no gradient but rounding."""
    leaf = path[-1].key
    rng = np.random.default_rng(crc32(jax.tree_util.keystr(path).encode()))
    if leaf in ('scale', 'var'):
        return rng.uniform(0.5, 1.5, like.shape).astype('f')
    if leaf in ('bias', 'mean'):
        return rng.normal(-0.2 if re.search('bn|norm', path[-2].key) else 0, 0.2, like.shape).astype('f')
    return rng.normal(0, np.prod(like.shape[:-1]) ** -0.5, like.shape).astype('f')


def having(net, **fields):
    """The network, computing in another way."""
    return net.clone(compute=replace(net.compute, **fields))


def variables_of(net, image):
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), jax.ShapeDtypeStruct(image, 'float32'))
    return jax.tree_util.tree_map_with_path(drawn, shapes)


def name_of(case):
    return '-'.join([case.name, *case.fields])


def quick(*names):
    """All cases, those of these networks for the suite and the others slow."""
    cases = [pytest.param(c, marks=() if c.name in names and not c.fields else pytest.mark.slow) for c in CASES]
    return pytest.mark.parametrize('case', cases, indirect=True, ids=name_of)


@pytest.fixture(scope='module', params=CASES, ids=name_of)
def case(request):
    """The case, its network, variables, images, their sites, and the network's compiled answer."""
    c = request.param
    net = network(c.name, **c.fields)(classes=2, compute=Compute(mean=0.45, std=0.3, form='planar'))
    image = np.random.default_rng(0).random(c.image, np.float32)
    return c, net, variables_of(net, c.image), image, np.arange(len(image)) % 2, jax.jit(net.apply)


def test_every_network_is_here():
    assert {c.name for c in CASES} | {*FULL} == {*NETWORKS}


def test_shapes_and_one_compilation(case):
    """Also of trunk and head apart, and of a batch with other values."""
    c, net, variables, image, site, apply = case
    logits, out = apply(variables, image, site=site)
    assert (logits.shape, out['map'].shape, out['features'].shape) == ((len(image), 2), c.map, (len(image), c.dim))
    assert (logits.dtype, out['map'].dtype, out['features'].dtype) == (np.float32,) * 3
    apply(jax.tree.map(lambda x: 2 * x, variables), 1 - image, site=1 - site)
    assert apply._cache_size() == 1
    site = {'site': site} if c.name.startswith('_COVIDNet') else {}
    again, features = jax.jit(partial(net.apply, method='head'))(variables, out['map'], **site)
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features, out['features'], rtol=1e-4, atol=1e-5)
    if image.ndim == 4:  # an image is a volume of one slice
        volume = jax.jit(partial(net.apply, method='trunk'))(variables, image[:, None], **site)
        np.testing.assert_allclose(volume[:, 0], out['map'], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name, field', [
    ('VGG16', 'depth_strides'), ('CRNet', 'taps'), ('DenseNet121', 'taps'), ('EfficientNetB0', 'stem_plane'), ('COVIDNet', 'taps')])
def test_a_field_that_the_network_does_not_have_is_one_line(name, field):
    with pytest.raises(UserError, match=f'{name} has no --config.model.{field}: leave it unset'):
        network(name, **{field: 1})


def test_a_mistyped_name_is_one_helpful_line():
    with pytest.raises(UserError, match='ResNeSt14Small'):
        network('ResNest14small')


def test_bfloat16_is_close(case):
    c, net, variables, image, site, apply = case
    exact = apply(variables, image, site=site)[1]['features']
    logits, out = jax.jit(having(net, dtype='bfloat16').apply)(variables, image, site=site)
    assert out['map'].dtype == jnp.bfloat16 and logits.dtype == out['features'].dtype == np.float32
    np.testing.assert_allclose(out['features'], exact, rtol=0, atol=0.05 * np.abs(exact).max())


def test_gradients_are_finite_reach_every_parameter_and_are_the_same_in_either_form_and_with_remat(case):
    c, net, variables, image, site, _ = case
    runs = []
    work = {}
    for form, remat in (('planar', False), ('native', False), ('native', True)):
        computed = having(net, form=form, remat=remat)

        def loss(params, net=computed):
            (logits, out), state = net.apply({**variables, 'params': params}, image, True, site, mutable=['batch_stats'],
                                             rngs=RNGS)
            return jnp.sum(out['features'] ** 2) + jnp.sum(out['map'] ** 3) + jnp.sum(logits[:, 0]), state

        step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(variables['params'])
        work[form, remat] = step.cost_analysis()['flops']
        if form == 'planar' or remat:
            runs.append(step.compile()(variables['params']))
    assert work['native', True] > 1.2 * work['native', False]  # what is not kept is computed again
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(runs[0]), jax.tree.leaves(runs[1]), strict=True):
        name = '/'.join(str(getattr(key, 'key', key)) for key in path)
        assert np.isfinite(a).all() and np.isfinite(b).all(), name
        if not name.endswith(tuple(f'/{end}' for end in c.unfelt)) or 'stats' in name:
            assert np.abs(a).max() > 0, name
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * np.abs(a).max(), err_msg=name)  # sums cancel


@quick('_ResNetTiny', '_COVIDNetRedesignTiny')  # no family knows of groups (compute_test.py)
def test_by_groups_a_step_is_the_same_computed_again_and_on_eight_devices(case):
    """Without rounding, of two rows in each of four groups."""
    c, net, variables, *_ = case
    image = np.random.default_rng(1).random((8, *c.image[1:]))
    group = np.array([2, 0, 3, 1, 1, 3, 0, 2])
    if getattr(net, 'sites', 0):
        with pytest.raises(ValueError, match='by site has no groups'):
            net.apply(variables, np.float32(image), True, group % 2, group, mutable=['batch_stats'])
        return
    runs = []
    with jax.enable_x64():
        variables = jax.tree.map(np.float64, variables)
        for devices, remat in ((1, False), (8, True)):
            rows, whole = shardings(devices)
            grouped = having(net, dtype='float64', groups=4, remat=remat)

            def loss(params, image, group, net=grouped):
                (logits, out), state = net.apply({**variables, 'params': params}, image, True, None, group,
                                                 mutable=['batch_stats'], rngs=RNGS)
                return jnp.mean(out['features'] ** 2) + jnp.mean(out['map'] ** 3) + jnp.mean(logits[:, 0]), state

            step = jax.jit(jax.grad(loss, has_aux=True), in_shardings=(whole, rows, rows), out_shardings=whole)
            compiled = step.lower(variables['params'], image, group).compile()
            runs.append(compiled(variables['params'], image, group))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(runs[0]), jax.tree.leaves(runs[1]), strict=True):
        name = '/'.join(str(getattr(key, 'key', key)) for key in path)
        assert np.isfinite(a).all(), name
        if not name.endswith(c.unfelt) or 'stats' in name:
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(a).max(), err_msg=name)  # heads are float32


@quick('_ResNetTiny', '_VGGTiny', '_CRNetTiny', '_COVIDNetRedesignTiny')
def test_a_training_step_on_any_number_of_devices_feeds_itself(case):
    """Two steps of plain SGD, the second from what the first returned: one compilation, parameters of the type that they
    were; and without rounding, the same on four devices as on one."""
    with jax.enable_x64():
        c, net, variables, image, site, _ = case
        variables, image = jax.tree.map(np.float64, (variables, image))
        one, four = (steps(having(net, dtype='float64'), variables, image, site, devices) for devices in (1, 4))
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(four), strict=True):
            name = '/'.join(str(getattr(key, 'key', key)) for key in path)
            if not name.endswith(c.unfelt) or 'stats' in name:
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(a).max(), err_msg=name)


@quick('_ResNetTiny')
def test_two_training_steps_in_bfloat16_need_one_program(case):
    _, net, variables, image, site, _ = case
    steps(having(net, dtype='bfloat16'), variables, image, site, 4)


def test_a_training_step_in_bfloat16_gives_variables_of_the_types_that_they_were(case):
    """As shapes: so the next step needs no other program."""
    _, net, variables, image, site, _ = case
    after, gradient = jax.eval_shape(step_of(having(net, dtype='bfloat16')), variables, image, site)
    assert jax.tree.structure(after) == jax.tree.structure(variables)
    for path, x in jax.tree_util.tree_leaves_with_path((after, gradient)):
        assert x.dtype == np.float32 and not x.weak_type, jax.tree_util.keystr(path)


def shardings(devices):
    """By rows, and replicated."""
    mesh = Mesh(np.array(jax.devices()[:devices]), 'data')
    return (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (('data',), ()))


def step_of(net):
    """A step of plain SGD: (variables, image, site) -> (variables after it, gradient)."""
    def step(variables, image, site):
        def loss(params):
            (logits, out), state = net.apply({**variables, 'params': params}, image, True, site, mutable=['batch_stats'],
                                             rngs=RNGS)
            return jnp.mean(out['map'].astype(logits.dtype) ** 3) + jnp.mean(logits[:, 0]), state

        gradient, state = jax.grad(loss, has_aux=True)(variables['params'])
        return {'params': jax.tree.map(lambda p, g: p - 0.1 * g, variables['params'], gradient), **state}, gradient
    return step


def steps(net, variables, image, site, devices):
    """The gradient of the first step, and the statistics after the second."""
    rows, whole = shardings(devices)
    step = jax.jit(step_of(net), out_shardings=whole)
    kept = jax.device_put(variables, whole)
    image, site = jax.device_put((image, site), rows)
    types = jax.tree.map(lambda x: x.dtype, kept)
    kept, gradient = step(kept, image, site)
    kept, _ = step(kept, image, site)
    assert step._cache_size() == 1
    assert jax.tree.map(lambda x: x.dtype, kept) == types
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept))
    return gradient, {k: x for k, x in kept.items() if k != 'params'}


@pytest.mark.parametrize('name', FULL)
def test_full_size_as_shapes(name):
    image, feature_map, dim = FULL[name]
    start = partial(network(name)(classes=2).init_with_output, jax.random.key(0))
    (logits, out), _ = jax.eval_shape(start, jax.ShapeDtypeStruct(image, 'float32'))
    assert (logits.shape, out['map'].shape, out['features'].shape) == ((1, 2), feature_map, (1, dim))


@pytest.mark.slow
@pytest.mark.parametrize('name', FULL)
def test_full_size_runs(name, rng):
    """In evaluation and in training, at a small image."""
    size = FULL[name][0]
    image = rng.random((2, *(32 if n > 3 else n for n in size[1:])) if name != 'CRNet' else (2, *size[1:]), np.float32)
    if name.startswith('COVIDNet'):
        image = rng.random((2, 64, 64, 3), np.float32)
    net = network(name)(classes=2, compute=Compute(form='planar'))
    variables = variables_of(net, image.shape)
    site = np.arange(2)
    logits, out = jax.jit(net.apply)(variables, image, site=site)
    train = jax.jit(partial(net.apply, train=True, mutable=['batch_stats'], rngs=RNGS))
    (trained, _), _ = train(variables, image, site=site)
    for x in (logits, trained, out['map'], out['features']):
        assert np.isfinite(x).all() and np.abs(x).max() > 0


@pytest.mark.parametrize('name, path, std', [
    ('ResNet14Small', ('layer3_0', 'conv2'), (2 / (27 * 48)) ** 0.5), ('CRNet', ('conv2',), (2 / (49 * 32)) ** 0.5),
    ('DenseNet121', ('denseblock1_denselayer1', 'conv2'), (2 / (9 * 128)) ** 0.5),
    ('EfficientNetB0', ('conv_head',), (2 / 1280) ** 0.5), ('VGG16', ('fc2',), 0.01), ('VGG16', ('classifier', 'Dense_0'), 0.001),
    ('DenseNet121', ('classifier', 'Dense_0'), 0.001)])
def test_what_weights_start_from(name, path, std):
    """He et al. (2015): variance 2 over the inputs of an output, in EfficientNet over the outputs of an input; no bias."""
    net = network(name)(classes=50)
    side = 224 if name == 'CRNet' else 32
    image = np.zeros((1, side if name == 'VGG16' else 1, side, side, 1), 'f')

    @jax.jit
    def start():
        params = net.init(jax.random.key(0), image)['params']
        for part in path:
            params = params[part]
        return params

    layer = start()
    np.testing.assert_allclose(np.std(layer['kernel']), std, rtol=0.02)
    assert abs(np.mean(layer['kernel'])) < 0.05 * std and not np.any(layer.get('bias', 0))
