"""Tests of paired differences, against published worked examples, other programs and plain loops."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from covid_jax.metrics.classification import classification_metrics
from covid_jax.metrics.significance import corrected_t, delong, mcnemar, paired_bootstrap, paired_t
from covid_jax.metrics.weighted import weighted_metrics

NAMES = ('normal', 'covid')

# The hours that Student's ten patients slept longer with one drug than with another (Biometrika 6, 1908).
SLEEP = (1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4)

# DeLong, DeLong and Clarke-Pearson's 43 patients with all three scores, as SAS/STAT's example "Comparing Receiver Operating
# Characteristic Curves" of PROC LOGISTIC gives them: albumin, total protein, 10 less the K-G score, outcome.
OVARIAN = np.array("""
    3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
    3.7 6.7  6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
    4.0 6.6  6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
    4.3 6.5  4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
    2.9 5.7  9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1""".split(), float).reshape(-1, 4)


def test_students_own_example():
    """As R prints t.test of its data set sleep, paired: t = 4.0621, p = 0.002833, 0.7001142 to 2.4598858."""
    found = paired_t(SLEEP)
    assert found.value / found.error == pytest.approx(4.0621, abs=5e-5) and found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.value, found.low, found.high) == pytest.approx((1.58, 0.7001142, 2.4598858), abs=5e-8)
    assert found.n == 10 and not found.reason


def test_the_plain_t_is_that_of_scipy(rng):
    a, b = rng.random((2, 7))
    expected = stats.ttest_rel(a, b)
    found = paired_t(a - b, level=0.9)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval(0.9))


def test_the_corrected_t_of_a_published_example():
    """scikit-learn's "Statistical comparison of models using grid search": the AUC of two kernels in 10 times 10 folds. It
    prints t = 0.750, one-sided p = 0.227; without the correction t = 2.611, p = 0.005. The differences are of version 1.9.1."""
    counts = {-0.12: 1, -0.08: 2, -0.04: 10, 0.0: 53, 0.04: 29, 0.08: 4, 0.2: 1}
    differences = np.repeat(list(counts), list(counts.values()))
    found = corrected_t(differences, 10 / 90)
    assert found.value / found.error == pytest.approx(0.750, abs=5e-4) and found.p / 2 == pytest.approx(0.227, abs=5e-4)
    plain = paired_t(differences)
    assert plain.value / plain.error == pytest.approx(2.611, abs=5e-4) and plain.p / 2 == pytest.approx(0.005, abs=5e-4)


def test_the_correction_by_hand():
    """Mean 0.2, variance 0.01, 2 degrees of freedom: the square root of (1/3 + 1/2) 0.01, and t of 0.975 is 4.302653."""
    found = corrected_t([0.1, 0.2, 0.3], 0.5)
    assert found.error == pytest.approx(0.09128709) and found.high - found.value == pytest.approx(4.302653 * 0.09128709)


@pytest.mark.parametrize('differences, value, p, reason', [
    ([], None, None, '0 differences, 2 needed'), ([0.1], 0.1, None, '1 difference, 2 needed'),
    ([0.1] * 3, 0.1, None, 'no t-test: all 3 differences are equal'), ([0.0] * 3, 0, 1, 'no interval: all 3 differences are 0')])
def test_differences_that_say_nothing(differences, value, p, reason):
    found = paired_t(differences)
    assert found.value == pytest.approx(value) and found.p == p and found.low is None and reason in found.reason


@pytest.mark.parametrize('arguments', [([0.1, math.nan], 0.25), ([0.1, 0.2], -0.1), ([0.1, 0.2], math.nan)])
def test_what_no_t_test_takes(arguments):
    with pytest.raises(ValueError, match='finite'):
        corrected_t(*arguments)


def right(both, only_a, only_b, neither):
    return (np.repeat([True, True, False, False], [both, only_a, only_b, neither]),
            np.repeat([True, False, True, False], [both, only_a, only_b, neither]))


@pytest.mark.parametrize('table, p', [
    ((1, 1, 7, 12), 9 / 128),  # Fagerland, Lydersen and Laake 2013, table 1: 0.070
    ((794, 150, 86, 570), 3.7159361395713866e-05),  # Agresti's approval ratings; statsmodels 0.15.0
    ((101, 121, 59, 33), 4.4344492637551645e-06)])  # statsmodels 0.15.0
def test_mcnemar_of_published_tables(table, p):
    found = mcnemar(*right(*table))
    assert (found.only_a, found.only_b, found.difference.n) == (table[1], table[2], sum(table))
    assert found.difference.value == pytest.approx((table[1] - table[2]) / sum(table))
    assert found.difference.p == pytest.approx(p, rel=1e-9)


def test_mcnemar_counts_coins():
    """Of n coins as many heads, or as many tails, or more: every sum by itself."""
    for only_a in range(6):
        for only_b in range(6):
            n = only_a + only_b
            tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
            assert mcnemar(*right(3, only_a, only_b, 0)).difference.p == pytest.approx(min(1, 2 * tail))


def test_mcnemar_of_nothing():
    assert mcnemar([], []).difference.value is None and mcnemar([], []).difference.reason == 'undefined: no exams'


@pytest.mark.parametrize('column, value, error, low, high, p', [
    (0, 0.0108, 0.0953, -0.1761, 0.1976, 0.9102), (1, -0.0780, 0.1046, -0.2830, 0.1271, 0.4561)])
def test_delong_of_the_authors_own_patients(column, value, error, low, high, p):
    """What SAS prints of albumin and of total protein, each less the K-G score."""
    found = delong(OVARIAN[:, 3], OVARIAN[:, column], 10 - OVARIAN[:, 2])
    assert found[:5] == pytest.approx((value, error, low, high, p), abs=5.1e-5) and found.n == 43


def test_delong_as_mlstatkit_has_it():
    """MLstatkit 0.1.91's Delong_test: 'var_diff' and p of the two comparisons."""
    for column, variance, p in ((0, 0.009090405441862261, 0.9102063472010351), (1, 0.010943166051776873, 0.45613970750747357)):
        found = delong(OVARIAN[:, 3], OVARIAN[:, column], 10 - OVARIAN[:, 2])
        assert found.error**2 == pytest.approx(variance, rel=1e-9) and found.p == pytest.approx(p, rel=1e-9)


