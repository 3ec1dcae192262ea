"""The tables of a run: on the console, and as results.csv and results.md."""

import io
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import rich.console
import rich.table

from covid_jax.runtime import files
from covid_jax.text import printable

SHOWN = ('accuracy', 'macro_f1', 'sensitivity', 'specificity', 'precision', 'auc', 'average_precision', 'macro_f1_frozen',
         'seen_before')
BRIEF = ('accuracy', 'macro_f1', 'auc')
WORDS = {'all': '', 'patients': ', by patient'}
OF_INTERVALS = 'no interval', 'interval:'  # how reasons and notes of intervals begin
TRAININGS = 'the interval is over patients and takes the trainings as they are; the s.d. say how far trainings lie apart'
POOLED = 'pooled AUC and average precision rank the scores of different networks together'
LEAST_NAME = 5  # letters of a stage in a line of the table of stages
BESIDE_NAME = 61  # letters that the other columns take, of a value above its interval, and of hours
COLUMNS = ('stage', 'split', 'group', 'metric', 'statistic', 'part', 'value', 'low', 'high', 'n', 'level', 'reason', 'note')

Results = Mapping[str, Mapping[str, dict]]  # {stage: {part: {split: {group: metrics}}}}
Summaries = Mapping[str, Mapping[str, Mapping]]  # {stage: {group: {metric: summary.Summary}}}, of stages of several parts


def show(results: Results, summaries: Summaries, folder: Path, beside: Sequence[rich.table.Table | str] = (),
         seconds: Mapping[str, float] = MappingProxyType({})) -> None:
    """Prints the tables: of several stages a line each, with the seconds that a training of it took; of the last, value and interval of a single part; of several the mean,
    the spread over folds and over seeds, the pooled answers, and each part; by image, by site and, where that differs, by
    patient. A part that answers nothing has no row. beside: what else stands under them."""
    console = rich.console.Console()
    *_, (stage, last) = results.items()
    answered = _answered(results)
    split = shown_split(answered)
    if len(answered) > 1 and split:
        title, (columns, *rows) = _stages(answered, summaries, split, seconds)
        titled(console, title, _stage_grid(columns, rows, console.width))
    if split and all(last.values()):
        for group in shown_groups(last, split):
            _show_group(console, last, summaries.get(stage, {}).get(group), split, group)
        if len(last) > 1:
            _show_parts(console, last, split)
    elif not answered:
        console.print('nothing is scored: there is no val and no test split, or nothing here tells classes; what a run has learnt starts '
                      'another by --config.init_from=FOLDER', soft_wrap=True, markup=False)
    for table in beside:
        console.print(table, soft_wrap=True, markup=False) if isinstance(table, str) else console.print(table)
    folders = ', '.join(str(folder / part) for part in last)
    left = 'predictions, metrics and plots' if answered else 'what was learnt'
    console.print(f'{left}: {folders}', soft_wrap=True, markup=False)
    console.print('Research software, not a medical device.')


def titled(console: rich.console.Console, title: str, table: rich.table.Table) -> None:
    """Prints a table below its title, which is a line of its own: rich would break it where it is wider than the table."""
    console.print(printable(title), style='italic', soft_wrap=True, markup=False, highlight=False)
    console.print(table)


def shown_split(answered: Results) -> str | None:
    """The split that the tables are of: test, or else val, where it has labels; None where nothing was evaluated."""
    if not answered:
        return None
    *_, last = answered.values()
    splits = next(iter(last.values()))
    labelled = [s for s in ('test', 'val') if s in splits and splits[s]['all']['accuracy']['n']]
    return next(iter(labelled or splits), None)


def shown_groups(parts: Mapping[str, dict], split: str) -> list[str]:
    """The groups that get a table: not one site alone, whose table is that of all."""
    groups = dict.fromkeys(group for metrics in parts.values() for group in metrics.get(split, ()))
    sites = [group for group in groups if group.startswith('site ')]
    return [group for group in groups if sites != [group]]


def write(results: Results, summaries: Summaries, folder: Path, beside: str = '',
          seconds: Mapping[str, float] = MappingProxyType({})) -> None:
    """Writes folder/results.csv, a number a row, and folder/results.md, the tables that `show` prints with every part in full, and
    what stands beside them."""
    answered = _answered(results)
    split = shown_split(answered)
    if not split:
        return
    rows = [COLUMNS]
    text = io.StringIO()
    if len(answered) > 1:
        title, table = _stages(answered, summaries, split, seconds)
        text.write('\n'.join(printable(line) for line in (f'## {title}', '', *markdown_table(table))) + '\n')
    for stage, parts in answered.items():
        if not all(split in metrics for metrics in parts.values()):
            continue
        for group in shown_groups(parts, split):
            summary = summaries.get(stage, {}).get(group)
            rows += _rows(stage, parts, summary, split, group)
            text.write(_markdown(stage, parts, summary, split, group))
    files.write_csv(folder / 'results.csv', rows)
    files.write(folder / 'results.md', text.getvalue() + beside)


