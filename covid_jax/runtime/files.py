"""Files that are whole at any time: written under a temporary name, then renamed."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path


def write(path: str | Path, content: str | bytes) -> None:
    """Writes a file."""
    temporary = Path(path).with_suffix('.tmp')
    if isinstance(content, bytes):
        temporary.write_bytes(content)
    else:
        temporary.write_text(content, encoding='utf-8', newline='')
    os.replace(temporary, path)


def write_csv(path: str | Path, rows: Iterable[Iterable]) -> None:
    """Writes rows, the header first, as a CSV file."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write(path, text.getvalue())
