"""The metrics of classification.py for many weightings of the same exams at once.

A bootstrap resample counts each exam so many times, and a set without a patient counts theirs zero times: each is a row of
weights. What is sorted is sorted once.
"""

import numpy as np
from numpy.typing import ArrayLike

from covid_jax.metrics.classification import decide


def weighted_metrics(label: ArrayLike, probability: ArrayLike, weight: ArrayLike, positive: int = 1) -> dict[str, np.ndarray]:
    """Accuracy, macro F1, sensitivity, specificity, precision, AUC and average precision of every weighting.

    With whole weights the numbers are those of `classification_metrics` on the exams, each repeated so many times; the
    decisions are those of `decide`.

    Args:
        label: int [n], in [0, classes).
        probability: float [n, classes], in [0, 1].
        weight: float [weightings, n], at least 0.
        positive: the index of the positive class.

    Returns:
        {metric: float [weightings]}, NaN where the metric is undefined.
    """
    truth = np.asarray(label)
    p = np.asarray(probability, float)
    w = np.asarray(weight, float)
    decided = decide(p, positive=positive)
    is_positive = truth == positive
    hits = w @ (is_positive & (decided == positive))
    f1 = []
    for index in range(p.shape[1]):
        examples = w @ (truth == index)
        either = examples + w @ (decided == index)
        f1.append(_ratio(2 * (w @ ((truth == index) & (decided == index))), np.where(examples > 0, either, 0)))
    return {'accuracy': _ratio(w @ (decided == truth), w.sum(1)),
            'macro_f1': np.mean(f1, 0),
            'sensitivity': _ratio(hits, w @ is_positive),
            'specificity': _ratio(w @ (~is_positive & (decided != positive)), w @ ~is_positive),
            'precision': _ratio(hits, w @ (decided == positive)),
            **_ranking(is_positive, p[:, positive], w)}


def _ranking(is_positive, score, w):
    """AUC, with half of each tie, and average precision, where what has one score is found together."""
    order = np.argsort(score, kind='stable')
    _, starts = np.unique(score[order], return_index=True)
    positives = np.add.reduceat((w * is_positive)[:, order], starts, axis=1)  # [weightings, distinct scores], the lowest first
    others = np.add.reduceat((w * ~is_positive)[:, order], starts, axis=1)
    below = np.cumsum(others, 1) - others / 2
    found = np.cumsum(positives[:, ::-1], 1)[:, ::-1]
    called = np.cumsum((positives + others)[:, ::-1], 1)[:, ::-1]
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    pairs = positives.sum(1) * others.sum(1)
    return {'auc': _ratio((positives * below).sum(1), pairs),
            'average_precision': _ratio((positives * precision).sum(1), np.where(pairs > 0, positives.sum(1), 0))}


def _ratio(numerator, denominator):
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