def placements(positive, score):
    """DeLong's V10 and V01, pair by pair."""
    one = [[(x > y) + (x == y) / 2 for y in score[~positive]] for x in score[positive]]
    return np.mean(one, 1), np.mean(one, 0)


def test_delong_pair_by_pair(rng):
    positive = rng.random(30) < 0.4
    a, b = np.round(rng.random((2, 30)) + 0.3 * positive, 1)  # many ties
    (v10_a, v01_a), (v10_b, v01_b) = placements(positive, a), placements(positive, b)
    s10, s01 = np.cov(v10_a, v10_b), np.cov(v01_a, v01_b)
    contrast = np.array([1, -1])
    error = np.sqrt(contrast @ (s10 / positive.sum() + s01 / (~positive).sum()) @ contrast)
    found = delong(positive, a, b, level=0.9)
    assert found.value == pytest.approx(roc_auc_score(positive, a) - roc_auc_score(positive, b))
    assert found.error == pytest.approx(error) and found.p == pytest.approx(2 * stats.norm.sf(abs(found.value) / error))
    assert (found.low, found.high) == pytest.approx(stats.norm.interval(0.9, found.value, error))


def test_delong_reads_ranks_alone_and_mirrors(rng):
    positive = rng.random(40) < 0.5
    a, b = rng.random((2, 40)) + 0.5 * positive
    found = delong(positive, a, b)
    assert delong(positive, np.exp(5 * a), b**3) == found
    mirrored = delong(positive, b, a)
    assert (mirrored.value, mirrored.p) == pytest.approx((-found.value, found.p))
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize('positive, a, b, value, p, reason', [
    ([0, 0, 1, 1], [1, 2, 3, 4], [1, 3, 5, 9], 0, 1, 'no interval: both runs rank every exam alike'),
    ([0, 0, 1, 1], [1, 2, 3, 4], [0, 0, 0, 0], 0.5, None, 'no test: the runs differ by the same amount on every exam'),
    ([0, 0, 0, 1], [1, 2, 3, 4], [1, 2, 4, 3], 1 / 3, None, '1 positive exams and 3 others'),
    ([1, 1, 1, 1], [1, 2, 3, 4], [1, 2, 4, 3], None, None, '4 positive exams and 0 others')])
def test_delong_where_there_is_nothing_to_test(positive, a, b, value, p, reason):
    found = delong(positive, a, b)
    assert found.value == pytest.approx(value) and found.p == p and found.low is None and reason in found.reason


