"""The parts of a stage, its folds and seeds, -> what they come to: each metric's mean, how far folds and seeds lie apart, and the
metric of all folds' answers pooled, with its interval over patients."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from covid_jax import evaluate
from covid_jax.metrics.classification import classification_metrics
from covid_jax.metrics.intervals import with_intervals
from covid_jax.metrics.spread import Spread, spread
from covid_jax.predictions import Predictions, aligned

Key = tuple[int, int]  # fold, seed
FROZEN = {'value': None, 'reason': 'metrics at a frozen threshold are not pooled: every part has a threshold of its own'}


class Summary(NamedTuple):
    """One metric of a stage's parts: values, {(fold, seed): value or None}; spread, None where a value is undefined; pooled:
    {'value', 'low', 'high', 'n', ...} of the pooled answers, the mean over seeds; {} where there is none."""

    values: dict[Key, float | None]
    spread: Spread | None
    pooled: dict[str, Any]


def summarise(answers: Mapping[Key, Predictions], metrics: Mapping[Key, dict], split: str,
              level: float = 0.95) -> dict[str, dict[str, Summary]]:
    """{group: {metric: Summary}} of a split.

    Args:
        answers: {(fold, seed): the Predictions of the part, those of the split alone}, every fold with every seed.
        metrics: {(fold, seed): {split: {group: {metric: {'value', ...}}}}}, as the parts left them.
        level: of the intervals.

    Raises:
        UserError: seeds of one fold that answered other exams.
    """
    pooled = pooled_metrics(answers, level)
    found: dict[str, dict[str, Summary]] = {}
    for group in dict.fromkeys(group for part in metrics.values() for group in part[split]):
        of_parts = {key: part[split].get(group, {}) for key, part in metrics.items()}
        for metric in dict.fromkeys(metric for entries in of_parts.values() for metric in entries):
            values = {key: entries.get(metric, {}).get('value') for key, entries in of_parts.items()}
            entry = FROZEN if metric.endswith('_frozen') else pooled.get(group, {}).get(metric, {})
            found.setdefault(group, {})[metric] = Summary(values, _spread(values), entry)
    return found


def _spread(values):
    if None in values.values():
        return None
    folds = sorted({fold for fold, _ in values})
    seeds = sorted({seed for _, seed in values})
    return spread([[values[fold, seed] for seed in seeds] for fold in folds])


def pooled_metrics(tables: Mapping[Key, Predictions], level: float) -> dict[str, dict[str, dict]]:
    """{group: {metric: {'value', 'low', 'high', 'n', ...}}} of the answers of all folds together: of each seed its own, and then
    the mean over the seeds. The interval is over patients, the seeds as they are. Decisions are those without a frozen threshold,
    of which every fold has another.

    tables: {(fold, seed): the Predictions of a split}. Nothing where a fold answers what another one does: what is not dealt into
    folds is no out-of-fold answer.
    """
    whole = pool(tables)
    if whole is None:
        return {}
    grouped, _ = evaluate.groups(whole)
    return {group: _mean_over_seeds(rows.labelled(), level) for group, rows in grouped.items()}


def pool(tables: Mapping[Key, Predictions]) -> Predictions | None:
    """The answers of all folds together, those of the seeds beside each other: probability [n, seeds * classes]. None where a
    fold answers what another one does. UserError for seeds of other exams."""
    by_seed: dict[int, list[Predictions]] = {}
    for (_, seed), table in sorted(tables.items(), key=lambda item: item[0]):
        by_seed.setdefault(seed, []).append(table)
    runs = [_concatenated(parts) for parts in by_seed.values()]
    ids = [exam.id for exam in runs[0].exams]
    if len(set(ids)) < len(ids):
        return None
    first, *others = aligned(runs, [f'seed {seed}' for seed in by_seed])
    assert first.probability is not None
    return first._replace(probability=np.concatenate([run.probability for run in (first, *others)], axis=1))


def _concatenated(parts):
    return parts[0]._replace(exams=[exam for part in parts for exam in part.exams],
                             label=np.concatenate([part.label for part in parts]),
                             probability=np.concatenate([part.probability for part in parts]),
                             features=None, columns={})


def _mean_over_seeds(rows, level):
    seeds = rows.probability.shape[1] // len(rows.names)

    def metrics(label, beside):
        runs = [classification_metrics(label, p, rows.names, None, evaluate.POSITIVE) for p in np.split(beside, seeds, axis=1)]
        return {metric: _mean([run[metric] for run in runs]) for metric in runs[0]}

    patients = [exam.patient for exam in rows.exams]
    return with_intervals(metrics, rows.label, rows.probability, patients, level=level, names=rows.names)


def _mean(entries):
    undefined = [entry for entry in entries if entry['value'] is None]
    if undefined:
        return undefined[0]
    return {'value': float(np.mean([entry['value'] for entry in entries])), 'n': min(entry['n'] for entry in entries)}
