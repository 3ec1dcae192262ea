"""Finished runs, each asked about the data of the others: how far answers carry over to another data set."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from covid_jax import UserError, ensemble, evaluate, predictions, runs, sources, start, summary
from covid_jax import config as configs
from covid_jax.report import matrix
from covid_jax.runtime import workdir
from covid_jax.sources.exams import class_names

PHANTOM = configs.base().data.phantom.to_dict()
FIELDS = ('row', 'kind', 'seed', 'cross.runs', 'cross.sources', 'data.group', 'data.classes', 'eval.level',
          *(f'data.phantom.{name}' for name in PHANTOM))  # all that a cross has of a config


class Column(NamedTuple):
    """A data set that is asked about: name, as it is called in the matrix; source, root, group, phantom: as in config.data."""

    name: str
    source: str
    root: str
    group: str
    phantom: Mapping[str, Any]


Row = tuple[str, list[runs.Part]]  # a run's name, and its trainings by fold and seed, with what they answered of their own test


def check(config: ConfigDict) -> None:
    """UserError where the config's cross cannot be, whatever the runs hold."""
    named = config.cross.runs.split(',')
    if '' in named or len({os.path.realpath(run) for run in named}) < len(named):
        raise UserError(f'--config.cross.runs={config.cross.runs!r} must be folders of finished runs, all different, with commas '
                        'between them')
    called = [*names_of(named), *(source for source, _ in _sets(config))]
    if len({*called}) < len(called):
        raise UserError(f'two columns of the matrix are called {max(called, key=called.count)!r}: rename the folder of a run, or '
                        'name each of --config.cross.sources once')
    for source, root in _sets(config):
        if root or source == 'phantom':
            data = config.data.copy_and_resolve_references()
            data.update(source=source, root=root, exclude='', include='')
            sources.check(data)


def run(config: ConfigDict, folder: str | Path, say: Callable[[str], None] = print) -> dict:
    """Asks each run of config.cross.runs about all exams of the data of the others, and of the data sets in config.cross.sources.

    A cell of a run and its own data is what it answered of its own test split, of several folds all of them pooled. Another cell
    is the mean over the networks of a run, one for each fold and seed, of the metric of the same exams: their answers are left as
    <row>_on_<column>.csv, and are not asked for again where they lie. matrix.md and matrix.csv hold all cells. A data set
    without a root is left out, which is said. UserError for a run that is not finished or trained no network, and for runs of
    other classes. Returns {}: there are no answers of exams of its own.
    """
    check(config)
    folder = Path(folder)
    paths = config.cross.runs.split(',')
    rows = [(name, runs.parts(path, 'test')) for name, path in zip(names_of(paths), paths, strict=True)]
    _check_classes(rows, class_names(config.data.classes))
    columns = [*(_column_of(row) for row in rows), *_test_only(config, say)]
    mine = workdir.fields(config, FIELDS)
    digest = _digest(rows, columns)
    workdir.check(mine, folder, {}, digest)
    if jax.process_index() == 0:
        workdir.keep(mine, folder, dataset=digest)
    for row in rows:
        for i in range(len(row[1])):
            _ask(row, i, [column for column in columns if column.name != row[0]], config, folder, say)
    if jax.process_index() == 0:
        cells = [cell(row, column.name, folder, config.eval.level) for row in rows for column in columns]
        matrix.write(folder, cells)
        matrix.show(cells)
    return {}


def names_of(paths: list[str]) -> list[str]:
    """What runs are called in the matrix and in the names of its files: their folders, less what all of these have in common."""
    short = ensemble.short(paths) if len(paths) > 1 else [Path(paths[0]).name]
    return [name.strip('/').replace('/', '_') for name in short]


