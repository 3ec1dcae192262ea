from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from covid_jax import UserError
from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.models.conv import Conv, DepthwiseConv
from covid_jax.models.covidnet import PEPX, TORCH
from covid_jax.models.heads import MapDense

CONV = partial(Conv, use_bias=True, **TORCH)
DEPTHWISE = partial(DepthwiseConv, use_bias=True, **TORCH)
SITE = np.array([0, 1, 1, 0, 1, 0, 0, 1], np.int32)


@pytest.fixture(scope='module')
def tiny():
    """The tiny network by site, variables, of sites that differ, and images. (To start it takes long to compile.)"""
    rng = np.random.default_rng(5)  # its two sites differ in their answers
    image = rng.random((8, 16, 16, 3), np.float32)
    net = network('_COVIDNetRedesignTiny')(classes=2, compute=Compute(form='planar'))
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), image)
    return net, jax.tree_util.tree_map_with_path(partial(drawn, rng), shapes), image


def drawn(rng, path, like):
    if '_norm' in jax.tree_util.keystr(path):
        return rng.uniform(0.5, 1.5, like.shape).astype('f')
    fan_in = np.prod(like.shape[:-1]) if like.ndim > 1 else 100
    return rng.normal(0, fan_in**-0.5, like.shape).astype('f')


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize('name, fields, number, embedding', [
    ('COVIDNet', {}, 134_513_682, 100_352),
    ('COVIDNetRedesign', {'sites': 0}, 40_141_842, 8192),
    ('COVIDNetRedesign', {'sites': 1}, 40_149_650, 8192),
    # with two sites' scales and biases of 64 + 256 + 512 + 1024 + 2048 channels
    ('COVIDNetRedesign', {}, 40_141_842 + 2 * 2 * 3904, 8192),
    # the authors' whole network, less its embedding network 8192 -> 1024 -> 128, normalised too
    ('COVIDNetRedesign', {'head_norm': True}, 48_688_018 - 8_520_832 - 2 * 2 * (1024 + 128), 8192),
])
def test_published_numbers_of_parameters_and_shapes(root, name, fields, number, embedding):
    net = network(name)(classes=2, **fields)
    image = jax.ShapeDtypeStruct((4, 224, 224, 3), 'float32')
    variables = jax.eval_shape(partial(net.init, jax.random.key(0)), image)
    assert count(variables['params']) == number
    page = (root / 'docs' / 'networks.md').read_text()
    assert fields.get('head_norm') or fields == {'sites': 0} or f'{number:,}' in page
    assert jax.eval_shape(net.apply, variables, image)[1]['features'].shape == (4, embedding)


@pytest.mark.parametrize('channels, features, number', [(64, 256, 14_160), (256, 512, 150_336), (512, 1024, 595_584),
                                                        (1024, 2048, 2_370_816), (2048, 2048, 7_361_024)])
def test_published_numbers_of_a_block(channels, features, number):
    x = jax.ShapeDtypeStruct((1, 1, 7, 7, channels), 'float32')
    assert count(jax.eval_shape(PEPX(features, CONV, DEPTHWISE).init, jax.random.key(0), x)) == number


def test_the_dense_layers_shrink_to_a_twelfth():
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), 'float32')
    dense = []
    for name in ('COVIDNet', 'COVIDNetRedesign'):
        params = jax.eval_shape(partial(network(name)(classes=2).init, jax.random.key(0)), image)['params']
        dense.append(count([params['hidden'], params['classifier']]))
    assert dense == [103_024_386, 8_652_546]


@pytest.mark.parametrize('module, x, fan_in', [
    (CONV(64, (1, 7, 7)), (1, 1, 8, 8, 3), 147), (DEPTHWISE((1, 3, 3)), (1, 1, 4, 4, 96), 9),
    (MapDense(50, **TORCH), (1, 4, 3, 16), 192)], ids=('stem', 'depthwise', 'dense'))
