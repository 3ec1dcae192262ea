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
MASK = re.compile(r'(.+)[._ -](seg|segmentation|mask|masks|label|labels|lung|lungs|lungmask)', re.I)
SCAN = re.compile(r'(.+)[._ -](ct|img|image|scan|volume|0000)', re.I)  # 0000: the first channel, as nnU-Net has it
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
    ordered = sorted(paths, key=lambda path: _key(path, WHOLE if levels else NUMBER))
    _check_dashes(ordered)
    return ordered


def _key(path, number):
    parts = number.split(path.stem.lower())
    return [_number(part) if i % 2 else part for i, part in enumerate(parts)], path.name


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
    base = _base_of_mask(path, suffixes)
    return _scans_by_base(path.parent.iterdir(), suffixes).get(base) if base else None


def masks_among(paths: Iterable[Path], suffixes: Sequence[str]) -> dict[Path, Path]:
    """{mask: the scan that it is of} of what is in one folder, as `scan_of_mask` tells it of each."""
    paths = list(paths)
    base_of = {path: base for path in paths if (base := _base_of_mask(path, suffixes))}
    scans = _scans_by_base(paths, suffixes) if base_of else {}
    return {path: scans[base] for path, base in base_of.items() if base in scans}


def _base_of_mask(path, suffixes):
    """What its scan is called, in small letters, by the name of a mask; '' of what is called like none."""
    found = MASK.fullmatch(_stem(path, suffixes))
    return '' if not found or path.is_dir() and found[2].lower().startswith('lung') else found[1].lower()


def _scans_by_base(paths, suffixes):
    """{what a mask of it is called after: the first such scan}."""
    scans: dict[str, Path] = {}
    for path in sorted(paths):
        if path.is_dir() or path.name.lower().endswith(tuple(suffixes)):
            stem = _stem(path, suffixes).lower()
            named = SCAN.fullmatch(stem)
            for base in [stem, *([named[1]] if named else [])]:
                scans.setdefault(base, path)
    return scans


def _stem(path, suffixes):
    """The name without the longest suffix that it has."""
    low = path.name.lower()
    has = [suffix for suffix in suffixes if low.endswith(suffix)] if not path.is_dir() else []
    return path.name[:len(path.name) - max(map(len, has), default=0)]
