"""What is in a folder or a small table of foreign making, by name; what is missing or misnamed is said in one line."""

import csv
import difflib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from covid_jax import UserError
from covid_jax.scans.images import SUFFIXES
from covid_jax.scans.scan import blame, hidden
from covid_jax.sources.exams import Exam
from covid_jax.text import count, some

TEXT = 2**24  # bytes that a list or table may have
DELIMITERS = ',;\t'  # what spreadsheets put between cells, by their language
SEPARATOR = re.compile('"?sep=(.?)"?')  # nothing where a tab was stripped
ALIKE = 0.7  # difflib's ratio from which on one name may be a misspelling of the other


def normalised(name: str) -> str:
    """A name as it is compared: small letters, no '-', '_' and spaces."""
    return re.sub('[-_ ]', '', name.lower())


def visible(folder: Path) -> list[Path]:
    """The entries of a folder, sorted, but for hidden ones and what macOS adds to archives."""
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder')
    return sorted(entry for entry in folder.iterdir() if not hidden(entry.name))


def glob(root: Path, pattern: str) -> list[Path]:
    """What is called so below a folder, sorted, but for hidden files."""
    return sorted(path for path in root.glob(pattern) if not hidden(path.name))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder."""
    return [entry for entry in visible(folder) if entry.is_dir()]


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, by name."""
    return [entry for entry in visible(folder) if entry.name.lower().endswith(SUFFIXES)]


def require_image_files(folder: Path) -> list[Path]:
    """The images in a folder. UserError if there are none."""
    return require_some(folder, image_files(folder), 'images')


def image_exam(root: Path, path: Path, site: str, label: str, split: str = '', patient: str = '') -> Exam:
    """One image as an exam; its id is its path below root, and so is a patient who is not known."""
    name = path.relative_to(root).as_posix()
    return Exam(name, patient or name, site, label, split, str(path))


def named_folders(root: Path, names: Collection[str] | Mapping[str, Collection[str]], layout: str,
                  optional: Collection[str] = ()) -> list[tuple[str, Path]]:
    """[(name, folder of root)] in the order of names, which may be {name: what the folder may be called}.

    UserError for two folders of one name, a name without a folder that is not optional, and a folder of no name that looks
    like a misspelling of one. layout: what is expected, for the message.
    """
    spellings = {name: list(names[name]) if isinstance(names, Mapping) else [name] for name in names}
    entries = subfolders(root)
    folder_of = {}
    unread = {entry.name for entry in entries}
    for name, called in spellings.items():
        here = [entry for entry in entries if normalised(entry.name) in set(map(normalised, called))]
        if len(here) > 1:
            raise UserError(f'{root} holds both {" and ".join(entry.name for entry in here)}: keep one of them')
        for entry in here:
            folder_of[name] = entry
            unread.discard(entry.name)
    for name in sorted(spellings, key=folder_of.__contains__):  # the missing ones first
        hint = did_you_mean(spellings[name][0], unread)
        if hint and name in folder_of:
            raise UserError(f'{root} holds a folder that is not read{hint} Rename it or move it away')
        if name not in folder_of and (hint or name not in optional):
            raise UserError(f'no folder {spellings[name][0]!r} in {root} ({found_in(root)}): expected {layout}{hint}')
    return list(folder_of.items())


def did_you_mean(name: str, others: Iterable[str]) -> str:
    """A question after the one of the others that is most like this name, for the end of a message; '' if none is."""
    spelt = {other.lower(): other for other in others}
    nearest = difflib.get_close_matches(name.lower(), sorted(spelt), n=1, cutoff=ALIKE)
    return f'; is {spelt[nearest[0]]!r} meant to be {name!r}?' if nearest else ''


def found_in(folder: Path) -> str:
    """What a folder holds, for a message."""
    return f'found: {some(entry.name for entry in visible(folder)) or "nothing"}'


def examples(names: Iterable[object]) -> str:
    """The first three names in brackets, for the end of a message; '' if there are none."""
    listed = some(names, 3)
    return f' ({listed})' if listed else ''


def require_some(folder: Path, entries: list, what: str) -> list:
    """The entries. UserError if there are none of what is expected in the folder."""
    if not entries:
        raise UserError(f'{folder} holds no {what}{f" ({found_in(folder)})" if folder.is_dir() else ""}')
    return entries


