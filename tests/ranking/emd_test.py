"""Earth mover's distances against POT, scipy and a linear program, and what any distance must be."""

import jax
import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from covid_jax import UserError
from covid_jax.ranking import emd
from covid_jax.ranking.sinkhorn import sinkhorn_matrix
from covid_jax.runtime.mesh import make_mesh

BINS = 40


def histograms(n, kind, seed=0):
    rng = np.random.default_rng([seed, n])
    if kind == 'random':
        return rng.dirichlet(np.ones(BINS), n) * rng.uniform(0.1, 10, (n, 1))
    if kind == 'sparse':
        return rng.gamma(0.5, size=(n, BINS)) * (rng.random((n, BINS)) < 0.1) + np.eye(BINS)[rng.integers(BINS, size=n)]
    return 3 * np.eye(BINS)[rng.integers(BINS, size=n)]


def off_the_line(n):
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / (n - 1)


def test_by_hand():
    """systems.md, section 10: 1.1 places of 3; as samples 0.05; in no order half of 1.0."""
    p, q = np.array([[0.2, 0.5, 0.3, 0]]), np.array([[0, 0.1, 0.6, 0.3]])
    found = [emd.emd_matrix(p, q, ground).item() for ground in ('index', 'value', 'uniform')]
    np.testing.assert_allclose(found, [1.1 / 3, 0.05, 0.6], atol=1e-7)


@pytest.mark.parametrize('kind', ['random', 'sparse', 'one-hot'])
@pytest.mark.parametrize('n, m', [(3, 70), (70, 3)])
def test_distances_are_those_of_pot_and_scipy(kind, n, m):
    p, q = histograms(n, kind), histograms(m, kind, 1)
    masses = [x / x.sum(1, keepdims=True) for x in (p, q)]
    by_pot = np.array([[ot.emd2(a, b, off_the_line(BINS)) for b in masses[1]] for a in masses[0]])
    by_scipy = np.array([[wasserstein_distance(range(BINS), range(BINS), a, b) for b in q] for a in p]) / (BINS - 1)
    found = emd.emd_matrix(p, q)
    assert found.shape == (n, m) and found.dtype == np.float32
    for expected in (by_pot, by_scipy):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())


def test_the_other_ground_distances():
    """Of samples scipy's, of no order POT's with one cost for all that moves."""
    p, q = histograms(5, 'random'), histograms(6, 'sparse')
    of_values = np.array([[wasserstein_distance(a, b) for b in q] for a in p])
    np.testing.assert_allclose(emd.emd_matrix(p, q, 'value'), of_values, rtol=0, atol=1e-5 * of_values.max())
    masses = [x / x.sum(1, keepdims=True) for x in (p, q)]
    uniform = np.array([[ot.emd2(a, b, 1 - np.eye(BINS)) for b in masses[1]] for a in masses[0]])
    np.testing.assert_allclose(emd.emd_matrix(p, q, 'uniform'), uniform, rtol=0, atol=1e-5)


def test_one_device_equals_eight_and_blocks_equal_the_whole(monkeypatch):
    """19 rows, which neither 8 devices nor a block of 4 divide."""
    p, q = histograms(19, 'random'), histograms(5, 'sparse')
    whole = emd.emd_matrix(p, q)
    np.testing.assert_array_equal(emd.emd_matrix(p, q, mesh=make_mesh(jax.devices()[:8])), whole)
    for cells in (20, 1):  # blocks of four rows, and of one
        monkeypatch.setattr(emd, 'CELLS', cells)
        np.testing.assert_array_equal(emd.emd_matrix(p, q), whole)


def by_linear_program(p, q):
    """Eq 3 and 4: the least work over flows of the lighter mass, by that mass."""
    n = len(p)
    cost = off_the_line(n).ravel()
    leaves, arrives = np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))
    least = min(p.sum(), q.sum())
    found = linprog(cost, np.concatenate([leaves, arrives]), np.concatenate([p, q]), np.ones((1, n * n)), [least])
    return found.fun / least


def of_six_bins(kind, seed):
    rng = np.random.default_rng(seed)
    shape = 15, 6
    x = {'small numbers': lambda: rng.integers(0, 4, shape), 'sparse': lambda: rng.integers(0, 9, shape) * (rng.random(shape) < 0.4),
         'real': lambda: rng.gamma(0.5, size=shape) * rng.choice([0.001, 1, 1000], (15, 1))}[kind]()
    return np.where(x.sum(1, keepdims=True), x, np.eye(6)[0]).astype(float)


@pytest.mark.parametrize('kind', ['small numbers', 'sparse', 'real'])
def test_unequal_masses_are_the_linear_programs(kind):
    """225 pairs of 6 bins each: many ties, empty bins, either one the heavier, by up to a million times."""
    p, q = (of_six_bins(kind, seed) for seed in (0, 1))
    expected = np.array([[by_linear_program(a, b) for b in q] for a in p])
    np.testing.assert_allclose(emd.partial_emd_matrix(p, q), expected, rtol=0, atol=1e-5 * expected.max())


