"""The plots of a run as PNG files. Figures are made without pyplot, so that no display and no global state is touched."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import auc, roc_curve

from covid_jax.metrics.calibration import ece, net_benefit, reliability
from covid_jax.runtime import files
from covid_jax.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 4  # in a row
THRESHOLDS = np.arange(100) / 100  # of a decision curve
WIDE = 12  # letters of a title in an inch
ANY = 'the positive class'
Curves = Mapping[str, tuple[ArrayLike, ArrayLike]]
Thresholds = Mapping[str, float | None]
NONE: Thresholds = MappingProxyType({})


def confusion_png(path: str | Path, matrix: ArrayLike, names: Sequence[str], title: str = '', note: str = '') -> None:
    """Writes a confusion matrix, int [classes, classes] with the truth in rows, as counts and percentages of a row.
    title: the lines above it; note: a warning below these."""
    save(path, confusion_figure(np.asarray(matrix), names), title, note)


def roc_png(path: str | Path, curves: Curves, title: str = '', note: str = '', positive: str = ANY,
            thresholds: Thresholds = NONE) -> None:
    """Writes receiver operating characteristics on one pair of axes, with their AUC in the legend.

    A curve without positives or without negatives is not drawn: the legend says that it is undefined, and why. The
    file is written in any case.

    Args:
        path: of the PNG.
        curves: {name: (int [n], 1 for positive, else 0; float [n], score)}.
        title: the lines above them; note: a warning below these.
        positive: the class that the score is of.
        thresholds: {name: the threshold of the score that was frozen on validation}, which that curve marks.
    """
    save(path, roc_figure(curves, positive, thresholds), title, note)


def roc_sites_png(path: str | Path, panels: Mapping[str, Curves], title: str = '', note: str = '', positive: str = ANY,
                  thresholds: Thresholds = NONE) -> None:
    """Writes the curves of each site on axes of its own, side by side. panels: {site: curves, as of roc_png}; all else as there."""
    save(path, roc_sites_figure(panels, positive, thresholds), title, note)


def confusion_figure(matrix: np.ndarray, names: Sequence[str]) -> 'Figure':
    """What confusion_png writes."""
    from matplotlib.figure import Figure

    classes = len(names)
    total = matrix.sum(1, keepdims=True)
    share = matrix / np.maximum(total, 1)
    side = 2.2 + 1.2 * classes
    figure = Figure(figsize=(side, side), layout='constrained')
    axes = figure.subplots()
    axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        percent = f'{100 * share[row, column]:.1f} %' if total[row, 0] else '-'
        axes.text(column, row, f'{count}\n{percent}', ha='center', va='center', fontsize=12,
                  color='white' if share[row, column] > 0.5 else 'black')
    axes.set_xticks(range(classes), names, rotation=30, ha='right', rotation_mode='anchor')
    axes.set_yticks(range(classes), [f'{name}\n(n = {count})' for name, count in zip(names, total[:, 0], strict=True)])
    axes.set(xlabel='predicted class', ylabel='true class (exams, % of its row)')
    return figure


def roc_figure(curves: Curves, positive: str = ANY, thresholds: Thresholds = NONE) -> 'Figure':
    """What roc_png writes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout='constrained')
    _draw_roc(figure.subplots(), curves, list(curves), positive, thresholds)
    return figure