def cohort(rng, patients=40, exams=3):
    """Labels, answers of two runs and patients, in any order: a third of the exams are the patient's only one."""
    patient = np.repeat([f'p{i}' for i in range(patients)], np.where(np.arange(patients) % 2, exams, 1))
    label = np.array([int(name[1:]) % 4 // 2 for name in patient])
    score = np.clip(rng.normal(0.3 + 0.3 * label, 0.2, (2, len(label))), 0.01, 0.99).round(2)
    order = rng.permutation(len(label))
    return label[order], *np.stack([1 - score, score], -1)[:, order], patient[order]


def with_imagined(label, a, b, patient, exams):
    """Two patients more of each class, after the others: the first that A alone has right, the second that B alone has right."""
    no, yes = (0.6, 0.4), (0.4, 0.6)
    more = [('z0', 0, no, yes), ('z1', 0, yes, no), ('z2', 1, yes, no), ('z3', 1, no, yes)]
    names, truth, first, second = zip(*(row for row in more for _ in range(exams)), strict=True)
    return np.append(label, truth), np.append(a, first, 0), np.append(b, second, 0), np.append(patient, names)


def test_the_bootstrap_is_a_plain_loop_over_patients(rng):
    """A patient has two exams in the mean, so those who are imagined have two."""
    label, a, b, patient = cohort(rng)
    first, second = classification_metrics(label, a, NAMES), classification_metrics(label, b, NAMES)
    found = paired_bootstrap(weighted_metrics, label, a, b, patient, NAMES, resamples=60, level=0.9, seed=3)
    label, a, b, patient = with_imagined(label, a, b, patient, 2)
    rows_of = {name: [i for i in range(len(label)) if patient[i] == name] for name in sorted(set(patient))}
    random = np.random.default_rng(3)
    drawn = []
    for _ in range(60):
        rows = []
        for stratum in (0, 1):
            names = [name for name, rows_ in rows_of.items() if label[rows_[0]] == stratum]
            for i in random.integers(len(names), size=len(names)):
                rows += rows_of[names[i]]
        one, two = classification_metrics(label[rows], a[rows], NAMES), classification_metrics(label[rows], b[rows], NAMES)
        drawn.append({name: round(one[name]['value'] - two[name]['value'], 12) for name in found})
    assert set(found) == {'accuracy', 'macro_f1', 'sensitivity', 'specificity', 'precision', 'auc', 'average_precision'}
    for name, d in found.items():
        values = sorted(sample[name] for sample in drawn)
        below, above = sum(v <= 0 for v in values), sum(v >= 0 for v in values)
        assert d.value == pytest.approx(first[name]['value'] - second[name]['value'])
        assert (d.low, d.high) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])), abs=1e-9)
        assert d.p == pytest.approx(min(1, 2 * (min(below, above) + 1) / 61)) and d.n == 40 and d.low < d.high


def test_the_bootstrap_mirrors_and_the_order_of_exams_does_not_matter(rng):
    label, a, b, patient = cohort(rng)
    found = paired_bootstrap(weighted_metrics, label, a, b, patient, NAMES, resamples=2000)
    other = paired_bootstrap(weighted_metrics, label, b, a, patient, NAMES, resamples=2000)
    back = paired_bootstrap(weighted_metrics, label[::-1], a[::-1], b[::-1], patient[::-1], NAMES, resamples=2000)
    for name, d in found.items():
        assert other[name].value == pytest.approx(-d.value) and other[name].p == pytest.approx(d.p, abs=0.1)
        assert (other[name].low, other[name].high) == pytest.approx((-d.high, -d.low), abs=0.03)
        assert back[name][:5] == pytest.approx(d[:5], abs=1e-12)
    again = paired_bootstrap(weighted_metrics, label, a, b, patient, NAMES, resamples=50, seed=1)
    assert again['auc'].low != found['auc'].low


