"""What an audit found, on the console and as a page with thumbnails."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rich.console
import rich.table
from PIL import Image
from rich.markup import escape

from covid_jax.runtime import files
from covid_jax.text import printable

LISTED = 3  # files that are not read, of which the console shows the reason
STYLE = """body { font: 15px/1.4 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 } td, th { border: 1px solid #bbb; padding: .2em .6em; text-align: left }
.spoils { color: #a00; font-weight: bold } figure { display: inline-block; width: 134px; margin: 3px; vertical-align: top }
img { width: 128px; height: 128px; image-rendering: pixelated } figcaption { font-size: 11px; overflow-wrap: anywhere }"""

Tables = Mapping[str, Sequence[Sequence[str]]]  # {title: rows, the header first}
Pictures = Mapping[str, Sequence[tuple[str, np.ndarray]]]  # {title: [(caption, uint8 [height, width])]}


def show(tables: Tables, spoils: Sequence[str], looks: Sequence[str], unread: Mapping[str, str]) -> None:
    """Prints the tables, what is not read and why, what wants a look, and what would spoil a result."""
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


def write(folder: Path | str, title: str, tables: Tables, spoils: Sequence[str], looks: Sequence[str], unread: Mapping[str, str],
          pictures: Pictures) -> None:
    """Writes folder/audit.html: the same, all that is not read, and the pictures. It names files as they are called."""
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title><style>{STYLE}</style><h1>{_text(title)}</h1>',
             _lines('What would spoil a result', spoils, 'spoils'), _lines('What wants a look', looks)]
    for name, rows in tables.items():
        parts += [f'<h2>{_text(name)}</h2>', _grid(rows)] if rows else []
    for name, of in pictures.items():
        parts += [f'<h2>{_text(name)}</h2>', *(_figure(*picture) for picture in of)]
    parts += [_lines('What is not read', [f'{name}: {why}' for name, why in unread.items()]), '<p>Research software, not a medical device.</p></html>']
    Path(folder).mkdir(parents=True, exist_ok=True)
    files.write(Path(folder) / 'audit.html', '\n'.join(filter(None, parts)) + '\n')


def _lines(title, lines, style=''):
    found = ''.join(f'<li>{_text(line)}</li>' for line in lines) or '<li>nothing</li>'
    return f'<h2>{title}</h2><ul class="{style if lines else ""}">{found}</ul>'


def _grid(rows):
    header, *body = rows
    cells = [f'<tr>{"".join(f"<td>{_text(cell)}</td>" for cell in row)}</tr>' for row in body]
    return f'<table><tr>{"".join(f"<th>{_text(cell)}</th>" for cell in header)}</tr>{"".join(cells)}</table>'


def _figure(caption, pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'PNG')
    return (f'<figure><img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
            f'<figcaption>{_text(caption)}</figcaption></figure>')


def _text(text):
    return html.escape(printable(text))
