"""Where exams come from: the user's own folders and tables, the phantoms, and whatever mix of data sets a config names.

A source is a function of a root and of `say`, which is called with a line for each thing that a user should know; it
returns a list of Exam. published.py and published_images.py have those of the papers.
"""

import csv
import difflib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from covid_jax import UserError
from covid_jax.data import decode, published, published_images
from covid_jax.data.exams import Exam
from covid_jax.data.listing import first, lines, plain, visible
from covid_jax.data.phantoms import phantoms
from covid_jax.data.scan import blame

SPLITS = ('train', 'val', 'test')
COLUMNS = ('path', 'label', 'id', 'patient', 'site', 'split')
LAYOUT = f'expected <class>/<scan> or {{train,val,test}}/<class>/<scan>, where a scan is {decode.EXPECTED}'


def folder(root, say=print):
    """root/<class>/<scan>, or root/<split>/<class>/<scan> where the split is train, val or test.

    A scan is whatever `decode` reads; other files and hidden ones are skipped. The label is the name of the class folder,
    the id is the path below root. Every scan is its own patient, but for DICOM scans of one PatientID.
    UserError if there is nothing of the kind, or if folders of splits and of classes are mixed.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'{root} is not a folder: {LAYOUT}')
    folders = [path for path in visible(root) if path.is_dir()]
    splits = [path for path in folders if path.name in SPLITS]
    if splits and len(splits) < len(folders):
        odd = ', '.join(path.name for path in folders if path not in splits)
        raise UserError(f'{root} holds both splits and other folders ({odd}): {LAYOUT}')
    classes = [(path.name, label) for path in splits for label in visible(path)] or [('', path) for path in folders]
    exams = [_folder_exam(root, split, scan) for split, label in classes if label.is_dir() for scan in _scans(label)]
    if not exams:
        found = ', '.join(path.name for path in visible(root)[:5]) or 'nothing'
        raise UserError(f'no scans in {root} (found: {found}): {LAYOUT}')
    return one_patient(exams, root, say)


def one_patient(exams, root, say):
    """The exams with DICOM scans of one PatientID under one patient: the one that the source names for any of them, else
    the first of their ids in the alphabet; the PatientID stays unsaid. UserError where that cannot be told."""
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda exam: decode.patient_digest(exam.path), exams))
    groups = defaultdict(list)
    for exam, digest in zip(exams, digests, strict=True):
        if digest:
            groups[digest].append(exam)
    placed, unnamed, people, doubtful = {}, 0, set(), 0
    for group in groups.values():
        own = [exam for exam in group if exam.patient == exam.id]
        named = {exam.patient for exam in group} - {exam.id for exam in own}
        if own and len(named) > 1:
            raise UserError(f'{root}: {own[0].id} has no patient, and DICOM scans of its PatientID have several '
                            f'({", ".join(sorted(named)[:3])}): name the patient of each')
        doubtful += len(named) > 1
        patient = next(iter(named), min(exam.id for exam in group))
        placed |= dict.fromkeys((exam.id for exam in own), patient)
        unnamed += len(own)
        people |= {patient} if own else set()
    if unnamed > 2 and len(groups) == 1:
        raise UserError(f'{root}: all {unnamed} DICOM scans carry one PatientID: name the patients in a manifest '
                        '(column patient)')
    if unnamed > len(people):
        say(f'{root}: {unnamed} DICOM scans of {len(people)} patients, by their PatientID')
    if doubtful:
        say(f'{root}: {doubtful} PatientIDs have scans of several patients, as the table names them: look at it again')
    return [exam._replace(patient=placed.get(exam.id, exam.patient)) for exam in exams]


def _scans(path):
    return [scan for scan in visible(path) if decode.is_scan(scan)]


def _folder_exam(root, split, scan):
    name = scan.relative_to(root).as_posix()
    return Exam(name, name, 'default', scan.parent.name, split, str(scan))


def manifest(path, say=print):
    """A comma-separated file with the columns path and label, and optionally id, patient, site and split.

    Paths are relative to the file and may name a part, as in 'a::series=1.2.3'. An empty id is the path, an empty site
    'default', an empty patient the id, but for DICOM scans of one PatientID.
    UserError that names the row (its line in the file) for a missing scan, a repeated id, an unknown split or a row too
    long.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f'{path} is a folder: a manifest is a CSV file; for folders of classes set --config.data.source=folder')
    exams, lines, rows = [], {}, _rows(path)
    gone = [f'{row.get("path", "")!r} (row {line})' for line, row in rows if not _there(path, row)]
    if gone:
        raise UserError(f'{path}: {len(gone)} scans are not there, {", ".join(gone[:5])}{", ..." if gone[5:] else ""}: paths '
                        f'are relative to {path.parent}')
    for line, row in rows:
        exam = _manifest_exam(path, line, row)
        if exam.id in lines:
            raise UserError(f'{path} row {line}: id {exam.id!r} is already in row {lines[exam.id]}')
        lines[exam.id] = line
        exams.append(exam)
    if not exams:
        raise UserError(f'{path} holds no rows: expected the columns {", ".join(COLUMNS)}')
    return one_patient(exams, path, say)


