"""What a comparison of two runs says: its tables, and a sentence for each test that says what it cannot tell."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import rich.console
import rich.table

from covid_jax.metrics.significance import Difference
from covid_jax.report.tables import titled
from covid_jax.runtime import files
from covid_jax.text import printable

BOOTSTRAP = 'bootstrap over patients'
FOLDS = 'paired t over folds'
CORRECTED = 'corrected t over folds'
SEEDS = 'paired t over seeds'
MCNEMAR = 'McNemar'
DELONG = 'DeLong'
TABLES = (FOLDS, CORRECTED, SEEDS, BOOTSTRAP)  # the others are one number each: a sentence
COLUMNS = ('group', 'test', 'metric', 'a', 'b', 'difference', 'standard_error', 'low', 'high', 'p', 'n', 'reason')
NOT_MEDICAL = 'Research software, not a medical device.'

Values = tuple[float | None, ...]


class Row(NamedTuple):
    """One test of one metric. group: 'all' or 'site NAME'; a, b: the values of each run, one for each fold or seed."""

    group: str
    test: str
    metric: str
    a: Values
    b: Values
    difference: Difference


class Comparison(NamedTuple):
    """Two finished runs on the same exams.

    runs:        their folders
    classes:     their names, in order, the second positive
    seeds:       those of each fold, the same in both runs
    exams:       labelled, of the split, in all folds; patients: that these are of
    seen:        exams of patients that an earlier run than A, or than B, learnt from
    test_share:  patients of a fold that are tested on over those that are learnt from, None where nothing says so
    discordant:  exams that A alone has right, and B alone; None for several seeds
    """

    runs: tuple[str, str]
    split: str
    classes: tuple[str, ...]
    folds: int
    seeds: tuple[int, ...]
    exams: int
    patients: int
    seen: tuple[int, int]
    resamples: int
    level: float
    test_share: float | None
    discordant: tuple[int, int] | None
    rows: list[Row]

    def of(self, group: str, test: str) -> list[Row]:
        """The rows of a test."""
        return [row for row in self.rows if (row.group, row.test) == (group, test)]


def show(comparison: Comparison) -> None:
    """Prints the tables and the sentences."""
    console = rich.console.Console()
    for line in heading(comparison):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    for title, header, rows, reasons in tables(comparison):
        table = rich.table.Table(*header, padding=0)  # a line has 80 signs
        table.columns[0].no_wrap = True
        for row in rows:
            table.add_row(*row)
        titled(console, title, table)
        for reason in reasons:
            console.print(reason, soft_wrap=True, markup=False, highlight=False)
    for line in [*sentences(comparison), NOT_MEDICAL]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def write(folder: str | Path, comparison: Comparison) -> None:
    """Writes compare.csv, a row for each test of each metric, and compare.md, what `show` prints."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[tuple] = [COLUMNS]
    for group, test, metric, a, b, d in comparison.rows:
        lines.append((group, test, metric, mean(a), mean(b), *d))
    files.write_csv(folder / 'compare.csv', lines)
    text = ['# Two runs on the same exams', '', *_bullets(heading(comparison))]
    for title, header, rows, reasons in tables(comparison):
        text += ['', f'## {_plain(title)}', '']
        text += [f'| {" | ".join(cells)} |' for cells in (header, ['---'] * len(header), *rows)]
        text += ['', *_bullets(reasons)] if reasons else []
    text += ['', '## What the tests say', '', *_bullets(sentences(comparison)), '', NOT_MEDICAL]
    files.write(folder / 'compare.md', '\n'.join(text) + '\n')


def heading(comparison: Comparison) -> list[str]:
    """Which runs, and on what."""
    c = comparison
    a, b = c.runs
    several = [f'{c.folds} folds'] * (c.folds > 1) + [f'{len(c.seeds)} seeds'] * (len(c.seeds) > 1)
    of = f'{c.exams} exams of {c.patients} patients' if c.exams > c.patients else f'{c.exams} exams'
    return list(map(printable, (f'A: {a}', f'B: {b}', ', '.join([f'{c.split}: {of}', *several,
                                                               f'positive class {c.classes[1]}']))))


def tables(comparison: Comparison) -> list[tuple[str, list[str], list[list[str]], list[str]]]:
    """(title, header, rows, reasons for what is undefined) of each group and test."""
    c = comparison
    header = ['metric', 'A', 'B', 'A - B', f'{100 * c.level:g} % interval', 'p']
    made = []
    for group in dict.fromkeys(row.group for row in c.rows):
        for test in TABLES:
            found = c.of(group, test)
            if not found:
                continue
            rows = [[row.metric, _values(row.a), _values(row.b), _signed(row.difference.value), _interval(row.difference),
                     p_value(row.difference)] for row in found]
            made.append((printable(f'{c.split}{"" if group == "all" else f", {group}"}: {test}'), header, rows, _reasons(found)))
    return made


