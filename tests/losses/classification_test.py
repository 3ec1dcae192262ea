import jax
import numpy as np

from covid_jax.losses.classification import cross_entropy


def test_values_by_hand():
    """log(1 + e^-2) for the right class by 2; log 2 for no opinion; half and half of a mixed target."""
    logits = np.array([[2.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    target = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    a = np.log1p(np.exp(-2))
    np.testing.assert_allclose(cross_entropy(logits, target), [a, np.log(2), 0.5 * a + 0.5 * (a + 2)], rtol=1e-6)


def test_no_floor_under_it():
    """Softmax before cross entropy, as the authors' code does, could not fall below 0.3132617 for two classes."""
    probability = np.array([[1.0, 0.0]])
    target = np.array([[1.0, 0.0]])
    np.testing.assert_allclose(cross_entropy(probability, target), 0.3132617, rtol=1e-6)
    assert cross_entropy(probability * 30, target)[0] < 1e-9


def test_gradient_is_softmax_minus_target(rng):
    logits = rng.normal(size=(5, 3))
    target = rng.dirichlet(np.ones(3), 5)
    gradient = jax.grad(lambda x: cross_entropy(x, target).sum())(logits)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(gradient, softmax - target, rtol=1e-4, atol=1e-6)


def test_bfloat16_logits_are_summed_in_float32():
    loss = cross_entropy(np.array([[300.0, 0.0]], 'bfloat16'), np.array([[0.0, 1.0]]))
    assert loss.dtype == np.float32 and abs(loss[0] - 300) < 1e-3
