"""The user's own scans in folders of classes."""

from collections.abc import Callable
from pathlib import Path

from covid_jax import UserError
from covid_jax.scans import decode
from covid_jax.sources.exams import SPLITS, Exam
from covid_jax.sources.listing import found_in, normalised, subfolders, visible
from covid_jax.sources.pairs import refuse_masks
from covid_jax.sources.patients import one_patient
from covid_jax.sources.pictures import refuse_pictures, say_few_scans
from covid_jax.sources.unread import Unread, files_read, in_folder
from covid_jax.text import some

LAYOUT = f'expected <class>/<scan> or {{train,val,test}}/<class>/<scan>, where a scan is {decode.EXPECTED}'
# What folders of many people's pictures are called, and no scan is.
COLLECTIONS = {*SPLITS, 'training', 'valid', 'validation', 'testing', 'images', 'image', 'imgs', 'img', 'pictures', 'xrays', 'masks', 'mask',
               'lungmasks', 'infectionmasks', 'segmentations', 'labels', 'annotations'}


def folder(root: Path | str, say: Callable[[str], None] = print) -> list[Exam]:
    """root/<class>/<scan>, or root/<split>/<class>/<scan> where the split is train, val or test.

    A scan is whatever `decode` reads; other files and hidden ones are skipped, see `unread_in`. The label is the name
    of the class folder, the id is the path below root. Every scan is its own patient, but for DICOM scans of one
    PatientID. UserError if there is nothing of the kind, if folders of splits and of classes are mixed, for a link to a
    folder that is not there, and for a folder of a class that holds folders of many people's pictures, or one of masks, as far as
    their names and what lies beside them tell.
    """
    root = Path(root)
    places = places_of(root)
    for _, place in places:
        _refuse_collections(root, place)
        refuse_masks(place)
    exams = [_exam(root, split, scan) for split, place in places for scan in visible(place) if decode.is_scan(scan)]
    if not exams:
        raise UserError(f'no scans in {root} ({found_in(root)}): {LAYOUT}')
    refuse_pictures(root, exams)
    say_few_scans(root, exams, say)
    return one_patient(exams, root, say)


def unread_in(root: Path | str) -> list[Unread]:
    """What lies in the folders of classes of root and is no scan."""
    root = Path(root)
    places = places_of(root)
    scans = [_exam(root, split, scan) for split, place in places for scan in visible(place) if decode.is_scan(scan) and not scan.is_dir()]
    files = files_read(scans)
    return [left for split, place in places for left in in_folder(root, place, place.name, split, files)]


def holds_scans(place: Path) -> bool:
    """Whether the folder of a class holds scans, and not folders of folders: a file that may be one, or a folder with
    files."""
    return any(decode.is_scan(entry) and (not entry.is_dir() or any(path.is_file() for path in visible(entry))) for entry in visible(place))


def places_of(root: Path) -> list[tuple[str, Path]]:
    """(split, folder of a class) of each; the split is '' where root holds classes. UserError for what is no such
    layout."""
    if not root.is_dir():
        raise UserError(f'{root} is not a folder: {LAYOUT}')
    folders = [path for path in visible(root) if path.is_dir()]
    splits = [path for path in folders if path.name in SPLITS]
    if splits and len(splits) < len(folders):
        odd = ', '.join(path.name for path in folders if path not in splits)
        raise UserError(f'{root} holds both splits and other folders ({odd}): {LAYOUT}')
    for path in [path for place in splits or [root] for path in visible(place)]:
        if not path.exists() and not path.suffix:  # of a file beside the classes nothing is read
            raise UserError(f'{path} is a link whose content is not here: fetch it, or delete it')
    return [(path.name, place) for path in splits for place in visible(path) if place.is_dir()] or [('', path) for path in folders]


def _refuse_collections(root, place):
    """UserError for <class>/images/ and the like: a folder is one scan, and those pictures would be its slices."""
    found = [path for path in subfolders(place) if normalised(path.name) in COLLECTIONS]
    if found:
        name = place.relative_to(root)
        raise UserError(f'{place} holds {some(path.name for path in found)}: a folder in the folder of a class is one scan, and pictures of '
                        f'many people would be its slices; where each image is an exam, move the images themselves into {name} and masks '
                        'away, or, for X-rays, set --config.data.source=chest_xray; a split goes above the class; a scan that is '
                        'called so needs another name')


def _exam(root, split, scan):
    name = scan.relative_to(root).as_posix()
    return Exam(name, name, 'default', scan.parent.name, split, str(scan))