def test_of_many_bins_and_masses_far_apart_they_are_pots():
    """512 bins, a thousand times heavier, either one; a bin beside the lighter ones takes what is left over."""
    light, heavy = (np.random.default_rng(seed).dirichlet(np.full(512, 0.1), 3) for seed in (0, 1))
    heavy = 1000 * np.roll(heavy, 100, 1)
    cost = np.concatenate([off_the_line(512), np.zeros((512, 1))], 1)
    expected = np.array([[ot.emd2(b, np.append(a, b.sum() - a.sum()), cost) for b in heavy] for a in light])
    for found in (emd.partial_emd_matrix(light, heavy), emd.partial_emd_matrix(heavy, light).T):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())


def test_where_masses_are_equal_nothing_is_left_over():
    p, q = histograms(4, 'random'), histograms(9, 'sparse')
    masses = [x / x.sum(1, keepdims=True) for x in (p, q)]
    np.testing.assert_allclose(emd.partial_emd_matrix(*masses), emd.emd_matrix(p, q), atol=2e-6)


def test_a_histogram_within_another_is_at_no_distance():
    p = histograms(1, 'random')
    assert emd.partial_emd_matrix(p, p * np.random.default_rng(0).uniform(0, 1, BINS)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('epsilon', [0.1, 0.01])
def test_sinkhorn_is_within_its_gap_of_the_exact(epsilon):
    """Of any ground distance, an unsymmetric one, and of empty bins; never below it, and far from it where epsilon is large."""
    p, q = np.concatenate([histograms(3, 'random'), histograms(2, 'one-hot')]), histograms(4, 'sparse')
    cost = np.random.default_rng(0).uniform(0, 5, (BINS, BINS))
    masses = [x / x.sum(1, keepdims=True) for x in (p, q)]
    exact = np.array([[ot.emd2(a, b, cost) for b in masses[1]] for a in masses[0]])
    found = sinkhorn_matrix(p, q, cost, epsilon)
    above = found.distance - exact
    assert found.converged.all() and (above > -1e-5).all() and (above < found.gap + 1e-5).all()
    assert found.gap.max() < 0.6 * epsilon * cost.max() * np.log(BINS)


def test_sinkhorn_says_where_it_has_not_converged():
    found = sinkhorn_matrix(histograms(2, 'random'), histograms(2, 'sparse'), off_the_line(BINS), 0.001, 10)
    assert not found.converged.any() and (found.gap > 0).all()


SHAPE = 3, 7
MASSES = arrays(np.float64, SHAPE, elements=st.floats(0, 100)).filter(lambda x: (x.sum(1) > 1e-3).all())


@settings(deadline=None, max_examples=200, derandomize=True)
@given(x=MASSES, ground=st.sampled_from(emd.GROUNDS))
def test_a_distance_is_a_metric(x, ground):
    """0 to itself, the same both ways, no longer than by way of a third; of histograms at most 1, whatever their mass."""
    d = emd.emd_matrix(x, x, ground)
    near = 1e-6 * max(1, x.max())
    assert np.abs(np.diag(d)).max() == 0 and (d >= 0).all()
    np.testing.assert_allclose(d, d.T, atol=near)
    assert (d[:, :, None] <= d[:, None] + d.T[None] + near).all()
    if ground != 'value':
        assert d.max() <= 1 + near
        np.testing.assert_allclose(emd.emd_matrix(x, 7 * x, ground), d, atol=1e-6)


@pytest.mark.parametrize('p, q, ground, message', [
    (np.ones((2, 3)), np.ones((2, 4)), 'index', r'same two or more bins; here are arrays of \(2, 3\) and \(2, 4\)'),
    (np.ones(3), np.ones((2, 3)), 'index', 'rows of the same'), (np.ones((2, 1)), np.ones((2, 1)), 'index', 'two or more bins'),
    (np.ones((0, 3)), np.ones((2, 3)), 'index', 'rows of the same'),
    (np.array([[1.0, 1], [1, -1]]), np.ones((2, 2)), 'index', 'row 1 of the first histograms: a histogram has masses of 0 or more'),
    (np.ones((2, 2)), np.array([[1, np.nan]]), 'index', 'row 0 of the second histograms: a histogram has finite masses'),
    (np.array([[1.0, 1], [0, 0]]), np.ones((2, 2)), 'index', 'row 1 of the first histograms: .* all 0'),
    (np.ones((2, 2)), np.ones((2, 2)), 'line', "called 'line': take index, value or uniform")])
def test_what_is_no_histogram_is_one_line(p, q, ground, message):
    with pytest.raises(UserError, match=message):
        emd.emd_matrix(p, q, ground)


@pytest.mark.parametrize('options', [{'epsilon': 0.0}, {'epsilon': np.nan}, {'iterations': 0}])
def test_what_sinkhorn_cannot_do_is_one_line(options):
    with pytest.raises(UserError, match='epsilon above 0 and an iteration'):
        sinkhorn_matrix(np.ones((2, 2)), np.ones((2, 2)), np.eye(2), **options)


@pytest.mark.parametrize('cost', [np.ones((3, 2)), np.zeros((2, 2)), np.array([[0, 1], [-1, 0]]), np.array([[0, np.inf], [1, 0]])])
def test_what_is_no_ground_distance_is_one_line(cost):
    with pytest.raises(UserError, match=r'array of \(2, 2\), finite'):
        sinkhorn_matrix(np.ones((2, 2)), np.ones((2, 2)), cost)
