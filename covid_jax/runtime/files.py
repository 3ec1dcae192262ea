"""Files that are whole at any time: written under a temporary name, then renamed."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from covid_jax.text import cell


def write(path: str | Path, content: str | bytes) -> None:
    """Writes a file."""
    temporary = Path(path).with_suffix('.tmp')
    if isinstance(content, bytes):
        temporary.write_bytes(content)
    else:
        temporary.write_text(content, encoding='utf-8', newline='')
    os.replace(temporary, path)


def write_csv(path: str | Path, rows: Iterable[Iterable]) -> None:
    """Writes rows, the header first, as a CSV file that no spreadsheet runs: text.from_cell gives each text back."""
    text = io.StringIO()
    csv.writer(text).writerows([cell(value) for value in row] for row in rows)
    write(path, text.getvalue())
