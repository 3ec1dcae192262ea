"""The matrix of runs and data sets: on the console, and as matrix.csv and matrix.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rich.console
import rich.table
from rich.markup import escape

from covid_jax.report.tables import POOLED, titled
from covid_jax.runtime import files
from covid_jax.text import printable

METRICS = ('auc', 'accuracy', 'sensitivity', 'specificity')  # the first is shown on the console
HEADER = ('row', 'column', 'metric', 'value', 'low', 'high', 'level', 'n', 'exams', 'patients', 'networks', 'seen', 'reason', 'note')
OWN = 'rows: learnt from; columns: asked about, of a run and its own data the test split, else every exam'
SEVERAL = ('of several networks the mean of the metric of each on the same exams; the interval is over patients and takes the '
           'networks as they are')


class Cell(NamedTuple):
    """What a run (row) reaches on a data set (column).

    entries: {metric: {'value', 'low', 'high', 'n', ...}}; exams, patients: how many were answered; networks: of how many trainings;
    folds: over how many of them the exams are dealt; seen: how many exams are of patients that a network of the row learnt from.
    """

    row: str
    column: str
    entries: dict[str, dict[str, Any]]
    exams: int
    patients: int
    networks: int
    folds: int
    seen: int


def show(cells: Sequence[Cell]) -> None:
    """Prints the matrix of the first metric, and what is to be known of it."""
    console = rich.console.Console()
    header, *body = _table(cells, METRICS[0])
    table = rich.table.Table(*(escape(printable(name)) for name in header), show_lines=True)
    for name, *texts in body:
        table.add_row(escape(printable(name)), *(escape(text.replace(' (', '\n(')) for text in texts))
    titled(console, _title(cells, METRICS[0]), table)
    for note in notes(cells, METRICS[:1]):
        console.print(printable(note), soft_wrap=True, markup=False)


def write(folder: str | Path, cells: Sequence[Cell]) -> None:
    """Writes folder/matrix.csv, a metric of a cell a row, and folder/matrix.md, a matrix for each metric."""
    files.write_csv(Path(folder) / 'matrix.csv', [HEADER, *(row for cell in cells for row in _rows(cell))])
    lines = []
    for metric in METRICS:
        header, *body = _table(cells, metric)
        lines += [f'## {_title(cells, metric)}', '']
        for row in (header, ['---'] * len(header), *body):
            lines.append('| ' + ' | '.join(text.replace('|', '\\|') for text in row) + ' |')
        lines.append('')
    lines += [f'- {note}' for note in notes(cells, METRICS)]
    files.write(Path(folder) / 'matrix.md', '\n'.join(map(printable, lines)) + '\n')


def notes(cells: Sequence[Cell], metrics: Sequence[str]) -> list[str]:
    """What is undefined, has no interval or is to be read with care, and why: each reason once, with the cells that it is of."""
    told = {OWN: None}
    if any(cell.networks > 1 for cell in cells):
        told[SEVERAL] = None
    if any(cell.folds > 1 for cell in cells):
        told[f'of a run in folds and its own data the answers of all folds together: {POOLED}'] = None
    of_reason: dict[str, dict[str, None]] = {}
    for cell in cells:
        where = f'{cell.row} on {cell.column}'
        for metric in metrics:
            entry = cell.entries[metric]
            for reason in filter(None, (*entry.get('reason', '').split('; '), entry.get('note', ''))):
                of_reason.setdefault(reason, {})[where] = None
        if cell.seen:
            told[f'{where}: {cell.seen} of {cell.exams} exams are of patients that a network of {cell.row} learnt from or was chosen '
                 'by: no test of new patients'] = None
    return [*told, *(f'{reason} ({", ".join(where)})' for reason, where in of_reason.items())]


def _title(cells, metric):
    levels = sorted({entry['level'] for cell in cells for entry in cell.entries.values() if 'level' in entry})
    words = ' or '.join(f'{100 * level:g} %' for level in levels)
    name = 'AUC' if metric == 'auc' else metric
    interval = f' [{words} interval]' if levels else ''
    return f'{name}{interval} (exams, patients)'


def _table(cells, metric):
    """The header, and the name and the texts of each row."""
    columns = list(dict.fromkeys(cell.column for cell in cells))
    of_row: dict[str, dict[str, str]] = {}
    for cell in cells:
        of_row.setdefault(cell.row, {})[cell.column] = _text(cell, metric)
    return [['', *columns], *([row, *(texts[column] for column in columns)] for row, texts in of_row.items())]


def _text(cell, metric):
    """'0.713 [0.650, 0.770] (118 exams, 40 patients)', with '-' for what there is not."""
    entry = cell.entries[metric]
    value = '-' if entry['value'] is None else f'{entry["value"]:.3f}'
    interval = '-' if entry['low'] is None else f'{entry["low"]:.3f}, {entry["high"]:.3f}'
    return f'{value} [{interval}] ({cell.exams}, {cell.patients})'


def _rows(cell):
    for metric in METRICS:
        entry = cell.entries[metric]
        numbers = ('' if entry.get(name) is None else f'{entry[name]:g}' for name in ('value', 'low', 'high', 'level', 'n'))
        yield (cell.row, cell.column, metric, *numbers, cell.exams, cell.patients, cell.networks, cell.seen, entry.get('reason', ''),
               entry.get('note', ''))
