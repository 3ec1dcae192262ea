"""Metrics of a classifier on one split. The positive class (COVID, index 1) is set against all the others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score


def classification_metrics(label: ArrayLike, probability: ArrayLike, names: Sequence[str], threshold: float | None = None,
                           positive: int = 1) -> dict[str, dict[str, Any]]:
    """Accuracy, F1, sensitivity, specificity, precision, AUC and average precision.

    Keys: accuracy, macro_f1, f1_<name> of every class, sensitivity, specificity and precision of the positive class,
    auc and average_precision of its probability against the rest; and, where `threshold` is given, all but the last two
    once more with the suffix _frozen.

    Args:
        label: int [n], in [0, classes).
        probability: float [n, classes], in [0, 1].
        names: the name of every class, in order.
        threshold: the threshold on probability[:, positive] that was frozen on validation; without it the decisions
            are those of `decide`, as the papers report them.
        positive: the index of the positive class.

    Returns:
        {metric: {'value': float in [0, 1] or None, 'n': int}}, where n counts the exams that the value is a statement
        about: the positives for sensitivity, the others for specificity, those that were predicted positive for
        precision, all for the rest. An F1 without a hit is 0. What is undefined is None, with a sentence under
        'reason': an F1 of a class with neither examples nor predictions, the macro F1 where a class has no examples,
        a rate or a ranking metric without the exams it needs.

    Raises:
        ValueError: shapes that do not fit, labels outside [0, classes), probabilities outside [0, 1] or NaN.
    """
    truth, p = _checked(label, probability, names, positive)
    result = _decision_metrics(truth, decide(p, None, positive), names, positive)
    if threshold is not None:
        frozen = _decision_metrics(truth, decide(p, threshold, positive), names, positive)
        result |= {f'{key}_frozen': entry for key, entry in frozen.items()}
    return result | _ranking_metrics(truth == positive, p[:, positive], names[positive])


def decide(probability: ArrayLike, threshold: float | None = None, positive: int = 1) -> np.ndarray:
    """The predicted class, int [n], of probability, float [n, classes].

    The positive class where its probability reaches the threshold, else the most probable of the others. Without a
    threshold: 0.5 for two classes, the most probable class for more.
    """
    p = np.asarray(probability, float)
    classes = p.shape[1]
    if threshold is None and classes > 2:
        return p.argmax(1)
    others = np.where(np.arange(classes) == positive, -np.inf, p).argmax(1)
    return np.where(p[:, positive] >= (0.5 if threshold is None else threshold), positive, others)


def frozen_threshold(label: ArrayLike, probability: ArrayLike, positive: int = 1) -> float | None:
    """The threshold that maximises Youden's J = sensitivity + specificity - 1, to be frozen on validation.

    Args:
        label: int [n].
        probability: float [n, classes].
        positive: the index of the positive class.

    Returns:
        float: of the midpoints between neighbouring distinct scores the one with the largest J, among equals the one
        nearest to 0.5; 0.5 itself where all scores are equal. None where the positives or the others are absent.
    """
    score = np.asarray(probability, float)[:, positive]
    is_positive = np.asarray(label) == positive
    positives = is_positive.sum()
    negatives = (~is_positive).sum()
    if not positives or not negatives:
        return None
    distinct = np.unique(score)
    if len(distinct) == 1:
        return 0.5
    candidates = (distinct[:-1] + distinct[1:]) / 2
    hits = positives - np.searchsorted(np.sort(score[is_positive]), candidates)
    alarms = negatives - np.searchsorted(np.sort(score[~is_positive]), candidates)
    youden = hits * negatives - alarms * positives  # J times both counts: integers, so that ties are exact
    best = candidates[youden == youden.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def confusion(label: ArrayLike, predicted: ArrayLike, classes: int) -> np.ndarray:
    """The confusion matrix, int [classes, classes]: rows are the truth, columns the prediction.

    Args:
        label: int [n].
        predicted: int [n].
        classes: the number of classes.

    Raises:
        ValueError: a label or a prediction outside [0, classes).
    """
    rows = np.asarray(label, int)
    columns = np.asarray(predicted, int)
    for what, values in (('label', rows), ('predicted', columns)):
        if values.size and not (0 <= values.min() and values.max() < classes):
            raise ValueError(f'{what}: {values.min()} to {values.max()}, must be in [0, {classes})')
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def _decision_metrics(label, predicted, names, positive):
    matrix = confusion(label, predicted, len(names))
    n = len(label)
    hits = matrix.diagonal()
    examples = matrix.sum(1)
    predictions = matrix.sum(0)
    positives = examples[positive]
    negatives = n - positives
    alarms = predictions[positive] - hits[positive]

    result = {'accuracy': _ratio(hits.sum(), n, n, 'no exams')}
    f1 = {f'f1_{name}': _ratio(2 * hit, total, n, f'neither examples nor predictions of class {name}')
          for name, hit, total in zip(names, hits, examples + predictions, strict=True)}
    absent = [name for name, count in zip(names, examples, strict=True) if not count]
    total = 0 if absent else sum(entry['value'] for entry in f1.values())
    result['macro_f1'] = _ratio(total, 0 if absent else len(names), n, f'no examples of class {", ".join(absent)}')
    result |= f1
    result['sensitivity'] = _ratio(hits[positive], positives, positives, f'no examples of class {names[positive]}')
    result['specificity'] = _ratio(negatives - alarms, negatives, negatives,
                                   f'no examples other than class {names[positive]}')
    result['precision'] = _ratio(hits[positive], predictions[positive], predictions[positive],
                                 f'no predictions of class {names[positive]}')
    return result


def _ranking_metrics(is_positive, score, name):
    if is_positive.any() and not is_positive.all():
        values = {'auc': roc_auc_score(is_positive, score), 'average_precision': average_precision_score(is_positive, score)}
        reason = ''
    else:
        values = {'auc': None, 'average_precision': None}
        reason = f'no examples other than class {name}' if is_positive.any() else f'no examples of class {name}'
    return {key: _entry(value, len(score), reason) for key, value in values.items()}


def _ratio(numerator, denominator, n, reason):
    return _entry(numerator / denominator if denominator else None, n, reason)


def _entry(value, n, reason):
    if value is None:
        return {'value': None, 'n': int(n), 'reason': f'undefined: {reason}'}
    return {'value': float(value), 'n': int(n)}


def _checked(label, probability, names, positive):
    label = np.asarray(label)
    probability = np.asarray(probability, float)
    if label.ndim != 1 or probability.shape != (len(label), len(names)):
        raise ValueError(f'label [n] and probability [n, classes] do not fit: {label.shape}, {probability.shape} '
                         f'for {len(names)} classes')
    if len(names) < 2 or len(set(names)) < len(names) or not 0 <= positive < len(names):
        raise ValueError(f'names must be two or more, all different, and hold the positive {positive}: {names}')
    if label.size and not (label.dtype.kind in 'iu' and 0 <= label.min() and label.max() < len(names)):
        raise ValueError(f'label: integers in [0, {len(names)}) expected; leave unlabelled exams out')
    if not np.all((probability >= 0) & (probability <= 1 + 1e-6)):
        raise ValueError('probability must be in [0, 1]: NaN, or logits without a softmax?')
    return label.astype(int), probability
