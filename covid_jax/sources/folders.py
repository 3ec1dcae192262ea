"""The user's own scans in folders of classes."""

from collections.abc import Callable
from pathlib import Path

from covid_jax import UserError
from covid_jax.scans import decode
from covid_jax.sources.exams import SPLITS, Exam
from covid_jax.sources.listing import found_in, visible
from covid_jax.sources.patients import one_patient

LAYOUT = f'expected <class>/<scan> or {{train,val,test}}/<class>/<scan>, where a scan is {decode.EXPECTED}'


def folder(root: Path | str, say: Callable[[str], None] = print) -> list[Exam]:
    """root/<class>/<scan>, or root/<split>/<class>/<scan> where the split is train, val or test.

    A scan is whatever `decode` reads; other files and hidden ones are skipped. The label is the name of the class folder,
    the id is the path below root. Every scan is its own patient, but for DICOM scans of one PatientID.
    UserError if there is nothing of the kind, or if folders of splits and of classes are mixed.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'{root} is not a folder: {LAYOUT}')
    folders = [path for path in visible(root) if path.is_dir()]
    splits = [path for path in folders if path.name in SPLITS]
    if splits and len(splits) < len(folders):
        odd = ', '.join(path.name for path in folders if path not in splits)
        raise UserError(f'{root} holds both splits and other folders ({odd}): {LAYOUT}')
    classes = [(path.name, place) for path in splits for place in visible(path)] or [('', path) for path in folders]
    exams = [_exam(root, split, scan) for split, place in classes if place.is_dir()
             for scan in visible(place) if decode.is_scan(scan)]
    if not exams:
        raise UserError(f'no scans in {root} ({found_in(root)}): {LAYOUT}')
    return one_patient(exams, root, say)


def _exam(root, split, scan):
    name = scan.relative_to(root).as_posix()
    return Exam(name, name, 'default', scan.parent.name, split, str(scan))