def _rows(path):
    """(line number, {column: stripped cell}) of every row that is not blank."""
    with blame(path), path.open(newline='', encoding='utf-8-sig') as stream:
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


def _there(path, row):
    """Whether the scan of a manifest's row exists."""
    return row.get('path') and os.path.exists(decode.split_address(path.parent / row['path'])[0])


def _manifest_exam(path, line, row):
    scan = row['path']
    split = row.get('split', '')
    if split not in SPLITS + ('',):
        raise UserError(f'{path} row {line}: split {split!r} is not one of {", ".join(SPLITS)} or empty')
    name = row.get('id') or scan
    return Exam(name, row.get('patient') or name, row.get('site') or 'default', row.get('label', ''), split,
                str(path.parent / scan))


SOURCES = {'folder': folder, 'manifest': manifest, 'cov19_ct_db': published.cov19_ct_db, 'cc_ccii': published.cc_ccii,
           'covid_ct_md': published.covid_ct_md, 'luna16': published.luna16, 'covid_ct': published_images.covid_ct,
           'sars_cov_2_ct': published_images.sars_cov_2_ct, 'chest_xray': published_images.chest_xray}


def check(data):
    """UserError for a source of no such name, for a root that is missing or too many, and for a list that is not there:
    what can be known before anything is listed."""
    for name, root in _named(data):
        if name not in ('phantom', *SOURCES):
            names = ['phantom', *SOURCES]
            like = {plain(other): other for other in names}
            nearest = like[difflib.get_close_matches(plain(name), like, n=1, cutoff=0)[0]]
            raise UserError(f'no data source {name!r}, did you mean {nearest!r}? There are {", ".join(names)}')
        if name != 'phantom' and not (root and os.path.exists(root)):
            where = f'there is nothing at {root}' if root else 'no folder is given'
            raise UserError(f'data source {name!r}: {where}: set --config.data.root=...')
        if name == 'phantom' and root:
            raise UserError(f'the phantom is made, not read: --config.data.root={root} needs --config.data.source, for example '
                            'folder or manifest')
    for field, path in (('exclude', data.exclude), ('include', data.include)):
        if path and not os.path.isfile(path):
            raise UserError(f'--config.data.{field}={path}: no such file')


def parts_of(data, say=print):
    """A list of exams for each source of a config's data section, which `check` passes; its exclusion list holds for all.

    Several sources, with commas between them and between their roots, are sites of one data set: ids and patients then
    start with the site, or with the root's name where the source names no site.
    """
    check(data)
    pairs = _named(data)
    parts = [_one_source(name, root, data, say) for name, root in pairs]
    if len(parts) > 1:
        sites = [_site(exams, root) for exams, (_, root) in zip(parts, pairs, strict=True)]
        if len(set(sites)) < len(sites):
            raise UserError(f'two sources are both called {max(sites, key=sites.count)!r}: rename the file or folder of one, '
                            'or put both into one manifest')
        parts = [[_of_site(exam, site) for exam in exams] for exams, site in zip(parts, sites, strict=True)]
    if data.exclude:
        out = _left_out(list(chain.from_iterable(parts)), data.exclude, say)
        parts = [[exam for exam in part if exam.id not in out] for part in parts]
    return parts


def _named(data):
    """(name, root) of each source."""
    names = data.source.split(',')
    roots = data.root.split(',') if len(names) > 1 else [data.root]
    if len(names) != len(roots):
        raise UserError(f'--config.data.source names {len(names)} sources and --config.data.root {len(roots)} roots: '
                        'give each source its root, with commas between them')
    return list(zip(names, roots, strict=True))


def listed(path):
    """The ids that a text file lists, one per line; '#' starts a comment, blank lines do not count."""
    return set(filter(None, (line.partition('#')[0].strip() for line in lines(Path(path)))))


def find(exams, path):
    """The ids of the exams that a text file lists by their id or the last parts of it ('covid/ct_scan_31'), and a few words
    on what it lists and the data does not have. UserError where it lists none of them."""
    wanted = listed(path)
    ends = {exam.id: {exam.id.split('/', n)[n] for n in range(exam.id.count('/') + 1)} & wanted for exam in exams}
    absent = sorted(wanted.difference(*ends.values()))
    if absent and len(absent) == len(wanted):
        here = f', {exams[0].id!r} here' if exams else ''
        raise UserError(f'{path}: none of its {len(wanted)} ids is in the data: {absent[0]!r} there{here}')
    told = f'{len(absent)} of {len(wanted)} ids are not in the data{first(absent)}'
    return {name for name, hits in ends.items() if hits}, told


def _left_out(exams, path, say):
    out, absent = find(exams, path)
    say(f'{path}: {len(out)} of {len(exams)} exams are left out; {absent}')
    return out


def _one_source(name, root, data, say):
    if name == 'phantom':
        return phantoms(**data.phantom)
    return SOURCES[name](Path(root), say)


def _site(exams, root):
    """What a source among others is called: its one site, or its root."""
    sites = {exam.site for exam in exams} - {'default'}
    return sites.pop() if len(sites) == 1 else Path(root).stem or 'phantom'


def _of_site(exam, site):
    return exam._replace(id=f'{site}/{exam.id}', patient=f'{site}/{exam.patient}',
                         site=site if exam.site == 'default' else exam.site)
