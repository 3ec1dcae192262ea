"""Confidence intervals of metrics by resampling patients: exams of one patient are not independent."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

NEEDED = 10  # patients of each class: a bootstrap of fewer says too little
Metrics = dict[str, dict[str, Any]]  # as from classification.classification_metrics


def with_intervals(metrics_fn: Callable[[np.ndarray, np.ndarray], Metrics], label: ArrayLike, probability: ArrayLike,
                   patient: ArrayLike, resamples: int = 1000, level: float = 0.95, seed: int = 0,
                   names: Sequence[str] | None = None) -> Metrics:
    """Metrics with percentile bootstrap intervals over patients, stratified by label.

    Patients are drawn with replacement within their stratum, each with all of their exams. The stratum is the label of
    their exams, or the set of labels where a patient has several. All metrics are computed on the same resamples, and
    these do not depend on the order of the exams. Stratified, an interval speaks of cohorts with the same numbers of
    patients per class, and accuracy-type metrics get a slightly narrower one than without strata.

    Args:
        metrics_fn: (label, probability) -> {metric: {'value': float or None, 'n': int, optionally 'reason': str}}.
        label: int [n], in [0, classes).
        probability: float [n, classes].
        patient: str or int [n], one key per exam.
        resamples: the number of bootstrap resamples.
        level: the central part of the resampled values that the interval holds, in (0, 1).
        seed: of the resampling.
        names: the name of every class, for the reasons; without them the index is given.

    Returns:
        metrics_fn(label, probability) with 'low' and 'high' added to each metric. Both are None for all metrics where
        a class has fewer than 10 patients, and for a metric that is undefined on the exams or on any resample;
        'reason' then says so, after the reason that the value itself may have.

    Raises:
        ValueError: arrays of different lengths, no resamples, a level outside (0, 1).
    """
    label = np.asarray(label)
    probability = np.asarray(probability)
    patient = np.asarray(patient)
    if not len(label) == len(probability) == len(patient):
        raise ValueError(f'{len(label)} labels, {len(probability)} probabilities and {len(patient)} patients')
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f'resamples must be at least 1 and level in (0, 1): {resamples}, {level}')
    result = metrics_fn(label, probability)
    strata = patient_strata(label, patient)
    few = _too_few(strata, range(probability.shape[1]) if names is None else names)
    if few:
        return {key: _without(entry, few) for key, entry in result.items()}

    random = np.random.default_rng(seed)
    resampled = []
    for _ in range(resamples):
        rows = _draw(random, strata)
        resampled.append(metrics_fn(label[rows], probability[rows]))
    return {key: _interval(entry, [sample[key]['value'] for sample in resampled], level)
            for key, entry in result.items()}


def patient_strata(label: np.ndarray, patient: np.ndarray) -> dict[tuple[int, ...], list[np.ndarray]]:
    """The exams of every patient, by stratum: {labels: [int [exams of the patient], ...]}.

    Strata come in the order of their labels and patients in the order of their keys, whatever the order of the exams.
    """
    _, code = np.unique(patient, return_inverse=True)
    exams = np.split(np.argsort(code, kind='stable'), np.cumsum(np.bincount(code))[:-1])
    strata: dict[tuple[int, ...], list[np.ndarray]] = {}
    for rows in exams:
        strata.setdefault(tuple(np.unique(label[rows]).tolist()), []).append(rows)
    return {key: strata[key] for key in sorted(strata)}


def _draw(random, strata):
    return np.concatenate([patients[i] for patients in strata.values()
                           for i in random.integers(len(patients), size=len(patients))])


def _too_few(strata, names):
    counts = {name: sum(len(patients) for labels, patients in strata.items() if index in labels)
              for index, name in enumerate(names)}
    few = [f'{count} patients of class {name}' for name, count in counts.items() if count < NEEDED]
    return f'no interval: {" and ".join(few)}, {NEEDED} needed' if few else ''


def _interval(entry, values, level):
    undefined = sum(value is None for value in values)
    if undefined or entry['value'] is None:
        return _without(entry, f'no interval: undefined on {undefined} of {len(values)} resamples')
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return {**entry, 'low': float(low), 'high': float(high)}


def _without(entry, reason):
    reasons = [entry['reason'], reason] if 'reason' in entry else [reason]
    return {**entry, 'low': None, 'high': None, 'reason': '; '.join(reasons)}
