"""A paper's table, each of its numbers beside what the runs in a folder came to."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from covid_jax import UserError, evaluate, runs, summary
from covid_jax.config import Table
from covid_jax.metrics.published import contradictions
from covid_jax.predictions import Predictions, of_run
from covid_jax.runtime import workdir
from covid_jax.text import some

# Fields that say nothing of what was run: where and how often, and batch sizes, which a run fills in by itself.
OF_THE_RUN = (*workdir.FREE, *workdir.PATHS, 'seed', 'seeds', 'fold', 'folds', 'stages', 'kind', 'train.batch', 'eval.batch')
OF_SITE = 'site '  # how a group of one site begins
HOURS = 'hours'  # a column: what the training took, of several folds and seeds the mean
MEAN = '±'  # in a cell that is a mean over runs
NUMBER = re.compile(r'\d*\.?\d+')


class Stage(NamedTuple):
    """A finished stage of a run. row: of the config that it came from, as 'cmc:model4,size=small', '' where it is of none; last:
    nothing comes after it; parts: {(fold, seed): runs.Part}; whole: these are all."""

    root: Path
    name: str
    row: str
    last: bool
    parts: dict[tuple[int, int], runs.Part]
    whole: bool


class Line(NamedTuple):
    """A number of a paper, and ours. paper: as it is printed, '' where it gives none; ours, intervals (one for each level): as we
    print them; run: the number of the run in the list of runs, 0 where there is none."""

    row: str
    metric: str
    paper: str
    ours: str
    intervals: tuple[str, ...]
    run: int


class Shown(NamedTuple):
    """lines: of a table. runs: a sentence on each run that stands in it. remarks: why an interval or a value is missing, or to be
    read with care."""

    lines: list[Line]
    runs: list[str]
    remarks: list[str]


def finished(folder: str | Path, say: Callable[[str], None] = print) -> list[Stage]:
    """The stages of all runs below a folder that answer something; say: is called with a line for each that is damaged, which
    is left out. UserError where there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f'there is no folder {folder}: give --workdir, the folder that holds the runs')
    found: dict[tuple[Path, str, str], list[runs.Part]] = {}
    for path in sorted(folder.rglob('results.json')):
        if not (path.parent / 'predictions.csv').is_file():
            continue
        try:
            part = runs.described(path.parent)
            row = str((workdir.read(part.folder) or {}).get('row') or '')
        except UserError as e:
            say(f'left out: {e}')
            continue
        found.setdefault((part.root, part.stage, row), []).append(part)
    return [Stage(root, name, row, parts[0].last, {(part.fold, part.seed): part for part in parts},
                  runs.whole(parts, parts[0].folds)) for (root, name, row), parts in found.items()]


def shown(table: Table, config: str, stages: Sequence[Stage], fields: Callable[[Stage], dict]) -> Shown:
    """What a table shows of the rows of configs/<config>.py.

    A run stands in every row that it is of, whatever its size, its data and what else was set: that is said of it.

    fields: stage -> the fields of the row that the stage was run as, {'section.field': value}.
    """
    result = Shown([], [], [])
    for row, cells in table.rows.items():
        before = len(result.lines)
        without = []
        for stage in (stage for stage in stages if is_of(stage, config, row)):
            found = _numbers(stage, table, result.remarks)
            if found is None:
                without.append(where(stage))
                continue
            numbers, told = found
            run = number_of(f'{told}{differences(stage, fields(stage))}', result.runs)
            for metric, cell in zip(table.columns, cells, strict=True):
                value, intervals = numbers[metric]
                result.lines.append(Line(row, metric, cell, value, intervals, run))
        if len(result.lines) == before:
            result.lines.extend(_without(table, row, cells))
            result.remarks.extend(f'{run} has no exams of {table.group}' for run in without)
    for row, cells in table.others.items():
        result.lines.extend(_without(table, row, cells))
    return result


def number_of(run: str, listed: list[str]) -> int:
    """The number of a run in a list, from 1 up; at its end it is put where it is not there."""
    if run not in listed:
        listed.append(run)
    return listed.index(run) + 1


def _without(table, row, cells):
    none = ('-',) * len(table.levels)
    return [Line(row, metric, cell, '-', none, 0) for metric, cell in zip(table.columns, cells, strict=True)]


def is_of(stage: Stage, config: str, row: str) -> bool:
    """Whether a stage stands in a row of configs/<config>.py: because it is called so, or because its run is of that row and ends
    with it."""
    file, _, asked = stage.row.partition(':')
    return file == config and (stage.name == row or (stage.last and asked.split(',')[0] == row))


def differences(stage: Stage, own: dict) -> str:
    """What was set otherwise than in the row, for the end of a sentence; '' where it is as there. own: the fields of the row,
    {'section.field': value}."""
    kept = workdir.read(next(iter(stage.parts.values())).folder) or {}
    changed = [f'{name}={kept[name]}' for name, value in own.items()
               if name not in OF_THE_RUN and kept.get(name, value) != value != 'auto']
    return f'; but {some(changed, 6)}' if changed else ''


def where(stage: Stage) -> str:
    """The folder of a stage."""
    return f'{stage.root}/{stage.name}' if stage.name else str(stage.root)


