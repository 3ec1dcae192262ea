from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.models import network
from covid_jax.models.adapters import SeriesAdapter, SiteConv
from covid_jax.models.compute import Compute
from covid_jax.models.norm import DomainBatchNorm

SITE = np.array([0, 1, 1, 0, 1, 2], np.int32)
WITH = {'series': {'norm': partial(SeriesAdapter, 2)}, 'parallel': {'adapter': partial(SiteConv, sites=2)}}


def test_each_site_has_a_convolution_of_its_own(rng):
    x = rng.normal(size=(6, 1, 5, 4, 3)).astype('f')
    conv = SiteConv(7, (1, 2, 2), sites=2)
    params = conv.init(jax.random.key(0), x, SITE)['params']
    assert params['kernel'].shape == (2, 3, 7) and not params['kernel'].any()
    kernel = rng.normal(size=(2, 3, 7)).astype('f')
    y = conv.apply({'params': {'kernel': kernel}}, x, SITE)
    assert y.shape == (6, 1, 3, 2, 7)
    for row, site in enumerate(SITE[:5]):
        np.testing.assert_allclose(y[row], x[row, :, ::2, ::2] @ kernel[site], rtol=1e-4, atol=1e-5)
    assert not y[5].any()  # of a site that is none of them


def test_a_series_adapter_by_hand(rng):
    """y + conv(norm(y)), normalised, in the rows of each site alone."""
    x = rng.normal(size=(4, 1, 3, 3, 2)).astype('f')
    site = np.array([1, 0, 1, 0])
    layer = SeriesAdapter(2, use_running_average=False)
    params = layer.init(jax.random.key(0), x, site)['params']
    params['adapter']['kernel'] = rng.normal(size=(2, 2, 2)).astype('f')
    y, _ = layer.apply({'params': params}, x, site, mutable=['batch_stats'])

    def normalised(x):
        return (x - x.mean((0, 1, 2, 3))) / np.sqrt(x.var((0, 1, 2, 3)) + 1e-5)

    for k in range(2):
        mine = x[site == k]
        np.testing.assert_allclose(y[site == k], normalised(mine + normalised(mine) @ params['adapter']['kernel'][k]), atol=1e-5)


def drawn(shapes, rng):
    def leaf(path, x):
        kernel = path[-1].key == 'kernel'
        return rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape).astype('f') if kernel else np.full(x.shape, path[-1].key != 'bias', 'f')

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def only_adapters(tree):
    named = ((jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_leaves_with_path(tree))
    return {name: x for name, x in named if 'adapter' in name}


@pytest.mark.parametrize('kind', WITH)
def test_at_the_start_a_network_with_adapters_is_the_network_without(rng, kind):
    """The parallel one with the same numbers; of a series adapter the second normalisation is the plain network's."""
    image = rng.random((4, 16, 16, 3), np.float32)
    site = np.array([0, 1, 1, 0])
    plain, adapted = (network('_COVIDNetRedesignTiny')(classes=2, compute=Compute(form='planar', **how)) for how in ({}, WITH[kind]))
    variables = drawn(jax.eval_shape(plain.init, jax.random.key(0), image), rng)
    started = drawn(jax.eval_shape(adapted.init, jax.random.key(0), image), rng)
    began = jax.jit(lambda: only_adapters(adapted.init(jax.random.key(0), image)))()  # all else takes long to compile
    started = jax.tree_util.tree_map_with_path(lambda path, x: began.get(jax.tree_util.keystr(path), x), started)
    more = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(started['params'])}
    more -= {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables['params'])}
    assert len({name for name in more if 'kernel' in name}) == 3  # the stem, c1 and c2 of the tiny network
    params = dict(started['params'])
    for name, own in variables['params'].items():
        params[name] = {**params[name], 'norm': own} if kind == 'series' and name.endswith('_norm') else own
    outputs = []
    for net, p in ((plain, variables['params']), (adapted, params)):
        apply = partial(net.apply, train=True, mutable=['batch_stats'])
        (logits, _), _ = jax.jit(apply)({**(variables if net is plain else started), 'params': p}, image, site=site)
        outputs.append(logits)
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-6)


def test_an_adapter_learns_at_the_first_step(rng):
    x = rng.normal(size=(6, 1, 2, 2, 3)).astype('f')
    conv = SiteConv(4, sites=3)
    slope = jax.grad(lambda params: jnp.sum(conv.apply({'params': params}, x, SITE) ** 2 + conv.apply({'params': params}, x, SITE)))(
        conv.init(jax.random.key(0), x, SITE)['params'])['kernel']
    assert all(np.abs(of_site).max() > 0 for of_site in slope)


def test_the_statistics_of_a_series_adapter_are_those_of_its_site(rng):
    x = rng.normal(size=(6, 1, 2, 2, 3)).astype('f')
    layer = SeriesAdapter(3, use_running_average=False)
    variables = layer.init(jax.random.key(0), x, SITE)
    _, state = layer.apply(variables, x, SITE, mutable=['batch_stats'])
    _, expected = DomainBatchNorm(3, use_running_average=False).apply(
        DomainBatchNorm(3, use_running_average=False).init(jax.random.key(0), x, site=SITE), x, site=SITE, mutable=['batch_stats'])
    np.testing.assert_allclose(state['batch_stats']['adapter_norm']['mean'], expected['batch_stats']['mean'], rtol=1e-5)
