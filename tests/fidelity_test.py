"""docs/fidelity.md: every row names tests, and they are there; scripts/mutate_fidelity.py breaks the claim of each."""

import re
import runpy
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROWS = [line for line in (TESTS.parent / 'docs' / 'fidelity.md').read_text().splitlines()
        if line.startswith('|') and not re.match(r'\| (what|---)|\|---', line)]


def cells(row):
    return [cell.strip() for cell in row.strip('|').split('|')]


def cited(row):
    """(file, class and function of a test, or '') of the tests that a row names; a bare name is of the file before."""
    file, tests = None, []
    for name in re.findall(r'`([^`]*)`', cells(row)[4]):
        path, _, test = name.partition('::') if '.py' in name else (file, None, name)
        file = path
        tests.append((file, test))
    return tests


@pytest.mark.parametrize('row', ROWS, ids=lambda row: cells(row)[0])
def test_a_row_names_tests_that_are_there(row):
    assert len(cells(row)) == 5
    tests = cited(row)
    assert tests and tests[0][0]
    for file, test in tests:
        assert file.endswith('_test.py') and (TESTS / file).is_file(), file
        text = (TESTS / file).read_text()
        for part in filter(None, test.split('::')):
            assert re.search(rf'^( {{4}})?(def|class) {part}\b', text, re.M), (file, part)


def test_every_row_has_a_mutation_whose_text_is_in_the_code_once():
    script = runpy.run_path(str(TESTS.parent / 'scripts' / 'mutate_fidelity.py'))
    rows = {cells(row)[0]: cited(row) for row in ROWS}
    assert len(rows) == len(ROWS)
    assert sorted([*(m.row for m in script['MUTATIONS']), *script['UNWRITTEN']]) == sorted(rows)
    for m in script['MUTATIONS']:
        assert m.test.partition('[')[0] in {'::'.join(test) for test in rows[m.row]}, m.row
        assert m.old != m.new and (TESTS.parent / m.file).read_text().count(m.old) == 1, m.row
