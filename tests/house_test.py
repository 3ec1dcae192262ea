"""The house rules that can be counted: short files and functions, one thing on a line, public functions annotated."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import covid_jax

ROOT = Path(covid_jax.__file__).parents[1]
FILES = sorted([*(ROOT / 'covid_jax').rglob('*.py'), *(ROOT / 'configs').rglob('*.py')])
by_path = pytest.mark.parametrize('path', FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def public(node):
    """The functions of a module and the methods of its classes that a reader from outside may call."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS) and (child.name[0] != '_' or child.name == '__call__'):
            yield child
        elif isinstance(child, ast.ClassDef) and child.name[0] != '_':
            yield from public(child)


@by_path
def test_files_and_functions_fit_in_the_head(path):
    text = path.read_text()
    assert text.count('\n') <= 300
    long = [f'{node.name}: {n} lines' for node in ast.walk(ast.parse(text)) if isinstance(node, FUNCTIONS)
            and (n := node.end_lineno - node.lineno + 1) > 60]
    assert not long


@by_path
def test_a_line_assigns_one_thing(path):
    """`a, b = f()` takes one thing apart, and `a, b = b, a` swaps; `a, b = f(), g()` is two lines."""
    packed = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and all(isinstance(x, ast.Tuple) for x in (node.targets[0], node.value)):
            swap = {ast.unparse(x) for x in node.targets[0].elts} == {ast.unparse(x) for x in node.value.elts}
            packed += [] if swap else [ast.unparse(node)]
    assert not packed


@by_path
def test_public_functions_are_annotated(path):
    bare = []
    for node in public(ast.parse(path.read_text())):
        a = node.args
        given = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        missing = [x.arg for x in given if x.annotation is None and x.arg not in ('self', 'cls')]
        bare += [node.name] if missing or node.returns is None else []
    assert not bare


def test_no_room_holds_a_quarter_of_the_lines():
    lines = Counter()
    for path in FILES:
        lines[path.relative_to(ROOT).parts[:2]] += path.read_text().count('\n')
    room, most = lines.most_common(1)[0]
    assert most < sum(lines.values()) / 4, room
