import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from covid_jax.losses.classification import cross_entropy, focal, ohem


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
    """Where bfloat16 has 8 bits: log 2 would be 0.691."""
    logits = np.array([[300.0, 0.0], [0.0, 0.0]], 'bfloat16')
    target = np.array([[0.0, 1.0], [0.0, 1.0]])
    for loss, expected in ((cross_entropy(logits, target), [300, np.log(2)]), (focal(logits, target), [75, np.log(2) / 16])):
        assert loss.dtype == np.float32
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_focal_by_hand():
    """p = 3/4: of COVID 1/4 (1/4)^2 log 4/3, of the other class 3/4 (3/4)^2 log 4; of a mixed target its shares of both."""
    logits = np.log([[1.0, 3.0], [1.0, 3.0], [1.0, 3.0]])
    target = np.array([[0.0, 1.0], [1.0, 0.0], [0.4, 0.6]])
    covid = np.log(4 / 3) / 64
    other = 27 / 64 * np.log(4)
    np.testing.assert_allclose(focal(logits, target), [covid, other, 0.4 * other + 0.6 * covid], rtol=1e-5)


@pytest.mark.parametrize('gamma, alpha', [(2.0, 0.25), (0.0, 0.75), (0.5, 0.25), (5.0, 0.1)])
def test_focal_of_two_classes_is_optaxs_of_the_difference_of_logits(rng, gamma, alpha):
    """Its value and its gradient."""
    logits = jnp.array(3 * rng.normal(size=(40, 2)), jnp.float32)
    label = rng.integers(0, 2, 40)

    def ours(z):
        return focal(z, jax.nn.one_hot(label, 2), gamma, alpha)

    def theirs(z):
        return optax.losses.sigmoid_focal_loss(z[:, 1] - z[:, 0], label, alpha=alpha, gamma=gamma)

    (value, pull), (expected, pull_expected) = (jax.vjp(jax.jit(f), logits) for f in (ours, theirs))
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-7)
    ones = jnp.ones(40)
    np.testing.assert_allclose(pull(ones)[0], pull_expected(ones)[0], rtol=1e-4, atol=1e-7)


def test_focal_of_three_classes(rng):
    """Against the sum as it stands, in float64. Without a gamma, and alpha a half, it is half the cross entropy."""
    logits = rng.normal(size=(20, 3))
    target = rng.dirichlet(np.ones(3), 20)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -(target * [0.9, 0.1, 0.9] * (1 - p)**1.5 * np.log(p)).sum(1)
    np.testing.assert_allclose(focal(logits, target, 1.5, 0.1), expected, rtol=1e-5)
    np.testing.assert_allclose(focal(logits, target, 0.0, 0.5), cross_entropy(logits, target) / 2, rtol=1e-5)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize('classes', [2, 3])
def test_focal_where_the_softmax_is_0_or_1(gamma, classes):
    """By a margin of 200 nothing is left to learn of the right class, and the wrong one has the slope of cross entropy."""
    logits = jnp.zeros((2, classes)).at[:, 1].set(200.0)
    target = jax.nn.one_hot(jnp.array([1, 0]), classes)
    loss, pull = jax.vjp(jax.jit(lambda z: focal(z, target, gamma, 0.25)), logits)
    np.testing.assert_allclose(loss, [0, 0.75 * 200], rtol=1e-6)
    np.testing.assert_allclose(pull(jnp.ones(2))[0][:, :2], [[0, 0], [-0.75, 0.75]], atol=1e-6)


def test_ohem_takes_the_largest_and_of_equal_ones_the_first():
    weights = [ohem(jnp.array(losses), keep).tolist() for losses, keep in (
        ([1.0, 4.0, 2.0, 3.0], 0.5), ([1.0, 2.0, 2.0, 2.0, 0.0], 0.4), ([0.0] * 5, 0.5), ([-1.0, -3.0, -2.0], 1.0), ([5.0, 6.0], 0.01))]
    assert weights == [[0, 1, 0, 1], [0, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1], [0, 1]]


@pytest.mark.parametrize('n, keep, kept', [(20, 0.55, 11), (100, 0.07, 7), (8, 0.5, 4), (9, 0.5, 5), (10, 0.01, 1), (10, 1.0, 10), (3, 1, 3)])
def test_ohem_keeps_its_share_and_no_row_more(n, keep, kept):
    """ceil(keep n) of the decimal number that was written, also where no loss is larger than another."""
    for losses in (jnp.zeros(n), jnp.arange(n) % 2.0, jnp.full(n, 0.1)):
        weight = ohem(losses, keep)
        assert weight.dtype == np.float32 and weight.sum() == kept and set(weight.tolist()) <= {0, 1}


def test_a_loss_that_is_not_a_number_is_not_hidden():
    assert ohem(jnp.array([3.0, jnp.nan, 1.0]), 0.3).tolist() == [0, 1, 0]


def test_the_gradient_of_the_hardest(rng):
    """Exactly 0 on the rows that are left out, and on the others that of the mean over all, n / k times."""
    logits = jnp.array(rng.normal(size=(10, 3)), jnp.float32)
    target = jax.nn.one_hot(rng.integers(0, 3, 10), 3)

    def hardest(z):
        losses = cross_entropy(z, target)
        weight = ohem(losses, 0.4)
        return jnp.sum(losses * weight) / jnp.sum(weight)

    found = np.asarray(jax.jit(jax.grad(hardest))(logits))
    plain = jax.grad(lambda z: cross_entropy(z, target).mean())(logits)
    kept = np.sort(np.argsort(cross_entropy(logits, target))[-4:])
    assert np.flatnonzero((found != 0).any(1)).tolist() == kept.tolist()
    np.testing.assert_allclose(found[kept], plain[kept] * 10 / 4, rtol=1e-5)
