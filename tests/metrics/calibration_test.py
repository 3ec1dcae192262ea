import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from covid_jax.metrics.calibration import (
    COLDEST,
    brier,
    calibration_metrics,
    ece,
    net_benefit,
    reliability,
    temperature,
    tempered,
)

NAMES = ('noncovid', 'covid')


def two(score):
    score = np.asarray(score, float)
    return np.stack([1 - score, score], 1)


def law(rng, n, sure=1.0):
    """Labels, and scores of log odds that are `sure` times what they should be."""
    odds = rng.normal(size=n) * 2
    return (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(int), 1 / (1 + np.exp(-sure * odds))


def test_ece_by_hand():
    """With 2 bins: scores 0.1, 0.3 of which none is positive are 0.2 off, scores 0.6, 0.7, 0.8 of which 2 are, 0.0333: in all
    (2 * 0.2 + 3 * 0.0333) / 5. With 15 bins each score is alone."""
    label, score = [0, 0, 1, 0, 1], [0.1, 0.3, 0.6, 0.7, 0.8]
    assert ece(label, score, 2) == pytest.approx((0.4 + 0.1) / 5)
    assert ece(label, score) == pytest.approx((0.1 + 0.3 + 0.4 + 0.7 + 0.2) / 5)


def test_ece_is_the_mean_over_bins_written_out(rng):
    label, score = law(rng, 300, 2.0)
    off = 0.0
    for i in range(15):
        inside = (score > i / 15) & (score <= (i + 1) / 15)
        if inside.any():
            off += inside.mean() * abs(label[inside].mean() - score[inside].mean())
    assert ece(label, score) == pytest.approx(off)


def test_bins_are_those_of_scikit_learn(rng):
    """On an edge, too: a score of 0.2 is of the first of 5 bins."""
    label, score = law(rng, 200)
    score[:6] = 0, 0.2, 0.4, 0.6, 0.8, 1
    share, mean = calibration_curve(label, score, n_bins=5)
    found = reliability(label, score, 5)
    np.testing.assert_allclose([found.share, found.probability], [share, mean])
    assert found.exams.sum() == 200
    assert reliability([1], [0.2], 5).exams.tolist() == [1, 0, 0, 0, 0]


def test_brier_is_that_of_scikit_learn(rng):
    label, score = law(rng, 100)
    assert brier(label, score) == pytest.approx(brier_score_loss(label, score))


@pytest.mark.parametrize('sure', [3.0, 0.6])
def test_temperature_is_how_much_too_sure_the_answers_are(rng, sure):
    """Log odds that are 3 times the right ones want a temperature of 3: found to the noise of 20,000 exams."""
    label, score = law(rng, 20000, sure)
    assert temperature(label, two(score)) == pytest.approx(sure, rel=0.05)


def test_temperature_minimises_the_log_loss_of_three_classes(rng):
    """Against scikit-learn's log loss of scipy's softmax, by another search."""
    logits = rng.normal(size=(400, 3)) * 3
    label = np.array([rng.choice(3, p=q) for q in tempered(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1.8)])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    def loss(t):
        scaled = np.exp(logits / t)
        return log_loss(label, scaled / scaled.sum(1, keepdims=True))

    expected = minimize_scalar(loss, bracket=(0.5, 2, 8)).x
    found = temperature(label, p)
    assert found == pytest.approx(expected, rel=1e-3) and 1.2 < found < 2.8
    np.testing.assert_array_equal(tempered(p, found).argmax(1), p.argmax(1))


def test_tempering_by_hand_leaves_order_and_auc():
    """By hand: 0.8 is odds of 4, whose root is 2: at a temperature of 2 it is 2/3; at 1 nothing changes."""
    np.testing.assert_allclose(tempered(two([0.8, 0.5, 0.1]), 2)[:, 1], [2 / 3, 1 / 2, 1 / 4])
    np.testing.assert_allclose(tempered([[0.64, 0.32, 0.04]], 2), [[8 / 15.656854, 5.656854 / 15.656854, 2 / 15.656854]],
                               rtol=1e-6)
    rng = np.random.default_rng(1)
    label, score = law(rng, 80)
    np.testing.assert_allclose(tempered(two(score), 1), two(score), atol=1e-7)
    for t in (0.5, 5.0):
        assert roc_auc_score(label, tempered(two(score), t)[:, 1]) == roc_auc_score(label, score)
    assert np.isfinite(tempered(two([0.0, 1.0]), 0.1)).all()


def test_the_coldest_temperature_keeps_apart_what_predictions_csv_does():
    """Six digits: 0.999998 and 0.999999 are two answers at any temperature that validation can give."""
    score = np.concatenate([np.arange(1, 100) * 1e-6, np.linspace(0.01, 0.99, 99), 1 - np.arange(99, 0, -1) * 1e-6])
    assert (np.diff(tempered(two(score), COLDEST)[:, 1]) > 0).all()


def test_a_temperature_that_has_no_minimum_is_at_its_bound():
    label = np.array([0, 0, 1, 1])
    assert temperature(label, two([0.1, 0.4, 0.6, 0.9])) == pytest.approx(COLDEST, rel=1e-3)
    assert temperature(label, two([0.9, 0.6, 0.4, 0.1])) == pytest.approx(10, rel=1e-3)
    assert temperature([1, 1], two([0.6, 0.9])) is None and temperature([0, 0], two([0.6, 0.9])) is None


def test_net_benefit_by_hand():
    """Ten exams, four positive; at 0.2 three of them and two others are treated: 0.3 - 0.2 * 1/4. At 0 it is that of all."""
    label = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    score = [0.9, 0.5, 0.2, 0.1, 0.8, 0.3, 0.1, 0.1, 0.1, 0.1]
    found = net_benefit(label, score, [0.0, 0.2, 0.5])
    np.testing.assert_allclose(found['model'], [0.4, 0.3 - 0.2 / 4, 0.2 - 0.1])
    np.testing.assert_allclose(found['all'], [0.4, 0.4 - 0.6 / 4, 0.4 - 0.6])
    assert found['none'].tolist() == [0, 0, 0]


def metrics(label, score, patient=None, level=0.95):
    patient = range(len(label)) if patient is None else patient
    return calibration_metrics(label, two(score), list(patient), NAMES, level)


def test_the_interval_of_scores_that_are_right_holds_0_and_that_of_bad_ones_does_not():
    label, score = law(np.random.default_rng(2), 400)
    right = metrics(label, score)['ece']
    assert right['low'] == 0 < right['value'] <= right['high'] and right['level'] == 0.95 and right['n'] == 400
    wrong = metrics(label, 1 - score)['ece']
    assert 0 < wrong['low'] < wrong['value'] <= wrong['high'] <= 1
    assert metrics(label, score) == metrics(label, score)


def test_the_interval_of_one_bin_by_hand():
    """1000 answers of 0.5, 700 of them positive: the error is 0.2, that of a mean with a standard error of 0.0145. Above it lies
    its normal quantile of 0.975, 1.96; below, for noise of either sign, that of 0.9875, 2.24."""
    found = metrics(np.array([1] * 700 + [0] * 300), np.full(1000, 0.5))['ece']
    error = np.sqrt(0.7 * 0.3 / 1000)
    assert found['value'] == pytest.approx(0.2)
    assert (found['low'], found['high']) == pytest.approx((0.2 - 2.24 * error, 0.2 + 1.96 * error), abs=0.002)


def test_the_upper_bound_is_freed_of_the_noise_that_resamples_add():
    """By resamples of another kind of drawing, and `ece` of each: they lie some 0.02 above the value in the mean."""
    rng = np.random.default_rng(2)
    label, score = law(rng, 300)
    eces = [ece(label[rows], score[rows]) for rows in rng.integers(300, size=(1000, 300))]
    excess = np.mean(eces) - ece(label, score)
    assert excess > 0.015
    assert metrics(label, score)['ece']['high'] == pytest.approx(np.quantile(eces, 0.975) - excess, abs=0.005)


def test_brier_interval_is_that_of_a_mean():
    """Of many patients with one exam each: the mean and 1.96 standard errors, near enough."""
    label, score = law(np.random.default_rng(3), 1000)
    found = metrics(label, score)['brier']
    square = (score - label)**2
    error = square.std(ddof=1) / np.sqrt(1000)
    assert (found['low'], found['high']) == pytest.approx((square.mean() - 1.96 * error, square.mean() + 1.96 * error), abs=2e-3)


def test_patients_are_drawn_whole():
    """Nine exams alike of each patient tell no more than one: the same interval; as if independent it would be a third."""
    label, score = law(np.random.default_rng(4), 100)
    one = metrics(label, score)
    many = metrics(np.repeat(label, 9), np.repeat(score, 9), np.repeat(np.arange(100), 9))
    apart = metrics(np.repeat(label, 9), np.repeat(score, 9))
    for name in ('ece', 'brier'):
        assert (many[name]['low'], many[name]['high']) == pytest.approx((one[name]['low'], one[name]['high']))
    width = {name: found['brier']['high'] - found['brier']['low'] for name, found in (('many', many), ('apart', apart))}
    assert 2.4 < width['many'] / width['apart'] < 3.8


def test_too_few_patients_of_a_class_have_no_interval_and_the_reason():
    label = np.array([1] * 9 + [0] * 30)
    found = metrics(label, np.linspace(0, 1, 39))
    for entry in found.values():
        assert entry['low'] is entry['high'] is None and '9 patients of class covid, 10 needed' in entry['reason']
    assert 'low' not in metrics(label, np.linspace(0, 1, 39), level=None)['ece']
