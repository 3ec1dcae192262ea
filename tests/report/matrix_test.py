"""The matrix as a person reads it."""

import csv

from covid_jax.report import matrix
from covid_jax.report.matrix import METRICS, Cell

WHOLE = {'value': 0.71349, 'low': 0.65, 'high': 0.7704, 'level': 0.95, 'n': 118}
ALONE = {'value': 0.9, 'low': None, 'high': None, 'n': 533, 'reason': 'no interval: 1 patient of class covid, 2 needed'}
NEITHER = {'value': None, 'low': None, 'high': None, 'n': 0, 'reason': 'undefined: one class'}


def entries(entry):
    return dict.fromkeys(METRICS, entry)


CELLS = [Cell('a', 'a', entries(WHOLE), 118, 40, 5, 5, 0), Cell('a', 'md|slices', entries(ALONE), 533, 4, 5, 1, 0),
         Cell('b', 'a', entries(NEITHER), 10, 10, 1, 1, 3), Cell('b', 'md|slices', entries(ALONE), 533, 4, 1, 1, 0)]


def test_what_is_written(tmp_path):
    """A number a row as it is, and a matrix for each metric whose cells are rounded."""
    matrix.write(tmp_path, CELLS)
    with (tmp_path / 'matrix.csv').open(newline='') as f:
        rows = list(csv.DictReader(f))
    assert [row['metric'] for row in rows] == 4 * list(METRICS)
    assert list(rows[0].values()) == ['a', 'a', 'auc', '0.71349', '0.65', '0.7704', '0.95', '118', '118', '40', '5', '0', '', '']
    assert rows[8]['value'] == rows[8]['low'] == '' and rows[8]['reason'] == 'undefined: one class' and rows[8]['seen'] == '3'
    text = (tmp_path / 'matrix.md').read_text()
    assert text.count('| a | 0.713 [0.650, 0.770] (118, 40) | 0.900 [-] (533, 4) |') == 4
    assert '## AUC [95 % interval]' in text and '|  | a | md\\|slices |' in text
    assert '| b | - [-] (10, 10) |' in text


def test_each_reason_is_said_once_with_its_cells():
    said = matrix.notes(CELLS, METRICS)
    assert said[-2:] == ['no interval: 1 patient of class covid, 2 needed (a on md|slices, b on md|slices)',
                         'undefined: one class (b on a)']
    assert matrix.SEVERAL in said and any('3 of 10 exams' in note and note.startswith('b on a') for note in said)
    alone = matrix.notes(CELLS[2:3], METRICS)
    assert matrix.SEVERAL not in alone and not any('folds' in note for note in alone)


def test_what_is_shown(capsys):
    """The first metric alone, its names no markup."""
    matrix.show([cell._replace(row=f'[bold]{cell.row}', column=cell.column.replace('md', '[red]')) for cell in CELLS])
    out = capsys.readouterr().out
    assert '[bold]a' in out and '[red]' in out and '0.713 [0.650, 0.770]' in out and '2 needed (' in out