def _reasons(rows):
    """Why something is undefined: each reason once, with the metrics that share it."""
    metrics = {}
    for row in rows:
        if row.difference.reason:
            metrics.setdefault(row.difference.reason, []).append(row.metric)
    return [printable(f'{"all metrics" if len(of) == len(rows) > 1 else ", ".join(of)}: {reason}') for reason, of in metrics.items()]


def sentences(comparison: Comparison) -> list[str]:
    """One for each test, with what it cannot say."""
    c = comparison
    said = [*_bootstrap(c), *_folds(c), *_seeds(c), *_mcnemar(c), *_delong(c)]
    if c.exams > c.patients and c.of('all', DELONG):
        said.append(f'McNemar and DeLong take the {c.exams} exams as independent, and {c.patients} patients have them: their '
                    'p-values tend to be too small. The bootstrap draws whole patients.')
    if c.split == 'val':
        said.append('The validation split chose the checkpoints of both runs: it is no test.')
    said.append('No p-value here allows for the number of metrics, groups and tests: of many, some are small by chance.')
    for run, count in zip('AB', c.seen, strict=True):
        if count:
            said.append(f'{run} is tested on {count} exams of patients that a run before it learnt from: that is no test.')
    return said


def _bootstrap(c):
    yield (f'The bootstrap draws patients {c.resamples} times, the same ones for A and B, and trains nothing: it speaks of other '
           'patients, not of other trainings.')
    yield ('With them it draws two imagined patients of each class, one that A alone has right and one that B alone has: where few '
           'patients are decided differently, intervals without these would be too narrow.')
    if c.folds > 1:
        yield (f'It is of the answers of all {c.folds} folds together. They are of different networks, so AUC and average '
               'precision also depend on how well the folds\' scores agree.')
    if len(c.seeds) > 1:
        yield (f'It compares the means over {_listed(c.seeds)}, and the seeds are not drawn. Each ± is the spread (s.d.) over '
               'these seeds.')
        yield 'McNemar and DeLong are of one answer for each exam, and left out: compare one seed with one to have them.'
    else:
        yield f'One training each{", for each fold" if c.folds > 1 else ""}: this says nothing about other seeds.'


def _folds(c):
    if c.folds == 1:
        return
    yield (f'The plain t-test over {c.folds} folds, as the papers report it, takes the folds as independent, which they are not: '
           'their training sets overlap. Its p-values tend to be too small.')
    if c.test_share is None:
        yield 'The corrected t-test is left out: no exams.csv says how many patients were learnt from.'
    else:
        yield (f'The corrected t-test (Nadeau and Bengio 2003) allows for that, with {c.test_share:.3f} patients tested on for each '
               'one learnt from. It is an approximation, and weak with few folds.')


def _seeds(c):
    if c.of('all', SEEDS):
        yield (f'The t-test over {len(c.seeds)} seeds pairs runs of the same seed, as some papers report it: it speaks of other '
               f'trainings on the same patients, not of other patients, with {len(c.seeds) - 1} '
               f'degree{"s" if len(c.seeds) > 2 else ""} of freedom.')


def _mcnemar(c):
    for row in c.of('all', MCNEMAR):
        only_a, only_b = c.discordant
        how = 'probability 0.5' if len(c.classes) == 2 else 'the most probable class'
        yield (f'McNemar (exact): A alone is right on {only_a} exams and B alone on {only_b}, p {p_value(row.difference)}. It '
               f'compares decisions at {how} only, and not how sure they are.')


def _delong(c):
    for row in c.of('all', DELONG):
        d = row.difference
        interval = f'{100 * c.level:g} % interval {_interval(d)}' if _interval(d) else d.reason
        found = (f'no test of the AUCs ({d.reason})' if d.p is None else
                 f'the AUCs differ by {_signed(d.value)}, {interval}, p {p_value(d)}')
        yield printable(f'DeLong: {found}. It compares how the runs rank {c.classes[1]} against the rest, at no threshold.')


def mean(values: Values) -> float | None:
    """None where a value is undefined."""
    return None if None in values else float(np.mean(values))


def p_value(difference: Difference) -> str:
    """'0.031', '<0.001', or '-'."""
    p = difference.p
    if p is None:
        return '-'
    return '<0.001' if p < 0.001 else f'{p:.3f}'


def _values(values):
    if None in values:
        return '-'
    spread = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''
    return f'{np.mean(values):.3f}{spread}'


def _signed(value):
    return '-' if value is None else f'{value:+.3f}'


def _interval(difference):
    return '' if difference.low is None else f'{difference.low:+.3f} to {difference.high:+.3f}'


def _listed(seeds):
    return f'{len(seeds)} seeds ({", ".join(map(str, seeds))})'


def _bullets(lines):
    return [f'- {_plain(line)}' for line in lines]


def _plain(text):
    """Text as Markdown shows it, whatever signs it has."""
    return ''.join(f'\\{sign}' if sign in '\\`*_[]<>#|' else sign for sign in text)
