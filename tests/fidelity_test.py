"""docs/fidelity.md: every row names tests, and they are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROWS = [line for line in (TESTS.parent / 'docs' / 'fidelity.md').read_text().splitlines()
        if line.startswith('|') and not re.match(r'\| (what|---)|\|---', line)]


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.split('|')[1].strip())
def test_a_row_names_tests_that_are_there(row):
    cells = row.strip('|').split('|')
    assert len(cells) == 5
    file, quoted = None, re.findall(r'`([^`]*)`', cells[4])
    assert quoted and '_test.py' in quoted[0]
    for name in quoted:
        path, _, test = name.partition('::') if '.py' in name else (None, None, name)
        file = TESTS / path if path else file
        assert file.is_file() and (not test or re.search(rf'^( {{4}})?(def|class) {test}\b', file.read_text(), re.M)), name
