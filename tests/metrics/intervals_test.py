import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, binomtest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from covid_jax.metrics import intervals
from covid_jax.metrics.classification import classification_metrics
from covid_jax.metrics.intervals import clopper_pearson, effective_size, interval, with_intervals

NAMES = ('normal', 'covid')


def metrics(label, probability):
    return classification_metrics(label, probability, NAMES, threshold=0.4)


def accuracy(label, probability):
    return {'accuracy': {'value': float((probability.argmax(1) == label).mean()), 'n': len(label)}}


def exams(n, seed=0):
    random = np.random.default_rng(seed)
    label = np.arange(n) % 2
    score = 1 / (1 + np.exp(-random.normal(2 * label - 1, 1)))
    return label, np.stack([1 - score, score], 1), np.array([f'p{i:04}' for i in range(n)])


def decided(label, right):
    """Probabilities of 0 and 1 that are on the label's side where `right` says so."""
    return np.eye(2)[np.where(right, label, 1 - label)]


def bounds(result):
    return {key: (entry['low'], entry['high']) for key, entry in result.items()}


@cache
def of(n):
    """The metrics of exams(n)."""
    return with_intervals(metrics, *exams(n))


def test_every_metric_gets_an_interval_in_order():
    label, probability, _ = exams(60)
    result = of(60)
    assert len(result) == 16
    for key, entry in metrics(label, probability).items():
        assert {name: result[key][name] for name in entry} == entry
        assert 0 <= result[key]['low'] < entry['value'] <= result[key]['high'] <= 1
        assert result[key]['level'] == 0.95 and 'note' not in result[key]


@pytest.mark.parametrize('hits, n, low, high', [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0, 0.1684),
                                                (1, 29, 0.0009, 0.1776)])
def test_published_intervals_of_shares(hits, n, low, high):
    """Newcombe 1998, Table I, method 5 (Statistics in Medicine 17, 857-872): alone, and as the sensitivity of n patients with
    COVID, whatever the others are."""
    assert clopper_pearson(hits, n, 0.95) == pytest.approx((low, high), abs=5e-5)
    label = np.repeat([1, 0], [n, 6])
    probability = decided(label, np.arange(n + 6) < hits)

    def sensitivity(label, probability):
        return {'sensitivity': {'value': float(probability[label == 1, 1].mean()), 'n': int(label.sum())}}

    result = bounds(with_intervals(sensitivity, label, probability, np.arange(n + 6)))
    assert result['sensitivity'] == pytest.approx((low, high), abs=5e-5)


def test_accuracy_of_400_patients_is_close_to_the_wilson_interval():
    """And a little narrower than that of one share, because the numbers of both classes stay: 160 of 200 and 180 of 200."""
    label = np.arange(400) % 2
    probability = decided(label, np.arange(400) % 20 > 2)
    result = with_intervals(accuracy, label, probability, np.arange(400))['accuracy']
    wilson = binomtest(340, 400).proportion_ci(method='wilson')
    assert result['value'] == 0.85
    assert 0.95 < (result['high'] - result['low']) / (wilson.high - wilson.low) < 1.03
    assert result['low'] == pytest.approx(wilson.low, abs=0.004)
    assert result['high'] == pytest.approx(wilson.high, abs=0.004)


def test_strata_keep_the_number_of_patients_of_each_class():
    """By hand: all 20 of one class are right and 10 of 20 of the other. Without one of the 20 accuracy is 29/39 or 30/39, that
    is 1/78 off the mean of both; without one of the first it is 29/39 always. So v = 20 (19/20 / 78)^2, not that of 40
    patients of one kind. It rests on 20 patients, and the variance of a share of 40 counts as one more."""
    label = np.arange(40) % 2
    probability = decided(label, (label == 0) | (np.arange(40) < 20))
    n = 21 / (20 * 20 * (0.95 / 78)**2 / (0.75 * 0.25) + 1 / 40)
    assert n > 58
    expected = beta.ppf(0.025, 0.75 * n, 0.25 * n + 1), beta.ppf(0.975, 0.75 * n + 1, 0.25 * n)
    assert bounds(with_intervals(accuracy, label, probability, np.arange(40)))['accuracy'] == pytest.approx(expected)


def loop(metric, label, score, patient, independent):
    """The interval of a metric of (label, score), one patient after the other."""
    value = metric(label, score)
    squares = []
    for stratum in (0, 1):
        members = sorted(set(patient[label == stratum]))
        rest = [metric(label[patient != p], score[patient != p]) for p in members]
        squares += [((r - sum(rest) / len(rest)) * (1 - 1 / len(rest)))**2 for r in rest]
    v = sum(squares)
    count = v**2 / sum(s**2 for s in squares)
    n = (count + 1) / (count * v / (value * (1 - value)) + 1 / independent)
    return beta.ppf(0.025, value * n, n - value * n + 1), beta.ppf(0.975, value * n + 1, n - value * n)


