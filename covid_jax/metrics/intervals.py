"""Confidence intervals of metrics from how they vary over patients: exams of one patient are not independent.

docs/results.md says how often these intervals hold the truth, and how wide they are; scripts/simulate_intervals.py asks.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

NEEDED = 2  # patients of each class: of one alone nobody knows how much they vary
CHECKED = 20  # patients, and
CHECKED_OF_CLASS = 5  # of them of each class: with fewer nobody has simulated how often an interval holds the truth
GROUPS = 500  # into which the patients of a stratum are dealt, at most: more take time and say little more
ROUNDING = 1e-12  # of a metric: what differs by less does not vary
Metrics = dict[str, dict[str, Any]]  # as from classification.classification_metrics


def with_intervals(metrics_fn: Callable[[np.ndarray, np.ndarray], Metrics], label: ArrayLike, probability: ArrayLike,
                   patient: ArrayLike, level: float = 0.95, names: Sequence[str] | None = None,
                   positive: int = 1) -> Metrics:
    """Metrics with confidence intervals over patients.

    Each patient is left out in turn, with all of their exams, and all metrics are computed of the rest: the jackknife,
    stratified by label. (Of more than 500 patients in a stratum, 500 groups are left out in turn.) `interval` makes an
    interval of that. It speaks of cohorts with the same numbers of patients per class. Nothing is drawn: the same exams
    give the same intervals. A threshold within metrics_fn is taken as given: what is uncertain about it is not in them.

    Args:
        metrics_fn: (label, probability) -> {metric: {'value': float in [0, 1] or None, 'n': int, optionally 'reason': str}}.
        label: int [n], in [0, classes).
        probability: float [n, classes].
        patient: str or int [n], one key per exam.
        level: the share of cohorts whose interval holds the truth, in (0, 1).
        names: the name of every class, for the reasons; without them the index is given.
        positive: the index of the positive class.

    Returns:
        metrics_fn(label, probability) with 'low', 'high' and 'level' added to each metric; and with a sentence under
        'note', where patients are fewer than in the simulations that tell how often such intervals hold the truth. 'low'
        and 'high' are None, without a level, for all metrics where a class has fewer than 2 patients, and for a metric
        that is undefined on the exams or without one of the patients; 'reason' then says so, after the reason that the
        value itself may have.

    Raises:
        ValueError: arrays of different lengths, a level outside (0, 1).
    """
    label = np.asarray(label)
    probability = np.asarray(probability)
    patient = np.asarray(patient)
    if not len(label) == len(probability) == len(patient):
        raise ValueError(f'{len(label)} labels, {len(probability)} probabilities and {len(patient)} patients')
    if not 0 < level < 1:
        raise ValueError(f'level must be in (0, 1): {level}')
    result = metrics_fn(label, probability)
    strata = patient_strata(label, patient)
    counts = patients_of_classes(strata, range(probability.shape[1]) if names is None else names)
    if few := too_few(counts, NEEDED):
        return {key: _without(entry, few) for key, entry in result.items()}

    rest = [[metrics_fn(label[kept], probability[kept]) for kept in _leaving_out(patients, len(label))]
            for patients in strata.values()]
    note = _note(sum(map(len, strata.values())), counts)
    bounded = {}
    for key, entry in result.items():
        values = [[metrics[key]['value'] for metrics in stratum] for stratum in rest]
        if entry['value'] is None or any(None in stratum for stratum in values):
            bounded[key] = _without(entry, 'no interval: with one of the patients left out it is undefined')
            continue
        low, high = interval(entry['value'], values, effective_size(key, entry['n'], label, patient, positive), level)
        bounded[key] = {**entry, 'low': low, 'high': high, 'level': level, **note}
    return bounded


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


def interval(value: float, rest: Sequence[Sequence[float]], independent: float, level: float) -> tuple[float, float]:
    """A metric's confidence interval: that of Clopper and Pearson, for as many independent exams as the metric varies like.

    The jackknife's variance v of the metric (divided by n where it has n - 1) is that of a share of value (1 - value) / v
    independent exams (Korn and Graubard 1998, for shares in surveys). Of few patients, or where few of them make all the
    difference, v is itself uncertain. It is the sum over patients of d^2, what each adds to the metric, and rests on
    v^2 / sum(d^4) of them. So it is averaged with a cautious variance that counts as one more patient: that of a share of
    `independent` exams. Where the metric does not vary, as at 0 and at 1, that is all that is left. Sensitivity and specificity
    of patients with one exam each get exactly the interval of their share, as long as each is left out alone.

    Args:
        value: the metric, in [0, 1].
        rest: by stratum, the metric without each of its patients (or groups of them).
        independent: the number of independent exams that the metric is worth at the least, as from effective_size.
        level: the share of cohorts whose interval holds the truth, in (0, 1).

    Returns:
        float, float: low and high, 0 <= low <= value <= high <= 1, one of them strictly.
    """
    square = np.concatenate([_deviations(np.asarray(values), value)**2 for values in rest])
    variance = square.sum()
    n = independent
    if variance and 0 < value < 1:
        patients = variance**2 / (square**2).sum()
        n = (patients + 1) / (patients * variance / (value * (1 - value)) + 1 / independent)
    return clopper_pearson(min(value, 1.0) * n, n, level)


def clopper_pearson(hits: float, n: float, level: float) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934), whose bounds are quantiles of beta laws: so neither hits nor n
    need be whole. hits: in [0, n]; n: above 0; level: in (0, 1)."""
    tail = (1 - level) / 2
    low = betaincinv(hits, n - hits + 1, tail) if hits > 0 else 0.0
    high = betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0
    return float(low), float(high)


