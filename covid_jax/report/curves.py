"""The plots of a report's page, drawn for a narrow screen: curves with their bands, training, and those of plots.py once more."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from covid_jax.metrics.bands import Band, precision_recall_band, roc_band
from covid_jax.predictions import Predictions
from covid_jax.report import calibration, pictures, plots
from covid_jax.scans.scan import blame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
WIDTH = 4.4  # inches, of all plots: on a phone, 360 pixels wide, a text of 10 points then has 11 pixels
WINDOW = 50  # points of the training curve, into which its steps are averaged
SHOWN = ('auc', 'macro_f1', 'loss', 'knn_auc')  # of validation, the first two that are there


def png(figure: 'Figure') -> bytes:
    """The figure as a PNG file that tells nothing of when it was made."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    width, height = figure.get_size_inches()
    figure.set_size_inches(WIDTH, height * WIDTH / width)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=DPI, metadata={'Software': None})
    return content.getvalue()


def banded_figures(answers: Predictions, threshold: float | None, level: float) -> dict[str, 'Figure']:
    """{'roc', 'pr': figure} of the labelled rows of each split, each curve with its band. threshold: marked on the ROC where there is one."""
    rows = {split: answers.of(split).labelled() for split in answers.labelled().splits}
    curves = {f'{split}, n = {len(of.exams)}': (*pictures.curve(of), [exam.patient for exam in of.exams]) for split, of in rows.items()}
    name = answers.names[1]
    roc = {split: roc_band(*of, level) for split, of in curves.items()}
    recall = {split: precision_recall_band(*of, level) for split, of in curves.items()}
    figures = {'roc': _banded(roc, f'1 - specificity (others called {name})', f'sensitivity ({name} called so)'),
               'pr': _banded(recall, f'recall ({name} called so)', f'precision (called {name} rightly)')}
    roc_axes = figures['roc'].axes[0]
    roc_axes.plot([0, 1], [0, 1], color='grey', linestyle=':', label='chance')
    pr_axes = figures['pr'].axes[0]
    for k, (split, (label, score, _)) in enumerate(curves.items()):
        if roc[split] is None:
            continue
        pr_axes.axhline(label.mean(), color=f'C{k}', linestyle=':', linewidth=1)
        if threshold is not None:
            called = score >= threshold
            roc_axes.plot([called[label == 0].mean()], [called[label == 1].mean()], f'C{k}o', clip_on=False)
    roc_axes.legend(loc='lower right', fontsize=9, framealpha=0.6)
    pr_axes.legend(loc='lower left', fontsize=9, framealpha=0.6)
    return figures


def calibration_figures(rows: Predictions, temperature: float | None) -> dict[str, 'Figure']:
    """{'reliability', 'decision': figure} of labelled rows, as answered and at the temperature where there is one."""
    versions = {'as answered': rows}
    if temperature:
        versions[f'at temperature {temperature:.2f}'] = calibration.at(rows, temperature)
    curves = {name: pictures.curve(of) for name, of in versions.items()}
    return {'reliability': plots.reliability_figure(curves, rows.names[1]), 'decision': plots.decision_figure(curves, rows.names[1])}


def training_figure(rows: Sequence[Mapping[str, Any]]) -> 'Figure | None':
    """The loss and what validation said, over steps: rows as of metrics.jsonl; None of fewer than two."""
    from matplotlib.figure import Figure

    steps = np.array([row['step'] for row in rows if 'loss' in row])
    if len(steps) < 2:
        return None
    loss = np.array([row['loss'] for row in rows if 'loss' in row], float)
    groups = np.array_split(np.arange(len(steps)), min(WINDOW, len(steps)))
    figure = Figure(figsize=(WIDTH, 3.6), layout='constrained')
    axes = figure.subplots()
    axes.plot([steps[of].mean() for of in groups], [loss[of].mean() for of in groups], color='C0', label='loss (train)')
    axes.set(xlabel='step', ylabel='loss (train)')
    axes.locator_params(axis='x', integer=True)
    axes.grid(alpha=0.3)
    there = [name for name in SHOWN if any(f'val/{name}' in row for row in rows)][:2]
    if there:
        other = axes.twinx()
        other.set_ylabel('validation')
        for k, name in enumerate(there, 1):
            of = [(row['step'], row[f'val/{name}']) for row in rows if f'val/{name}' in row]
            other.plot(*zip(*of, strict=True), color=f'C{k}', marker='o', markersize=3, label=f'{name} (val)')
    handles = [handle for of in figure.axes for handle in of.get_lines()]
    figure.legend(handles, [str(handle.get_label()) for handle in handles], loc='outside upper center', ncols=2, fontsize=9)
    return figure


def training_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, but for a last one that is cut off. UserError for a damaged file."""
    path = folder / 'metrics.jsonl'
    with blame(path):
        lines = path.read_text(encoding='utf-8').split('\n')[:-1] if path.is_file() else []
        return [_row(number, line) for number, line in enumerate(lines, 1)]


def _row(number, line):
    try:
        row = json.loads(line)
        return {'step': int(row.pop('step')), **{name: float(value) for name, value in row.items()}}
    except (ValueError, TypeError, AttributeError, LookupError):
        raise ValueError(f'line {number} is damaged: delete it, or give the command of its run again') from None


def _banded(bands: Mapping[str, Band | None], across: str, up: str) -> 'Figure':
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, WIDTH), layout='constrained')
    axes = figure.subplots()
    for k, (name, band) in enumerate(bands.items()):
        if band is None:
            axes.plot([], [], linestyle='none', label=f'{name}: undefined, it has one class')
            continue
        if band.low is not None:
            axes.fill_between(band.grid, band.low, band.high, color=f'C{k}', alpha=0.18, linewidth=0)
        axes.plot(band.x, band.y, f'C{k}', label=name, clip_on=False)
    axes.set(xlabel=across, ylabel=up, xlim=(0, 1), ylim=(0, 1), aspect='equal')
    axes.grid(alpha=0.3)
    return figure
