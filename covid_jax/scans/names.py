"""What the names of files say: the order of slices, which file is the mask of another, and what lies beside scans and is none."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from covid_jax import UserError

# A sign stands in front of a number and behind no letter, digit or dash: in 'IM-0001-0002' and 'IM--1' are none. A fraction
# stands in no longer chain of numbers: '1.2.840.10' has none.
SIGN = r'(?:(?<![^\W_])(?<!-)[-\u2212])?'
FRACTION = r'(?<![0-9.,])[0-9]+[.,][0-9]+(?![.,]?[0-9])'
NUMBER = re.compile(f'({SIGN}(?:{FRACTION}|[0-9]+))')
WHOLE = re.compile(f'({SIGN}[0-9]+)')
DASH = re.compile(r'(?<=[^\W\d_])-(?=[0-9])')  # between a letter and a digit it may be either
OF_WHAT = '((lung|lungs|infection|lesion)[._ -]?)?'
MASK = re.compile(f'(?P<of>.+?)[._ -](?P<word>seg|segmentation|{OF_WHAT}(mask|masks)|label|labels|lung|lungs)', re.I)
MASK_FIRST = re.compile('(?P<word>seg|segmentation|mask|masks)[._ -](?P<of>.+)', re.I)  # pictures called lung_1 and label_1 are none
SCAN = re.compile(r'(.+)[._ -](ct|img|image|scan|volume|0000)', re.I)  # 0000: the first channel, as nnU-Net has it
SCAN_FIRST = re.compile(r'(ct|img|image|scan|volume|slice)[._ -](.+)', re.I)
COUNTED = 3  # numbers at least that are a count
# What speaks of scans and is none, though it may have a slice's name.
BESIDE = ('.txt', '.csv', '.tsv', '.json', '.xml', '.yaml', '.yml', '.md', '.rst', '.html', '.pdf', '.log', '.md5', '.sha1', '.sha256', '.xls', '.xlsx', '.docx')
PAPERS = ('readme', 'license', 'licence', 'copying', 'notice', 'authors', 'changelog', 'dicomdir', 'md5sums', 'sha256sums')  # the same, without a suffix


def natural(path: Path) -> tuple[list[float | str], str]:
    """The sort key of a name: its whole stem with numbers as numbers ('ct 2' before 'ct 10', -5 before 2.5), then the name."""
    return _key(path, NUMBER)


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Slices in the order of the numbers in their names. 'ct 1.9' and 'ct 1.10' are numbers of two levels and no fractions, for
    nobody writes 1.1 as 1.10 beside 1.9. UserError where a dash may be a sign or none, as in 'z-5' beside 'z5'."""
    paths = list(paths)
    fractions = [number for path in paths for number in NUMBER.findall(path.stem) if re.search('[.,]', number)]
    ends = [re.split('[.,]', number)[1] for number in fractions]
    levels = len({*map(len, ends)}) > 1 and any(len(end) > 1 and end.endswith('0') for end in ends)
    number = WHOLE if levels else NUMBER
    dashes = _dashes_of_counts(paths, number)
    ordered = sorted(paths, key=lambda path: _key(path, number, dashes))
    _check_dashes(ordered)
    return ordered


def _key(path, number, dashes=()):
    parts = number.split(path.stem.lower())
    form = tuple(parts[::2])
    return [_number(part.lstrip('-') if (form, i) in dashes else part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _dashes_of_counts(paths, number):
    """Where a dash before a number is none of its sign: {(what stands around the numbers, which part)}. All numbers there have one, are
    whole and are a count, which a height is not: they begin with 0 or 1 and most of the others follow ('scan -1' to 'scan -10'), or
    there is a '-0'."""
    columns = {}
    for path in paths:
        parts = number.split(path.stem.lower())
        for i in range(1, len(parts), 2):
            columns.setdefault((tuple(parts[::2]), i), set()).add(parts[i])
    return {place for place, texts in columns.items() if _is_count(texts)}


def _is_count(texts):
    if not all(re.fullmatch('-[0-9]+', text) for text in texts):
        return False
    numbers = {int(text[1:]) for text in texts}
    follow = len(numbers) >= COUNTED and min(numbers) <= 1 and 2 * len(numbers) > max(numbers)
    return follow or '-0' in texts


def _number(text):
    """A whole number stays one, however long."""
    text = text.replace('\u2212', '-').replace(',', '.')
    return float(text) if '.' in text else int(text)


def _check_dashes(paths):
    def form(stem):
        return re.sub('[0-9]+', '0', stem)

    plain = {form(path.stem): path for path in paths if not DASH.search(path.stem)}
    for path in paths:
        twin = plain.get(form(DASH.sub('', path.stem)))
        if twin and DASH.search(path.stem):
            raise UserError(f'{path} and {twin.name}: the dash may be a sign or none: number the slices without signs')


def is_beside(name: str) -> bool:
    """Whether what is called so speaks of scans and is none: a list, a licence, a table of contents."""
    low = name.lower()
    return low.endswith(BESIDE) or low in PAPERS


def scan_of_mask(path: Path, suffixes: Sequence[str]) -> Path | None:
    """The scan beside path that it is the mask of by its name, such as 'a_ct.nii.gz' of 'a_seg.nii.gz'; None where there is none.

    suffixes: of what is a scan, lower case. A folder called '..._lung' is no mask: series are called so after their kernel.
    """
    if not _of_mask(_stem(path, suffixes)):
        return None
    others = [other for other in path.parent.iterdir() if other.is_dir() or other.name.lower().endswith(tuple(suffixes))]
    return masks_among([*others, path], suffixes).get(path)


def masks_among(paths: Iterable[Path], suffixes: Sequence[str]) -> dict[Path, Path]:
    """{mask: its scan} of scans in one folder, by their names as in `scan_of_mask`, in order."""
    ordered = sorted(set(paths))
    scans: dict[str, Path] = {}
    for path in ordered:
        stem = _stem(path, suffixes).lower()
        named = SCAN.fullmatch(stem)
        first = SCAN_FIRST.fullmatch(stem)
        for name in (stem, named and named[1], first and first[2]):
            if name:
                scans.setdefault(name, path)
    found = {}
    for path in ordered:
        of = _of_mask(_stem(path, suffixes))
        if of and of[0] in scans and not (path.is_dir() and of[1].startswith('lung')):
            found[path] = scans[of[0]]
    return {path: scan for path, scan in found.items() if scan != path}


def _of_mask(stem):
    """(the name of the scan, the word that says mask), lower case, of what is called like a mask; None for others."""
    found = MASK.fullmatch(stem) or MASK_FIRST.fullmatch(stem)
    return (found['of'].lower(), found['word'].lower()) if found else None


def _stem(path, suffixes):
    """The name without the longest suffix that it has."""
    low = path.name.lower()
    has = [suffix for suffix in suffixes if low.endswith(suffix)] if not path.is_dir() else []
    return path.name[:len(path.name) - max(map(len, has), default=0)]
