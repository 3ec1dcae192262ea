"""What a user would want to know of exams before a network learns from them: names that may be one, slices that are
missing, what is not read, values of two kinds. Each is said in a line."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from covid_jax.data.parts import Seen
from covid_jax.sources.exams import SPLITS, Exam, class_index, class_names
from covid_jax.sources.unread import LOST, MASK, Unread, of_kind
from covid_jax.text import count, some

Say = Callable[[str], None]

LISTED = 3  # names that a line has
ZEROS = re.compile('(?<![0-9])0+(?=[0-9])')  # in front of a number: a spreadsheet drops them


def shared_patients(exams: Sequence[Exam], say: Say) -> None:
    """Whether patients of one name are at several sites, which hospitals that number their own would give."""
    at = {(exam.patient, exam.site) for exam in exams}
    shared = [patient for patient, sites in Counter(patient for patient, _ in at).items() if sites > 1]
    if shared:
        say(f'{count(len(shared), "patient is", "patients are")} at several sites ({some(sorted(shared), LISTED)}), '
            'one patient each: where every site numbers its own, put the site before the number')


def alike_names(exams: Sequence[Exam], say: Say) -> None:
    """Whether patients, or sites, differ in case, in space or in zeros before a number alone: they are kept apart as
    they are written. A patient whom nobody named, and who is called after the exam, counts for none."""
    patients = {exam.patient for exam in exams if exam.patient != exam.id}
    for what, names in (('patients', patients), ('sites', {exam.site for exam in exams})):
        groups = defaultdict(list)
        for name in sorted(names):
            groups[ZEROS.sub('', ''.join(name.casefold().split()))].append(name)
        alike = [' and '.join(map(repr, group)) for group in groups.values() if len(group) > 1]
        if alike:
            say(f'{what} that differ in case, spaces or zeros in front alone are kept apart, as they are written: '
                f'{some(alike, LISTED)}; if they are one, write them alike')


def missing_slices(missing: Mapping[str, Sequence[int]], exams: Sequence[Exam], say: Say) -> None:
    """Which scans lack numbers among their slices. missing: exam id -> numbers, of those that lack some."""
    if missing:
        first = next(iter(missing))
        labels = by_label([exam for exam in exams if exam.id in missing])
        say(f'{count(len(missing), "scan has", "scans have")} slices whose numbers are not all there ({labels}), as '
            f'{first}, which lacks {some(missing[first])}: it is read as if they were neighbours')


def unread(left: Sequence[Unread], exams: Sequence[Exam], say: Say, listed: bool = True) -> None:
    """How many things in the folders of each class are not read, beside those that are, and how many masks lie beside
    scans. What speaks of scans, as lists do, is not worth a word. listed: whether all of them are going to stand in
    quarantine.csv."""
    where = '; they stand in quarantine.csv' if listed else ''
    if gone := of_kind(left, LOST):
        read = Counter(exam.label for exam in exams)
        lost = Counter(one.label for one in gone)
        labels = sorted({*read, *lost} - {''})
        said = ', '.join(f'{label}: {lost[label]}, and {count(read[label], "exam")}' for label in labels)
        say(f'{count(len(gone), "file in class folders is", "files in class folders are")} not read ({said}), as '
            f'{gone[0].id}: what is left out may tell the label{where}')
    if masks := of_kind(left, MASK):
        say(f'{called_masks(masks)}, as {masks[0].id}{where}')


def called_masks(masks: Sequence[Unread]) -> str:
    """How many masks of which label lie beside scans, in words."""
    said = count(len(masks), 'file is by its name the mask of a scan beside it, and no exam',
                 'files are by their names masks of scans beside them, and no exams')
    return f'{said} ({by_label(masks)})'


def two_kinds(exams: Sequence[Exam], seen: Mapping[str, Seen], classes: Sequence[str], say: Say) -> None:
    """How many exams of each class are in Hounsfield units and in grey values, where there are both. seen: exam id ->
    what its scan was, empty where that is not known."""
    names = class_names(classes)
    used = [exam for exam in exams if exam.split and exam.label and exam.id in seen]
    units = Counter((names[class_index(exam.label, classes)], seen[exam.id].hounsfield) for exam in used)
    if len({unit for _, unit in units}) > 1:
        said = ', '.join(f'{name} {units[name, True]} and {units[name, False]}' for name in names)
        say(f'scans in Hounsfield units and in grey values are mixed ({said}): the window is applied to the former '
            'alone, and where classes differ in it a network can tell the label by it')


def tissue_padding(exams: Sequence[Exam], seen: Mapping[str, Seen], say: Say) -> None:
    """Which scans have padding of a value that tissue has too, of which nobody knows for sure where it is padding.
    seen: exam id -> what its scan was, empty where that is not known."""
    doubtful = [exam for exam in exams if exam.id in seen and seen[exam.id].tissue_padding]
    if doubtful:
        say(f'{count(len(doubtful), "scan has", "scans have")} padding of a value that tissue has too, such as 0 where '
            f'0 is water ({by_label(doubtful)}), as {doubtful[0].id}: what reaches the edge of a slice is read as air, '
            'the rest as tissue; look at them')


def counts(exams: Sequence[Exam], broken: Mapping[str, str], classes: Sequence[str], labelled: bool, say: Say) -> None:
    """How many scans of each class are in each split, how many of them could not be prepared, and what that means.
    labelled: whether labels are learnt from."""
    names = class_names(classes)

    def class_of(exam):
        return names[class_index(exam.label, classes)] if exam.label else 'without a label'

    def counted(exams):
        of_class = Counter(map(class_of, exams))
        return ', '.join(f'{of_class[name]} {name}' for name in (*names, 'without a label') if of_class[name])

    good = [e for e in exams if e.id not in broken]
    several = len({e.site for e in good}) > 1
    for split in (*SPLITS, ''):
        here = [e for e in good if e.split == split]
        sites = sorted({e.site for e in here})
        if not sites:
            continue
        line = '; '.join(f'{site}: {counted(e for e in here if e.site == site)}' for site in sites)
        if len(sites) == 1:
            line = f'of {sites[0]} alone: {counted(here)}' if several else counted(here)
        say(f'{split or "not used"}: {line}')
    learnt = {class_of(e) for e in good if e.split == 'train'}
    missing = [name for name in names if name not in learnt]
    if missing and labelled and learnt:
        say(f'no {" and no ".join(missing)} scan to train on: what is learned cannot tell the classes apart')
    if broken:
        learns = any(exam.split == 'train' for exam in exams)
        where = 'see quarantine.csv' if learns else f'as {next(iter(broken))} ({next(iter(broken.values()))})'
        say(f'{len(broken)} could not be prepared, {where}: {counted([e for e in exams if e.id in broken])}')


def by_label(exams: Sequence[Exam] | Sequence[Unread]) -> str:
    """'3 covid, 1 normal': how many are of which label."""
    labels = Counter(exam.label or 'without a label' for exam in exams)
    return ', '.join(f'{labels[label]} {label}' for label in sorted(labels))
