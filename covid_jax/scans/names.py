"""What the names of files say: the order of slices, which file is the mask of another, and what lies beside scans and
is none."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from covid_jax import UserError
from covid_jax.text import some

# A sign stands in front of a number and behind no letter, digit, dash or closing bracket: in 'IM-0001-0002', 'IM--1'
# and 'scan(1)-12' is none. A fraction stands in no longer chain of numbers: '1.2.840.10' has none. What is nearly 0
# Python writes as 5.5e-17.
SIGN = r'(?:(?<![^\W_])(?<![-)\]}])[-+\u2212])?'
FRACTION = r'(?<![0-9.,])[0-9]+[.,][0-9]+(?:e-[0-9]{2,})?(?![.,]?[0-9])'
NUMBER = re.compile(f'({SIGN}(?:{FRACTION}|[0-9]+))')
DASH = re.compile(r'(?<=[^\W\d_]|[)\]}])-(?=[0-9])')  # between a letter or a bracket and a digit it may be either
ASSIGNED = re.compile('[_=:] ?$')  # behind which a dash is a sign: nobody writes two separators
OF_WHAT = '((lung|lungs|infection|lesion)[._ -]?)?'
MASK = re.compile(f'(?P<of>.+?)[._ -](?P<word>seg|segmentation|{OF_WHAT}(mask|masks)|label|labels|lung|lungs)', re.I)
# Pictures called lung_1 and label_1 are none.
MASK_FIRST = re.compile('(?P<word>seg|segmentation|mask|masks)[._ -](?P<of>.+)', re.I)
SCAN = re.compile(r'(.+)[._ -](ct|img|image|scan|volume|0000)', re.I)  # 0000: the first channel, as nnU-Net has it
SCAN_FIRST = re.compile(r'(ct|img|image|scan|volume|slice)[._ -](.+)', re.I)
EITHER = 'the dash may be a sign or none: number the slices without signs'
THOUSANDS = re.compile('[0-9]{1,3}|[1-9][0-9]{0,2}[.,][0-9]{3}')
COUNTED = 3  # numbers at least that are a count
FOLLOWING = 2 / 3  # of the numbers between the least and the greatest of a count are there at least, wherever it begins
# What speaks of scans and is none, though it may have a slice's name.
BESIDE = ('.txt', '.csv', '.tsv', '.json', '.xml', '.yaml', '.yml', '.md', '.rst', '.html', '.pdf', '.log', '.md5',
          '.sha1', '.sha256', '.xls', '.xlsx', '.docx')
# The same, without a suffix.
PAPERS = ('readme', 'license', 'licence', 'copying', 'notice', 'authors', 'changelog', 'dicomdir', 'md5sums',
          'sha256sums')


def natural(path: Path) -> tuple[list[tuple[float, ...] | str], str]:
    """The sort key of a name: its whole stem with numbers as numbers ('ct 2' before 'ct 10', -5 before 2.5), then the
    name."""
    return _key(path, {})


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Slices in the order of the numbers in their names. Where a dash may be a sign or none, and a point may part a
    fraction or two counters, the numbers of all names in the same place decide. UserError where they leave it open, as
    in 'z-5' beside 'z5'."""
    paths = list(paths)
    readings = {place: _reading(place, texts) for place, texts in _columns(paths).items()}
    ordered = sorted(paths, key=lambda path: _key(path, readings))
    _check_dashes(ordered)
    return ordered


def _columns(paths):
    """{(what stands around the numbers of a name, which part of it): the texts of the numbers there, in all names}."""
    columns = {}
    for path in paths:
        parts = NUMBER.split(path.stem.lower())
        for i in range(1, len(parts), 2):
            columns.setdefault((tuple(parts[::2]), i), set()).add(parts[i])
    return columns


