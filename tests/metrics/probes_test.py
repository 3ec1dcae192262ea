import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from covid_jax.metrics import probes


def clouds(rng, n, dim=6, classes=2, apart=1.0):
    label = np.arange(n) % classes
    return rng.normal(size=(n, dim)) * np.linspace(0.1, 30, dim) + apart * np.eye(classes, dim)[label], label


@pytest.mark.parametrize('classes, dim', [(2, 6), (3, 6), (2, 200), (3, 400)])
def test_the_linear_probe_is_scikit_learns_with_the_strength_that_validation_takes(rng, classes, dim):
    """Against a pipeline of its own scaler and regression, of all strengths the best on val."""
    train, val, test = (clouds(rng, n, dim, classes, apart=4.0) for n in (90, 60, 30))
    scaler = StandardScaler().fit(train[0])
    models = [LogisticRegression(C=c, max_iter=5000, tol=1e-9).fit(scaler.transform(train[0]), train[1])
              for c in (1e-4, 1e-3, 1e-2, 1e-1, 1)]
    losses = [log_loss(val[1], model.predict_proba(scaler.transform(val[0]))) for model in models]
    best = models[int(np.argmin(losses))]
    assert 0 < np.argmin(losses)  # the choice matters
    found = probes.linear(*train, *val, classes)(test[0])
    np.testing.assert_allclose(found, best.predict_proba(scaler.transform(test[0])), atol=2e-4)
    blind = models[2].predict_proba(scaler.transform(test[0]))  # C = 0.01
    np.testing.assert_allclose(probes.linear(*train, val[0][:0], [], classes)(test[0]), blind, atol=2e-4)
    np.testing.assert_allclose(probes.linear(*train, val[0][:3], [1, 1, 1], classes)(test[0]), blind, atol=2e-4)


def test_units_and_columns_that_are_constant_change_nothing(rng):
    train, val, test = (clouds(rng, n) for n in (60, 40, 20))

    def changed(x):
        return np.concatenate([x * 1000 + 7, np.full((len(x), 1), 0.1), np.zeros((len(x), 1))], 1)

    plain = probes.linear(*train, *val, 2)(test[0])
    np.testing.assert_allclose(probes.linear(changed(train[0]), train[1], changed(val[0]), val[1], 2)(changed(test[0])), plain,
                               atol=1e-4)


def test_features_that_say_nothing_give_the_shares_of_the_classes():
    p = probes.linear(np.ones((8, 3)), [0, 0, 0, 0, 0, 0, 1, 1], np.ones((2, 3)), [0, 1], 2)(np.ones((2, 3)))
    np.testing.assert_allclose(p, [[0.75, 0.25]] * 2, atol=1e-4)


def test_a_class_that_was_not_learnt_has_probability_zero(rng):
    x, label = clouds(rng, 30)
    for probe in (probes.linear(x, 2 * label, x, 2 * label, 4), probes.knn(x, 2 * label, 4)):
        p = probe(x)
        assert p.shape == (30, 4) and not p[:, [1, 3]].any()
        np.testing.assert_allclose(p.sum(1), 1)
        assert probe(x[:0]).shape == (0, 4)


def test_one_class_is_no_probe():
    with pytest.raises(ValueError, match='fewer than two classes'):
        probes.linear(np.eye(3), [1, 1, 1], np.eye(3), [0, 1, 1], 2)


def test_two_neighbours_by_hand():
    """Cosines 1 and 0.6 to a row along the first axis; the third, at 0, is not asked. exp(1 / 0.07) : exp(0.6 / 0.07)."""
    p = probes.knn([[3.0, 0.0], [0.6, 0.8], [0.0, 5.0]], [1, 0, 0], 2, k=2)(np.array([[2.0, 0.0]]))
    assert p[0, 0] / p[0, 1] == pytest.approx(np.exp(-0.4 / 0.07))


def test_the_neighbours_are_scikit_learns(rng):
    x, label = clouds(rng, 120, classes=3, apart=20)
    test, _ = clouds(rng, 1100, classes=3, apart=20)  # of more than a block
    outside = KNeighborsClassifier(20, metric='cosine', weights=lambda distance: np.exp((1 - distance) / 0.07)).fit(x, label)
    np.testing.assert_allclose(probes.knn(x, label, 3)(test), outside.predict_proba(test), atol=1e-9)


def test_of_few_rows_all_vote():
    p = probes.knn(np.ones((3, 2)), [0, 1, 1], 2)(np.array([[5.0, 5.0], [0.0, 0.0]]))
    np.testing.assert_allclose(p, [[1 / 3, 2 / 3]] * 2)
