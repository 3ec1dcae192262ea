"""Where exams come from. A source is a function that returns a list of Exam; exams_of calls the one a config names."""

import csv
import difflib
import os
import zipfile
from pathlib import Path

from covid_jax import UserError
from covid_jax.data import decode, phantom
from covid_jax.data.exams import Exam

SPLITS = ('train', 'val', 'test')
PHANTOM_LABELS = ('covid', 'normal', 'covid', 'pneumonia')
COLUMNS = ('path', 'label', 'id', 'patient', 'site', 'split')
LAYOUT = ('expected <class>/<scan> or {train,val,test}/<class>/<scan>, '
          'where a scan is a .npz, .npy, .png or .jpg file or a folder of slices')


def phantoms(seed, train, val, test):
    """So many phantoms per split: half covid, a quarter normal, a quarter pneumonia. Each split has its own seed."""
    exams = []
    for offset, (split, count) in enumerate(zip(SPLITS, (train, val, test), strict=True)):
        for index in range(count):
            label = PHANTOM_LABELS[index % len(PHANTOM_LABELS)]
            name = f'phantom-{3 * seed + offset}-{index}'
            exams.append(Exam(name, name, 'phantom', label, split, (phantom.address(3 * seed + offset, index, label),)))
    return exams


def folder(root):
    """root/<class>/<scan>, or root/<split>/<class>/<scan> where the split is train, val or test.

    A scan is a .npz, .npy, .png or .jpg file, or a folder of slices; other files and hidden ones are skipped. The label
    is the name of the class folder; every scan is its own patient, and its id is its path below root.
    UserError if there is nothing of the kind, or if folders of splits and of classes are mixed.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'{root} is not a folder: {LAYOUT}')
    folders = [path for path in _visible(root) if path.is_dir()]
    splits = [path for path in folders if path.name in SPLITS]
    if splits and len(splits) < len(folders):
        odd = ', '.join(path.name for path in folders if path not in splits)
        raise UserError(f'{root} holds both splits and other folders ({odd}): {LAYOUT}')
    classes = [(path.name, label) for path in splits for label in _visible(path)] or [('', path) for path in folders]
    exams = [_folder_exam(root, split, scan) for split, label in classes if label.is_dir() for scan in _scans(label)]
    if not exams:
        found = ', '.join(path.name for path in _visible(root)[:5]) or 'nothing'
        raise UserError(f'no scans in {root} (found: {found}): {LAYOUT}')
    return exams


def _visible(path):
    return sorted(entry for entry in path.iterdir() if not entry.name.startswith(('.', '__MACOSX')))


def _scans(path):
    return [scan for scan in _visible(path) if scan.is_dir() or scan.suffix.lower() in decode.ARRAYS + decode.IMAGES]


def _folder_exam(root, split, scan):
    name = scan.relative_to(root).as_posix()
    return Exam(name, name, 'default', scan.parent.name, split, (str(scan),))


def manifest(path):
    """A comma-separated file with the columns path and label, and optionally id, patient, site and split.

    Paths are relative to the file. An empty id is the path, an empty patient the id, an empty site 'default'. UserError
    that names the row (its line in the file) for a missing scan, a repeated id, an unknown split or a row too long.
    """
    path = Path(path)
    exams, lines = [], {}
    for line, row in _rows(path):
        exam = _manifest_exam(path, line, row)
        if exam.id in lines:
            raise UserError(f'{path} row {line}: id {exam.id!r} is already in row {lines[exam.id]}')
        lines[exam.id] = line
        exams.append(exam)
    if not exams:
        raise UserError(f'{path} holds no rows: expected the columns {", ".join(COLUMNS)}')
    return exams


def _rows(path):
    """(line number, {column: stripped cell}) of every row that is not blank."""
    with decode.blame(path), path.open(newline='', encoding='utf-8-sig') as stream:
        reader = csv.reader(stream, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    columns = rows[0][1] if rows else []
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise UserError(f'{path}: unknown columns {", ".join(map(repr, unknown))}; accepted are {", ".join(COLUMNS)}')
    if len(set(columns)) < len(columns) or not {'path', 'label'} <= set(columns):
        raise UserError(f'{path}: expected the columns path and label, each once, found {", ".join(columns) or "none"}')
    for line, cells in rows[1:]:
        if len(cells) > len(columns):
            raise UserError(f'{path} row {line}: {len(cells)} cells for {len(columns)} columns')
    return [(line, dict(zip(columns, cells, strict=False))) for line, cells in rows[1:]]


def _manifest_exam(path, line, row):
    scan = row.get('path', '')
    if not scan or not os.path.exists(path.parent / scan):
        raise UserError(f'{path} row {line}: no such file {scan!r} (paths are relative to {path.parent})')
    split = row.get('split', '')
    if split not in SPLITS + ('',):
        raise UserError(f'{path} row {line}: split {split!r} is not one of {", ".join(SPLITS)} or empty')
    name = row.get('id') or scan
    return Exam(name, row.get('patient') or name, row.get('site') or 'default', row.get('label', ''), split,
                (str(path.parent / scan),))


def covid_ct_md(root):
    """COVID-CT-MD as one .npz per patient with the keys hu and label, in root/volumes or in root."""
    root = Path(root)
    paths = sorted(root.glob('volumes/*.npz')) or sorted(root.glob('*.npz'))
    if not paths:
        raise UserError(f'no .npz volumes in {root} or {root / "volumes"}')
    return [Exam(path.stem, path.stem, 'COVID-CT-MD', _stored_label(path), '', (str(path),)) for path in paths]


def _stored_label(path):
    with decode.blame(path), zipfile.ZipFile(path) as archive:
        return str(decode.member(archive, 'label', kinds='U', ndims=(0,), limit=1))


def exams_of(data):
    """The exams of a config's data section: its source, its root, and for phantoms their seed and counts.
    UserError for a source of no such name and for a root that does not exist."""
    if data.source == 'phantom':
        return phantoms(data.phantom.seed, data.phantom.train, data.phantom.val, data.phantom.test)
    readers = {'folder': folder, 'manifest': manifest, 'covid_ct_md': covid_ct_md}
    if data.source not in readers:
        names = ['phantom', *readers]
        nearest = difflib.get_close_matches(data.source, names, n=1, cutoff=0)[0]
        raise UserError(f'no data source {data.source!r}, did you mean {nearest!r}? There are {", ".join(names)}')
    if not data.root or not os.path.exists(data.root):
        raise UserError(f'data source {data.source!r} finds nothing at {data.root!r}: set --config.data.root=...')
    return readers[data.source](data.root)
