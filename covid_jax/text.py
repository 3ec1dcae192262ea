"""Text that came from data, on its way to a terminal, a CSV file or a page: names of scans, labels, what a parser says."""

import re
from collections.abc import Iterable
from html import escape

LINE = 2000  # signs of one message: what a broken file says of itself may be megabytes
NUMBER = re.compile(r'[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?', re.ASCII)
FORMULA = ('=', '+', '-', '@', '\t', '\r')  # a spreadsheet runs a cell that begins so


def printable(text: object) -> str:
    """One line without control signs, which a terminal would obey, and of at most LINE signs."""
    line = ''.join(sign if sign.isprintable() else ' ' for sign in str(text)[:LINE + 1])
    return line if len(line) <= LINE else line[:LINE] + '...'


def some(names: Iterable[object], most: int = 5) -> str:
    """The first of many names, for a message: 'a, b, c', and ', ...' where there are more than `most`."""
    names = list(names)
    return ', '.join([*map(str, names[:most]), *(['...'] if len(names) > most else [])])


def count(number: int, one: str, more: str = '') -> str:
    """'1 scan is', '2 scans are': a number with its noun, and the verb where the words have one. more: 'one' with an s where it is ''."""
    return f'{number} {one if number == 1 else more or one + "s"}'


def html(text: object) -> str:
    """A line of text as a page holds it, between tags or in an attribute between quotes: none of it is a tag."""
    return escape(printable(text))


def cell(value: object) -> object:
    """A value as a CSV file holds it: text that a spreadsheet would run starts with an apostrophe. Numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and _runs(value.lstrip("'")) else value


def from_cell(text: str) -> str:
    """What `cell` was given, if it was text."""
    return text[1:] if text.startswith("'") and _runs(text.lstrip("'")) else text


def _runs(text):
    """Whether a spreadsheet would take the text for a formula."""
    return text.startswith(FORMULA) and not NUMBER.fullmatch(text)
