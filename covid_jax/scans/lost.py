"""What of a scan's folder would be left out in silence, so that a part of the scan would pass for the whole."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from covid_jax import UserError
from covid_jax.scans import images, volumes
from covid_jax.scans.names import BESIDE
from covid_jax.scans.scan import hidden
from covid_jax.text import some

DIGITS = re.compile('([0-9]+)')
READ = ('.npy', '.npz', *images.SUFFIXES, *volumes.SUFFIXES)  # what is read of a folder, and of no folder in it


def links(folder: Path) -> tuple[list[Path], list[Path]]:
    """The links below a folder that lead to nothing, and those that lead to a folder, in order; hidden ones are left out.
    UserError where slices, or volumes, lie in the folder and in folders of it."""
    empty = []
    folders = []
    read = []
    for here, inside, files in os.walk(folder):
        inside[:] = sorted(name for name in inside if not hidden(name))
        folders += [Path(here, name) for name in inside if os.path.islink(os.path.join(here, name))]
        shown = [Path(here, name) for name in sorted(files) if not hidden(name)]
        empty += [path for path in shown if not os.path.exists(path)]
        read += [path for path in shown if path.name.lower().endswith(READ)]
    _check_levels(folder, read)
    return empty, folders


def _check_levels(folder, read):
    """UserError where some of what is read of a folder lies deeper, and would be left out. Previews beside scans of another kind
    are no slices, wherever they lie."""
    top = [path for path in read if path.parent == folder]
    kinds = READ if all(path.name.lower().endswith(images.PREVIEWS) for path in top) else tuple(
        suffix for suffix in READ if suffix not in images.PREVIEWS)
    deeper = [path.relative_to(folder) for path in read if path.parent != folder and path.name.lower().endswith(kinds)]
    if top and deeper:
        raise UserError(f'{folder}: {len(top)} of its files lie in it and {len(deeper)} in folders of it ({some(deeper, 3)}), which would be '
                        'left out: put all slices of a scan into one folder, each other scan into one of its own, and masks and '
                        'previews elsewhere')


def namesakes(folder: Path, slices: Sequence[Path], suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder that are called like its slices, which are images of these suffixes, and are none: '0007.png.part', or
    '0007.jp2' where no slice has its number."""
    stems = {path.stem.lower() for path in slices}
    forms = {DIGITS.sub('0', stem) for stem in stems}

    def is_namesake(path):
        if path.suffix.lower() in BESIDE or path.name.lower().endswith(tuple(suffixes)):
            return False
        broken_off = any(suffix.lower() in suffixes for suffix in path.suffixes)
        stem = path.stem.lower()
        return broken_off or DIGITS.sub('0', stem) in forms and stem not in stems and any(map(str.isdecimal, stem))

    return sorted(path for path in folder.iterdir()
                  if path.is_file() and not hidden(path.name.rstrip('~')) and is_namesake(path))


def continues(path: Path, slices: Sequence[Path]) -> bool:
    """Whether a file is called like slices, by a number that none of them has: it is one of them, whatever its format."""
    stem = path.stem.lower()
    stems = {other.stem.lower() for other in slices}
    return stem not in stems and DIGITS.sub('0', stem) in {DIGITS.sub('0', other) for other in stems} and any(map(str.isdecimal, stem))


def missing_numbers(slices: Sequence[Path]) -> list[int]:
    """The numbers that are missing among the names of slices, which differ in one number alone; those of every fifth slice are
    a multiple of five apart, and none is missing. Nothing where names differ in more. What comes before the first or after the
    last slice cannot be known."""
    parts = [DIGITS.split(path.stem.lower()) for path in slices]
    if len(parts) < 3 or len(set(map(len, parts))) > 1:
        return []
    columns = [[int(n) for n in column] if i % 2 else list(column) for i, column in enumerate(zip(*parts, strict=True))]
    varying = [(i, column) for i, column in enumerate(columns) if len(set(column)) > 1]
    if len(varying) != 1 or varying[0][0] % 2 == 0:
        return []
    numbers = sorted(set(varying[0][1]))
    step = math.gcd(*(number - numbers[0] for number in numbers))
    return sorted({*range(numbers[0], numbers[-1], step)}.difference(numbers)) if _is_possible(numbers, step) else []


def _is_possible(numbers, step):
    """Whether the numbers count slices: a date or a UID in their place leaves too many out."""
    return (numbers[-1] - numbers[0]) // step < 10_000
