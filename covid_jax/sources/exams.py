"""One scan or image as a row, whatever data set it comes from, and the classes that its label may name."""

from collections.abc import Sequence
from typing import NamedTuple

from covid_jax import UserError

SPLITS = ('train', 'val', 'test')
POSITIVE = 1  # the class that is covid, in binary and in ternary tasks


class Exam(NamedTuple):
    """A scan before anything was read of it.

    id:      unique in its data set; names the row of predictions.csv
    patient: exams of one patient are never in two splits
    site:    the hospital or collection
    label:   the class as the source words it; '' where nobody labelled it
    split:   'train', 'val' or 'test' where the source says so, else ''
    path:    one address that `decode` reads: a file, a folder of slices, a part of one, a phantom
    """

    id: str
    patient: str
    site: str
    label: str
    split: str
    path: str


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes, in order. A class is 'name|other|...': its name, then other labels that count as it."""
    return tuple(c.split('|')[0] for c in classes)


def class_index(label: str, classes: Sequence[str]) -> int:
    """The class of a label, case ignored; -1 for '' (unlabelled). UserError for a label that no class declares."""
    if not label:
        return -1
    for index, names in enumerate(classes):
        if label.lower() in names.lower().split('|'):
            return index
    raise UserError(f'label {label!r} is not declared: add "|{label}" to the class it belongs to in '
                    f'--config.data.classes="{classes}"')


def check_classes(classes: Sequence[str]) -> None:
    """UserError where the classes are not two or more of different names, covid the second."""
    if len(set(class_names(classes))) < max(2, len(classes)):
        raise UserError(f'--config.data.classes={classes} must be two or more classes of different names, covid the second')
    if any('covid' in names.lower().split('|') for i, names in enumerate(classes) if i != 1):
        raise UserError(f'--config.data.classes={classes}: covid must be the second class, the one that is positive')