def _answered(results):
    return {stage: parts for stage, parts in results.items() if all(parts.values())}


def _stages(results, summaries, split, seconds):
    """The title of the table of all stages, and its rows, the header first."""
    *_, last = results.values()
    entries = [parts[split]['all'] for of_stage in results.values() for parts in of_stage.values() if split in parts]
    words = _interval_words(entry for metrics in entries for entry in metrics.values())
    what = f'value and {words}' if len(last) == 1 else f'mean, and {words} of all answers pooled'
    rows = [('stage', *BRIEF, *(['training'] if seconds else []))]
    for stage, parts in results.items():
        if not all(split in metrics for metrics in parts.values()):
            continue
        cells = []
        for metric in BRIEF:
            if stage in summaries:
                found = summaries[stage]['all'][metric]
                value = number(found.spread.mean if found.spread else None)
                between = interval(found.pooled)
            else:
                (metrics,) = parts.values()
                value = number(metrics[split]['all'][metric]['value'])
                between = interval(metrics[split]['all'][metric])
            cells.append(f'{value} ({between.replace(" to ", "-")})' if between else value)
        took = [str(timedelta(seconds=round(seconds[stage]))) if seconds[stage] else '-'] if seconds else []
        rows.append((stage, *cells, *took))
    return printable(f'{_title(last, split, "all")}: {what}'), rows


def _stage_grid(columns, rows, width):
    """The table of stages on a console of this width: where it is too wide, intervals go below their values before a name is broken."""
    longest = max(len(row[0]) for row in rows)
    name = rich.table.Column(columns[0], overflow='fold', width=min(longest, max(LEAST_NAME, width - BESIDE_NAME)))
    grid = rich.table.Table(name, *columns[1:], pad_edge=False)
    for row in rows:
        grid.add_row(*row)
    return grid


def _show_group(console, parts, summary, split, group):
    entries = shown_entries(parts, split, group)
    columns = _columns(entries, summary)
    table = rich.table.Table('metric', *columns, pad_edge=False)
    for metric in entries:
        table.add_row(metric, *_cells(entries[metric], summary and summary[metric]))
    titled(console, _title(parts, split, group, summary), table)
    for reason in _reasons(entries, summary):
        console.print(printable(reason), soft_wrap=True, markup=False)


def shown_entries(parts: Mapping[str, dict], split: str, group: str) -> dict[str, list[dict]]:
    """{metric: its entries, of every part that has it} of the metrics that are shown."""
    runs = [metrics[split][group] for metrics in parts.values() if group in metrics.get(split, ())]
    hidden = 'macro_f1_frozen' if split == 'val' else ''  # the threshold was frozen on val itself
    found = {metric: [run[metric] for run in runs if metric in run] for metric in SHOWN if metric != hidden}
    return {metric: entries for metric, entries in found.items() if entries}


def _columns(entries, summary):
    if not summary:
        return 'value', _interval_words(entry for of_metric in entries.values() for entry in of_metric)
    folds, seeds = _grid(next(iter(summary.values())))
    spreads = [f's.d. {what}' for count, what in ((folds, 'folds'), (seeds, 'seeds')) if count > 1]
    pooled = ['pooled'] if folds > 1 else []  # of one fold its metric is the mean
    return 'mean', *spreads, *pooled, _interval_words(summary[metric].pooled for metric in entries)


def _grid(found):
    """How many folds and seeds a Summary is of."""
    return len({fold for fold, _ in found.values}), len({seed for _, seed in found.values})


def _cells(entries, found):
    if found is None:
        return number(entries[0]['value']), interval(entries[0])
    folds, seeds = _grid(found)
    mean, over_folds, over_seeds = found.spread or (None, None, None)
    spreads = [number(value) for value, count in ((over_folds, folds), (over_seeds, seeds)) if count > 1]
    pooled = [number(found.pooled.get('value'))] if folds > 1 else []
    return (number(mean), *spreads, *pooled, interval(found.pooled))


def _show_parts(console, parts, split):
    table = rich.table.Table('part', *BRIEF)
    for part, metrics in parts.items():
        table.add_row(part, *(number(metrics[split]['all'][metric]['value']) for metric in BRIEF))
    console.print(table)


