"""A paper's table on the console."""

from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table
from rich.markup import escape

from covid_jax.config import Table
from covid_jax.text import printable


def show(table: Table, lines: Sequence[Any], runs: Sequence[str], impossible: Sequence[str]) -> None:
    """Prints the table; then what its runs were, and which of the paper's numbers cannot be.

    lines: of papers.Line. runs: a sentence for each number in the column 'run'. impossible: a sentence for each contradiction.
    """
    console = rich.console.Console()
    unit = ', %' if table.percent else ''
    levels = [f'{100 * level:g} %' for level in table.levels]
    grid = rich.table.Table('row', 'metric', 'paper', 'ours', *levels, 'run', title=escape(f'{table.title}{unit}'))
    before = None
    for line in lines:
        again = (line.row, line.run) == before
        if before is not None and not again:
            grid.add_section()
        grid.add_row('' if again else escape(line.row), line.metric, escape(line.paper or '-'), line.ours, *map(escape, line.intervals),
                     str(line.run or ''))
        before = line.row, line.run
    console.print(grid)
    for number, run in enumerate(runs, 1):
        console.print(printable(f'{number}  {run}'), soft_wrap=True, markup=False)
    for sentence in impossible:
        console.print(printable(f'The paper cannot be right in this row. {sentence}.'), soft_wrap=True, markup=False)
    console.print()
