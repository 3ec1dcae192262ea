"""What lies in the folders of classes and is no exam: most of one class may be of a format that is not read."""

from pathlib import Path

from covid_jax.scans import decode
from covid_jax.sources.exams import Exam
from covid_jax.sources.listing import visible


def in_folder(root: Path, place: Path, label: str, split: str, files: set[Path]) -> list[Exam]:
    """What is in the folder of a class and cannot be a scan, as if it were one; files: what is read beside the scans themselves."""
    found = []
    for entry in visible(place):
        if entry not in files and not decode.is_scan(entry):
            name = entry.relative_to(root).as_posix()
            found.append(Exam(name, name, 'default', label, split, str(entry)))
    return found


def beside(root: Path, exams: list[Exam]) -> list[Exam]:
    """The same of every folder whose exams have one label, which is then the folder of a class."""
    labels: dict[Path, set[tuple[str, str]]] = {}
    for exam in exams:
        labels.setdefault(_place(exam), set()).add((exam.label, exam.split))
    files = files_read(exams)
    found = []
    for place, of in labels.items():
        label, split = min(of)
        if len({name for name, _ in of}) == 1 and label and place.is_relative_to(root):
            found += in_folder(root, place, label, split, files)
    return found


def files_read(exams: list[Exam]) -> set[Path]:
    """The files that exams which are files read: the voxels of a header, too, which have a file of their own."""
    paths = [decode.split_address(exam.path)[0] for exam in exams]
    return {file for path in paths if not path.is_dir() for file in decode.files_of(path)}


def reason(exam: Exam) -> str:
    """Why it is not read, in words."""
    return f'{exam.path}: {"a link whose content is not here" if not Path(exam.path).exists() else decode.NOT_A_SCAN}'


def _place(exam):
    return decode.split_address(exam.path)[0].parent