@pytest.mark.parametrize('key, metric, independent', [
    ('auc', roc_auc_score, 2 * 14 * 3), ('average_precision', average_precision_score, 14 * 3),
    ('f1_covid', lambda label, score: f1_score(label, score >= 0.5), 2 * 14 * 3),
    ('accuracy', lambda label, score: ((score >= 0.5) == label).mean(), 40 * 3)])
def test_a_plain_loop_gives_the_same(key, metric, independent):
    """Of 40 patients, 14 with COVID, of three exams each: a patient counts as one of the `independent`."""
    random = np.random.default_rng(5)
    patient = np.repeat(np.arange(40), 3)
    label = (patient < 14).astype(int)
    score = 1 / (1 + np.exp(-random.normal(size=40)[patient] - random.normal(1.5 * label - 0.7, 1)))
    result = with_intervals(metrics, label, np.stack([1 - score, score], 1), patient)
    assert bounds(result)[key] == pytest.approx(loop(metric, label, score, patient, independent / 3), rel=1e-9)


def test_doubling_every_exam_does_not_narrow_the_interval():
    label, probability, patient = exams(60)
    once = bounds(of(60))
    doubled = bounds(with_intervals(metrics, *(np.concatenate([a, a]) for a in (label, probability, patient))))
    for key, both in doubled.items():
        assert both == pytest.approx(once[key], rel=1e-9)


def test_a_patient_with_many_exams_counts_as_one():
    """By hand: of 19 patients with one exam and one with 100, an exam is on average of a patient with 84.2; so 119 exams, were
    those of a patient all alike, would vary as 1.4 independent ones."""
    patient = np.repeat(np.arange(20), [1] * 19 + [100])
    label = patient % 2
    assert effective_size('accuracy', 119, label, patient) == pytest.approx(119**2 / 10019)
    wide = with_intervals(accuracy, label, decided(label, label == label), patient)['accuracy']
    assert wide['low'] == pytest.approx(0.025**(10019 / 119**2))  # of n hits in n: the n-th root of 0.025
    assert effective_size('accuracy', 20, np.arange(20) % 2, np.arange(20)) == 20


def test_a_metric_is_worth_the_patients_of_the_exams_that_it_counts():
    """By hand: 20 patients with COVID and 10 exams each are worth 20, 400 others with one exam each 400; and both together
    600^2 / (20 * 100 + 400) = 150. All right, the lower bound of sensitivity is the 20th root of 0.025, of specificity the 400th."""
    patient = np.concatenate([np.repeat(np.arange(20), 10), 100 + np.arange(400)])
    label = (np.arange(600) < 200).astype(int)
    n = {'accuracy': 600, 'sensitivity': 200, 'specificity': 400, 'precision': 200, 'auc': 600, 'macro_f1': 600}
    worth = {metric: effective_size(metric, count, label, patient) for metric, count in n.items()}
    assert worth == pytest.approx({'accuracy': 150, 'sensitivity': 20, 'specificity': 400, 'precision': 20, 'auc': 40, 'macro_f1': 40})
    right = with_intervals(metrics, label, decided(label, label == label), patient)
    assert right['sensitivity']['low'] == pytest.approx(0.025**(1 / 20)) and right['specificity']['low'] == pytest.approx(0.025**(1 / 400))


