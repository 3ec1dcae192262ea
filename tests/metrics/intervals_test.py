import numpy as np
import pytest
from scipy.stats import binomtest

from covid_jax.metrics.classification import classification_metrics
from covid_jax.metrics.intervals import with_intervals

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


def bounds(result):
    return {key: (entry['low'], entry['high']) for key, entry in result.items()}


def test_every_metric_gets_an_interval_in_order():
    label, probability, patient = exams(80)
    result = with_intervals(metrics, label, probability, patient, resamples=100)
    assert len(result) == 16
    for key, entry in metrics(label, probability).items():
        assert {name: result[key][name] for name in entry} == entry
        assert 0 <= result[key]['low'] < entry['value'] < result[key]['high'] <= 1


def test_doubling_every_exam_does_not_narrow_the_interval():
    label, probability, patient = exams(60)
    once = with_intervals(metrics, label, probability, patient, resamples=50)
    doubled = with_intervals(metrics, *(np.concatenate([a, a]) for a in (label, probability, patient)), resamples=50)
    for key, interval in bounds(doubled).items():
        assert interval == pytest.approx(bounds(once)[key], abs=1e-12)


def test_accuracy_of_400_patients_is_close_to_the_wilson_interval():
    label, right = np.arange(400) % 2, np.arange(400) % 20 > 2  # 160 of 200 and 180 of 200
    probability = np.eye(2)[np.where(right, label, 1 - label)]
    result = with_intervals(accuracy, label, probability, np.arange(400), resamples=2000)['accuracy']
    wilson = binomtest(340, 400).proportion_ci(method='wilson')
    assert result['value'] == 0.85
    assert 0.88 < (result['high'] - result['low']) / (wilson.high - wilson.low) < 1.05
    assert result['low'] == pytest.approx(wilson.low, abs=0.01)
    assert result['high'] == pytest.approx(wilson.high, abs=0.01)


def test_strata_keep_the_number_of_patients_of_each_class():
    label, probability, patient = exams(60)
    label = (np.arange(60) < 20).astype(int)
    share = with_intervals(lambda label, _: {'share': {'value': float(label.mean()), 'n': len(label)}},
                           label, probability, patient, resamples=50)['share']
    assert (share['low'], share['value'], share['high']) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_a_patient_with_several_labels_is_drawn_whole():
    label, probability, patient = exams(60)
    patient = np.where(np.arange(60) < 20, np.arange(60) // 2, np.arange(60))  # ten patients with one exam of each
    seen = []

    def record(label, probability):
        seen.append(label.mean())
        return accuracy(label, probability)

    assert with_intervals(record, label, probability, patient, resamples=50)['accuracy']['low'] is not None
    assert set(seen) == {0.5}


def test_the_seed_and_not_the_order_of_exams_decides():
    label, probability, patient = exams(60)
    first = with_intervals(metrics, label, probability, patient, resamples=30, seed=3)
    order = np.random.default_rng(1).permutation(60)
    shuffled = with_intervals(metrics, label[order], probability[order], patient[order], resamples=30, seed=3)
    assert with_intervals(metrics, label, probability, patient, resamples=30, seed=3) == first
    for key, interval in bounds(shuffled).items():
        assert interval == pytest.approx(bounds(first)[key], abs=1e-12)
    assert bounds(with_intervals(metrics, label, probability, patient, resamples=30, seed=4)) != bounds(first)


def test_a_higher_level_is_wider():
    label, probability, patient = exams(60)
    ninety = bounds(with_intervals(accuracy, label, probability, patient, resamples=300, level=0.9))['accuracy']
    ninety_five = bounds(with_intervals(accuracy, label, probability, patient, resamples=300))['accuracy']
    assert ninety_five[0] < ninety[0] < ninety[1] < ninety_five[1]


def test_fewer_than_ten_patients_of_a_class_get_no_interval():
    label, probability, _ = exams(60)
    patient = np.where(label == 1, np.arange(60) % 8, np.arange(60) + 100)  # 30 exams of covid, of 4 patients
    result = with_intervals(metrics, label, probability, patient, names=NAMES)
    assert set(bounds(result).values()) == {(None, None)}
    assert result['accuracy']['value'] == metrics(label, probability)['accuracy']['value']
    assert result['accuracy']['reason'] == 'no interval: 4 patients of class covid, 10 needed'
    assert 'class 1' in with_intervals(metrics, label, probability, patient)['accuracy']['reason']


def test_ten_patients_are_enough_and_nine_are_not():
    ten = with_intervals(accuracy, *exams(20), resamples=20)['accuracy']
    nine = with_intervals(accuracy, *exams(18), resamples=20)['accuracy']
    assert ten['low'] is not None and nine['low'] is None


def test_an_undefined_value_keeps_both_reasons():
    _, probability, patient = exams(30)
    result = with_intervals(metrics, np.zeros(30, int), probability, patient, names=NAMES)
    assert result['auc'] == {
        'value': None, 'n': 30, 'low': None, 'high': None,
        'reason': 'undefined: no examples of class covid; no interval: 0 patients of class covid, 10 needed'}


def test_no_exams():
    result = with_intervals(metrics, np.zeros(0, int), np.zeros((0, 2)), np.zeros(0, str), names=NAMES)
    assert result['accuracy']['reason'] == ('undefined: no exams; no interval: 0 patients of class normal and '
                                            '0 patients of class covid, 10 needed')


def test_a_metric_that_resamples_leave_undefined_gets_no_interval():
    label, probability, patient = exams(40)
    probability[:, 1] = np.arange(40) == 7

    def sensitivity_of_exam_seven(label, probability):
        found = bool(probability[:, 1].any())
        return {'found': {'value': 1.0 if found else None, 'n': len(label)}}

    result = with_intervals(sensitivity_of_exam_seven, label, probability, patient, resamples=100)['found']
    assert result['value'] == 1 and result['low'] is None and result['high'] is None
    undefined = int(result['reason'].split('undefined on ')[1].split(' of 100 resamples')[0])
    assert undefined == pytest.approx(100 * (1 - 1 / 20)**20, abs=20)


@pytest.mark.parametrize('changes', [{'resamples': 0}, {'level': 1.0}, {'level': 95}, {'patient': np.arange(3)}])
def test_errors(changes):
    label, probability, patient = exams(40)
    with pytest.raises(ValueError, match='resamples|patients'):
        with_intervals(metrics, label, probability, **{'patient': patient, **changes})
