"""Finished runs, each asked about the data of the others: how far answers carry over to another data set."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

import jax
from ml_collections import ConfigDict

from covid_jax import UserError, ensemble, evaluate, predictions, runs, sources, start, summary, warm
from covid_jax import config as configs
from covid_jax.data import lineage, pipeline
from covid_jax.report import matrix
from covid_jax.runtime import workdir
from covid_jax.sources.exams import class_index, class_names

PHANTOM = tuple(f'data.phantom.{name}' for name in configs.base().data.phantom)
OF_COLUMN = ('data.source', 'data.root', 'data.group', 'data.exclude', 'data.sites', *PHANTOM)  # what says which exams a run's data are
FIELDS = ('row', 'kind', 'seed', 'cross.runs', 'cross.sources', 'data.group', 'data.classes', 'data.exclude', 'eval.level',
          *PHANTOM)  # all that a cross has of a config

Row = tuple[str, list[runs.Part]]  # a run's name, and its trainings by fold and seed, with what they answered of their own test
Say = Callable[[str], None]


def check(config: ConfigDict) -> None:
    """UserError where the config's cross cannot be, whatever the runs hold; and for a label that its classes do not declare, in
    the data that no run is of."""
    named = config.cross.runs.split(',')
    if '' in named or len({os.path.realpath(run) for run in named}) < len(named):
        raise UserError(f'--config.cross.runs={config.cross.runs!r} must be folders of finished runs, all different, with commas '
                        'between them')
    called = [*names_of(named), *(source for source, _ in _sets(config))]
    if len({*called}) < len(called):
        raise UserError(f'two columns of the matrix are called {max(called, key=called.count)!r}: rename the folder of a run, or '
                        'name each of --config.cross.sources once')
    for asked in _test_only(config, _nothing).values():
        for exam in chain.from_iterable(sources.parts_of(asked.data, _nothing)):
            _class_of(exam, asked)


def run(config: ConfigDict, folder: str | Path, say: Say = print) -> list[matrix.Cell] | None:
    """Asks each run of config.cross.runs about all exams of the data of the others, and of the data sets in config.cross.sources.

    A cell of a run and its own data is what it answered of its own test split, of several folds all of them pooled. Another cell
    is the mean over the networks of a run, one for each fold and seed, of the metric of the same exams: their answers are left as
    <row>_on_<column>.csv, and are not asked for again where they lie. Which label counts as which class says the config, of all
    data alike. matrix.md and matrix.csv hold all cells. A data set without a root is left out, which is said.

    Returns the cells; None on all hosts but the first. UserError, before any network is asked, for a run that is not finished or
    trained no network, runs of other classes, and data that cannot be read or are not what their run was tested on.
    """
    check(config)
    folder = Path(folder)
    store = config.data.store or folder / 'store'
    paths = config.cross.runs.split(',')
    rows = [(name, runs.parts(path, 'test')) for name, path in zip(names_of(paths), paths, strict=True)]
    _check_rows(rows, class_names(config.data.classes))
    columns = {row[0]: _data_of(row, config) for row in rows} | _test_only(config, say)
    surveys = {name: _survey(name, asked, store, say) for name, asked in columns.items()}
    for row in rows:
        _check_tested(row, surveys[row[0]], config)
    mine = workdir.fields(config, FIELDS)
    digest = _digest(rows, surveys)
    workdir.check(mine, folder, {}, digest)
    todo = [(row, i, _unanswered(row, i, columns, folder)) for row in rows for i in range(len(row[1]))]
    todo = [(row, i, names) for row, i, names in todo if names]
    for row, i, _ in todo:
        _check_can_answer(row[1][i].folder)
    if jax.process_index() == 0:
        workdir.keep(mine, folder, dataset=digest)
    for row, i, names in todo:
        _ask(row, i, {name: surveys[name] for name in names}, folder, store, say)
    if jax.process_index() > 0:
        return None
    cells = [cell(row, column, folder, config.eval.level) for row in rows for column in columns]
    matrix.write(folder, cells)
    return cells


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


def _unanswered(row: Row, i: int, columns: Mapping[str, ConfigDict], folder: Path) -> list[str]:
    """The columns that the i-th training of a row has not answered yet."""
    return [column for column in columns if column != row[0] and not answers(row, i, column, folder).exists()]


def _ask(row: Row, i: int, surveys: Mapping[str, pipeline.Survey], folder: Path, store: str | Path, say: Say) -> None:
    """Leaves what one training answers about these columns."""
    finished = start.load(row[1][i].folder)
    for column, survey in surveys.items():
        say(f'{row[0]} is asked about {column}')
        found, _ = evaluate.ask(finished, survey, store, say)
        if jax.process_index() == 0:
            predictions.write(answers(row, i, column, folder), found)


def _data_of(row: Row, config: ConfigDict) -> ConfigDict:
    """The config with the data of a run."""
    folder = row[1][0].folder
    kept = workdir.read(folder) or {}
    if 'data.source' not in kept or 'method' not in kept:
        raise UserError(f'{folder} holds no run that trained a network: give the folder of a finished run')
    asked = config.copy_and_resolve_references()
    for name in OF_COLUMN:
        value = kept.get(name, configs.get(configs.base(), name))
        configs.put(asked, name, tuple(value) if isinstance(value, list) else value)
    asked.data.include = ''
    try:
        sources.check(asked.data)
    except UserError as error:
        raise UserError(f'{error} (in the command of {folder}: given again, it notes it)') from None
    return asked


def _test_only(config: ConfigDict, say: Say) -> dict[str, ConfigDict]:
    """{name: the config with the data} of the data sets that no run is of."""
    found = {}
    for source, root in _sets(config):
        if not root and source != 'phantom':
            say(f'{source} is left out of the matrix, no folder is given: set --config.cross.roots, of a stage '
                '--config.STAGE.cross.roots')
            continue
        found[source] = config.copy_and_resolve_references()
        found[source].data.update(source=source, root=root, include='', sites=())
    return found


def _sets(config: ConfigDict) -> list[tuple[str, str]]:
    """(source, root) of each of config.cross.sources."""
    named = [source.strip() for source in config.cross.sources.split(',') if source.strip()]
    roots = config.cross.roots.split(',') if config.cross.roots else [''] * len(named)
    if len(roots) != len(named):
        raise UserError(f'--config.cross.sources names {len(named)} data sets and --config.cross.roots {len(roots)} folders: give '
                        'each its own, with commas between them')
    return list(zip(named, roots, strict=True))


def _survey(name: str, asked: ConfigDict, store: str | Path, say: Say) -> pipeline.Survey:
    try:
        return pipeline.survey_test(asked, store, say)
    except UserError as error:
        raise UserError(f'no run can be asked about {name}: {error}') from None


def _class_of(exam, config):
    """The name of an exam's class, '' without a label. UserError for a label that the config does not declare."""
    try:
        index = class_index(exam.label, config.data.classes)
    except UserError as error:
        raise UserError(f'no run can be asked about {config.data.source}: {exam.id}: {error}') from None
    return class_names(config.data.classes)[index] if index >= 0 else ''


