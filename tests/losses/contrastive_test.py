import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from covid_jax.losses.contrastive import info_nce, label_pairs, nt_xent, supcon

SUPCON = jax.jit(supcon, static_argnums=(2, 3), static_argnames=('temperature', 'base_temperature'))
NT_XENT = jax.jit(nt_xent, static_argnums=1)
ANGLES = np.deg2rad([0, 90, 30, 150])  # view 1 of scans 0 and 1, view 2 of scans 0 and 1
Z = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1).astype('f')
LABEL = np.array([0, 1, 0, 1])


@pytest.mark.parametrize('label,kwargs,expected', [
    (LABEL, {'temperature': 0.1}, 0.1805330),
    (LABEL, {'temperature': 0.1, 'base_temperature': 0.07}, 0.2579044),
    (LABEL, {'temperature': 0.5}, 0.4173732),
    (LABEL * 0, {'temperature': 0.1}, 6.1773267),
])
def test_oracles(label, kwargs, expected):
    np.testing.assert_allclose(SUPCON(Z, label, **kwargs).mean(), expected, rtol=2e-6)


def by_loops(z, label, temperature):
    """Eq 2 word for word, in float64."""
    n = len(z)
    total = []
    for i in range(n):
        positives = [j for j in range(n) if j != i and label[j] == label[i]]
        denominator = sum(np.exp(z[i] @ z[k] / temperature) for k in range(n) if k != i)
        total.append(-sum(np.log(np.exp(z[i] @ z[j] / temperature) / denominator) for j in positives) / len(positives))
    return np.array(total)