def test_the_order_of_exams_does_not_matter():
    label, probability, patient = exams(60)
    patient = np.sort(patient)[np.arange(60) // 4 * 2 + label]  # patients of two exams each
    first = with_intervals(metrics, label, probability, patient)
    order = np.random.default_rng(1).permutation(60)
    assert with_intervals(metrics, label, probability, patient) == first
    for key, both in bounds(with_intervals(metrics, label[order], probability[order], patient[order])).items():
        assert both == pytest.approx(bounds(first)[key], rel=1e-9)


def test_at_its_bound_a_metric_has_an_interval_too():
    """Of n right in n, the n-th root of 0.025 is the lower bound: 8 patients with COVID and 32 without. F1, macro F1 and AUC
    have that of twice the 8, average precision that of the 8."""
    label = (np.arange(40) < 8).astype(int)
    right = with_intervals(metrics, label, decided(label, label == label), np.arange(40))
    worth = {'accuracy': 40, 'sensitivity': 8, 'specificity': 32, 'precision': 8, 'macro_f1': 16, 'f1_normal': 16,
             'f1_covid': 16}
    worth |= {f'{key}_frozen': n for key, n in worth.items()} | {'auc': 16, 'average_precision': 8}
    for key, (low, high) in bounds(right).items():
        assert (low, high) == (pytest.approx(0.025**(1 / worth[key])), 1)
    wrong = bounds(with_intervals(metrics, label, decided(label, label != label), np.arange(40)))
    assert wrong['sensitivity'] == (0, pytest.approx(1 - 0.025**(1 / 8)))
    assert wrong['auc'] == (0, pytest.approx(1 - 0.025**(1 / 16)))


def test_rounding_is_no_variation():
    """Sums in another order differ in the last digit, which says nothing of how a metric varies."""
    nearly = 1 - 2**-53
    low, _ = interval(nearly, [[1.0, nearly, nearly], [nearly, 1.0, 1.0, nearly]], 7, 0.95)
    assert low == pytest.approx(0.025**(1 / 7))


def test_a_higher_level_is_wider():
    label, probability, patient = exams(60)
    ninety = with_intervals(metrics, label, probability, patient, level=0.9)
    for key, (low, high) in bounds(ninety).items():
        ninety_five = bounds(of(60))[key]
        assert ninety_five[0] < low < high < ninety_five[1] or high == ninety[key]['value'] == 1
        assert ninety[key]['level'] == 0.9


def test_auc_is_as_uncertain_as_delong_says():
    """DeLong, DeLong and Clarke-Pearson 1988: the variance of an AUC of the shares of pairs that each exam wins."""
    label, probability, _ = exams(200)
    score = probability[:, 1]
    won = score[label == 1][:, None] > score[label == 0]
    variance = won.mean(1).var(ddof=1) / 100 + won.mean(0).var(ddof=1) / 100
    expected = clopper_pearson(won.mean() * (n := won.mean() * (1 - won.mean()) / variance), n, 0.95)
    assert bounds(of(200))['auc'] == pytest.approx(expected, abs=0.003)


def test_another_package_agrees():
    """Recorded from confidenceinterval 1.0.5 (scipy 1.17.1, statsmodels 0.15.0) on exams(200): its method 'beta' for shares,
    Takahashi's interval for F1, DeLong's for AUC. The last two are symmetric; ours reach further from 1."""
    result = bounds(of(200))
    assert result['sensitivity'] == pytest.approx((0.7532124, 0.9056897), abs=1e-6)
    assert result['specificity'] == pytest.approx((0.7762720, 0.9212946), abs=1e-6)
    assert result['accuracy'] == pytest.approx((0.7928413, 0.8964505), abs=0.001)
    assert result['precision'] == pytest.approx((0.7719395, 0.9196405), abs=0.015)
    assert result['f1_covid'] == pytest.approx((0.7846849, 0.9122848), abs=0.018)
    assert result['auc'] == pytest.approx((0.9171435, 0.9730564), abs=0.01)


SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / 'scripts' / 'simulate_intervals.py'))


@pytest.mark.parametrize('patients, prevalence, count', [(20, 0.25, 1), (24, 0.5, 3)])
def test_the_simulation_is_of_these_intervals(patients, prevalence, count):
    """It leaves patients out by weights, all at once; classification_metrics and with_intervals know nothing of that."""
    random = np.random.default_rng(2)
    for auc in (0.7, 0.9, 0.99):
        is_positive, score = SCRIPT['draw'](random, patients, prevalence, count, auc)
        simulated = SCRIPT['intervals'](is_positive, score, 0.95)
        label = np.repeat(is_positive, count).astype(int)
        p = 1 / (1 + np.exp(-score.ravel()))
        result = with_intervals(metrics, label, np.stack([1 - p, p], 1), np.repeat(np.arange(patients), count))
        result['f1'] = result['f1_covid']
        for metric, found in simulated.items():
            expected = [result[metric][name] for name in ('value', 'low', 'high')]
            assert found == (None, None) if None in expected else found == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize('metric, cell', [('auc', (20, 0.25, 6, 0.99)), ('average_precision', (20, 0.5, 6, 0.9)),
                                          ('sensitivity', (20, 0.25, 6, 0.7)), ('accuracy', (20, 0.5, 1, 0.9))])
def test_intervals_cover(metric, cell):
    """400 cohorts: a coverage of 0.95 is seen as 0.917 or less once in a thousand. Without the cautious variance the first
    three cover 0.88, 0.90 and 0.90. The script simulates all cells."""
    random = np.random.default_rng(0)
    true = SCRIPT['truth'](cell[1], cell[3])[metric]
    held = []
    for _ in range(400):
        _, low, high = SCRIPT['intervals'](*SCRIPT['draw'](random, *cell), 0.95)[metric]
        held.append(low <= true <= high)
    assert np.mean(held) > 0.925


