import csv
import io

import pytest

from covid_jax.text import LINE, cell, count, from_cell, printable, some


def test_a_terminal_is_told_nothing_but_a_line():
    assert printable('a\x1b[2Jb\nc\u202ed\u00e9') == 'a [2Jb c d\u00e9'
    assert len(printable('x' * 10**6)) == LINE + 3
    assert printable('x' * LINE) == 'x' * LINE


def test_the_first_of_many_names():
    assert some(range(5)) == '0, 1, 2, 3, 4'
    assert some(range(6)) == '0, 1, 2, 3, 4, ...'
    assert some(iter('ab'), 1) == 'a, ...'
    assert some([]) == ''


@pytest.mark.parametrize('number, words, line', [
    (1, ('scan is', 'scans are'), '1 scan is'), (2, ('scan is', 'scans are'), '2 scans are'), (0, ('scan is', 'scans are'), '0 scans are'),
    (1, ('exam',), '1 exam'), (0, ('exam',), '0 exams'), (7, ('exam',), '7 exams')])
def test_a_number_has_its_noun(number, words, line):
    assert count(number, *words) == line


@pytest.mark.parametrize('text', ['=1+1', "'=1+1", "''-x", '+1+1', '-a', '@x', '\tx', '\rx', "'a", 'a=1', '', "'", "o'=k"])
def test_no_spreadsheet_runs_a_cell_and_it_is_read_back(text):
    file = io.StringIO()
    csv.writer(file).writerow([cell(text)])
    written = next(csv.reader(io.StringIO(file.getvalue(), newline='')))[0]
    assert not written.startswith(('=', '+', '-', '@', '\t', '\r'))
    assert from_cell(written) == text


def test_numbers_stay_numbers():
    assert cell(-1.5) == -1.5
    for text in ('-1.5', '+2', '-1e-05', "'-1"):
        assert cell(text) == text == from_cell(text)
