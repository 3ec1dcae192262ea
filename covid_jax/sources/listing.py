"""What is in a folder or a small table of foreign making, by name; what is missing or misnamed is said in one line."""

import csv
import difflib
import re
from collections import Counter
from pathlib import Path

from covid_jax import UserError
from covid_jax.scans.images import SUFFIXES
from covid_jax.scans.scan import blame, hidden
from covid_jax.sources.exams import Exam

TEXT = 2**24  # bytes that a list or table may have


def plain(name):
    """A name as it is compared: small letters, no '-', '_' and spaces."""
    return re.sub('[-_ ]', '', name.lower())


def visible(folder):
    """The entries of a folder, sorted, but for hidden ones and what macOS adds to archives."""
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder')
    return sorted(entry for entry in folder.iterdir() if not hidden(entry.name))


def glob(root, pattern):
    return sorted(path for path in root.glob(pattern) if not path.name.startswith('.'))


def within(folder):
    return [entry for entry in visible(folder) if entry.is_dir()]


def pictures(folder):
    """The images in a folder, by name."""
    return [entry for entry in visible(folder) if entry.name.lower().endswith(SUFFIXES)]


def images(folder):
    """The images in a folder, which holds some."""
    return filled(folder, pictures(folder), 'images')


def image(root, path, site, label, split='', patient=''):
    """One image as an exam; its id is its path below root, and so is a patient who is not known."""
    name = path.relative_to(root).as_posix()
    return Exam(name, patient or name, site, label, split, str(path))


def match(pattern, name):
    """What a pattern finds at the start of a name, or ''."""
    found = re.match(pattern, name)
    return found[0] if found else ''


def folders(root, names, layout, optional=()):
    """[(name, folder of root)] in the order of names, which may be {name: what the folder may be called}."""
    names = names if isinstance(names, dict) else {name: (name,) for name in names}
    entries = within(root)
    pairs, other = [], {entry.name for entry in entries}
    for name, called in names.items():
        here = [entry for entry in entries if plain(entry.name) in set(map(plain, called))]
        if len(here) > 1:
            raise UserError(f'{root} holds both {" and ".join(entry.name for entry in here)}: keep one of them')
        pairs += [(name, entry) for entry in here]
        other -= {entry.name for entry in here}
    for name in sorted(names, key=dict(pairs).__contains__):  # the missing ones first
        hint = nearest(names[name][0], other)
        if hint and name in dict(pairs):
            raise UserError(f'{root} holds a folder that is not read{hint} Rename it or move it away')
        if name not in dict(pairs) and (hint or name not in optional):
            raise UserError(f'no folder {names[name][0]!r} in {root} ({found(root)}): expected {layout}{hint}')
    return pairs


def nearest(name, others):
    """A question after the name that is most like this one, if one is."""
    lower = {other.lower(): other for other in others}
    match = difflib.get_close_matches(name.lower(), sorted(lower), n=1, cutoff=0.7)
    return f'; is {lower[match[0]]!r} meant to be {name!r}?' if match else ''


def found(folder):
    """What a folder holds, for a message."""
    names = [entry.name for entry in visible(folder)]
    return f'found: {", ".join(names[:5] + ["..."] * (len(names) > 5)) or "nothing"}'


def first(names):
    """The first three names, for a message."""
    return f' ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})' if names else ''


def filled(folder, entries, what):
    """The entries. UserError if there are none of what is expected in the folder."""
    if not entries:
        raise UserError(f'{folder} holds no {what}{f" ({found(folder)})" if folder.is_dir() else ""}')
    return entries


def unique(root, exams):
    """The exams. UserError if two have the same id."""
    twice = [name for name, count in Counter(exam.id for exam in exams).items() if count > 1]
    if twice:
        raise UserError(f'{root}: {len(twice)} scans are here twice{first(twice)}: keep one of each')
    return exams


def compare(name, labels, paper, say):
    """A note where the labels are not as many as in the paper."""
    counts = Counter(labels)
    if counts != paper:
        listed = ', '.join(f'{counts[label]} {label} (the paper: {paper.get(label, 0)})' for label in paper | counts)
        say(f'{name}: other counts than in the paper: {listed}')


def lines(path):
    """The stripped lines of a small text file that are not blank."""
    with blame(path):
        if path.stat().st_size > TEXT:
            raise ValueError(f'a list or table of more than {TEXT} bytes')
        return [line.strip() for line in path.read_text('utf-8-sig').split('\n') if line.strip()]


def table(path, *columns):
    """The stripped cells of these columns, row by row, of a small comma-separated file; case of the header ignored."""
    with blame(path):
        rows = list(csv.reader(lines(path), strict=True))
        header = [cell.strip().lower() for cell in rows[0]] if rows else []
        if not {column.lower() for column in columns} <= set(header):
            raise ValueError(f'expected the columns {", ".join(columns)}, found {", ".join(header) or "none"}')
        at = [header.index(column.lower()) for column in columns]
        return [tuple(row[i].strip() if i < len(row) else '' for i in at) for row in rows[1:]]


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
