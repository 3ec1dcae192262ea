"""What an audit found, on the console."""

from collections.abc import Mapping, Sequence

import rich.console
import rich.table
from rich.markup import escape

from covid_jax.text import printable

LISTED = 3  # files that are not read, of which the reason is shown


def show(tables: Mapping[str, Sequence[Sequence[str]]], spoils: Sequence[str], looks: Sequence[str], unread: Mapping[str, str]) -> None:
    """Prints the tables, {title: rows, the header first}, what is not read and why, what wants a look, and what would spoil a result."""
    console = rich.console.Console()
    for title, rows in tables.items():
        if rows:
            header, *body = rows
            table = rich.table.Table(*(escape(printable(name)) for name in header), title=escape(title), pad_edge=False)
            for row in body:
                table.add_row(*(escape(printable(cell)) for cell in row))
            console.print(table)
    shown = [*list(unread.values())[:LISTED], *([f'{len(unread) - LISTED} more'] if len(unread) > LISTED else [])]
    for title, lines in (('not read', shown), ('look at', looks), ('would spoil a result', spoils)):
        for line in lines:
            console.print(printable(f'{title}: {line}'), soft_wrap=True, markup=False, highlight=False)
    if not spoils:
        console.print('nothing was found that would spoil a result: what these checks do not look for may be there all the same', soft_wrap=True)
