"""The tables of a run on the console."""

from pathlib import Path

import numpy as np
import rich.console
import rich.table
from rich.markup import escape

from covid_jax.text import printable

SHOWN = ('accuracy', 'macro_f1', 'sensitivity', 'specificity', 'precision', 'auc', 'average_precision', 'macro_f1_frozen',
         'seen_before')
BRIEF = ('accuracy', 'macro_f1', 'auc')
WORDS = {'all': '', 'patients': ', by patient'}


def show(results: dict[str, dict[str, dict]], folder: Path) -> None:
    """The tables, of {stage: {part: {split: {group: metrics}}}}: of several stages a line each; of the last, value and interval
    of a single run, mean and spread of several; by image, by site and, where that differs, by patient. A part that answers
    nothing has no row."""
    console = rich.console.Console()
    *_, last = results.values()
    answered = {stage: parts for stage, parts in results.items() if all(parts.values())}
    split = shown_split(answered)
    if len(answered) > 1 and split:
        _show_stages(console, answered, split)
    if split and all(last.values()):
        groups = next(iter(last.values()))[split]
        sites = [group for group in groups if group.startswith('site ')]
        for group in groups:
            if sites != [group]:  # of one site alone: its table is that of all
                _show_group(console, last, split, group)
    elif not answered:
        console.print('nothing was evaluated: there is no val and no test split, or no part classifies')
    folders = ', '.join(str(folder / part) for part in last)
    console.print(f'predictions, metrics and plots: {folders}', soft_wrap=True, markup=False)
    console.print('Research software, not a medical device.')


def shown_split(answered: dict[str, dict[str, dict]]) -> str | None:
    """The split that the tables are of: test, or else val, where it has labels; None where nothing was evaluated."""
    if not answered:
        return None
    *_, last = answered.values()
    splits = next(iter(last.values()))
    labelled = [s for s in ('test', 'val') if s in splits and splits[s]['all']['accuracy']['n']]
    return next(iter(labelled or splits), None)


def _show_stages(console, results, split):
    *_, last = results.values()
    runs = [metrics[split]['all'] for parts in results.values() for metrics in parts.values() if split in metrics]
    what = f'value and {_interval_words(runs)}' if len(last) == 1 else 'mean ± s.d.'
    table = rich.table.Table('stage', *BRIEF, title=f'{_title(last, split, "all")}: {what}')
    for stage, parts in results.items():
        if not all(split in metrics for metrics in parts.values()):
            continue
        cells = []
        for metric in BRIEF:
            value, spread = _cells([metrics[split]['all'][metric] for metrics in parts.values()])
            interval = f' ({spread.replace(" to ", "-")})' if spread and len(parts) == 1 else ''
            cells.append(value + interval)
        table.add_row(stage, *cells)
    console.print(table)


def _show_group(console, parts, split, group):
    runs = [metrics[split][group] for metrics in parts.values() if group in metrics.get(split, ())]
    reasons = {}
    columns = ('value', _interval_words(runs)) if len(runs) == 1 else ('mean ± s.d.', 'median, range')
    table = rich.table.Table('metric', *columns, title=_title(parts, split, group))
    for metric in SHOWN:
        if split == 'val' and metric == 'macro_f1_frozen':  # the threshold was frozen on val itself
            continue
        entries = [run[metric] for run in runs if metric in run]
        if entries:
            table.add_row(metric, *_cells(entries))
            for e in entries:
                reasons |= dict.fromkeys([*e.get('reason', '').split('; '), e.get('note', '')])
    console.print(table)
    for reason in filter(None, reasons):
        console.print(printable(reason), soft_wrap=True, markup=False)


def _title(parts, split, group):
    chosen = ' (it chose the checkpoint)' if split == 'val' else ''
    metrics = next(iter(parts.values()))[split]
    positive = metrics['all']['auc']['positive']
    sites = [name for name in metrics if name.startswith('site ')]
    alone = f', of {sites[0].removeprefix("site ")} alone' if group == 'all' and len(sites) == 1 else ''
    several = f', {len(parts)} runs' if len(parts) > 1 else ''
    title = f'{split}{WORDS.get(group, f", {group}")}{alone}{chosen}, positive class {positive}{several}'
    return escape(printable(title))  # sites are called as the data call them


def _interval_words(runs):
    """'95 % interval', of the level that the intervals of these runs have."""
    levels = sorted({entry['level'] for run in runs for entry in run.values() if 'level' in entry})
    words = ' or '.join(f'{100 * level:g} %' for level in levels)
    return f'{words} interval'.strip()


def _cells(entries):
    values = [e['value'] for e in entries]
    if None in values:
        return '-', ''
    if len(entries) > 1:
        return (f'{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}',
                f'{np.median(values):.3f}, {min(values):.3f} to {max(values):.3f}')
    entry = entries[0]
    if isinstance(entry['value'], int):
        return str(entry['value']), ''
    interval = '' if entry.get('low') is None else f'{entry["low"]:.3f} to {entry["high"]:.3f}'
    return f'{entry["value"]:.3f}', interval
