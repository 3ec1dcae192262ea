import numpy as np
import pytest
from sklearn import metrics as sk

from covid_jax.metrics.classification import classification_metrics, confusion, decide, frozen_threshold

NAMES = ('normal', 'covid', 'pneumonia')


def binary(score):
    score = np.asarray(score, float)
    return np.stack([1 - score, score], 1)


def values(metrics):
    return {key: entry['value'] for key, entry in metrics.items()}


def random_exams(classes, n=300, seed=0):
    """Probabilities on a grid of twentieths, so that ties are many, and labels that follow them loosely."""
    random = np.random.default_rng(seed)
    counts = random.multinomial(20, random.dirichlet(np.ones(classes), n))
    label = np.where(random.random(n) < 0.6, counts.argmax(1), random.integers(classes, size=n))
    return label, counts / 20


def test_confusion_of_the_challenge_paper():
    label = np.repeat([0, 0, 1, 1], [203, 6, 20, 145])
    score = np.repeat([0.1, 0.9, 0.2, 0.8], [203, 6, 20, 145])
    result = values(classification_metrics(label, binary(score), ('non', 'covid')))
    assert confusion(label, score > 0.5, 2).tolist() == [[203, 6], [20, 145]]
    assert result['accuracy'] == pytest.approx(0.93048, abs=1e-5)
    assert result['f1_covid'] == pytest.approx(0.91772, abs=1e-5)
    assert result['f1_non'] == pytest.approx(0.93981, abs=1e-5)
    assert result['macro_f1'] == pytest.approx(0.92877, abs=1e-5)
    assert result['sensitivity'] == pytest.approx(145 / 165)
    assert result['specificity'] == pytest.approx(203 / 209)
    assert result['precision'] == pytest.approx(145 / 151)


@pytest.mark.parametrize('classes', [2, 3])
@pytest.mark.parametrize('threshold', [None, 0.3])
def test_equal_to_scikit_learn(classes, threshold):
    label, probability = random_exams(classes)
    names = NAMES[:classes]
    result = values(classification_metrics(label, probability, names, threshold))
    suffix = '' if threshold is None else '_frozen'
    predicted = decide(probability, threshold)
    assert result[f'accuracy{suffix}'] == pytest.approx(sk.accuracy_score(label, predicted))
    assert result[f'macro_f1{suffix}'] == pytest.approx(sk.f1_score(label, predicted, average='macro'))
    for name, f1 in zip(names, sk.f1_score(label, predicted, average=None), strict=True):
        assert result[f'f1_{name}{suffix}'] == pytest.approx(f1)
    assert result[f'sensitivity{suffix}'] == pytest.approx(sk.recall_score(label == 1, predicted == 1))
    assert result[f'specificity{suffix}'] == pytest.approx(sk.recall_score(label != 1, predicted != 1))
    assert result[f'precision{suffix}'] == pytest.approx(sk.precision_score(label == 1, predicted == 1))
    np.testing.assert_array_equal(confusion(label, predicted, classes), sk.confusion_matrix(label, predicted))


@pytest.mark.parametrize('classes', [2, 3])
def test_auc_is_the_share_of_pairs_in_order_with_ties_as_half(classes):
    label, probability = random_exams(classes)
    covid, rest = probability[label == 1, 1], probability[label != 1, 1]
    pairs = np.sign(covid[:, None] - rest) / 2 + 0.5
    assert classification_metrics(label, probability, NAMES[:classes])['auc']['value'] == pytest.approx(pairs.mean())


def test_average_precision_by_hand():
    result = classification_metrics(np.array([0, 0, 1, 1]), binary([0.1, 0.4, 0.35, 0.8]), ('normal', 'covid'))
    assert result['average_precision']['value'] == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_decisions():
    assert decide(binary([0.49, 0.5, 0.51])).tolist() == [0, 1, 1]
    assert decide(binary([0.29, 0.3, 0.31]), 0.3).tolist() == [0, 1, 1]
    ternary = np.array([[0.4, 0.35, 0.25], [0.2, 0.3, 0.5], [0.1, 0.6, 0.3]])
    assert decide(ternary).tolist() == [0, 2, 1]
    assert decide(ternary, 0.35).tolist() == [1, 2, 1]
    assert decide(ternary, 0.7).tolist() == [0, 2, 2]


def test_another_class_can_be_the_positive_one():
    label, probability = random_exams(2)
    covid = classification_metrics(label, probability, ('normal', 'covid'))
    normal = classification_metrics(1 - label, probability[:, ::-1], ('covid', 'normal'), positive=0)
    assert normal == {key: covid[key] for key in normal}


def test_counts_are_of_the_exams_that_a_value_speaks_of():
    result = classification_metrics(np.array([0, 0, 0, 1]), binary([0.1, 0.2, 0.6, 0.9]), ('normal', 'covid'), 0.7)
    counts = {key: entry['n'] for key, entry in result.items()}
    assert counts == {'accuracy': 4, 'macro_f1': 4, 'f1_normal': 4, 'f1_covid': 4, 'sensitivity': 1, 'specificity': 3,
                      'precision': 2, 'accuracy_frozen': 4, 'macro_f1_frozen': 4, 'f1_normal_frozen': 4,
                      'f1_covid_frozen': 4, 'sensitivity_frozen': 1, 'specificity_frozen': 3, 'precision_frozen': 1,
                      'auc': 4, 'average_precision': 4}
    assert result['specificity']['value'] == pytest.approx(2 / 3)
    assert result['specificity_frozen']['value'] == 1
    assert result['precision']['value'] == 1 / 2
    assert result['precision_frozen']['value'] == 1