def asked_of(stage: Stage, group: str) -> tuple[str, dict[tuple[int, int], Predictions]] | None:
    """(the split that is shown, {(fold, seed): what was answered}), of a group of one site, as 'site NAME', its exams alone; None
    where there are none of it. UserError for a table that is damaged, and for a fold without exams of the site."""
    answers = {key: of_run(part.folder) for key, part in stage.parts.items()}
    first = next(iter(answers.values()))
    labelled = [split for split in ('test', 'val') if first.of(split).labelled().exams]
    split = (labelled or first.splits or ('test',))[0]
    if not group.startswith(OF_SITE):
        return split, answers
    site = group.removeprefix(OF_SITE)
    there = {site in rows.of(split).sites for rows in answers.values()}
    if True not in there:
        return None
    if False in there:
        raise UserError(f'{where(stage)} has a fold without exams of {site}')
    return split, {key: rows.of(site=site) for key, rows in answers.items()}


def _numbers(stage, table, remarks):
    """{metric: (value, intervals)} of a stage as they are printed, and what it was; reasons and notes go into remarks. None where
    it has no exams of the table's site."""
    nothing = dict.fromkeys(table.columns, ('-', ('-',) * len(table.levels)))
    try:
        asked = asked_of(stage, table.group)
    except UserError as e:
        return nothing, f'left out: {e}'
    if asked is None:
        return None
    if not stage.whole:
        return nothing, f'{where(stage)}: not finished, give its command again'
    split, answers = asked
    metrics = {key: evaluate.all_metrics(rows) for key, rows in answers.items()}
    group = 'all' if table.group.startswith(OF_SITE) else table.group
    by_level = [_entries({key: rows.of(split) for key, rows in answers.items()}, metrics, split, group, level)
                for level in table.levels]
    folds = {fold for fold, _ in answers}
    numbers = {}
    for metric in table.columns:
        if metric == HOURS:
            numbers[metric] = _hours(stage), ('-',) * len(table.levels)
            continue
        found = [entries.get(metric, (None, {})) for entries in by_level]
        intervals = tuple(_interval(entry, table, pooled=len(folds) > 1) for _, entry in found)
        numbers[metric] = _printed(found[0][0], table), intervals
        told = found[0][1]
        remarks.extend(remark for remark in (told.get('reason'), told.get('note')) if remark and remark not in remarks)
    return numbers, _described(stage, answers, split)


def _hours(stage):
    """The mean of what the stage's trainings took."""
    seconds = [runs.training_seconds(part.folder) for part in stage.parts.values()]
    return f'{sum(seconds) / len(seconds) / 3600:.3g}'


def _described(stage, answers, split):
    """What a stage was, in a sentence."""
    folds = {fold for fold, _ in answers}
    seeds = {seed for _, seed in answers}
    tested = [rows.of(split) for (_, seed), rows in answers.items() if seed == min(seeds)]
    asked = stage.row.partition(',')[2]
    told = f'{asked}; ' if asked else ''
    told += f'{sum(len(rows.exams) for rows in tested)} exams of {split}'
    told += ', which chose the checkpoint' if split == 'val' else ''
    told += f', {", ".join(sorted({site for rows in tested for site in rows.sites}))}'
    if len(answers) > 1:
        told += f'; {count(folds, "fold")} x {count(seeds, "seed")}, ± over the {"folds" if len(folds) > 1 else "seeds"}'
    if len(folds) > 1:
        told += ', before each interval the metric of all folds pooled'
    return f'{where(stage)}: {told}'


def count(things: Collection, word: str) -> str:
    """'1 fold', '2 folds'."""
    return f'{len(things)} {word}' + 's' * (len(things) != 1)


def _entries(answers, metrics, split, group, level):
    """{metric: (value, or mean and standard deviation; entry with its interval)}."""
    if len(answers) == 1:
        (rows,) = answers.values()
        rows = evaluate.groups(rows)[0].get(group)
        return {name: (entry['value'], entry) for name, entry in evaluate.score(rows, level=level).items()} if rows else {}
    found = summary.summarise(answers, metrics, split, level).get(group, {})
    return {name: (one.spread, one.pooled) for name, one in found.items()}


def _printed(value, table):
    if value is None:
        return '-'
    if isinstance(value, float):
        return _scaled(value, table)
    deviation = value.over_seeds if value.over_folds is None else value.over_folds
    return f'{_scaled(value.mean, table)} ± {_scaled(deviation, table)}'


def _interval(entry, table, pooled):
    if entry.get('low') is None:
        return '-'
    interval = f'[{_scaled(entry["low"], table)}, {_scaled(entry["high"], table)}]'
    return f'{_scaled(entry["value"], table)} {interval}' if pooled else interval


def _scaled(value, table):
    return f'{100 * value:.2f}' if table.percent else f'{value:.3f}'


def impossible(table: Table) -> list[str]:
    """What cannot be about the paper's own numbers, a sentence each."""
    found = []
    for row, cells in {**table.rows, **table.others}.items():
        values = {}
        digits = []
        for metric, cell in zip(table.columns, cells, strict=True):
            if metric != HOURS and (number := NUMBER.match(cell)):
                values[_as_published(metric)] = float(number[0]) / (100 if table.percent else 1)
                digits.append(len(number[0].partition('.')[2]))
        rounding = 10.0 ** -min(digits, default=0) / (100 if table.percent else 1)  # a paper may cut in place of rounding
        found += [f'{row}: {sentence}' for sentence in contradictions(values, rounding, table.positives, table.negatives,
                                                                means=any(MEAN in cell for cell in cells))]
    return found


def _as_published(metric):
    return 'f1' if metric == 'f1_covid' else metric
