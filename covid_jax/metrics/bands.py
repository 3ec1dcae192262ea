"""How sure a curve is: bands of ROC and precision-recall curves, point by point, from resampled patients."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import precision_recall_curve, roc_curve

from covid_jax.metrics.intervals import patient_strata

RESAMPLES = 300
GRID = np.linspace(0, 1, 101)
Curve = tuple[np.ndarray, np.ndarray]


class Band(NamedTuple):
    """x, y: the curve itself; grid: where the band is known; low, high: of y there, None where no band can be given."""

    x: np.ndarray
    y: np.ndarray
    grid: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def roc_band(is_positive: ArrayLike, score: ArrayLike, patient: ArrayLike, level: float = 0.95, resamples: int = RESAMPLES) -> Band | None:
    """Sensitivity over 1 - specificity, with a band by the percentiles of resampled patients (300 by default, the same each time).

    is_positive: bool [n]; score: float [n]; patient: a key for each exam, drawn with all of its exams within its stratum. None where there
    are no positives or no negatives; without a band where a class has fewer than two patients. It is a band of each point by itself: the
    whole curve leaves it more often than 1 - level.
    """
    def curve(label, scores, weight):
        x, y, _ = roc_curve(label, scores, sample_weight=weight)
        return x, y

    return _band(curve, is_positive, score, patient, level, resamples)


def precision_recall_band(is_positive: ArrayLike, score: ArrayLike, patient: ArrayLike, level: float = 0.95,
                          resamples: int = RESAMPLES) -> Band | None:
    """Precision over recall, in order of recall; all else as of roc_band."""
    def curve(label, scores, weight):
        precision, recall, _ = precision_recall_curve(label, scores, sample_weight=weight)
        reached = np.flatnonzero(recall == 1)[-1]  # all are found: lower thresholds find no more, and are no part of the curve
        return recall[reached:][::-1], precision[reached:][::-1]

    return _band(curve, is_positive, score, patient, level, resamples)


def _band(curve: Callable[[np.ndarray, np.ndarray, np.ndarray], Curve], is_positive, score, patient, level, resamples):
    label = np.asarray(is_positive).astype(int)
    scores = np.asarray(score, float)
    if label.all() or not label.any():
        return None
    x, y = curve(label, scores, np.ones(len(label)))
    strata = list(patient_strata(label, np.asarray(patient)).values())
    if min(len({key for key, of in zip(patient, label, strict=True) if of == each}) for each in (0, 1)) < 2:
        return Band(x, y, GRID, None, None)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([of[i] for of in strata for i in random.integers(len(of), size=len(of))])
        weight = np.bincount(rows, minlength=len(label)).astype(float)
        if weight[label == 1].any() and weight[label == 0].any():
            here = weight > 0
            drawn.append(np.interp(GRID, *curve(label[here], scores[here], weight[here])))
    tail = 50 * (1 - level)
    low, high = np.percentile(drawn, (tail, 100 - tail), axis=0)
    return Band(x, y, GRID, low, high)