def test_precision_is_of_what_was_predicted_positive():
    """Of four predictions of the class three are right; normal and pneumonia count as others alike."""
    label = np.array([0, 1, 1, 1, 1, 2])
    probability = np.eye(3)[[1, 1, 1, 1, 2, 2]]
    assert classification_metrics(label, probability, NAMES)['precision'] == {'value': 3 / 4, 'n': 4}
    assert classification_metrics(label, probability, NAMES, positive=2)['precision'] == {'value': 1 / 2, 'n': 2}


def test_one_class_leaves_undefined_what_needs_the_other():
    result = classification_metrics(np.zeros(3, int), binary([0.1, 0.2, 0.3]), ('normal', 'covid'))
    assert values(result) == {'accuracy': 1, 'macro_f1': None, 'f1_normal': 1, 'f1_covid': None, 'sensitivity': None,
                              'specificity': 1, 'precision': None, 'auc': None, 'average_precision': None}
    assert result['auc']['reason'] == 'undefined: no examples of class covid'
    assert result['macro_f1']['reason'] == 'undefined: no examples of class covid'
    assert result['f1_covid']['reason'] == 'undefined: neither examples nor predictions of class covid'
    only_covid = classification_metrics(np.ones(3, int), binary([0.1, 0.2, 0.9]), ('normal', 'covid'))
    assert only_covid['specificity']['reason'] == 'undefined: no examples other than class covid'
    assert values(only_covid)['auc'] is None and values(only_covid)['average_precision'] is None
    assert values(only_covid)['f1_normal'] == 0


def test_precision_without_predictions_and_without_hits():
    names = 'normal', 'covid'
    nobody = classification_metrics(np.array([0, 1]), binary([0.1, 0.2]), names, 0.15)
    assert nobody['precision'] == {'value': None, 'n': 0, 'reason': 'undefined: no predictions of class covid'}
    assert nobody['precision_frozen'] == {'value': 1.0, 'n': 1}
    wrong = classification_metrics(np.array([0, 1]), binary([0.9, 0.2]), names)
    assert wrong['precision'] == {'value': 0.0, 'n': 1}


def test_a_class_that_is_never_predicted_has_f1_zero():
    result = values(classification_metrics(np.array([0, 1]), binary([0.1, 0.2]), ('normal', 'covid')))
    assert result['f1_covid'] == 0
    assert result['macro_f1'] == pytest.approx(1 / 3)


def test_no_exams():
    result = classification_metrics(np.zeros(0, int), np.zeros((0, 2)), ('normal', 'covid'), 0.5)
    assert all(entry['value'] is None and entry['n'] == 0 and entry['reason'] for entry in result.values())


@pytest.mark.parametrize(('label', 'probability', 'names', 'complaint'), [
    ([0, 1], [[0.5, 0.5]], ('a', 'b'), 'do not fit'),
    ([0], [[0.2, 0.3, 0.5]], ('a', 'b'), 'do not fit'),
    ([0, -1], [[0.5, 0.5], [0.5, 0.5]], ('a', 'b'), 'unlabelled'),
    ([0, 2], [[0.5, 0.5], [0.5, 0.5]], ('a', 'b'), 'in \\[0, 2\\)'),
    ([0], [[-3.0, 4.0]], ('a', 'b'), 'logits'),
    ([0], [[np.nan, 0.4]], ('a', 'b'), 'NaN'),
    ([0], [[0.6, 0.4]], ('a', 'a'), 'all different'),
])
def test_errors(label, probability, names, complaint):
    with pytest.raises(ValueError, match=complaint):
        classification_metrics(np.array(label), np.array(probability), names)


def test_confusion_refuses_a_class_outside():
    with pytest.raises(ValueError, match='predicted: 0 to 2'):
        confusion([0, 1], [0, 2], 2)


def test_frozen_threshold_by_hand():
    label = np.array([0, 0, 1, 1])
    # J is 1/2 at the midpoints 0.225 and 0.6 and 0 between them
    assert frozen_threshold(label, binary([0.1, 0.4, 0.35, 0.8])) == pytest.approx(0.6)
    assert frozen_threshold(label, binary([0.01, 0.02, 0.04, 0.05])) == pytest.approx(0.03)
    assert frozen_threshold(label, binary([0.7, 0.7, 0.7, 0.7])) == 0.5
    assert frozen_threshold(1 - label, binary([0.1, 0.2, 0.6, 0.7])[:, ::-1], positive=0) == pytest.approx(0.4)
    assert frozen_threshold(np.zeros(4), binary([0.1, 0.4, 0.35, 0.8])) is None
    assert frozen_threshold(np.ones(4), binary([0.1, 0.4, 0.35, 0.8])) is None


@pytest.mark.parametrize('classes', [2, 3])
def test_frozen_threshold_reaches_the_largest_j_of_the_roc_curve(classes):
    label, probability = random_exams(classes)
    false_positive_rate, sensitivity, _ = sk.roc_curve(label == 1, probability[:, 1])
    result = values(classification_metrics(label, probability, NAMES[:classes], frozen_threshold(label, probability)))
    youden = result['sensitivity_frozen'] + result['specificity_frozen'] - 1
    assert youden == pytest.approx((sensitivity - false_positive_rate).max())