def _check_rows(rows: list[Row], names: tuple[str, ...]) -> None:
    """UserError for runs of other classes, and of folds whose answers cannot be put together."""
    for name, parts in rows:
        for part in parts:
            theirs = part.predictions.names if part.predictions else ()
            if theirs != names:
                raise UserError(f'{part.folder} has the classes {", ".join(theirs)}, not {", ".join(names)}: a matrix is of runs '
                                'of the same classes, which --config.data.classes names')
        if summary.pool({(part.fold, part.seed): part.predictions for part in parts}) is None:
            raise UserError(f'the folds of {name} share exams of test, so their answers cannot be put together: give runs whose '
                            'folds are drawn')


def _check_tested(row: Row, survey: pipeline.Survey, config: ConfigDict) -> None:
    """UserError where a run was tested on an exam that its data do not have now, or with another class than the others are
    asked with."""
    now = {exam.id: _class_of(exam, config) for exam in survey.exams}
    for part in row[1]:
        for exam in part.predictions.exams:
            if exam.id not in now:
                raise UserError(f'{part.folder} was tested on {exam.id}, which its data do not have any more: train it anew')
            if now[exam.id] != exam.label:
                raise UserError(f'{exam.id} was {exam.label} when {part.folder} was tested on it, and is '
                                f'{now[exam.id] or "unlabelled"} here: set --config.data.classes as that run has it, or train it '
                                'anew')


def _check_can_answer(folder: Path) -> None:
    """UserError for a training that has nothing to answer with, or does not say what it learnt from."""
    if not warm.begun(folder):
        raise UserError(f'{folder} holds no finished checkpoint: give the folder of a finished run')
    lineage.read(folder)


def _digest(rows: list[Row], surveys: Mapping[str, pipeline.Survey]) -> str:
    """Tells the runs, by what they answered, and the exams that are asked about from others."""
    of_parts = [(name, part.fold, part.seed, hashlib.sha256((part.folder / 'predictions.csv').read_bytes()).hexdigest())
                for name, parts in rows for part in parts]
    of_columns = [(name, [(*exam[:5], digest) for exam, digest in zip(survey.exams, survey.hashes, strict=True)])
                  for name, survey in surveys.items()]
    return hashlib.sha256(json.dumps([of_parts, of_columns]).encode()).hexdigest()[:16]


def _nothing(line: str) -> None:
    """Says nothing."""
