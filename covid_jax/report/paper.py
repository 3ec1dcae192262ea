"""A paper's table on the console."""

from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table
from rich.markup import escape

from covid_jax.config import PairedTests, Table
from covid_jax.report.tables import titled
from covid_jax.text import printable

AGAINST = ('A: {ours}. B: the row that it is against. p: a paired t-test over the folds, the means over their seeds, which takes folds as '
           'independent; corrected: for training sets that overlap (Nadeau and Bengio 2003).')


def show(table: Table, shown: Any, impossible: Sequence[str]) -> None:
    """Prints the table; then what its runs were, and which of the paper's numbers cannot be. Where no run stands in it, why not comes
    first.

    shown: papers.Shown. impossible: a sentence for each contradiction.
    """
    console = rich.console.Console()
    unit = ', %' if table.percent else ''
    levels = [f'{100 * level:g} %' for level in table.levels]
    grid = rich.table.Table('row', 'metric', 'paper', 'ours', *levels, 'run')
    before = None
    for line in shown.lines:
        again = (line.row, line.run) == before
        if before is not None and not again:
            grid.add_section()
        intervals = map(escape, line.intervals)
        grid.add_row('' if again else escape(line.row), line.metric, escape(line.paper or '-'), line.ours, *intervals,
                     str(line.run or ''))
        before = line.row, line.run
    remarks = [f'-  {remark}' for remark in shown.remarks]
    for line in [] if shown.runs else remarks:
        console.print(printable(line), soft_wrap=True, markup=False)
    titled(console, f'{table.title}{unit}', grid)
    told = [f'{number}  {run}' for number, run in enumerate(shown.runs, 1)]
    told += remarks if shown.runs else []
    told += [f'No confusion matrix of two classes gives this row of the paper. {sentence}.' for sentence in impossible]
    for line in told:
        console.print(printable(line), soft_wrap=True, markup=False)
    console.print()


def show_tests(tests: PairedTests, tested: Any) -> None:
    """Prints a table of p-values; then what its runs were, and what is missing. tested: paired.Tested."""
    console = rich.console.Console()
    grid = rich.table.Table('against', 'exams', 'paper', 'metric', 'A - B', 'p', 'corrected', 'runs')
    before = None
    for line in tested.lines:
        here = line.row, line.group, line.runs
        if before is not None and here[0] != before[0]:
            grid.add_section()
        opening = ('', '', '') if here == before else (escape(line.row), escape(line.group), escape(line.paper))
        grid.add_row(*opening, line.metric, line.difference, line.plain, line.corrected, ', '.join(map(str, line.runs)))
        before = here
    titled(console, tests.title, grid)
    told = [f'{number}  {run}' for number, run in enumerate(tested.runs, 1)]
    told += [f'-  {remark}' for remark in tested.remarks]
    for line in (*told, AGAINST.format(ours=tests.ours)):
        console.print(printable(line), soft_wrap=True, markup=False)
    console.print()
