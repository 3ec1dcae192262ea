"""Folders of masks beside folders of what they are masks of, known by what is in them: '<class>/{CT,Lung_mask}/',
'<class>/{image,label}/'."""

import re
from pathlib import Path

from covid_jax import UserError
from covid_jax.scans import names
from covid_jax.scans.dicom import is_dicom
from covid_jax.scans.grey import check_grey
from covid_jax.scans.images import decode_image
from covid_jax.sources.listing import image_files, normalised, subfolders, visible

WORDS = {'mask', 'masks', 'seg', 'segs', 'segmentation', 'segmentations', 'label', 'labels', 'annotation', 'annotations',
         'gt', 'truth', 'roi', 'rois'}
OF_WHAT = {'lung', 'lungs', 'infection', 'infections', 'lesion', 'lesions', 'ground', 'map', 'maps', 'binary', 'manual'}  # that masks are called after
LOOKED_INTO = 8  # folders of a class: masks lie in one or two beside the pictures, and patients are more
ASKED = (0.25, 0.5, 0.75)  # which of a folder's pictures by name are looked at: the ends of a scan may be black


def refuse_masks(place: Path) -> None:
    """UserError for a folder in that of a class whose files are called as those of a folder beside it, or as those of
    the class itself, and which holds masks: its name says that and nothing else, or its pictures have few values and the others
    have not. Patients' series side by side pass, also those called GT02 or Label_Anna, and DICOM files, which say themselves what they are."""
    folders = [folder for folder in subfolders(place) if any(path.is_file() for path in visible(folder))]
    called = [folder for folder in folders if _is_called_mask(folder.name) and not any(map(is_dicom, visible(folder)))]
    judged = folders if len(folders) <= LOOKED_INTO else [folder for folder in folders if _words(folder.name) & WORDS or folder in called]
    masks = [folder for folder in judged if folder in called or _holds_masks(folder)]
    for mask in masks:
        for other in (other for other in (*folders, place) if other not in masks and not _is_named_after(mask, other)):
            if _are_called_alike(mask, other):
                why = 'is called like masks' if mask in called else 'holds pictures of few values, as masks are'
                raise UserError(f'{mask} {why}, and its files are called like those in {other}: move {mask.name} away; a '
                                f'folder in {place} is one scan, so where each image is an exam of its own move the images '
                                'themselves there; X-rays of such a layout are read by --config.data.source=chest_xray')


def _words(name):
    return {word.lower() for word in re.findall('[A-Z]?[a-z]+|[A-Z]+', name)}


def _is_called_mask(name):
    """Whether a name says mask and no more: with a number, or a word that is no part of a body, it may be a patient's."""
    words = _words(name)
    alone = words & WORDS and words <= WORDS | OF_WHAT and not re.search('[0-9]', name)
    return bool(alone) or normalised(name).endswith(('mask', 'masks'))


def _is_named_after(mask, other):
    """Whether a folder is 'a_mask' of the scan 'a' beside it, which `without_masks` leaves out."""
    return mask.parent == other.parent and mask in names.masks_among([mask, other], ())


def _are_called_alike(mask, other):
    """Whether most files of the one have a namesake in the other, by the numbers in their names, or by the whole where
    there are none."""
    def keys(folder):
        return {tuple(map(int, re.findall('[0-9]+', path.stem))) or path.stem.lower() for path in visible(folder)
                if path.is_file() and not names.is_beside(path.name)}

    of_masks = keys(mask)
    return 2 * len(of_masks & keys(other)) > len(of_masks)


def _holds_masks(folder):
    """Whether pictures from all of a folder have few values."""
    pictures = image_files(folder)
    return bool(pictures) and all(_has_few_values(pictures[int(share * len(pictures))]) for share in ASKED)


def _has_few_values(picture):
    try:
        voxels = decode_image(picture).voxels
    except Exception:  # what cannot be read tells nothing here, and is set aside later
        return False
    try:
        check_grey(voxels)
    except ValueError:
        return True
    return False
