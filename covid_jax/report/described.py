"""What there is of each class of a data set, as tables: how many exams and patients, and what their scans and files are
like."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from covid_jax.data.parts import Seen
from covid_jax.data.telling import NO_LABEL
from covid_jax.report.audit import Row
from covid_jax.sources.exams import SPLITS, Exam, class_index, class_names
from covid_jax.sources.files import Facts, kind
from covid_jax.text import some

FORMATS = 5  # kinds of files that a class is described by


def counted(exams: Sequence[Exam], classes: Sequence[str]) -> list[Row]:
    """How many exams, and of how many patients, are in each split, a row for each class and site, the header first."""
    splits_here = [split for split in (*SPLITS, '') if any(exam.split == split for exam in exams)]
    groups = defaultdict(list)
    for exam in exams:
        groups[class_index(exam.label, classes), exam.site].append(exam)
    rows = [('class', 'site', *(split or 'no split' for split in splits_here))]
    for (label, site), of in sorted(groups.items()):
        cells = [[exam for exam in of if exam.split == split] for split in splits_here]
        numbers = [f'{len(cell)} ({len({exam.patient for exam in cell})})' for cell in cells]
        rows.append(((*class_names(classes), NO_LABEL)[label], site, *numbers))
    return rows


def described(exams: Sequence[Exam], seen: Mapping[str, Seen], facts: Mapping[str, Facts],
              classes: Sequence[str]) -> list[Row]:
    """What the scans of each class are: files, units, sizes, spacings, values; a column for each class, and the header
    first. seen, facts: exam id -> what its scan and its file are."""
    groups = defaultdict(list)
    for exam in exams:
        groups[class_index(exam.label, classes)].append(exam.id)
    names = (*class_names(classes), NO_LABEL)
    columns = [_column(names[label], [seen[name] for name in of], [facts[name] for name in of])
               for label, of in sorted(groups.items())]
    heads = ('', 'scans', 'files', 'in Hounsfield units', 'in grey values', 'slices', 'height', 'width',
             'mm between slices', 'mm in plane', 'without spacing', 'least value', 'greatest value')
    return [tuple(row) for row in zip(heads, *columns, strict=True)]


def _column(name, of, facts):
    spaced = [scan.spacing for scan in of if scan.spacing]
    hounsfield = sum(scan.hounsfield for scan in of)
    kinds = Counter(map(kind, facts))
    files = some((f'{number} {of_kind}' for of_kind, number in kinds.most_common()), FORMATS)
    shapes = [_range([scan.shape[axis] for scan in of]) for axis in range(3)]
    millimetres = [_range([mm[0] for mm in spaced]), _range([mm[2] for mm in spaced])]
    values = [_range([scan.low for scan in of]), _range([scan.high for scan in of])]
    return (name, str(len(of)), files, str(hounsfield), str(len(of) - hounsfield), *shapes, *millimetres,
            str(len(of) - len(spaced)), *values)


def _range(values):
    """'1 .. 3 .. 9': the least, the median, the greatest."""
    if not values:
        return '-'
    least, middle, most = np.quantile(values, (0, 0.5, 1))
    return f'{least:.4g}' if least == most else f'{least:.4g} .. {middle:.4g} .. {most:.4g}'