def test_thousands_of_patients_are_left_out_in_groups(monkeypatch):
    """Each group once, and with about the interval that one by one gives."""
    label, probability, patient = exams(400)
    one_by_one = bounds(with_intervals(accuracy, label, probability, patient))['accuracy']
    left = []

    def record(label, probability):
        left.append(400 - len(label))
        return accuracy(label, probability)

    monkeypatch.setattr(intervals, 'GROUPS', 60)
    low, high = bounds(with_intervals(record, label, probability, patient))['accuracy']
    assert len(left) == 1 + 2 * 60 and sum(left) == 400 and max(left) == 4
    assert (low, high) == pytest.approx(one_by_one, abs=0.006)


def test_a_patient_with_several_labels_is_left_out_whole():
    label, probability, patient = exams(60)
    patient = np.where(np.arange(60) < 20, np.arange(60) // 2, np.arange(60))  # ten patients with one exam of each
    seen = []

    def record(label, probability):
        seen.append((len(label), label.sum()))
        return accuracy(label, probability)

    assert with_intervals(record, label, probability, patient)['accuracy']['low'] is not None
    assert sorted(seen[1:]) == [(58, 29)] * 10 + [(59, 29)] * 20 + [(59, 30)] * 20


def test_a_stratum_of_one_patient_counts():
    """By hand: without the one the value is 0.7 in place of 0.8, so v = 0.01, that of 16 exams; it rests on that patient, and
    one more counts as 10."""
    expected = clopper_pearson(0.8 * (n := 2 / (1 / 16 + 1 / 10)), n, 0.95)
    assert interval(0.8, [[0.8, 0.8, 0.8], [0.7]], 10, 0.95) == pytest.approx(expected)


def test_fewer_than_two_patients_of_a_class_get_no_interval():
    label, probability, _ = exams(60)
    patient = np.where(label == 1, 7, np.arange(60) + 100)  # 30 exams of covid, of 1 patient
    result = with_intervals(metrics, label, probability, patient, names=NAMES)
    assert set(bounds(result).values()) == {(None, None)} and 'level' not in result['accuracy']
    assert result['accuracy']['value'] == metrics(label, probability)['accuracy']['value']
    assert result['accuracy']['reason'] == 'no interval: 1 patient of class covid, 2 needed'
    assert 'class 1' in with_intervals(metrics, label, probability, patient)['accuracy']['reason']


@pytest.mark.parametrize('normal, covid, few', [(15, 5, ''), (14, 5, '19 patients'), (16, 4, '4 of class covid'),
                                                (3, 2, '5 patients, 3 of class normal, 2 of class covid')])
def test_fewer_patients_than_were_simulated_are_noted(normal, covid, few):
    label = np.repeat([0, 1], [normal, covid])
    entry = with_intervals(accuracy, label, decided(label, np.arange(len(label)) % 3 > 0), np.arange(len(label)), names=NAMES)
    entry = entry['accuracy']
    assert entry['low'] < entry['value'] < entry['high']
    known = 'how often it holds the truth is known from 20 patients and 5 of each class up'
    assert entry.get('note') == (f'interval: {few}; {known}' if few else None)


def test_an_undefined_value_keeps_both_reasons():
    _, probability, patient = exams(30)
    result = with_intervals(metrics, np.zeros(30, int), probability, patient, names=NAMES)
    assert result['auc'] == {
        'value': None, 'n': 30, 'low': None, 'high': None,
        'reason': 'undefined: no examples of class covid; no interval: 0 patients of class covid, 2 needed'}


def test_no_exams():
    result = with_intervals(metrics, np.zeros(0, int), np.zeros((0, 2)), np.zeros(0, str), names=NAMES)
    assert result['accuracy']['reason'] == ('undefined: no exams; no interval: 0 patients of class normal and '
                                            '0 patients of class covid, 2 needed')


def test_a_metric_that_hangs_on_one_patient_gets_no_interval():
    label, probability, patient = exams(40)
    probability = np.eye(2)[(np.arange(40) == 7).astype(int)]
    result = with_intervals(metrics, label, probability, patient)
    assert result['precision'] == {'value': 1, 'n': 1, 'low': None, 'high': None,
                                   'reason': 'no interval: with one of the patients left out it is undefined'}
    assert result['sensitivity']['low'] is not None


@pytest.mark.parametrize('changes', [{'level': 0}, {'level': 1.0}, {'level': 95}, {'patient': np.arange(3)}])
def test_errors(changes):
    label, probability, patient = exams(40)
    with pytest.raises(ValueError, match='level|patients'):
        with_intervals(metrics, label, probability, **{'patient': patient, **changes})
