"""What lies in the folders of classes and is no exam: most of one class may be of a format that is not read."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from covid_jax.scans import decode, names
from covid_jax.sources.exams import Exam
from covid_jax.sources.listing import visible

LOST = 'lost'  # what may be a scan of its class: that it is left out may tell the label
MASK = 'mask'  # of a scan beside it
BESIDE = 'beside'  # what speaks of scans: lists, licences


class Unread(NamedTuple):
    """id, label, split: as if it were an exam; kind: LOST, MASK or BESIDE; reason: why it is not read, in words."""

    id: str
    label: str
    split: str
    kind: str
    reason: str


def in_folder(root: Path, place: Path, label: str, split: str, files: set[Path]) -> list[Unread]:
    """What is in the folder of a class and is no scan; files: what is read beside the scans themselves."""
    return [_unread(entry.relative_to(root).as_posix(), label, split, entry)
            for entry in visible(place) if entry not in files and not decode.is_scan(entry)]


def beside(root: Path, exams: list[Exam]) -> list[Unread]:
    """The same of every folder whose exams have one label, which is then the folder of a class."""
    labels: dict[Path, set[tuple[str, str]]] = {}
    for exam in exams:
        labels.setdefault(_path(exam).parent, set()).add((exam.label, exam.split))
    files = files_read(exams)
    found = []
    for place, of in labels.items():
        label, split = min(of)
        if len({name for name, _ in of}) == 1 and label and place.is_relative_to(root):
            found += in_folder(root, place, label, split, files)
    return found


def without_masks(exams: list[Exam]) -> tuple[list[Exam], list[Unread]]:
    """The exams but for those that their names call the masks of scans beside them, and these."""
    here: dict[Path, set[Path]] = {}
    for path in map(_path, exams):
        here.setdefault(path.parent, set()).add(path)
    scans: dict[Path, Path] = {}
    for place, paths in here.items():
        entries = place.iterdir() if place.is_dir() else ()
        others = {entry for entry in entries if entry.is_dir() or entry.name.lower().endswith(decode.SUFFIXES)}
        scans |= names.masks_among(paths | others, decode.SUFFIXES)
    masks = [_mask(exam, scans[_path(exam)]) for exam in exams if _path(exam) in scans]
    return [exam for exam in exams if _path(exam) not in scans], masks


def files_read(exams: list[Exam]) -> set[Path]:
    """The files that exams which are files read: the voxels of a header, too, which have a file of their own."""
    paths = [_path(exam) for exam in exams]
    return {file for path in paths if not path.is_dir() for file in decode.files_of(path)}


def of_kind(left: Iterable[Unread], kind: str) -> list[Unread]:
    """Those of a kind."""
    return [one for one in left if one.kind == kind]


def _unread(name, label, split, path):
    if names.is_beside(path.name):
        return Unread(name, label, split, BESIDE, f'{path}: by its name what speaks of scans, and none')
    reason = 'a link whose content is not here' if not path.exists() else decode.NOT_A_SCAN
    return Unread(name, label, split, LOST, f'{path}: {reason}')


def _mask(exam, scan):
    return Unread(exam.id, exam.label, exam.split, MASK, f'{exam.path}: by its name the mask of {scan.name}, no scan')


def _path(exam):
    return decode.split_address(exam.path)[0]