def test_everything_starts_as_in_torch(module, x, fan_in):
    """U(-b, b), b = 1 / sqrt(fan in), biases too: a depthwise kernel sees 9 numbers, the first dense layer the whole map."""
    params = module.init(jax.random.key(0), jnp.zeros(x))['params']
    kernel, bias = (np.asarray(params[leaf]) * fan_in**0.5 for leaf in ('kernel', 'bias'))
    assert max(np.abs(kernel).max(), np.abs(bias).max()) <= 1 + 1e-6
    assert np.abs(kernel).max() > 0.98 and abs(kernel.std() - 1 / np.sqrt(3)) < 0.03 and abs(kernel.mean()) < 0.06
    assert np.abs(bias).max() > 0.9 and abs(bias.std() - 1 / np.sqrt(3)) < 0.1


def test_a_block_is_affine_and_its_middle_sees_each_channel_alone(rng):
    x, y = rng.normal(size=(2, 2, 1, 5, 5, 8)).astype('f')
    block = PEPX(16, CONV, DEPTHWISE)
    apply = partial(block.apply, jax.jit(block.init)(jax.random.key(0), x))
    np.testing.assert_allclose(apply(x) + apply(y), apply(x + y) + apply(0 * x), atol=1e-5)
    middle = DEPTHWISE((1, 3, 3))
    weights = middle.init(jax.random.key(1), x)
    moved = middle.apply(weights, x) != middle.apply(weights, x.copy() + np.eye(8, dtype='f')[3])
    assert moved[..., 3].all() and not np.delete(moved, 3, -1).any()


@pytest.mark.parametrize('p33, times', [(True, (1, 1, 1, 1, 1, 1)), (False, (1, 2, 0, 1, 1, 1))])
def test_each_block_of_the_third_level_goes_down_once(rng, p33, times):
    """The blocks of the third level are constants here, and c4 too: what the last block sees of each is its way through p41.
    The authors' code goes twice through p32 and not at all through p33."""
    image = rng.random((1, 64, 64, 3), np.float32)
    net = network('COVIDNetRedesign')(classes=2, width=4, sites=0, stage_sizes=(1, 1, 6, 2), p33=p33, compute=Compute(form='planar'))
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), image)['params']
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype('f') / 4, shapes)
    for constant in ([params[f'p3{j}']['conv5'] for j in range(1, 7)] + [params['c4']]):
        constant['kernel'] *= 0

    def last_block(biases):
        new = {name: {**params[name], 'conv5': {**params[name]['conv5'], 'bias': bias}} for name, bias in biases.items()}
        return jnp.sum(net.apply({'params': {**params, **new}}, image, method='trunk') * np.arange(128))

    ways = jax.jit(jax.grad(last_block))({f'p3{j}': params[f'p3{j}']['conv5']['bias'] for j in range(1, 7)})
    assert np.abs(ways['p31']).max() > 0
    for way, number in zip(ways.values(), times, strict=True):
        np.testing.assert_allclose(way, number * ways['p31'], rtol=0, atol=1e-5 * np.abs(ways['p31']).max())


def test_the_sites_part_in_training_and_a_site_must_be_said(tiny):
    net, variables, image = tiny
    same = jax.tree.map(lambda x: np.ones_like(x), variables['batch_stats'])
    step = jax.jit(partial(net.apply, train=True, mutable=['batch_stats']))
    state = step({**variables, 'batch_stats': same}, image, site=SITE)[1]
    assert len(state['batch_stats']) == 3
    for module in state['batch_stats'].values():
        assert (module['mean'][0] != module['mean'][1]).all() and (module['var'][0] != module['var'][1]).all()
    for method in ({'train': True}, {'method': 'trunk'}):
        with pytest.raises(ValueError, match='2 sites needs the site of each row'):
            net.apply(variables, image, mutable=['batch_stats'], **method)


@pytest.mark.parametrize('head_norm', [False, True])
def test_trunk_and_head_apart_answer_a_known_site_and_refuse_another(tiny, head_norm):
    """NaN, through the head too: an answer of nothing would look like one."""
    net, variables, image = tiny
    net = net.clone(head_norm=head_norm)
    if head_norm:
        shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), image)
        variables = jax.tree_util.tree_map_with_path(partial(drawn, np.random.default_rng(5)), shapes)
    site = np.array([0, -1, 1, 2, 0, 7, -3, 1])
    known = (site == 0) | (site == 1)
    head = jax.jit(partial(net.apply, method='head'))
    x = jax.jit(partial(net.apply, method='trunk'))(variables, image, site=site)
    logits, features = head(variables, x, site=site)
    for answer in (x, logits, features):
        assert np.isnan(answer[~known]).all()
    expected, out = jax.jit(net.apply)(variables, image, site=site)
    np.testing.assert_allclose(logits[known], expected[known], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features[known], out['features'][known], rtol=1e-4, atol=1e-6)
    if head_norm:
        assert np.isnan(head(variables, jnp.ones_like(x), site=site)[0][~known]).all()


