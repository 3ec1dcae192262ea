"""Weights in place of repeated exams: the metrics of classification.py on repeated rows, and scikit-learn's with weights."""

import numpy as np
import pytest
from sklearn import metrics as outside

from covid_jax.metrics.classification import classification_metrics
from covid_jax.metrics.weighted import weighted_metrics


def exams(rng, n, classes):
    """Labels, and probabilities of which many are equal."""
    score = np.round(rng.random((n, classes)), 1) + 0.1
    return rng.integers(classes, size=n), score / score.sum(1, keepdims=True)


@pytest.mark.parametrize('classes', [2, 3])
def test_a_whole_weight_is_a_repeated_exam(rng, classes):
    """Most weights are 0, so that every kind of undefined metric is met."""
    label, p = exams(rng, 7, classes)
    weight = rng.integers(3, size=(80, 7)) * (rng.random((80, 7)) < 0.6)
    found = weighted_metrics(label, p, weight)
    undefined = 0
    for i, times in enumerate(weight):
        rows = np.repeat(np.arange(7), times)
        expected = classification_metrics(label[rows], p[rows], 'abc'[:classes])
        for name, values in found.items():
            value = expected[name]['value']
            undefined += value is None
            assert np.isnan(values[i]) if value is None else values[i] == pytest.approx(value, abs=1e-12), (name, times)
    assert undefined > 20 and set(expected) - set(found) == {f'f1_{name}' for name in 'abc'[:classes]}


def test_weights_of_any_size_are_those_of_scikit_learn(rng):
    label, p = exams(rng, 40, 2)
    decided = (p[:, 1] >= 0.5).astype(int)
    weight = rng.random((3, 40)) * 5
    found = weighted_metrics(label, p, weight)
    for i, w in enumerate(weight):
        how = {'sample_weight': w}
        expected = {'accuracy': outside.accuracy_score(label, decided, **how),
                    'macro_f1': outside.f1_score(label, decided, average='macro', **how),
                    'sensitivity': outside.recall_score(label, decided, **how),
                    'specificity': outside.recall_score(label, decided, pos_label=0, **how),
                    'precision': outside.precision_score(label, decided, **how),
                    'auc': outside.roc_auc_score(label, p[:, 1], **how),
                    'average_precision': outside.average_precision_score(label, p[:, 1], **how)}
        assert {name: values[i] for name, values in found.items()} == pytest.approx(expected, abs=1e-12)


def test_another_class_may_be_the_positive_one(rng):
    label, p = exams(rng, 30, 2)
    one = weighted_metrics(label, p, np.ones((1, 30)))
    other = weighted_metrics(1 - label, p[:, ::-1], np.ones((1, 30)), positive=0)
    assert {name: v.item() for name, v in one.items()} == {name: v.item() for name, v in other.items()}