def effective_size(metric: str, n: int, label: np.ndarray, patient: np.ndarray, positive: int = 1) -> float:
    """The number of independent exams that a metric is worth at the least, where exams of one patient are all alike.

    Exams of which patients have m_1, m_2, ... are worth as many as (sum m)^2 / sum m^2 independent ones (Kish 1965): a patient
    with many counts as one. A share is worth that of the exams that it counts; precision, which does not tell whose exams it
    counts, its n over the larger mean size of a patient, of the positives or the others; average precision the class of which it is
    least, and F1, macro F1 and AUC twice that (an F1 near 1 is a share of examples and predictions; the variance of an AUC near 1
    is that of Hanley and McNeil 1982).

    Args:
        metric: its key, with or without _frozen.
        n: the number of exams that the value is a statement about.
        label: int [exams].
        patient: str or int [exams].
        positive: the index of the positive class.
    """
    name = metric.removesuffix('_frozen')
    is_positive = label == positive
    if name == 'accuracy':
        return _worth(patient)
    if name == 'sensitivity':
        return _worth(patient[is_positive])
    if name == 'specificity':
        return _worth(patient[~is_positive])
    if name == 'precision':
        return n * min(_worth(patient[rows]) / rows.sum() for rows in (is_positive, ~is_positive) if rows.any())
    least = min(_worth(patient[label == index]) for index in np.unique(label))
    return least if name == 'average_precision' else 2 * least


def _worth(patient):
    of_patient = np.unique(patient, return_counts=True)[1]
    return float(of_patient.sum()**2 / (of_patient**2).sum())


def _deviations(rest, value):
    """What each patient of a stratum adds to the metric. One who is a stratum alone is set against the value of all."""
    count = len(rest)
    about = rest - value if count == 1 else (rest - rest.mean()) * (count - 1) / count
    return np.where(np.abs(about) < ROUNDING, 0, about)


def _leaving_out(patients, n):
    """Which of n exams stay, bool [n], without each patient of a stratum in turn, or each group of them."""
    dealt = np.random.default_rng(0).permutation(len(patients))
    for group in range(min(GROUPS, len(patients))):
        kept = np.ones(n, bool)
        for i in dealt[group::GROUPS]:
            kept[patients[i]] = False
        yield kept


def patients_of_classes(strata: dict[tuple[int, ...], list[np.ndarray]], names: Iterable) -> dict:
    """{name of a class: how many patients have an exam of it}. strata: as from patient_strata."""
    return {name: sum(len(patients) for labels, patients in strata.items() if index in labels)
            for index, name in enumerate(names)}


def too_few(counts: dict, needed: int) -> str:
    """Why there is no interval, where a class has fewer patients than are needed; else ''. counts: of patients_of_classes."""
    few = [f'{count} patient{"s" * (count != 1)} of class {name}' for name, count in counts.items() if count < needed]
    return f'no interval: {" and ".join(few)}, {needed} needed' if few else ''


def _note(patients, counts):
    """What is said of an interval where the patients are fewer than those of the simulations, as the entry's note."""
    few = [f'{patients} patients'] if patients < CHECKED else []
    few += [f'{count} of class {name}' for name, count in counts.items() if count < CHECKED_OF_CLASS]
    if not few:
        return {}
    return {'note': f'interval: {", ".join(few)}; how often it holds the truth is known from {CHECKED} patients and '
                    f'{CHECKED_OF_CLASS} of each class up'}


def _without(entry, reason):
    reasons = [entry['reason'], reason] if 'reason' in entry else [reason]
    return {**entry, 'low': None, 'high': None, 'reason': '; '.join(reasons)}
