import numpy as np
import pytest

from covid_jax.metrics.conformal import bounds, left_open

# What crepes 0.9.1 lets in, class by class (bins) and not smoothed, of the draws below: packed bits of [40, 3].
CREPES = [144, 160, 12, 130, 25, 8, 36, 161, 32, 16, 9, 12, 42, 2, 136]


def test_equals_crepes():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, 60)
    probability = rng.dirichlet([1, 1, 1], 60) * 0.5
    probability[np.arange(60), label] += 0.5
    asked = rng.dirichlet([1, 1, 1], 40)
    found = left_open(asked, bounds(label, probability, 0.9))
    assert np.packbits(found).tolist() == CREPES


def test_nine_exams_promise_nine_tenths_and_eight_nothing():
    """By hand: of nine the least sure one is the bound, of eight there is none."""
    own = np.arange(1, 10) / 10
    probability = np.stack([1 - own, own], 1)
    np.testing.assert_allclose(bounds(np.ones(9, int), probability, 0.9), [-np.inf, 0.1])
    assert bounds(np.ones(8, int), probability[1:], 0.9)[1] == -np.inf
    assert left_open(probability, [-np.inf, 0.1]).all()


@pytest.mark.parametrize('level', [0.8, 0.9])
def test_each_class_keeps_its_promise(level):
    """Of 400 draws of 30 exams of covid and 60 others the mean share of new exams whose class is left open is what was promised, and no
    more than an exam above it."""
    rng = np.random.default_rng(0)

    def draw(each):
        label = np.repeat([0, 1], each)
        odds = rng.normal(np.where(label == 1, 1.0, -0.5), np.where(label == 1, 2.0, 0.7))
        p = 1 / (1 + np.exp(-odds))
        return label, np.stack([1 - p, p], 1)

    shares = []
    for _ in range(400):
        found = bounds(*draw((60, 30)), level)
        label, probability = draw((100, 100))
        kept = left_open(probability, found)[np.arange(200), label]
        shares.append([kept[:100].mean(), kept[100:].mean()])
    mean = np.mean(shares, 0)
    assert (mean > level - 0.005).all()
    assert (mean < level + 1 / 30).all()
