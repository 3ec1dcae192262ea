"""The plots that every run leaves: what its answers are worth, split by split, each with the run, the split and the exams that it is of."""

from collections.abc import Mapping
from pathlib import Path
from re import fullmatch
from types import MappingProxyType

import numpy as np

from covid_jax.metrics.classification import confusion, decide
from covid_jax.predictions import Predictions
from covid_jax.report import plots
from covid_jax.sources.exams import POSITIVE

Thresholds = Mapping[str, float | None]
NONE: Thresholds = MappingProxyType({})


def write(folder: Path | str, predictions: Predictions, thresholds: Thresholds = NONE, note: str = '') -> None:
    """Writes, into the folder, confusion_<split>.png of each split with a label, roc.png, and of several sites roc_sites.png.

    thresholds: {split: the frozen threshold, or None}, which the curves of these splits mark; note: a sentence on every plot.
    """
    folder = Path(folder)
    p = predictions.labelled()
    if not p.exams:
        return
    ternary = len(p.names) > 2
    decided = 'decided for the most probable class' if ternary else f'decided for {p.names[POSITIVE]} from probability 0.5 up'
    curves = {}
    of_sites: dict[str, dict] = {}
    for split in p.splits:
        rows = p.of(split)
        matrix = confusion(rows.label, decide(rows.probability, positive=POSITIVE), len(p.names))
        plots.confusion_png(folder / f'confusion_{split}.png', matrix, p.names, f'{title(folder, rows, split)}\n{decided}', note)
        curves[split] = curve(rows)
        for site in rows.sites:
            of_sites.setdefault(site, {})[split] = curve(rows.of(site=site))
    roc = f'{name(folder)}\npositive class {p.names[POSITIVE]}, against all others'
    plots.roc_png(folder / 'roc.png', curves, roc, note, p.names[POSITIVE], thresholds)
    if len(of_sites) > 1:
        plots.roc_sites_png(folder / 'roc_sites.png', of_sites, f'{roc}, by site', note, p.names[POSITIVE], thresholds)


def curve(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """What roc_png draws: (1 for positive, else 0; score) of the labelled rows."""
    p = predictions.labelled()
    return (p.label == POSITIVE).astype(int), p.probability[:, POSITIVE]


def title(folder: Path | str, predictions: Predictions, split: str) -> str:
    """The two lines over a plot of labelled rows of a split: which run and split, how many exams, and which class is positive."""
    p = predictions.labelled()
    count = int(np.count_nonzero(p.label == POSITIVE))
    return f'{name(folder)}: {split}\nn = {len(p.exams)}, {count} of the positive class {p.names[POSITIVE]}'


def name(folder: Path | str) -> str:
    """What a plot calls the run of a folder: the end of its path, of a fold or seed the run's own with it, as 'cmc/model4/fold0/seed1'."""
    parts = Path(folder).absolute().parts[1:]
    start = len(parts) - 1
    while start > 0 and fullmatch(r'(fold|seed)\d+', parts[start]):
        start -= 1
    return '/'.join(parts[max(0, start - 1):])
