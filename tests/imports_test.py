"""Imports run one way: DESIGN's order, and folders of one row do not import each other."""

import ast
from pathlib import Path

import pytest

import covid_jax

PACKAGE = Path(covid_jax.__file__).parent
ROWS = [{'text'}, {'metrics', 'augment', 'models', 'losses', 'ranking', 'runtime', 'config', 'phantom'}, {'scans', 'weights'}, {'sources'},
        {'data'}, {'predictions'}, {'methods'}, {'evaluate', 'report', 'warm'}, {'start'}, {'train', 'rank', 'predict', 'compare', 'ensemble', 'plan'},
        {'experiment', 'flags'}, {'commands'}, {'main', 'cli'}]
# report is drawn from by evaluate; both commands have the same flags.
WITHIN = {('evaluate', 'report'), ('cli', 'main')}
RANK = {name: i for i, row in enumerate(ROWS) for name in row}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == 'covid_jax':
            yield from (a.name for a in node.names if a.name != 'UserError')
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('covid_jax.'):
            yield node.module.split('.')[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split('.')[1] for a in node.names if a.name.startswith('covid_jax.'))


FILES = sorted(p for p in PACKAGE.rglob('*.py') if p.name != '__init__.py' or p.parent != PACKAGE)


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_run_one_way(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    for there in set(imports_of(path)) - {here}:
        assert RANK[there] < RANK[here] or (here, there) in WITHIN, f'{here} imports {there}'


@pytest.mark.parametrize('path', [p for p in FILES if p.relative_to(PACKAGE).parts[0] in ('metrics', 'phantom', 'scans', 'sources', 'data')],
                         ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_data_metrics_and_phantoms_are_free_of_jax(path):
    names = [getattr(n, 'module', None) or a.name for n in ast.walk(ast.parse(path.read_text()))
             if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names]
    assert not [n for n in names if n.split('.')[0] in ('jax', 'flax', 'torch', 'tensorflow')]