@pytest.mark.parametrize('pool', [1, 2, 4])
def test_the_last_block_is_pooled_to_so_many_places(rng, pool):
    x = rng.normal(size=(2, 4, 4, 8)).astype('f')
    net = network('_COVIDNetRedesignTiny')(classes=2, pool=pool)
    (_, features), _ = jax.jit(partial(net.init_with_output, method='head'))(jax.random.key(0), x)
    side = 4 // pool
    np.testing.assert_allclose(features, x.reshape(2, pool, side, pool, side, 8).mean((2, 4)).reshape(2, -1), rtol=1e-5, atol=1e-6)


def test_one_set_of_statistics_is_for_all_whatever_their_site(tiny):
    net, variables, image = tiny
    shared = jax.tree_util.tree_map_with_path(
        lambda path, x: x[:1] if '_norm' in jax.tree_util.keystr(path) else x, variables)
    apply = jax.jit(net.clone(sites=1).apply)
    logits, out = apply(shared, image, site=SITE)
    np.testing.assert_array_equal(out['sites'], 1)
    np.testing.assert_allclose(logits, jax.jit(net.apply)(variables, image, site=0 * SITE)[0], rtol=1e-4, atol=1e-6)


def test_an_unknown_site_is_answered_by_the_mean_of_the_known_ones(tiny):
    net, variables, image = tiny
    classifier = jax.tree.map(lambda x: 40 * x, variables['params']['classifier'])  # the sites differ in their answers
    variables = {**variables, 'params': {**variables['params'], 'classifier': classifier}}
    apply = jax.jit(net.apply)
    alone = [apply(variables, image, site=np.full(8, k)) for k in (0, 1)]
    probabilities = np.mean([nn.softmax(logits) for logits, _ in alone], 0)
    assert np.abs(nn.softmax(np.mean([logits for logits, _ in alone], 0)) - probabilities).max() > 1e-3
    site = np.array([0, -1, 1, 2, 0, 7, -3, 1])
    mixed, out = apply(variables, image, site=site)
    assert apply._cache_size() == 1  # whatever the sites are
    none, out_none = apply(variables, image)
    np.testing.assert_array_equal(out['sites'], [1, 2, 1, 2, 1, 2, 2, 1])
    np.testing.assert_array_equal(out_none['sites'], 2)
    np.testing.assert_allclose(np.exp(none), probabilities, rtol=1e-5)
    for row, k in enumerate(site):
        if k in (0, 1):
            expected = nn.softmax(alone[k][0][row]), alone[k][1]['map'][row]
            np.testing.assert_allclose(mixed[row], alone[k][0][row], rtol=1e-4, atol=1e-6)
        else:
            expected = probabilities[row], np.mean([a[1]['map'][row] for a in alone], 0)
        np.testing.assert_allclose(nn.softmax(mixed[row]), expected[0], rtol=1e-5)
        np.testing.assert_allclose(out['map'][row], expected[1], rtol=1e-4, atol=1e-5)


def test_eight_devices_answer_as_one(tiny):
    net, variables, image = tiny
    mesh = Mesh(np.array(jax.devices()), 'data')
    rows, same = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (['data'], []))
    one = jax.jit(lambda variables, image, site: net.apply(variables, image, site=site))
    eight = jax.jit(one, in_shardings=(same, rows, rows))
    for site in (SITE, np.where(np.arange(8) == 5, -1, SITE)):
        for a, b in zip(*(jax.tree.leaves(f(variables, image, site)) for f in (one, eight)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_scan_of_slices_is_one_line():
    with pytest.raises(UserError, match='takes single images, not 3 slices: set the first of --config.prep.size to 1'):
        network('_COVIDNetTiny')(classes=2).init(jax.random.key(0), np.zeros((1, 3, 16, 16, 1), 'f'))
