"""Which exam is trained on, validated on and tested on: by patient, stratified by class, whatever the order of rows."""

import math
from collections import defaultdict
from itertools import combinations

import numpy as np

from covid_jax import UserError
from covid_jax.data.exams import class_index


def assign(exams, classes, val=0.2, test=0.2, folds=1, fold=0, seed=0, held_out=()):
    """The exams in their order, each with its split: 'train', 'val', 'test', or '' for one without a label.

    A patient whose split the source gives keeps it, for all exams; a patient of held_out is in test whatever the source
    says. The others are drawn by patient from strata (the set of a patient's classes): test if neither the source nor
    held_out names any, then val if the source names none, floor(fraction * patients of the stratum + 1/2) of each
    stratum; the rest is train. With folds > 1 test is the fold-th of so many nearly equal parts of the drawn patients,
    each in test in one fold.

    exams:     list of Exam; those without a label take no part, and keep the split they have
    classes:   the declared classes (see class_index)
    val, test: fractions of the patients that the source does not place
    fold:      in [0, folds)
    Raises: UserError for a patient in two splits, an unknown patient in held_out, and fractions or folds that cannot be.
    """
    if not (0 <= val and 0 <= test and val + test < 1):
        raise UserError(f'val={val} and test={test} must be at least 0 and leave something to train on')
    if not 0 <= fold < folds:
        raise UserError(f'fold={fold} must be at least 0 and below folds={folds}')
    fixed = _fixed(exams, set(held_out))
    strata = _strata(exams, classes, fixed, seed)
    given = set(fixed.values())
    if folds > 1:
        drawn = _deal(strata, folds, fold)
    else:
        drawn = [] if 'test' in given else _draw(strata, strata, test)
    split = fixed | {patient: 'train' for patients in strata.values() for patient in patients}
    split |= dict.fromkeys(drawn, 'test')
    if 'val' not in given:
        rest = {stratum: [p for p in patients if split[p] != 'test'] for stratum, patients in strata.items()}
        split |= dict.fromkeys(_draw(rest, strata, val), 'val')
    return [exam._replace(split=split[exam.patient]) if exam.label or exam.split else exam for exam in exams]


def check_training(exams):
    """UserError where no exam is in train. exams: with their splits."""
    if not any(exam.split == 'train' for exam in exams):
        unlabelled = sum(not exam.label for exam in exams)
        raise UserError(f'no exam is left to train on: of {len(exams)} exams {unlabelled} have no label '
                        f'and {sum(exam.split in ("val", "test") for exam in exams)} are in val or test')


def _fixed(exams, held_out):
    """{patient: split} of the patients that the source or held_out places."""
    given = defaultdict(set)
    for exam in exams:
        given[exam.patient] |= {exam.split} - {''}
    unknown = sorted(held_out - given.keys())
    if unknown:
        known = ', '.join(sorted(given)[:5])
        raise UserError(f'held_out names patients that the data does not have: {", ".join(unknown[:10])}; it has {known}'
                        f'{", ..." if len(given) > 5 else ""}')
    given |= {patient: {'test'} for patient in held_out}
    torn = sorted(patient for patient, splits in given.items() if len(splits) > 1)
    if torn:
        listed = ', '.join(f'{patient} ({" and ".join(sorted(given[patient]))})' for patient in torn[:10])
        raise UserError(f'{len(torn)} patients are in more than one split: {listed}; give each patient one split')
    return {patient: splits.pop() for patient, splits in given.items() if splits}


def _strata(exams, classes, fixed, seed):
    """{sorted classes of a patient: such patients that are not fixed, shuffled}, whatever the order of the exams."""
    found = defaultdict(set)
    for exam in exams:
        if exam.label:
            found[exam.patient].add(class_index(exam.label, classes))
    strata = defaultdict(list)
    for patient in sorted(found.keys() - fixed.keys()):
        strata[tuple(sorted(found[patient]))].append(patient)
    for stratum, patients in strata.items():
        np.random.default_rng([seed, *stratum]).shuffle(patients)
    return dict(sorted(strata.items()))


def _draw(strata, whole, fraction):
    """The first floor(fraction * size + 1/2) patients of every stratum, the size being that of the whole stratum."""
    return [patient for stratum, patients in strata.items()
            for patient in patients[:math.floor(fraction * len(whole[stratum]) + 0.5)]]


def _deal(strata, folds, fold):
    """Every folds-th patient, dealt through one stratum after the other, so the parts differ by one patient at most."""
    patients = [patient for stratum in strata.values() for patient in stratum]
    if len(patients) < folds:
        raise UserError(f'folds={folds} needs at least {folds} patients that the source leaves without a split, '
                        f'not {len(patients)}')
    return patients[fold::folds]


def check_duplicates(exams, hashes):
    """UserError if the same content is in two splits. exams: with their splits; hashes: of their contents, in order.

    Exams without a split are in none.
    """
    seen = defaultdict(dict)
    for exam, digest in zip(exams, hashes, strict=True):
        if exam.split:
            seen[digest].setdefault(exam.split, exam.id)
    pairs = [f'{a} ({one}) = {b} ({other})'
             for splits in seen.values() for (one, a), (other, b) in combinations(splits.items(), 2)]
    if pairs:
        raise UserError(f'{len(pairs)} pairs of equal scans (as files, or as prepared) are in two splits: {", ".join(pairs[:10])}; '
                        'remove one of each, or give both the same patient')
