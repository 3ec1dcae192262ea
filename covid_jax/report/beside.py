"""What runs reach on other data beside what they reached on their own test: on the console, and as results.md."""

from collections.abc import Mapping
from typing import Any

import rich.console
import rich.table
from rich.markup import escape

from covid_jax.report import evidence
from covid_jax.report.tables import interval, markdown_table, number, titled
from covid_jax.text import printable

DECIDED = ('accuracy', 'macro_f1', 'sensitivity', 'specificity', 'precision')  # what needs a threshold
OF_GROUP = ('auc', 'sensitivity', 'specificity')  # more do not fit
WORDS = {'patients': 'by patient', 'ppv': 'PPV', 'npv': 'NPV'}

Groups = Mapping[str, Mapping[str, Mapping[str, Any]]]  # {group: {metric: entry}}
Rows = list[tuple[str, ...]]


def show(title: str, here: Groups, own: Groups, found: evidence.Evidence | None) -> None:
    """Prints the tables, what is to be said of them, and the shortcut probes."""
    console = rich.console.Console()
    for heading, (header, *rows) in _tables(title, here, own):
        table = rich.table.Table(*(rich.table.Column(escape(printable(name)), overflow='fold') for name in header), pad_edge=False)
        for row in rows:
            table.add_row(*(escape(printable(cell)) for cell in row))
        titled(console, heading, table)
    for line in _reasons(here):
        console.print(printable(line), soft_wrap=True, markup=False)
    for part in evidence.lines(found) if found else ():
        console.print(part, soft_wrap=True, markup=False) if isinstance(part, str) else console.print(part)


def markdown(title: str, here: Groups, own: Groups, found: evidence.Evidence | None) -> str:
    """The same for results.md."""
    lines = []
    for heading, rows in _tables(title, here, own):
        lines += [f'## {heading}', '', *markdown_table(rows)]
    lines += [f'- {line}' for line in _reasons(here)]
    return '\n'.join(map(printable, lines)) + '\n\n' + (evidence.markdown(found) if found else '')


def _tables(title, here, own):
    """(heading, rows, the header first) of each table."""
    found = [(f'{title}, positive class {here["all"]["auc"]["positive"]}, {_decided(here)}', _all(here['all'], own.get('all', {})))]
    if len(here) > 1:
        found.append(('its parts', _parts(here, own)))
    return found


def _decided(here):
    threshold = here['all']['threshold_frozen']['value']
    return f'at the frozen threshold {threshold:.3f}' if threshold is not None else 'no threshold is frozen: as most probable'


def _all(here, own):
    level = next((f'{100 * entry["level"]:g} % ' for entry in here.values() if 'level' in entry), '')
    rows: Rows = [('metric', 'here', f'{level}interval', 'own test', f'{level}interval')]
    for name in ('auc', 'average_precision', *DECIDED, 'ppv', 'npv', 'ece', 'brier', 'seen_before'):
        if name in here:
            entry = _entry(here, name)
            then = _entry(own, name) if name in own else None
            word = f'{WORDS[name]} at {100 * entry["prevalence"]:g} %' if 'prevalence' in entry else name
            word += ', tempered' if f'{name}_tempered' in here else ''
            rows.append((word, number(entry['value']), interval(entry), number(then['value']) if then else '', interval(then) if then else ''))
    return rows


def _parts(here, own):
    """A row for each group, and for those that the own test has, too, another."""
    rows: Rows = [('', 'exams', *OF_GROUP)]
    for where, groups in (('', here), ('own test: ', own)):
        rows += [(f'{where}{WORDS.get(group, group)}', str(metrics['accuracy']['n']), *(_cell(_entry(metrics, name)) for name in OF_GROUP))
                 for group, metrics in groups.items() if group != 'all']
    return rows


def _entry(metrics, name):
    """That at the frozen threshold, and of probabilities at the frozen temperature, where there is one."""
    return metrics.get(f'{name}_frozen' if name in DECIDED else f'{name}_tempered', metrics[name])


def _cell(entry):
    bounds = interval(entry)
    return f'{number(entry["value"])} ({bounds})' if bounds else number(entry['value'])


def _reasons(here):
    """What is undefined, or to be read with care, and why: each reason once."""
    entries = [_entry(metrics, name) for metrics in here.values() for name in metrics if not name.endswith(('_frozen', '_tempered'))]
    told = dict.fromkeys(reason for entry in entries for reason in (*entry.get('reason', '').split('; '), entry.get('note', '')))
    return [reason for reason in told if reason]