def cell(row: Row, column: str, folder: Path, level: float) -> matrix.Cell:
    """A cell of the matrix, of the answers that the row's trainings left: of their own test, or about the column."""
    name, parts = row
    own = name == column
    if own:
        tables = {(part.fold, part.seed): part.predictions for part in parts}
    else:  # the networks are beside each other as seeds are
        tables = {(0, i): predictions.read(answers(row, i, column, folder), parts[0].predictions.names).labelled()
                  for i in range(len(parts))}
    metrics = summary.pooled_metrics(tables, level)
    if not metrics:
        raise UserError(f'the folds of {name} share exams of test, so their answers cannot be put together: give runs whose folds '
                        'are drawn')
    exams = {exam.id: exam.patient for table in tables.values() for exam in table.exams}
    seen = {exam.id for table in tables.values() if 'seen' in table.columns
            for exam, before in zip(table.exams, table.columns['seen'], strict=True) if before}
    folds = len({part.fold for part in parts})
    return matrix.Cell(name, column, metrics['all'], len(exams), len({*exams.values()}), len(parts), folds if own else 1, len(seen))


def answers(row: Row, i: int, column: str, folder: Path) -> Path:
    """The file of what the i-th training of a row answered about a column."""
    name, parts = row
    of_part = f'_fold{parts[i].fold}_seed{parts[i].seed}' if len(parts) > 1 else ''
    return folder / f'{name}{of_part}_on_{column}.csv'


def _ask(row: Row, i: int, columns: list[Column], config: ConfigDict, folder: Path, say: Callable[[str], None]) -> None:
    """Leaves what one training answers about the columns, but for what it has answered."""
    todo = [column for column in columns if not answers(row, i, column.name, folder).exists()]
    if not todo:
        return
    finished, state = start.load(row[1][i].folder)
    for column in todo:
        say(f'{row[0]} is asked about {column.name}')
        own = finished.config.copy_and_resolve_references()
        own.data.phantom.update(column.phantom)
        found, _ = evaluate.on((finished._replace(config=own), state), column.source, column.root, store=config.data.store,
                               group=column.group, say=say)
        if jax.process_index() == 0:
            predictions.write(answers(row, i, column.name, folder), found)


def _column_of(row: Row) -> Column:
    """The data of a run, as a column."""
    name, parts = row
    kept = workdir.read(parts[0].folder) or {}
    if 'data.source' not in kept:
        raise UserError(f'{parts[0].folder} holds no run that trained a network: give the folder of a finished run')
    phantom = {field: kept.get(f'data.phantom.{field}', default) for field, default in PHANTOM.items()}
    return Column(name, kept['data.source'], kept['data.root'], kept.get('data.group', 'source'), phantom)


def _test_only(config: ConfigDict, say: Callable[[str], None]) -> list[Column]:
    """The data sets that no run is of."""
    found = []
    for source, root in _sets(config):
        if root or source == 'phantom':
            found.append(Column(source, source, root, config.data.group, config.data.phantom.to_dict()))
        else:
            say(f'{source} is left out of the matrix, no folder is given: set --config.cross.roots, of a stage '
                '--config.STAGE.cross.roots')
    return found


def _sets(config: ConfigDict) -> list[tuple[str, str]]:
    """(source, root) of each of config.cross.sources."""
    named = [source.strip() for source in config.cross.sources.split(',') if source.strip()]
    roots = config.cross.roots.split(',') if config.cross.roots else [''] * len(named)
    if len(roots) != len(named):
        raise UserError(f'--config.cross.sources names {len(named)} data sets and --config.cross.roots {len(roots)} folders: give '
                        'each its own, with commas between them')
    return list(zip(named, roots, strict=True))


def _check_classes(rows: list[Row], names: tuple[str, ...]) -> None:
    for _, parts in rows:
        for part in parts:
            theirs = part.predictions.names if part.predictions else ()
            if theirs != names:
                raise UserError(f'{part.folder} has the classes {", ".join(theirs)}, not {", ".join(names)}: a matrix is of runs of '
                                'the same classes, which --config.data.classes names')


def _digest(rows: list[Row], columns: list[Column]) -> str:
    """Tells the runs, by what they answered, and the data that are asked about from others."""
    of_parts = [(name, part.fold, part.seed, hashlib.sha256((part.folder / 'predictions.csv').read_bytes()).hexdigest())
                for name, parts in rows for part in parts]
    of_columns = [(column.name, column.source, os.path.realpath(column.root), column.group, dict(column.phantom))
                  for column in columns]
    return hashlib.sha256(json.dumps([of_parts, of_columns]).encode()).hexdigest()[:16]
