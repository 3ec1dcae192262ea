"""Which numbers of a paper can be: of five papers' tables, as worked out by hand from their counts."""

import pytest

from covid_jax.metrics.published import contradictions

PERCENT = 0.00005  # half of the last digit of 91.71 %
TENTH = 0.0005  # of 84.8 %


def test_accuracy_is_between_sensitivity_and_specificity():
    """CMT-CNN, EfficientNet-B4 on CT: 93.46 beside 90.57 and 90.84."""
    (line,) = contradictions({'accuracy': 0.9346, 'sensitivity': 0.9057, 'specificity': 0.9084}, PERCENT)
    assert line == 'accuracy 93.46 % is not between sensitivity 90.57 % and specificity 90.84 %'
    assert not contradictions({'accuracy': 0.9685, 'sensitivity': 0.9647, 'specificity': 0.9708}, PERCENT)  # CMC-COV19D
    assert contradictions({'accuracy': 0.9046, 'sensitivity': 0.9057, 'specificity': 0.9084}, PERCENT)


def test_a_recall_that_no_count_gives():
    """Dual-track ranking, Table IV: 50 positives, so recall moves by 2 %, and 84.8 is none of its values."""
    row = {'precision': 0.840, 'sensitivity': 0.848}
    assert contradictions(row, TENTH, 50, 468) == ['no counts of 50 positives and 468 negatives give sensitivity 84.80 %']
    assert not contradictions(row | {'sensitivity': 0.84}, TENTH, 50, 468)  # 42 hits, 8 alarms
    assert not contradictions({'sensitivity': 0.848}, TENTH)  # without counts nobody knows


def test_f1_is_the_harmonic_mean():
    assert not contradictions({'precision': 0.930, 'sensitivity': 0.800, 'f1': 0.860}, TENTH)
    (line,) = contradictions({'precision': 0.930, 'sensitivity': 0.800, 'f1': 0.870}, TENTH)
    assert 'harmonic mean' in line


def test_a_mean_of_f1_may_be_below_the_harmonic_mean_and_never_above():
    """Two runs of precision and recall 0.9 and 0.5, and the other way round: F1 is 0.643 in both, the means are 0.7."""
    rates = {'precision': 0.7, 'sensitivity': 0.7}
    assert not contradictions(rates | {'f1': 0.643}, TENTH, 10, 10, means=True)
    (line,) = contradictions(rates | {'f1': 0.702}, TENTH, means=True)
    assert line.startswith('F1 70.20 % is above the harmonic mean')
    assert contradictions(rates | {'f1': 0.643}, TENTH)


def test_numbers_that_are_possible_alone_and_not_together():
    """CMC-COV19D, Model5: 203, 6, 20 and 145 are accuracy 93.05 and macro F1 92.88. One error more is 92.78."""
    assert not contradictions({'accuracy': 0.9305, 'macro_f1': 0.9288}, PERCENT, 165, 209)
    (line,) = contradictions({'accuracy': 0.9278, 'macro_f1': 0.9288}, PERCENT, 165, 209)
    assert line.endswith('accuracy 92.78 %, macro_f1 92.88 % together')


@pytest.mark.parametrize('positives, negatives', [(3, 4), (50, 468)])
def test_what_comes_from_counts_is_never_refused(positives, negatives, rng):
    for _ in range(20):
        hits = rng.integers(1, positives + 1)
        rejections = rng.integers(1, negatives + 1)
        missed, alarms = positives - hits, negatives - rejections
        row = {'accuracy': (hits + rejections) / (positives + negatives), 'sensitivity': hits / positives,
               'specificity': rejections / negatives, 'precision': hits / (hits + alarms),
               'f1': 2 * hits / (2 * hits + missed + alarms)}
        rounded = {name: round(100 * value, 2) / 100 for name, value in row.items()}
        assert not contradictions(rounded, PERCENT, positives, negatives)


def test_other_metrics_are_passed_over():
    assert not contradictions({'auc': 0.9, 'accuracy': 0.9}, PERCENT)