def roc_sites_figure(panels: Mapping[str, Curves], positive: str = ANY, thresholds: Thresholds = NONE) -> 'Figure':
    """What roc_sites_png writes."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    columns = min(len(panels), PANELS)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.5 * columns, 1 + 4.8 * rows), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (site, curves) in zip(grid, panels.items(), strict=False):
        _draw_roc(axes, curves, names, positive, thresholds)
        axes.set_title(printable(site), fontsize=10, parse_math=False)
    for axes in grid[len(panels):]:
        axes.axis('off')
    return figure


def _draw_roc(axes, curves, names, positive, thresholds):
    """names: of all curves of the figure, each of which has its colour."""
    axes.plot([0, 1], [0, 1], color='grey', linestyle=':', label='AUC 0.500  chance')
    for name, (label, score) in curves.items():
        label = np.asarray(label)
        if label.all() or not label.any():
            missing = 'negatives' if label.any() else 'positives'
            axes.plot([], [], linestyle='none', label=f'undefined  {name}: no {missing}')
            continue
        false_positive_rate, sensitivity, _ = roc_curve(label, score)
        area = auc(false_positive_rate, sensitivity)
        colour = f'C{names.index(name)}'
        told = f'AUC {area:.3f}  {name} (n = {len(label)}, {np.count_nonzero(label)} positive)'
        axes.plot(false_positive_rate, sensitivity, colour, label=told, clip_on=False)
        if thresholds.get(name) is not None:
            called = np.asarray(score) >= thresholds[name]
            axes.plot([called[label == 0].mean()], [called[label == 1].mean()], f'{colour}o', clip_on=False)
    for value in sorted({value for name, value in thresholds.items() if name in curves and value is not None}):
        axes.plot([], [], 'ko', label=f'at the threshold {value:.3f}, frozen on val')
    axes.set(xlabel=f'1 - specificity (share of the others called {positive})', ylabel=f'sensitivity (share of {positive} called so)',
             xlim=(0, 1), ylim=(0, 1), aspect='equal')
    axes.grid(alpha=0.3)
    axes.legend(loc='lower right', fontsize=9, framealpha=0.6)  # a curve below chance shows through


def reliability_png(path: str | Path, curves: Curves, title: str = '', note: str = '', positive: str = ANY) -> None:
    """Writes a reliability diagram: by bin of the score the share of positives, and below it how many exams each bin has.

    curves: {name: (int or bool [n], 1 for positive; float [n] in [0, 1], score)}, n at least 1; all else as of roc_png.
    """
    save(path, reliability_figure(curves, positive), title, note)


def decision_png(path: str | Path, curves: Curves, title: str = '', note: str = '', positive: str = ANY) -> None:
    """Writes decision curves: the net benefit by threshold, of each curve, of treating all and of treating none.

    curves: as of reliability_png, all of the same exams; all else as there.
    """
    save(path, decision_figure(curves, positive), title, note)


def reliability_figure(curves: Curves, positive: str = ANY) -> 'Figure':
    """What reliability_png writes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 6.2), layout='constrained')
    axes, counts = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color='grey', linestyle=':', label='calibrated')
    for i, (name, (label, score)) in enumerate(curves.items()):
        bins = reliability(label, score)
        full = bins.exams > 0
        axes.plot(bins.probability[full], bins.share[full], marker='o', markersize=4, clip_on=False,
                  label=f'ECE {ece(label, score):.3f}  {name} (n = {len(np.asarray(label))})')
        width = 1 / len(bins.exams) / len(curves)
        left = np.arange(len(bins.exams)) / len(bins.exams)
        counts.bar(left + i * width, bins.exams, width, align='edge')
    axes.set(ylabel=f'share of {positive} in the bin', xlim=(0, 1), ylim=(0, 1))
    counts.set(xlabel=f'probability of {positive}', ylabel='exams')
    axes.grid(alpha=0.3)
    axes.legend(loc='lower left', bbox_to_anchor=(0, 1), fontsize=9)  # above: a curve may lie anywhere
    return figure


def decision_figure(curves: Curves, positive: str = ANY) -> 'Figure':
    """What decision_png writes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout='constrained')
    axes = figure.subplots()
    found = {name: net_benefit(label, score, THRESHOLDS) for name, (label, score) in curves.items()}
    for name, benefit in found.items():
        axes.plot(THRESHOLDS, benefit['model'], label=name)
    either = next(iter(found.values()))
    axes.plot(THRESHOLDS, either['all'], color='grey', label='treat all')
    axes.plot(THRESHOLDS, either['none'], color='grey', linestyle=':', label='treat none')
    share = either['all'][0]
    top = max(share, 0.05)
    axes.set(xlabel=f'threshold probability of {positive}', ylabel='net benefit (true positives for each exam)',
             xlim=(0, 1), ylim=(-0.2 * top, 1.1 * top))
    axes.grid(alpha=0.3)
    axes.legend(loc='lower left', bbox_to_anchor=(0, 1), fontsize=9, ncols=2)  # above: a curve may lie anywhere
    return figure


def save(path: str | Path, figure: 'Figure', title: str = '', note: str = '') -> None:
    """Writes a figure as a PNG file. title: the lines above it; note: a warning below these, which turns them red."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    width = round(WIDE * figure.get_figwidth())
    above = [line for text in (*title.split('\n'), note) if text for line in textwrap.wrap(printable(text), width)]
    if above:
        figure.suptitle('\n'.join(above), fontsize=9, color='darkred' if note else 'black', parse_math=False)
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=150)
    files.write(path, content.getvalue())