def _reasons(entries, summary):
    """What is undefined, or to be read with care, and why: each reason once. Of several parts, whose intervals are not shown,
    nothing is said of these."""
    told: dict[str, None] = {}
    for entry in (entry for of_metric in entries.values() for entry in of_metric):
        reasons = [*entry.get('reason', '').split('; '), entry.get('note', '')]
        told |= dict.fromkeys(reason for reason in reasons if not (summary and reason.startswith(OF_INTERVALS)))
    if summary:
        found = [summary[metric] for metric in entries]
        undefined = {sum(value is None for value in one.values.values()) for one in found} - {0}
        told |= {f'no mean: undefined in {count} of {len(found[0].values)} parts': None for count in sorted(undefined)}
        for one in found:
            told |= dict.fromkeys([*one.pooled.get('reason', '').split('; '), one.pooled.get('note', '')])
        if any('level' in one.pooled for one in found):
            told[TRAININGS] = None
            if _grid(found[0])[0] > 1:
                told[POOLED] = None
    return [reason for reason in told if reason]


def _rows(stage, parts, summary, split, group):
    def row(metric, statistic, part, entry):
        numbers = ('' if entry.get(name) is None else f'{entry[name]:g}' for name in ('value', 'low', 'high', 'n'))
        return stage, split, group, metric, statistic, part, *numbers, _level(entry), entry.get('reason', ''), entry.get('note', '')

    found = []
    for metric in shown_entries(parts, split, group):
        for part, metrics in parts.items():
            if metric in metrics[split].get(group, ()):
                found.append(row(metric, 'part', part, metrics[split][group][metric]))
        if not summary:
            continue
        spread = summary[metric].spread
        if spread:
            named = (('mean', spread.mean), ('s.d. over folds', spread.over_folds), ('s.d. over seeds', spread.over_seeds))
            found += [row(metric, statistic, '', {'value': value}) for statistic, value in named if value is not None]
        if summary[metric].pooled:
            found.append(row(metric, 'pooled', '', summary[metric].pooled))
    return found


def _markdown(stage, parts, summary, split, group):
    entries = shown_entries(parts, split, group)
    title = f'{stage}: ' if stage else ''
    lines = [f'## {title}{_title(parts, split, group, summary)}', '']
    columns = _columns(entries, summary)
    lines += markdown_table([('metric', *columns)]
                             + [(metric, *_cells(entries[metric], summary and summary[metric])) for metric in entries])
    if summary:
        rows = [('part', *entries)]
        for part, metrics in parts.items():
            of_part = metrics[split].get(group, {})
            rows.append((part, *(number(of_part.get(metric, {}).get('value')) for metric in entries)))
        lines += markdown_table(rows)
    lines += [f'- {reason}' for reason in _reasons(entries, summary)]
    return '\n'.join(printable(line) for line in lines) + '\n\n'


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, the header first."""
    header, *body = [[cell.replace('|', '\\|') for cell in row] for row in rows]
    return ['| ' + ' | '.join(row) + ' |' for row in (header, ['---'] * len(header), *body)] + ['']


def _title(parts, split, group, summary=None):
    chosen = ' (it chose the checkpoint)' if split == 'val' else ''
    metrics = next(iter(parts.values()))[split]
    positive = metrics['all']['auc']['positive']
    sites = [name for name in metrics if name.startswith('site ')]
    alone = f', of {sites[0].removeprefix("site ")} alone' if group == 'all' and len(sites) == 1 else ''
    several = ''
    if summary:
        grid = zip(_grid(next(iter(summary.values()))), ('folds', 'seeds'), strict=True)
        several = ', ' + ' x '.join(f'{count} {what}' for count, what in grid if count > 1)
    return f'{split}{WORDS.get(group, f", {group}")}{alone}{chosen}, positive class {positive}{several}'


def number(value: float | None) -> str:
    """Three places; '-' for what is undefined."""
    if value is None:
        return '-'
    return str(value) if isinstance(value, int) else f'{value:.3f}'


def interval(entry: Mapping[str, Any]) -> str:
    """'LOW to HIGH' of a metric's entry; '' where it has no interval."""
    return '' if entry.get('low') is None else f'{entry["low"]:.3f} to {entry["high"]:.3f}'


def _level(entry):
    return f'{entry["level"]:g}' if 'level' in entry else ''


def _interval_words(entries):
    """'95 % interval', of the level that the intervals of these entries have."""
    levels = sorted({entry['level'] for entry in entries if 'level' in entry})
    words = ' or '.join(f'{100 * level:g} %' for level in levels)
    return f'{words} interval'.strip()