def _key(path, readings):
    parts = NUMBER.split(path.stem.lower())
    form = tuple(parts[::2])
    return [readings.get((form, i), _signed)(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _signed(text):
    """(number,). A whole number stays one, however long."""
    text = text.replace('\u2212', '-').replace(',', '.')
    return (float(text) if '.' in text or 'e' in text else int(text),)


def _unsigned(text):
    return _signed(text.lstrip('-'))


def _two_counters(text):
    """'1.10' -> (1, 10)."""
    return tuple(map(int, text.split('.')))


def _grouped(text):
    """'1,000' beside '999' -> (1000,)."""
    return (int(re.sub('[.,]', '', text)),)


def _reading(place, texts):
    """How the numbers in one place of all names are read."""
    form, i = place
    if all(re.fullmatch('-[0-9]+', text) for text in texts) and not ASSIGNED.search(form[i // 2][-2:]):
        return _unsigned if _is_count(texts) else _signed
    if all(re.fullmatch(r'[0-9]+\.[0-9]+', text) for text in texts):
        return _two_counters if _are_counters(texts) else _signed
    if all(map(THOUSANDS.fullmatch, texts)):
        fractions, whole = ([[value for text in texts for value in read(text)]] for read in (_signed, _grouped))
        return _grouped if _evenness(whole) > _evenness(fractions) else _signed
    return _signed


def _is_count(texts):
    """Whether '-1', '-2', ... count slices behind a dash, and are no heights: there is a '-0', or they begin with 1 and
    most of the others follow. UserError for numbers that follow from elsewhere on: these may be either."""
    numbers = {int(text[1:]) for text in texts}
    share = len(numbers) / (max(numbers) - min(numbers) + 1) if len(numbers) >= COUNTED else 0
    if min(numbers) > 1 and share > FOLLOWING:
        raise UserError(f'slices are called {some(sorted(texts), 3)}: {EITHER}')
    return min(numbers) <= 1 and share > 1 / 2 or '-0' in texts


def _are_counters(texts):
    """Whether '1.9' and '1.10' are counters of two levels, the second after the first, and no fractions. Nobody writes
    1.1 as 1.10 beside 1.9, nor a counter as 05 beside 10 and 7; else it is what makes the steps more even. UserError
    where both are as even."""
    ends = [text.split('.')[1] for text in texts]
    if len({*map(len, ends)}) == 1:
        return False  # the order is the same
    padded = any(len(end) > 1 and end.startswith('0') for end in ends)
    filled = any(len(end) > 1 and end.endswith('0') for end in ends)
    if padded != filled:
        return filled
    seconds = defaultdict(list)  # by the first counter
    for first, second in map(_two_counters, texts):
        seconds[first].append(second)
    fractions = _evenness([[float(text) for text in texts]])
    counters = _evenness(seconds.values())
    if fractions == counters and len(texts) > 2:
        raise UserError(f'slices are called {some(sorted(texts), 3)}: these may be fractions, or two numbers each: '
                        'write as many digits behind every point')
    return counters > fractions


def _evenness(rows):
    """How many steps between neighbours in rows of numbers are of the commonest length."""
    steps = Counter(round(after - before, 3) for numbers in rows for before, after in pairwise(sorted(numbers)))
    return max(steps.values(), default=0)


def _check_dashes(paths):
    def form(stem):
        return re.sub('[0-9]+', '0', stem)

    plain = {form(path.stem): path for path in paths if not DASH.search(path.stem)}
    for path in paths:
        twin = plain.get(form(DASH.sub('', path.stem)))
        if twin and DASH.search(path.stem):
            raise UserError(f'{path} and {twin.name}: {EITHER}')


def is_beside(name: str) -> bool:
    """Whether what is called so speaks of scans and is none: a list, a licence, a table of contents."""
    low = name.lower()
    return low.endswith(BESIDE) or low in PAPERS


def scan_of_mask(path: Path, suffixes: Sequence[str]) -> Path | None:
    """The scan beside path that it is the mask of by its name, such as 'a_ct.nii.gz' of 'a_seg.nii.gz'; None where
    there is none.

    suffixes: of what is a scan, lower case. A folder called '..._lung' is no mask: series are called so after their
    kernel.
    """
    if not _of_mask(_stem(path, suffixes)):
        return None
    others = [other for other in path.parent.iterdir()
              if other.is_dir() or other.name.lower().endswith(tuple(suffixes))]
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
