"""What a run's probabilities are worth: calibration.json, its diagrams and its decision curves, split by split."""

import json
from pathlib import Path
from typing import Any

from covid_jax.metrics.calibration import COLDEST, HOTTEST, calibration_metrics, temperature, tempered
from covid_jax.predictions import Predictions
from covid_jax.report import pictures, plots
from covid_jax.runtime import files
from covid_jax.sources.exams import POSITIVE

AT_BOUND = 0.01  # of a temperature, from its bound

Metrics = dict[str, dict[str, Any]]


def scores(predictions: Predictions, level: float | None = None) -> Metrics:
    """{'ece', 'brier': entry} of the labelled rows, by exam; empty where there are none."""
    p = predictions.labelled()
    if not p.exams:
        return {}
    found = calibration_metrics(p.label, p.probability, [e.patient for e in p.exams], p.names, level, POSITIVE)
    return {name: {**entry, 'positive': p.names[POSITIVE]} for name, entry in found.items()}


def at(predictions: Predictions, value: float) -> Predictions:
    """The same answers at this temperature."""
    return predictions._replace(probability=tempered(predictions.probability, value))


def write(folder: Path | str, predictions: Predictions, level: float | None = None, note: str = '') -> dict[str, dict]:
    """Writes, into the folder, calibration.json, and of each split with a label reliability_<split>.png and decision_<split>.png.

    The temperature is fitted on the labelled exams of the validation split, and frozen. level: of the intervals; note: a
    sentence that every plot carries. Returns what the JSON holds: {split: {'temperature': {'value', 'n', optionally
    'reason' or 'note'}, 'before': {metric: entry}, and, where there is a temperature, 'after': {metric: entry}}}.
    """
    folder = Path(folder)
    fitted = predictions.of('val').labelled()
    value = temperature(fitted.label, fitted.probability, POSITIVE) if fitted.exams else None
    entry: dict[str, Any] = {'value': value, 'n': len(fitted.exams)}
    if value is None:
        entry['reason'] = 'undefined: no validation split with both classes to fit it on'
    elif not COLDEST + AT_BOUND < value < HOTTEST - AT_BOUND:
        entry['note'] = 'at a bound of what is looked at: these validation exams do not tell it'
    table: dict[str, dict] = {}
    for split in predictions.splits:
        rows = predictions.of(split).labelled()
        if not rows.exams:
            continue
        versions = {'before': rows}
        if value is not None:
            versions['after'] = at(rows, value)
        table[split] = {'temperature': entry, **{name: scores(version, level) for name, version in versions.items()}}
        if split == 'val' and value is not None:
            fit_note = {'note': 'the temperature was fitted on these exams'}
            table[split]['after'] = {name: {**found, **fit_note} for name, found in table[split]['after'].items()}
        names = {'before': 'as answered', 'after': f'at temperature {value:.2f}' if value else ''}
        curves = {names[name]: (version.label == POSITIVE, version.probability[:, POSITIVE])
                  for name, version in versions.items()}
        above = pictures.title(folder, rows, split)
        plots.reliability_png(folder / f'reliability_{split}.png', curves, above, note, rows.names[POSITIVE])
        plots.decision_png(folder / f'decision_{split}.png', curves, above, note, rows.names[POSITIVE])
    files.write(folder / 'calibration.json', json.dumps(table, indent=1))
    return table


def read_temperature(folder: Path | str) -> float | None:
    """The temperature that a finished run has frozen; None where it has none, or is of before there was one."""
    path = Path(folder) / 'calibration.json'
    table: dict[str, dict] = json.loads(path.read_text()) if path.exists() else {}
    return next((of_split['temperature']['value'] for of_split in table.values()), None)
