"""What an audit found, on the console and as a page with thumbnails."""

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rich.console
import rich.table
from PIL import Image
from rich.markup import escape

from covid_jax.report.tables import titled
from covid_jax.runtime import files
from covid_jax.text import printable

PAIRS = 'pair by pair'  # what titles of pictures end in, two of which belong together
LISTED = 3  # files that are not read, of which the console shows the reason
STYLE = """body { font: 15px/1.4 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }
h1, h2, li { overflow-wrap: anywhere } h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
h2::first-letter { text-transform: uppercase }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: 1em 0 } td { min-width: 3.5em }
td, th { border: 1px solid #bbb; padding: .2em .6em; text-align: left; vertical-align: top }
.spoils { color: #a00; font-weight: bold } .pair { display: inline-block; margin-right: 1.5em }
figure { display: inline-block; width: 134px; margin: 3px; vertical-align: top }
img { display: block } figcaption { font-size: 11px; padding-right: 6px; overflow-wrap: anywhere } .option { white-space: nowrap }"""
OPTION = re.compile(r'--[a-z][a-z._]*')  # a browser would end a line behind its dashes
WHOLE = r'<span class="option">\g<0></span>'

Row = tuple[str, ...]
Rows = Sequence[Row]  # the header first


class Audit(NamedTuple):
    """tables: {title: rows}; spoils: findings that would spoil a result, a line each; looks: those that want a look;
    said: what the sources said; lists: {title: rows} of all that findings give examples of; unread: {id: why it is not
    read}; pictures: {title: [(caption, uint8 [height, width])]}, of a volume its middle slice."""

    tables: dict[str, Rows]
    spoils: list[str]
    looks: list[str]
    said: list[str]
    lists: dict[str, Rows]
    unread: dict[str, str]
    pictures: dict[str, list[tuple[str, np.ndarray]]]


def show(found: Audit) -> None:
    """Prints the tables, what is not read and why, what wants a look, and what would spoil a result."""
    console = rich.console.Console()
    for title, rows in found.tables.items():
        if rows:
            header, *body = rows
            table = rich.table.Table(*(escape(printable(name)) for name in header), pad_edge=False)
            for row in body:
                table.add_row(*(escape(printable(cell)) for cell in row))
            titled(console, title, table)
    reasons = list(found.unread.values())
    more = [f'{len(reasons) - LISTED} more'] if len(reasons) > LISTED else []
    unread = [*reasons[:LISTED], *more]
    for title, lines in (('not read', unread), ('look at', found.looks), ('would spoil a result', found.spoils)):
        for line in lines:
            console.print(printable(f'{title}: {line}'), soft_wrap=True, markup=False, highlight=False)
    if not found.spoils:
        console.print('nothing was found that would spoil a result: what these checks do not look for may be there all '
                      'the same', soft_wrap=True)


def write(folder: Path | str, title: str, found: Audit) -> None:
    """Writes folder/audit.html: the same, all that is not read, what the sources said, and the pictures. It names files
    as they are called."""
    parts = ['<!doctype html><html lang="en"><meta charset="utf-8">',
             '<meta name="viewport" content="width=device-width, initial-scale=1">',
             f'<title>{_text(title)}</title><style>{STYLE}</style><h1>{_text(title)}</h1>',
             _lines('what would spoil a result', found.spoils, 'spoils'), _lines('what wants a look', found.looks),
             *(_grid(name, rows) for name, rows in found.tables.items() if rows),
             _lines('what the data set says of itself', found.said)]
    for name, of in found.pictures.items():
        figures = [_figure(*picture) for picture in of]
        if name.endswith(PAIRS):
            pairs = zip(figures[::2], figures[1::2], strict=True)
            figures = [f'<span class="pair">{one}{other}</span>' for one, other in pairs]
        parts += [f'<h2>{_text(name)}</h2>', *figures]
    parts += [_grid(name, rows) for name, rows in found.lists.items()]
    unread = 'what is not read'
    parts += [_grid(unread, [('', 'why'), *found.unread.items()]) if found.unread else _lines(unread, []),
              '<p>Thumbnails are of a window from -1000 to 400 HU, of a volume its middle slice. Research software, not a '
              'medical device.</p></html>']
    Path(folder).mkdir(parents=True, exist_ok=True)
    files.write(Path(folder) / 'audit.html', '\n'.join(parts) + '\n')


def _lines(title, lines, style=''):
    found = ''.join(f'<li>{OPTION.sub(WHOLE, _text(line))}</li>' for line in lines) or '<li>nothing</li>'
    return f'<h2>{title}</h2><ul class="{style if lines else ""}">{found}</ul>'


def _grid(title, rows):
    header, *body = rows
    cells = [f'<tr>{"".join(f"<td>{_text(cell)}</td>" for cell in row)}</tr>' for row in body]
    heads = ''.join(f'<th>{_text(cell)}</th>' for cell in header)
    return f'<h2>{_text(title)}</h2><div class="wide"><table><tr>{heads}</tr>{"".join(cells)}</table></div>'


def _figure(caption, pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'PNG')
    return (f'<figure><img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
            f'<figcaption>{_text(caption)}</figcaption></figure>')


def _text(text):
    return html.escape(printable(text))
