"""The user's own table of scans: a CSV file with a row for each."""

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

from covid_jax import UserError
from covid_jax.scans import decode
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import SPLITS, Exam
from covid_jax.sources.listing import delimiter_of, did_you_mean, read_text
from covid_jax.sources.patients import one_patient
from covid_jax.text import count, some

NOBODY = ('nan', 'none', 'null', 'n/a', '<na>', '#n/a')  # what pandas and spreadsheets write where nothing is known
COLUMNS = ('path', 'label', 'id', 'patient', 'site', 'split')


def manifest(path: Path | str, say: Callable[[str], None] = print) -> list[Exam]:
    """A table with the columns path and label, and optionally id, patient, site and split. Commas part its cells, or
    what else parts the columns of its header: semicolons, tabs, or what a line 'sep=;' before it says.

    Paths are relative to the file and may name a part, as in 'a::series=1.2.3'. An empty id is the path, of an absolute
    path below the file's folder the rest of it; an empty site is 'default'; an empty patient, or one called 'nan' or
    the like, is the id, but for DICOM scans of one PatientID. UserError that names the row (its line in the file) for a
    missing scan, a repeated id, an unknown split or a row too long.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f'{path} is a folder: a manifest is a CSV file; for folders of classes set '
                        '--config.data.source=folder')
    rows = _rows(path)
    absent = [f'{row.get("path", "")!r} (row {line})' for line, row in rows if not _exists(path, row)]
    if absent:
        hint = ', and their folders are parted by /' if any('\\' in row.get('path', '') for _, row in rows) else ''
        raise UserError(f'{path}: {count(len(absent), "scan is", "scans are")} not there, {some(absent)}: paths are '
                        f'relative to {path.parent}{hint}')
    exams = []
    line_of: dict[str, int] = {}  # id -> line of the file
    for line, row in rows:
        exam = _exam(path, line, row)
        if exam.id in line_of:
            raise UserError(f'{path} row {line}: id {exam.id!r} is already in row {line_of[exam.id]}')
        line_of[exam.id] = line
        exams.append(exam)
    if not exams:
        raise UserError(f'{path} holds no rows: expected the columns {", ".join(COLUMNS)}')
    if nobody := sum(row.get('patient', '').lower() in NOBODY for _, row in rows):
        say(f'{path}: {count(nobody, "row calls its", "rows call their")} patient {NOBODY[0]!r} or the like, which '
            'names nobody: each counts as its own')
    found = one_patient(exams, path, say)
    if len({exam.patient for exam in found}) == len(found) > 1 and not any(map(_patient, (row for _, row in rows))):
        say(f'{path}: no patients are named (column patient), and each of {len(found)} scans counts as its own: scans '
            'of one person may be learnt from and tested on; --config.data.group=clusters keeps near duplicates '
            'together')
    return found


def places(path: Path) -> set[Path]:
    """The folders in which the scans of a table lie. UserError as `manifest` where it is none."""
    return {decode.split_address(path.parent / row.get('path', ''))[0].resolve().parent for _, row in _rows(path)}


def _rows(path):
    """(line number, {column: stripped cell}) of every row that is not blank."""
    with blame(path):
        text = read_text(path)
        delimiter, said = delimiter_of(text, COLUMNS)
        reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
        filled = (cells for cells in reader if any(map(str.strip, cells)))
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in filled][said:]
    columns = rows[0][1] if rows else []
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        hint = ''.join(did_you_mean(name, unknown) for name in COLUMNS if name not in columns)
        if '' in unknown:
            hint += '; a column without a name is the index of pandas: write the table with index=False'
        raise UserError(f'{path}: unknown columns {", ".join(map(repr, unknown))}{hint}; accepted are '
                        f'{", ".join(COLUMNS)}')
    if len(set(columns)) < len(columns) or not {'path', 'label'} <= set(columns):
        raise UserError(f'{path}: expected the columns path and label, each once, found {", ".join(columns) or "none"}')
    for line, cells in rows[1:]:
        if len(cells) > len(columns):
            raise UserError(f'{path} row {line}: {len(cells)} cells for {len(columns)} columns')
    return [(line, dict(zip(columns, cells, strict=False))) for line, cells in rows[1:]]


def _exists(path, row):
    """Whether the scan of a manifest's row exists."""
    return row.get('path') and os.path.exists(decode.split_address(path.parent / row['path'])[0])


def _patient(row):
    """'' where none is named."""
    patient = row.get('patient', '')
    return '' if patient.lower() in NOBODY else patient


def _below(folder, scan):
    """A path without the folder that it begins with, where it is an absolute one."""
    inside = os.path.isabs(scan) and Path(scan).is_relative_to(folder.absolute())
    return Path(scan).relative_to(folder.absolute()).as_posix() if inside else scan


def _exam(path, line, row):
    scan = row['path']
    split = row.get('split', '')
    if split not in SPLITS + ('',):
        raise UserError(f'{path} row {line}: split {split!r} is not one of {", ".join(SPLITS)} or empty')
    name = row.get('id') or _below(path.parent, scan)
    return Exam(name, _patient(row) or name, row.get('site') or 'default', row.get('label', ''), split,
                str(path.parent / scan))