def require_unique_ids(root: Path, exams: list[Exam]) -> list[Exam]:
    """The exams. UserError if two have the same id."""
    twice = [name for name, count in Counter(exam.id for exam in exams).items() if count > 1]
    if twice:
        raise UserError(f'{root}: {count(len(twice), "scan is", "scans are")} here twice{examples(twice)}: keep one of each')
    return exams


def say_other_counts(name: str, labels: Iterable[str], paper: Mapping[str, int], say: Callable[[str], None]) -> None:
    """Says where the labels are not as many as in the paper."""
    counts = Counter(labels)
    if counts != paper:
        listed = ', '.join(f'{counts[label]} {label} (the paper: {paper.get(label, 0)})' for label in dict(paper) | counts)
        say(f'{name}: other counts than in the paper: {listed}')


def read_text(path: Path) -> str:
    """The text of a file. UserError where it is none in UTF-8."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f'{path}: a pipe or a device, no file')
    try:
        text = path.read_bytes().decode('utf-8-sig')
    except UnicodeDecodeError:
        text = '\0'
    if '\0' in text:  # as in UTF-16
        raise UserError(f'{path}: no text in UTF-8: save the table as "CSV UTF-8", a list as UTF-8')
    return text


def delimiter_of(text: str, columns: Collection[str]) -> tuple[str, bool]:
    """What parts the cells of a table, and whether its first row, 'sep=;', says so, as Excel has it. Else it is what parts most of
    these columns in the header; a comma where several part as many."""
    header = next((line for line in map(str.strip, text.splitlines()) if line), '')

    def known(delimiter):
        return len({name.strip().strip('"').lower() for name in header.split(delimiter)}.intersection(columns))

    said = SEPARATOR.fullmatch(header)
    return (said[1] or '\t', True) if said else (max(DELIMITERS, key=known), False)


def read_lines(path: Path) -> list[str]:
    """The stripped lines of a small text file that are not blank."""
    return [line.strip() for line in _lines(path)]


def _lines(path):
    with blame(path):
        if path.stat().st_size > TEXT:
            raise ValueError(f'a list or table of more than {TEXT} bytes')
        return [line for line in read_text(path).split('\n') if line.strip()]


def read_columns(path: Path, *columns: str) -> list[tuple[str, ...]]:
    """The stripped cells of these columns, row by row, of a small table, see `delimiter_of`; case of the header ignored."""
    with blame(path):
        lines = [line.strip(' \r') for line in _lines(path)]  # of tabs those in front part cells
        delimiter, said = delimiter_of('\n'.join(lines[:1]), [column.lower() for column in columns])
        rows = list(csv.reader(lines, delimiter=delimiter, strict=True))[said:]
        header = [cell.strip().lower() for cell in rows[0]] if rows else []
        if not {column.lower() for column in columns} <= set(header):
            raise ValueError(f'expected the columns {", ".join(columns)}, found {", ".join(header) or "none"}')
        positions = [header.index(column.lower()) for column in columns]
        return [tuple(row[i].strip() if i < len(row) else '' for i in positions) for row in rows[1:]]


def read_ids(path: Path | str) -> set[str]:
    """The ids that a text file lists, one per line; '#' starts a comment, blank lines do not count."""
    return set(filter(None, (line.partition('#')[0].strip() for line in read_lines(Path(path)))))


def find_listed(exams: list[Exam], path: Path | str) -> tuple[set[str], str]:
    """The ids of the exams that a text file lists by their id or the last parts of it ('covid/ct_scan_31'), and a few words
    on what it lists and the data does not have. UserError where it lists none of them."""
    wanted = read_ids(path)
    listed_as = {}  # id of an exam -> the lines that name it
    for exam in exams:
        endings = {exam.id.split('/', parts)[parts] for parts in range(exam.id.count('/') + 1)}
        listed_as[exam.id] = endings & wanted
    absent = sorted(wanted.difference(*listed_as.values()))
    if absent and len(absent) == len(wanted):
        here = f', {exams[0].id!r} here' if exams else ''
        raise UserError(f'{path}: none of its {len(wanted)} ids is in the data: {absent[0]!r} there{here}')
    remark = f'{len(absent)} of {len(wanted)} ids are not in the data{examples(absent)}'
    return {name for name, lines in listed_as.items() if lines}, remark
