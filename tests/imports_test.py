"""docs/design.md: the house is as it is drawn there, and imports run one way in the order that it gives."""

import ast
import re
from pathlib import Path

import pytest

import covid_jax

PACKAGE = Path(covid_jax.__file__).parent
PAGE = (PACKAGE.parent / 'docs' / 'design.md').read_text()
ORDER = re.search(r'<!-- imports_test.py reads this block -->\n((?: {4}.*\n)+)', PAGE)[1]
RANK = {room: rank for rank, row in enumerate(ORDER.split('<-')) for room in row.split()}
WITHOUT_JAX = ('metrics', 'phantom', 'scans', 'sources', 'data')
FILES = sorted(p for p in PACKAGE.rglob('*.py') if p.name != '__init__.py' or p.parent != PACKAGE)
by_path = pytest.mark.parametrize('path', FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == 'covid_jax':
            yield from (a.name for a in node.names if a.name != 'UserError')
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('covid_jax.'):
            yield node.module.split('.')[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split('.')[1] for a in node.names if a.name.startswith('covid_jax.'))


@by_path
def test_imports_run_one_way(path):
    here = room_of(path)
    for there in set(imports_of(path)) - {here}:
        assert RANK[there] < RANK[here], f'{here} imports {there}'


@pytest.mark.parametrize('path', [p for p in FILES if room_of(p) in WITHOUT_JAX],
                         ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_what_prepares_scans_and_judges_answers_is_free_of_jax(path):
    names = [getattr(n, 'module', None) or a.name for n in ast.walk(ast.parse(path.read_text()))
             if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names]
    assert not [n for n in names if n.split('.')[0] in ('jax', 'flax', 'torch', 'tensorflow')]


def test_the_drawn_house_is_the_one_that_stands():
    drawn = set(re.findall(r'^ {6}([a-z_]+)(?:/|\.py) ', PAGE, re.M))
    assert drawn == {room_of(p) for p in FILES} == set(RANK)
