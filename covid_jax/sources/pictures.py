"""Folders that would be one scan each and hold pictures of many people, known by their names: <class>/<hospital>/<image>."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from covid_jax import UserError
from covid_jax.scans import decode
from covid_jax.scans.images import SUFFIXES
from covid_jax.sources.exams import Exam
from covid_jax.sources.listing import visible
from covid_jax.sources.names import article
from covid_jax.sources.unread import without_masks
from covid_jax.text import some

FEW = 3  # scans of a class at most that may be folders of pictures of many
SINGLE = tuple(suffix for suffix in SUFFIXES if suffix not in ('.tif', '.tiff'))  # a TIFF may hold many slices
LETTER = re.compile(r'(?<![^\W\d_])[^\W\d_](?![^\W\d_])')  # one that stands alone counts, as a number does
RUNS = 4  # pictures in a row, on average, from which on folders do not share one count
COUNTED = 10  # pictures at least that are one
WAY_OUT = ('a folder in the folder of a class is one scan: where each image is an exam, move the images themselves into the folder '
           'of the class, or give each a row of a manifest, --config.data.source=manifest')


def refuse_pictures(root: Path, exams: Sequence[Exam]) -> None:
    """UserError for folders of images of which single images are not the slices: single images are exams beside them, they are
    not numbered, they are called after several articles or patients, or one count goes to and fro between those of a class."""
    paths = [Path(exam.path) for exam in without_masks(list(exams))[0]]
    folders = {path: images for path in paths if path.is_dir() and len(images := _images(path)) > 1}
    alone = [path for path in paths if not path.is_dir() and path.name.lower().endswith(SINGLE)]
    if folders and alone:
        first, images = next(iter(folders.items()))
        raise UserError(f'{root}: {alone[0].relative_to(root)} is an exam of one image, and {first.relative_to(root)} one of {len(images)}: '
                        f'classes must be laid out alike; {WAY_OUT}; move single images away where folders are scans')
    of_class = defaultdict(list)
    for path, images in folders.items():
        people = {name for image in images if (name := article(image.name))}
        if not _are_numbered(images) or len(people) > 1:
            why = f'of {len(people)} articles or patients' if len(people) > 1 else 'not numbered, as slices are'
            raise UserError(f'{path}: by their names its {len(images)} images are {why} ({some((image.name for image in images), 3)}); {WAY_OUT}')
        of_class[path.parent].append(images)
    for place, several in of_class.items():
        if _share_a_count(several):
            names = (image.relative_to(place) for images in several[:2] for image in images[:2])
            raise UserError(f'{place}: one count goes to and fro between the images of its {len(several)} folders ({some(names, 4)}); {WAY_OUT}; '
                            'scans that are numbered so can be named in a manifest')


def say_few_scans(root: Path, exams: Sequence[Exam], say: Callable[[str], None]) -> None:
    """Whether every class is a few folders of images, or one: these may be exams of their own."""
    paths = [Path(exam.path) for exam in without_masks(list(exams))[0]]
    most = max(Counter(path.parent for path in paths).values())
    counts = {path: len(_images(path)) for path in paths} if most <= FEW and all(path.is_dir() for path in paths) else {}
    if counts and all(count > 1 for count in counts.values()):
        scans = 'one scan, whose slices are the images of one folder' if most == 1 else f'{most} scans or fewer, each the images of one folder'
        told = some((f'{path.relative_to(root)}: {count}' for path, count in counts.items()), 2 * FEW)
        say(f'{root}: each class is {scans} ({told}): where each image is an exam, move the images themselves into the folder of the class')


def _images(folder):
    """The slices of a scan's folder that are images, none where files of another kind lie beside them."""
    files = [path for path in visible(folder) if path.name.lower().endswith(decode.SUFFIXES)]
    images = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    return images if len(images) == len(files) else []


def _form(path):
    """What stands around the numbers of a name: its letters, without those that count themselves."""
    return re.sub(r'[\W\d_]+', '', LETTER.sub('', path.stem.lower()))


def _are_numbered(images):
    """Whether most names differ in numbers, or in single letters, alone."""
    return 2 * max(Counter(map(_form, images)).values()) > len(images)


def _share_a_count(several):
    """Whether no number comes in two of the folders, and the order of the numbers goes to and fro between these."""
    owner = {}
    for folder, images in enumerate(several):
        for image in images:
            key = (_form(image), *map(int, re.findall('[0-9]+', image.stem)))
            if owner.setdefault(key, folder) != folder:
                return False
    runs = sum(before != after for before, after in pairwise(owner[key] for key in sorted(owner)))
    return len(owner) >= COUNTED and runs * RUNS > len(owner)