def test_the_same_answers_do_not_differ_and_those_of_others_might(rng):
    """Of 22 patients of a class two vary, each drawn Binomial(22, 1 / 22) times: by 3 or more either way in 3.5 % of resamples
    each, and by 4 or more in 0.7 %. So the interval of sensitivity ends at 3 / 22."""
    label, a, _, patient = cohort(rng)
    found = paired_bootstrap(weighted_metrics, label, a, a, patient, NAMES, resamples=2000)
    for d in found.values():
        assert d.value == 0 and d.low < 0 < d.high and d.p > 0.9
    once = [patient.tolist().index(name) for name in sorted(set(patient))]
    d = paired_bootstrap(weighted_metrics, label[once], a[once], a[once], patient[once], NAMES, resamples=2000)['sensitivity']
    assert (d.low, d.high) == pytest.approx((-3 / 22, 3 / 22))


def test_intervals_hold_the_true_difference_where_few_patients_are_decided_differently(rng):
    """A alone has a tenth of 10 positives right and B alone a fiftieth, so the sensitivities differ by 0.08. Three cohorts in ten
    show no difference at all. Of 100 cohorts, 95 % of the intervals should hold it, and 89 do at the least."""
    label = np.repeat([0, 1], 10)
    decided = np.array([[0.75, 0.25], [0.25, 0.75]])
    held = []
    for _ in range(100):
        case = rng.choice(3, 10, p=[0.1, 0.02, 0.88])
        a, b = (decided[np.append(np.zeros(10, int), np.where(case == other, 0, 1))] for other in (1, 0))
        d = paired_bootstrap(weighted_metrics, label, a, b, range(20), NAMES, resamples=100)['sensitivity']
        held.append(d.low <= 0.08 <= d.high)
    assert sum(held) >= 89


def test_an_imagined_patient_is_wrong_in_any_number_of_classes_and_seeds(rng):
    """Two runs that are alike, of three classes and two seeds: what varies is of the imagined patients, in every class."""
    label = np.arange(60) % 3
    right = np.tile(np.where(np.eye(3)[label], 0.8, 0.1)[:, None], (1, 2, 1))

    def of_classes(label, p, weight):
        hit = p.argmax(-1).mean(1) == label
        return {str(c): weight @ (hit & (label == c)) / (weight @ (label == c)) for c in range(3)}

    for d in paired_bootstrap(of_classes, label, right, right, range(60), ('a', 'b', 'c'), resamples=2000).values():
        assert (d.value, d.low, d.high) == pytest.approx((0, -3 / 22, 3 / 22))


def test_pairing_is_what_tells_two_alike_runs_apart(rng):
    """A is B with 0.05 added to every probability: always higher, by less than A's own interval is wide."""
    label, a, _, patient = cohort(rng)
    mean = lambda label, p, weight: {'mean': weight @ p[:, 1] / weight.sum(1)}  # noqa: E731
    d = paired_bootstrap(mean, label, a + 0.05, a, patient, NAMES, resamples=99)['mean']
    assert 0.02 < d.low < d.value < d.high < 0.08 and (d.value, d.p) == pytest.approx((0.05, 0.02))


def test_too_few_patients_or_an_undefined_metric_have_no_interval(rng):
    label, a, b, patient = cohort(rng)
    few = np.where(label == 1, 'anna', patient)
    d = paired_bootstrap(weighted_metrics, label, a, b, few, NAMES, resamples=20)['auc']
    assert d.value is not None and d.low is None and d.p is None and d.reason == 'no interval: 1 patient of class covid, 10 needed'
    never = np.tile([0.9, 0.1], (len(label), 1))
    d = paired_bootstrap(weighted_metrics, label, a, never, patient, NAMES, resamples=20)['precision']
    assert d.value is None and d.p is None and d.reason == 'undefined on these exams'
    once = never.copy()
    once[np.flatnonzero(patient == 'p0')[0]] = 0.5
    d = paired_bootstrap(weighted_metrics, label, a, once, patient, NAMES, resamples=1000)['precision']
    assert d.value is not None and d.low is None
    undefined = int(d.reason.removeprefix('no interval: undefined on ').split(' ')[0])
    assert undefined == pytest.approx(1000 * (20 / 22)**22 * (21 / 22)**22, abs=25)  # neither p0 is drawn, nor an imagined one


@pytest.mark.parametrize('changes', [{'resamples': 0}, {'level': 1.0}, {'level': 95}, {'patient': ['p1']}])
def test_what_no_bootstrap_takes(rng, changes):
    label, a, b, patient = cohort(rng)
    with pytest.raises(ValueError, match='resamples|different lengths'):
        paired_bootstrap(weighted_metrics, label, a, b, **{'patient': patient, 'names': NAMES, **changes})
