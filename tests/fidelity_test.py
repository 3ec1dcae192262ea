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
    named = re.findall(r'`([\w/]+_test\.py)?(?:::)?(\w*)`', cells[4])
    assert named and named[0][0]
    file = None
    for path, test in named:
        file = TESTS / path if path else file
        assert not test or re.search(rf'(def|class) {test}\b', file.read_text()), f'{file.name}: {test}'
