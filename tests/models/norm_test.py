"""Batch normalisation, and that by site against one batch normalisation for each site's rows;
and by group against one for each group's rows."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from covid_jax.models.norm import BatchNorm, DomainBatchNorm

SITE = np.array([2, 0, 0, 2, 2, 0, 2, 2], np.int32)  # of the three sites, site 1 has no row
SEEN = np.array([0, 2])
GROUP = np.array([3, 0, 0, 3, 1, 1, 3, 0])  # of five groups, groups 2 and 4 have no row


def start(rng, sites, channels):
    return {'params': {'scale': rng.uniform(0.5, 2, (sites, channels)).astype('f'),
                       'bias': rng.normal(size=(sites, channels)).astype('f')},
            'batch_stats': {'mean': rng.normal(size=(sites, channels)).astype('f'),
                            'var': rng.uniform(1, 2, (sites, channels)).astype('f')}}


def train(variables, x, site, **fields):
    sites = len(variables['params']['scale'])
    step = jax.jit(partial(DomainBatchNorm(sites, False, **fields).apply, mutable=['batch_stats']))
    y, state = step(variables, x, site=site)
    return y, state['batch_stats']


def by_hand(x, mean, var, scale, bias, epsilon=1e-5):
    return (x - mean) / np.sqrt(var + epsilon) * scale + bias


@pytest.mark.parametrize('space', [(), (5, 6), (2, 3, 4)], ids=str)
def test_each_site_is_normalised_as_if_it_were_alone(rng, space):
    x = (rng.normal(size=(8, *space, 5)) * (1 + SITE.reshape(-1, *(1,) * (len(space) + 1))) + 3).astype('f')
    variables = start(rng, 3, 5)
    p, s = variables.values()
    axes = tuple(range(len(space) + 1))
    y, after = train(variables, x, SITE)
    assert y.shape == x.shape and y.dtype == np.float32
    running = DomainBatchNorm(3, True).apply(variables, x, site=SITE)
    for i in SEEN:
        rows = x[i == SITE].astype(np.float64)
        mean = rows.mean(axes)
        var = rows.var(axes)
        np.testing.assert_allclose(y[i == SITE], by_hand(rows, mean, var, p['scale'][i], p['bias'][i]), atol=2e-5)
        np.testing.assert_allclose(after['mean'][i], 0.9 * s['mean'][i] + 0.1 * mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(after['var'][i], 0.9 * s['var'][i] + 0.1 * var, rtol=1e-5)
        own = by_hand(rows, s['mean'][i], s['var'][i], p['scale'][i], p['bias'][i])
        np.testing.assert_allclose(running[i == SITE], own, atol=2e-5)


def test_running_statistics_of_two_numbers():
    """Site 0 sees 1 and 3 (mean 2, variance 1), site 1 sees 10 and 30 (mean 20, variance 100)."""
    variables = DomainBatchNorm(2, False).init(jax.random.key(0), jnp.zeros((1, 1)))
    x = np.array([[10.0], [1.0], [30.0], [3.0]], np.float32)
    y, after = train(variables, x, np.array([1, 0, 1, 0]))
    np.testing.assert_allclose(y[:, 0], [-1, -1, 1, 1], rtol=1e-4)
    np.testing.assert_allclose(after['mean'], [[0.2], [2.0]], rtol=1e-6)
    np.testing.assert_allclose(after['var'], [[1.0], [10.9]], rtol=1e-6)
    _, fast = train(variables, x, np.array([1, 0, 1, 0]), momentum=0.5)
    np.testing.assert_allclose(fast['var'], [[1.0], [50.5]], rtol=1e-6)
    lazy, _ = train(variables, x, np.array([1, 0, 1, 0]), epsilon=3.0)
    np.testing.assert_allclose(lazy[:, 0], [-10 / np.sqrt(103), -0.5, 10 / np.sqrt(103), 0.5], rtol=1e-6)


def test_a_site_without_a_row_stays_as_it_is(rng):
    x = rng.normal(size=(8, 4, 4, 3)).astype('f')
    variables = start(rng, 3, 3)
    weight = rng.normal(size=x.shape).astype('f')

    def loss(params):
        y, state = DomainBatchNorm(3, False).apply({**variables, 'params': params}, x, site=SITE, mutable=['batch_stats'])
        return jnp.sum(y * weight), state['batch_stats']

    gradient, after = jax.grad(loss, has_aux=True)(variables['params'])
    for name in ('mean', 'var'):
        np.testing.assert_array_equal(after[name][1], variables['batch_stats'][name][1])
        assert np.isfinite(after[name]).all() and (after[name][SEEN] != variables['batch_stats'][name][SEEN]).all()
    for g in gradient.values():
        np.testing.assert_array_equal(g[1], 0)
        assert np.isfinite(g).all() and (g[SEEN] != 0).all()


def test_a_row_of_a_site_that_is_none_counts_nowhere(rng):
    x = rng.normal(size=(8, 4, 3)).astype('f')
    variables = start(rng, 3, 3)
    expected, after = train(variables, x, SITE)
    more = np.concatenate([x[:3], 100 + x[:1], x[3:], 100 + x[:1]])
    y, after_more = train(variables, more, np.concatenate([SITE[:3], [-1], SITE[3:], [3]]))
    np.testing.assert_allclose(np.delete(y, [3, 9], 0), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[np.array([3, 9])], 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after_more, after)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_one_site_is_batch_normalisation(rng, dtype):
    x = jnp.asarray(3 + 2 * rng.normal(size=(8, 3, 5, 6, 4)), dtype)
    variables = start(rng, 1, 4)
    plain = jax.tree.map(lambda t: t[0], variables)
    for running in (False, True):
        y, after = DomainBatchNorm(1, running, dtype=dtype).apply(variables, x, site=0 * SITE, mutable=['batch_stats'])
        expected, state = BatchNorm(running, dtype=dtype).apply(plain, x, mutable=['batch_stats'])
        assert y.dtype == dtype
        np.testing.assert_allclose(y.astype('f'), expected.astype('f'), atol=2e-5 if dtype == 'float32' else 0.03)
        for name in after['batch_stats']:
            np.testing.assert_allclose(after['batch_stats'][name][0], state['batch_stats'][name], rtol=1e-5)


def test_rows_that_are_alike_are_normalised_by_what_they_differ(rng):
    """Of one number each, as behind a mean over space: 100 and a tenth, where one pass in float32 leaves only rounding."""
    x = rng.normal(100, 0.1, (8, 1, 1, 1, 16)).astype('f')
    y, state = BatchNorm(False).init_with_output(jax.random.key(0), x)
    exact = (x - x.mean(0, dtype='d')) / np.sqrt(x.var(0, dtype='d') + 1e-5)
    np.testing.assert_allclose(y, exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize('space, joined', [((), True), ((5, 6), False), ((2, 3, 4), True)], ids=str)
def test_each_group_is_normalised_as_if_it_were_a_batch_of_its_own(rng, space, joined):
    """Values, gradients, and the running statistics: the mean of what they would become by each group."""
    x = (rng.normal(size=(8, *space, 5)) * (1 + GROUP.reshape(-1, *(1,) * (len(space) + 1))) + 3).astype('f')
    weight = rng.normal(size=x.shape).astype('f')
    variables = jax.tree.map(lambda t: t[0], start(rng, 1, 5))

    @jax.jit
    def step(x, weight, group=None):
        def loss(params, x):
            pieces = [x] if joined else jnp.split(x, [2], -1)
            y, state = BatchNorm(False).apply({**variables, 'params': params}, *pieces, group=group, mutable=['batch_stats'])
            y = y if joined else jnp.concatenate(y, -1)
            return jnp.sum(y * weight), (y, state['batch_stats'])

        gradients, (y, state) = jax.grad(loss, (0, 1), has_aux=True)(variables['params'], x)
        return y, gradients[1], gradients[0], state

    y, dx, *totals = step(x, weight, np.eye(5, dtype='f')[GROUP])
    apart = {i: step(x[i == GROUP], weight[i == GROUP]) for i in (0, 1, 3)}
    for i, (own, own_dx, *_) in apart.items():
        np.testing.assert_allclose(y[i == GROUP], own, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(dx[i == GROUP], own_dx, rtol=1e-3, atol=1e-4)
    for given, combine, place in zip(totals, (sum, lambda trees: np.mean(list(trees), 0)), (2, 3), strict=True):
        for name, leaf in given.items():
            np.testing.assert_allclose(leaf, combine([one[place][name] for one in apart.values()]), rtol=1e-4, atol=1e-4)


def test_running_statistics_of_two_groups_of_two_numbers():
    """Means 2 and 20, variances 1 and 100: the running ones move by 11 and 50.5, by another tenth with another momentum."""
    x = np.array([[10.0], [1.0], [30.0], [3.0]], np.float32)
    group = jax.nn.one_hot(np.array([1, 0, 1, 0]), 2)
    variables = BatchNorm(False).init(jax.random.key(0), x, group=group)
    y, state = BatchNorm(False).apply(variables, x, group=group, mutable=['batch_stats'])
    np.testing.assert_allclose(y[:, 0], [-1, -1, 1, 1], rtol=1e-4)
    np.testing.assert_allclose(state['batch_stats']['mean'], [1.1], rtol=1e-6)
    np.testing.assert_allclose(state['batch_stats']['var'], [0.9 + 5.05], rtol=1e-6)
    evaluated = BatchNorm(True).apply(variables, x, group=group)
    np.testing.assert_array_equal(evaluated, BatchNorm(True).apply(variables, x))


def test_one_group_of_all_rows_is_batch_normalisation_in_bfloat16_too(rng):
    for dtype, atol in (('float32', 2e-5), ('bfloat16', 0.03)):
        x = jnp.asarray(3 + 2 * rng.normal(size=(8, 3, 5, 6, 4)), dtype)
        variables = BatchNorm(False).init(jax.random.key(0), x)
        (y, after), (expected, state) = (BatchNorm(False, dtype=dtype).apply(variables, x, group=group, mutable=['batch_stats'])
                                         for group in (np.ones((8, 1), 'f'), None))
        assert y.dtype == dtype
        np.testing.assert_allclose(y.astype('f'), expected.astype('f'), atol=atol)
        for name, leaf in after['batch_stats'].items():
            assert leaf.dtype == np.float32
            np.testing.assert_allclose(leaf, state['batch_stats'][name], rtol=1e-5)


def test_groups_on_eight_devices_meet_as_statistics_alone(rng):
    """One row a device; what is reduced over devices is [groups, channels] at most."""
    x, weight = rng.normal(size=(2, 8, 6, 6, 3)).astype('f')
    variables = BatchNorm(False).init(jax.random.key(0), x)

    def step(variables, x, group):
        def loss(params, x):
            member = jax.nn.one_hot(group, 5)
            y, state = BatchNorm(False).apply({**variables, 'params': params}, x, group=member, mutable=['batch_stats'])
            return jnp.sum(y * weight), state
        return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables['params'], x)

    mesh = Mesh(np.array(jax.devices()), 'data')
    rows, same = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (['data'], []))
    out = (((same, same), (same, rows)))
    many = jax.jit(step, in_shardings=(same, rows, rows), out_shardings=out)
    for a, b in zip(*(jax.tree.leaves(f(variables, x, GROUP)) for f in (jax.jit(step), many)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())
    text = many.lower(variables, x, GROUP).compile().as_text()
    assert not any(name in text for name in ('all-gather', 'all-to-all', 'collective-permute'))
    reduced = [line.split(' all-reduce(')[0] for line in text.splitlines() if ' all-reduce(' in line]
    sizes = [np.prod([int(n) for n in dims.split(',') if n]) for line in reduced for dims in re.findall(r'f32\[([\d,]*)\]', line)]
    assert sizes and max(sizes) <= 5 * 3


def test_by_site_too_pieces_are_normalised_as_the_whole(rng):
    x = rng.normal(size=(8, 4, 4, 5)).astype('f')
    variables = start(rng, 3, 5)
    expected, after = train(variables, x, SITE)
    pieces, state = DomainBatchNorm(3, False).apply(variables, *jnp.split(x, [2], -1), site=SITE, mutable=['batch_stats'])
    np.testing.assert_allclose(jnp.concatenate(pieces, -1), expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state['batch_stats'], after)


def test_what_a_normalisation_by_site_cannot_do_is_said(rng):
    x = rng.normal(size=(8, 3)).astype('f')
    variables = start(rng, 3, 3)
    with pytest.raises(ValueError, match='3 sites needs the site of each row'):
        DomainBatchNorm(3, True).apply(variables, x)
    with pytest.raises(ValueError, match='by site has no groups'):
        DomainBatchNorm(3, False).apply(variables, x, site=SITE, group=np.ones((8, 1)), mutable=['batch_stats'])


def test_the_statistics_of_eight_devices_are_those_of_the_whole_batch(rng):
    """Two rows a device, and the rows of each device about a mean of their own."""
    x = (rng.normal(size=(16, 4, 4, 3)) + np.arange(16).reshape(-1, 1, 1, 1) // 2).astype('f')
    rows = NamedSharding(Mesh(np.array(jax.devices()), 'data'), PartitionSpec('data'))
    norm = BatchNorm(False)
    variables = norm.init(jax.random.key(0), x)
    run = jax.jit(lambda x: norm.apply(variables, x, mutable=['batch_stats'])[0], in_shardings=rows)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(run(x), by_hand(x, mean, var, 1, 0), atol=1e-4)
