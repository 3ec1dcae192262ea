"""What the names of files say: the order of slices, and which file is the mask of another."""

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


def scan_of_mask(path: Path, suffixes: Sequence[str]) -> Path | None:
    """The scan beside path that it is the mask of by its name, such as 'a_ct.nii.gz' of 'a_seg.nii.gz'; None where there is none.

    suffixes: of what is a scan, lower case. A folder called '..._lung' is no mask: series are called so after their kernel.
    """
    found = MASK.fullmatch(_stem(path, suffixes))
    if not found or path.is_dir() and found[2].lower().startswith('lung'):
        return None
    base = found[1].lower()
    for other in sorted(path.parent.iterdir()):
        if other != path and (other.is_dir() or other.name.lower().endswith(tuple(suffixes))):
            stem = _stem(other, suffixes).lower()
            named = SCAN.fullmatch(stem)
            if stem == base or named and named[1] == base:
                return other
    return None


def _stem(path, suffixes):
    """The name without the longest suffix that it has."""
    low = path.name.lower()
    has = [suffix for suffix in suffixes if low.endswith(suffix)] if not path.is_dir() else []
    return path.name[:len(path.name) - max(map(len, has), default=0)]