def test_value_and_gradient_equal_the_loops(rng):
    z = rng.normal(size=(8, 5))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    label = np.array([0, 0, 1, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(SUPCON(z, label, 0.2), by_loops(z, label, 0.2), rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda z: supcon(z, label, 0.2).mean()))(z.astype('f'))
    step = 1e-5
    for i, j in np.ndindex(z.shape):
        up = z.copy()
        down = z.copy()
        up[i, j] += step
        down[i, j] -= step
        slope = (by_loops(up, label, 0.2).mean() - by_loops(down, label, 0.2).mean()) / (2 * step)
        np.testing.assert_allclose(gradient[i, j], slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('temperature, expected', [(0.1, 0.1805330), (0.5, 0.4173732)])
def test_nt_xent_oracles(temperature, expected):
    """Of interleaved views; of those of one scan there is nothing to be told."""
    views = Z[[0, 2, 1, 3]]
    np.testing.assert_allclose(NT_XENT(views, temperature).mean(), expected, rtol=2e-6)
    np.testing.assert_array_equal(NT_XENT(views[:2], temperature), 0)


@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_nt_xent_and_its_gradient_equal_optax(rng, temperature):
    """Which normalises by itself: through our rows of unit length both have one gradient."""
    z = rng.normal(size=(12, 4)).astype('f')
    label = np.arange(12) // 2

    def ours(z):
        return nt_xent(z / jnp.linalg.norm(z, axis=1, keepdims=True), temperature).mean()

    value, slope = jax.jit(jax.value_and_grad(ours))(z)
    expected, theirs = jax.jit(jax.value_and_grad(lambda z: optax.losses.ntxent(z, label, temperature)))(z)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('temperature, value, slope', [
    (0.1, 4.06472969, (0.76427007, -0.63681197, -0.24167831, -0.24253148)),
    (0.5, 2.11950183, (0.09206329, -0.10072120, -0.03644420, -0.01469217))])
def test_nt_xent_as_pytorch_metric_learning_has_it(temperature, value, slope):
    """Recorded: NTXentLoss of version 2.9.0, and its gradient by the first row."""
    z = np.random.default_rng(0).normal(size=(12, 4)).astype('f')

    def ours(z):
        return nt_xent(z / jnp.linalg.norm(z, axis=1, keepdims=True), temperature).mean()

    found, gradient = jax.jit(jax.value_and_grad(ours))(z)
    np.testing.assert_allclose(found, value, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], slope, rtol=1e-4)


def test_nt_xent_computes_bfloat16_rows_in_float32(rng):
    z = rng.normal(size=(8, 64)).astype('f')
    z = jnp.asarray(z / np.linalg.norm(z, axis=1, keepdims=True), 'bfloat16')
    found = NT_XENT(z, 0.05)
    assert found.dtype == 'float32'
    np.testing.assert_allclose(found, NT_XENT(z.astype('f'), 0.05), rtol=1e-6)


def test_floor_of_collapsed_classes_and_an_anchor_without_positive():
    z = np.array([[1, 0], [1, 0], [-1, 0], [-1, 0]], 'f').repeat(2, 0)  # 4 + 4 views, classes collapsed and opposite
    np.testing.assert_allclose(SUPCON(z, np.repeat([0, 1], 4), 0.01), np.log(3), rtol=1e-5)
    alone = np.array([0, 1, 0, 2])
    assert SUPCON(Z, alone)[1] == 0
    assert np.isfinite(jax.jit(jax.grad(lambda z: supcon(z, alone).sum()))(Z)).all()


def test_order_of_rows_does_not_matter(rng):
    order = rng.permutation(4)
    np.testing.assert_allclose(SUPCON(Z[order], LABEL[order]), SUPCON(Z, LABEL)[order], rtol=1e-5)


@jax.jit
def mean_of_pairs(z, label, temperature):
    values, pair = label_pairs(z / jnp.linalg.norm(z, axis=1, keepdims=True), label, temperature)
    return values.sum() / jnp.maximum(pair.sum(), 1)


@pytest.mark.parametrize('label, temperature, pairs, expected', [
    ([0, 1, 0, 1], 0.05, 4, 0.1734579), ([0, 1, 0, 1], 0.5, 4, 0.4173732),
    ([0, 0, 0, 1], 0.05, 6, 1.7821988), ([0, 0, 0, 1], 0.5, 6, 0.3983525), ([1, 1, 1, 1], 0.05, 12, 0), ([0, 1, 2, 3], 0.05, 0, 0)])
def test_label_pairs_oracles(label, temperature, pairs, expected):
    """With the other classes alone below the line the first two would be -11.16 and -0.867."""
    np.testing.assert_allclose(mean_of_pairs(Z, np.array(label), temperature), expected, rtol=2e-6)
    values, pair = label_pairs(Z, np.array(label), temperature)
    assert pair.sum() == pairs and (np.asarray(values)[~pair] == 0).all()


@pytest.mark.parametrize('label, temperature, value, slope', [
    ('010011011001', 0.05, 14.1874523, (0.96248305, 0.74590451, -0.23036146, 1.19211829)),
    ('010011011001', 0.5, 2.43374538, (0.02095632, 0.12688082, -0.01218739, 0.20907335)),
    ('012011021001', 0.05, 12.7732868, (0.95696944, -0.25233352, -0.46273732, 1.36027634)),
    ('000000000001', 0.5, 1.02677751, (0.09755967, -0.04409092, -0.03834888, 0.06166522)),
    ('000000000000', 0.05, 0, (0, 0, 0, 0))])
def test_label_pairs_as_pytorch_metric_learning_has_them(label, temperature, value, slope):
    """Recorded: NTXentLoss of version 2.9.0 with these labels, and its gradient by the first row."""
    z = np.random.default_rng(0).normal(size=(12, 4)).astype('f')
    found, gradient = jax.jit(jax.value_and_grad(mean_of_pairs))(z, np.array([*map(int, label)]), temperature)
    np.testing.assert_allclose(found, value, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], slope, rtol=1e-4)


@pytest.mark.parametrize('temperature, expected', [(0.2, 0.0124328), (0.07, 3.5917e-6)])
def test_info_nce_oracles(temperature, expected):
    """Without the temperature in the sum, as Self-Trans prints it, the first would be 0.0168553."""
    query = np.array([[1., 0]], 'f')
    key = np.array([[np.cos(0.5), np.sin(0.5)]], 'f')
    queue = np.array([[0., 1], [-1, 0]], 'f')
    loss, nearest = info_nce(query, key, queue, temperature)
    np.testing.assert_allclose(loss, [expected], rtol=1e-5)
    assert nearest.tolist() == [True]
    assert info_nce(query, key, np.array([[1., 0]], 'f'))[1].tolist() == [False]


def test_info_nce_is_cross_entropy_of_the_first_of_all_by_the_temperature(rng):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rng.normal(size=(n, 6)) for n in (5, 5, 12))]
    query, key, queue = unit
    loss, nearest = info_nce(*(x.astype('f') for x in unit), 0.1)
    for i in range(5):
        logits = np.array([query[i] @ key[i], *(queue @ query[i])]) / 0.1
        np.testing.assert_allclose(loss[i], np.log(np.exp(logits).sum()) - logits[0], rtol=1e-4)
        assert nearest[i] == (logits.argmax() == 0)
