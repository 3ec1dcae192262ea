"""A paper's table, each of its numbers beside what the runs in a folder came to."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from covid_jax import UserError, evaluate, summary
from covid_jax.config import Table
from covid_jax.metrics.published import contradictions
from covid_jax.predictions import of_run
from covid_jax.report import tables
from covid_jax.runtime import workdir
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import class_names

NUMBER = re.compile(r'\d*\.?\d+')


class Stage(NamedTuple):
    """A finished stage of a run. row: of the config that it came from, as 'cmc:model4,size=small'; last: nothing comes after it;
    parts: {(fold, seed): its folder, its results.json}."""

    root: Path
    name: str
    row: str
    last: bool
    parts: dict[tuple[int, int], tuple[Path, dict]]


class Line(NamedTuple):
    """A number of a paper, and ours. paper: as it is printed, '' where it gives none; ours, intervals (one for each level): as we
    print them; run: the number of the run in the list of runs, 0 where there is none."""

    row: str
    metric: str
    paper: str
    ours: str
    intervals: tuple[str, ...]
    run: int


def finished(folder: str | Path) -> list[Stage]:
    """The finished stages of all runs below a folder. UserError where there is no such folder, and for a damaged file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f'there is no folder {folder}: give --workdir, the folder that holds the runs')
    stages: dict[tuple[Path, str], Stage] = {}
    for path in sorted(folder.rglob('results.json')):
        with blame(path):
            result = json.loads(path.read_text())
            key = result['fold'], result['seed']
            root = _root(path.parent, result)
            stage = result['stage']
            answers = result['metrics']
            last = result.get('last', not stage)
        kept = workdir.read(path.parent)
        if kept is None or not answers:
            continue
        found = stages.setdefault((root, stage), Stage(root, stage, kept.get('row') or '', last, {}))
        found.parts[key] = path.parent, result
    return list(stages.values())


def _root(folder, result):
    """The folder of the run that a part's folder is of: above its seed, its fold and its stage."""
    for name in (f'seed{result["seed"]}', f'fold{result["fold"]}', result['stage']):
        if name and folder.name == name:
            folder = folder.parent
    return folder


def lines(table: Table, config: str, stages: Sequence[Stage]) -> tuple[list[Line], list[str]]:
    """The Lines of a table, of the rows of configs/<config>.py, and what is said of each run that stands in it.

    A run stands in every row that it is of, whatever its size and data: what it says of them is printed beside it.
    """
    found: list[Line] = []
    runs: list[str] = []
    for row, cells in table.rows.items():
        ours = [stage for stage in stages if _answers(stage, config, row)]
        for stage in ours:
            numbers, described = _numbers(stage, table)
            if described not in runs:
                runs.append(described)
            for metric, cell in zip(table.columns, cells, strict=True):
                value, intervals = numbers[metric]
                found.append(Line(row, metric, cell, value, intervals, runs.index(described) + 1))
        if not ours:
            found += _without(table, row, cells)
    for row, cells in table.others.items():
        found += _without(table, row, cells)
    return found, runs


def _without(table, row, cells):
    none = ('-',) * len(table.levels)
    return [Line(row, metric, cell, '-', none, 0) for metric, cell in zip(table.columns, cells, strict=True)]


def _answers(stage, config, row):
    """Whether a stage stands in a row: because it is called so, or because its run is of that row and ends with it."""
    file, _, asked = stage.row.partition(':')
    return file == config and (stage.name == row or (stage.last and asked.split(',')[0] == row))


def _numbers(stage, table):
    """{metric: (value, intervals)} of a stage as they are printed, and a sentence on what it was."""
    folders = {key: folder for key, (folder, _) in stage.parts.items()}
    metrics = {key: result['metrics'] for key, (_, result) in stage.parts.items()}
    first = next(iter(folders.values()))
    kept: Any = workdir.read(first)
    where = f'{stage.root}/{stage.name}' if stage.name else str(stage.root)
    folds = {fold for fold, _ in folders}
    seeds = {seed for _, seed in folders}
    if len(folds) < (kept.get('folds') or 1) or len(folders) < len(folds) * len(seeds):
        return {metric: ('-', ('-',) * len(table.levels)) for metric in table.columns}, f'{where}: not finished, give its command again'
    names = class_names(kept['data.classes'])
    split = tables.shown_split({'': {str(key): of_part for key, of_part in metrics.items()}})
    by_level = [_entries(folders, metrics, names, split, table.group, level) for level in table.levels]
    numbers = {}
    for metric in table.columns:
        found = [entries.get(metric, (None, {})) for entries in by_level]
        numbers[metric] = _printed(found[0][0], table), tuple(_interval(entry, table) for _, entry in found)
    tested = [of_run(folder, names).of(split) for (_, seed), folder in folders.items() if seed == min(seeds)]
    exams = sum(len(answers.exams) for answers in tested)
    sites = ', '.join(sorted({site for answers in tested for site in answers.sites}))
    asked = stage.row.partition(',')[2]
    over = 'folds' if len(folds) > 1 else 'seeds'
    several = '' if len(folders) == 1 else f', {len(folds)} folds x {len(seeds)} seeds (± over the {over})'
    described = f'{where}: {asked + "; " if asked else ""}{exams} exams of {split}, {sites}{several}'
    return numbers, described


def _entries(folders, metrics, names, split, group, level):
    """{metric: (value, or mean and standard deviation; entry with its interval)}."""
    if len(folders) == 1:
        (folder,) = folders.values()
        rows = evaluate.groups(of_run(folder, names).of(split))[0].get(group)
        return {name: (entry['value'], entry) for name, entry in evaluate.score(rows, level=level).items()} if rows else {}
    found = summary.summarise(folders, metrics, names, split, level).get(group, {})
    return {name: (one.spread, one.pooled) for name, one in found.items()}


def _printed(value, table):
    if value is None:
        return '-'
    if isinstance(value, float):
        return _scaled(value, table)
    deviation = value.over_seeds if value.over_folds is None else value.over_folds
    return f'{_scaled(value.mean, table)} ± {_scaled(deviation, table)}'


def _interval(entry, table):
    return f'[{_scaled(entry["low"], table)}, {_scaled(entry["high"], table)}]' if entry.get('low') is not None else '-'


def _scaled(value, table):
    return f'{100 * value:.2f}' if table.percent else f'{value:.3f}'


def impossible(table: Table) -> list[str]:
    """What cannot be about the paper's own numbers, a sentence each."""
    found = []
    for row, cells in {**table.rows, **table.others}.items():
        values = {}
        digits = []
        for metric, cell in zip(table.columns, cells, strict=True):
            if number := NUMBER.match(cell):
                values[_as_published(metric)] = float(number[0]) / (100 if table.percent else 1)
                digits.append(len(number[0].partition('.')[2]))
        rounding = 0.5 * 10.0 ** -min(digits, default=0) / (100 if table.percent else 1)
        found += [f'{row}: {sentence}' for sentence in contradictions(values, rounding, table.positives, table.negatives)]
    return found


def _as_published(metric):
    return 'f1' if metric == 'f1_covid' else metric
