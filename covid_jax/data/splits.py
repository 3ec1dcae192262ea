"""Which exam is learnt from, validated on and tested on: by patient, stratified by class and site, whatever the order of rows."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence

import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.sources.exams import POSITIVE, Exam, class_index, class_names
from covid_jax.sources.names import whole
from covid_jax.text import count, some

LISTED = 10  # patients or pairs of scans that a message names
SEEDS = 2**32  # numbers that a generator is made of are from 0 up to this


def check(data: ConfigDict) -> None:
    """UserError for words of data.split and data.use that mean nothing."""
    if data.split not in ('auto', 'source', 'drawn'):
        raise UserError(f'--config.data.split={data.split} must be auto, source or drawn')
    names = class_names(data.classes)
    if data.use not in ('auto', 'labelled', 'all') and (unknown := _classes(data.use) - set(names)):
        raise UserError(f'--config.data.use={data.use}: no class is called {min(unknown)!r}: take auto, labelled, all, or names '
                        f'of classes with commas between them ({", ".join(names)})')


def source_names(parts: list[list[Exam]], data: ConfigDict) -> list[str]:
    """What each source is called in messages: its sites, or, where it is the only one, as the config names it."""
    return [', '.join(sorted({exam.site for exam in part})) for part in parts] if len(parts) > 1 else [data.source]


def own_splits(parts: list[list[Exam]], data: ConfigDict, folds: int = 1, say: Callable[[str], None] = print) -> list[list[Exam]]:
    """The exams of the sources, with the splits that these name or without any.

    parts: a list of Exam for each source; data: the config's section, which `check` passes. By data.split='source' what a
    source names is kept; by 'drawn' it is left out, which is said; 'auto' is 'source', but 'drawn' where folds > 1.
    Raises: UserError where data.sites or data.held_out_sites names a site that there is not, or the second all of the first.
    """
    _check_sites({exam.site for part in parts for exam in part}, data)
    drawn = data.split == 'drawn' or (data.split == 'auto' and folds > 1)
    named = [name for name, part in zip(source_names(parts, data), parts, strict=True) if any(exam.split for exam in part)]
    if not (drawn and named):
        return parts
    say(f'{" and ".join(named)}: own splits are ignored, all patients are drawn (--config.data.split=source keeps them)')
    return [[whole(exam) for exam in part] for part in parts]


def thin(parts: list[list[Exam]], data: ConfigDict, say: Callable[[str], None] = print) -> list[list[Exam]]:
    """The exams without some of the patients with COVID, so that for each exam with it there are data.imbalance of other classes, or as
    nearly as patients can be left out whole; never more. Which are, data.split_seed draws, whatever the order of rows, and how many is said.
    A patient of several classes, and one of data.held_out, stays. 0: all. UserError where there are as many of other classes already."""
    if not data.imbalance:
        return parts
    labels = defaultdict(list)
    for exam in (exam for part in parts for exam in part if exam.label):
        labels[exam.patient].append(class_index(exam.label, data.classes) == POSITIVE)
    left = sum(map(sum, labels.values()))
    others = sum(map(len, labels.values())) - left
    least = others / data.imbalance
    if not 1 <= least < left:
        share = f', {others / left:.4g} for one with it' if left else ''
        raise UserError(f'--config.data.imbalance={data.imbalance}: {left} exams have COVID and {others} have not{share}: give a larger '
                        f'number, of at most {others}')
    patients = sorted(patient for patient, of in labels.items() if all(of) and patient not in data.held_out)
    out = set()
    for i in np.random.default_rng(data.split_seed).permutation(len(patients)):
        exams = len(labels[patients[i]])
        if left - exams >= least:
            out.add(patients[i])
            left -= exams
    say(f'{len(out)} patients with COVID are left out (--config.data.imbalance): {left} exams have it and {others} have not')
    return [[exam for exam in part if exam.patient not in out] for part in parts]


def _check_sites(there, data):
    taken = set(data.sites) or there
    for field, asked, known in (('sites', data.sites, there), ('held_out_sites', data.held_out_sites, taken)):
        if unknown := sorted(set(asked) - known):
            raise UserError(f'--config.data.{field} names sites that there are not: {some(unknown, LISTED)}; there are '
                            f'{some(sorted(known), LISTED)}')
    if data.held_out_sites and not taken - set(data.held_out_sites):
        raise UserError(f'--config.data.held_out_sites={tuple(data.held_out_sites)} holds out all sites that there are: leave one '
                        'to learn from')


def assign_sources(parts: list[list[Exam]], data: ConfigDict, folds: int = 1, fold: int = 0,
                   say: Callable[[str], None] = print) -> list[Exam]:
    """All exams of the sources, each with its split; patients are drawn, and dealt into folds, within each source.

    parts: as from `own_splits`; what they name is kept (see `assign`), and a source that has no labelled patient left to
    draw is in every fold as it is. data: the config's section.
    Where data.held_out_sites names sites, these are test, beside the patients of data.held_out; a patient of one of them has
    no exam in train or val, and other exams that would be test have no split, which is said.
    Raises: UserError as `assign`, and for a source of fewer patients than folds.
    """
    names = source_names(parts, data)
    at_sites = {exam.patient for part in parts for exam in part if exam.site in data.held_out_sites}
    held_out = at_sites.union(data.held_out)
    unknown = held_out - {exam.patient for part in parts for exam in part}
    open_patients = [any(exam.label and not exam.split and exam.patient not in held_out for exam in part) for part in parts]
    exams = []
    for name, part, is_open in zip(names, parts, open_patients, strict=True):
        dealt = folds > 1 and (is_open or not any(open_patients))  # else there is nothing to deal here, and there is elsewhere
        if folds > 1 and not dealt:
            say(f'{name}: nothing to deal into folds, the same in each')
        here = unknown | held_out & {exam.patient for exam in part}  # `assign` refuses an unknown one
        exams += assign(part, data.classes, val=data.val, test=0 if held_out else data.test, folds=folds if dealt else 1,
                        fold=fold if dealt else 0, seed=data.split_seed, held_out=here, name=name)
    return _tested_at(exams, data, say) if data.held_out_sites else exams


def _tested_at(exams, data, say):
    """The exams; those of test that neither data.held_out_sites nor data.held_out names without a split."""
    idle = {exam.id for exam in exams
            if exam.split == 'test' and exam.site not in data.held_out_sites and exam.patient not in data.held_out}
    if idle:
        others = sorted({exam.site for exam in exams if exam.id in idle})
        say(f'test is what is held out: {len(idle)} other exams, of {some(others)}, are not used, for their source calls them '
            f'test, or their patients are at {some(data.held_out_sites)}, too')
    return [exam._replace(split='') if exam.id in idle else exam for exam in exams]


def check_folds(exams: Sequence[Exam], classes: Sequence[str], folds: int, labelled: bool = True, say: Callable[[str], None] = print) -> None:
    """Says which classes have fewer patients than there are folds. UserError for a class of one patient where labels are learnt from:
    the fold that tests on this one learns from none. classes: as declared."""
    for index, name in enumerate(class_names(classes) if folds > 1 else ()):
        patients = {exam.patient for exam in exams if exam.label and class_index(exam.label, classes) == index}
        if labelled and len(patients) == 1:
            raise UserError(f'class {name} has one patient for {folds} folds: the fold that tests on this one learns from none: take more data, or '
                            '--config.folds=1')
        if 0 < len(patients) < folds:
            say(f'class {name} has {count(len(patients), "patient")} for {folds} folds: '
                f'{count(folds - len(patients), "fold tests", "folds test")} on none of it, and what needs both classes is undefined there')


def is_used(exam: Exam, data: ConfigDict) -> bool:
    """Whether an exam is of a class that is learnt from: of any, unless data.use names some."""
    if data.use in ('auto', 'all', 'labelled'):
        return True
    return bool(exam.label) and class_names(data.classes)[class_index(exam.label, data.classes)] in _classes(data.use)


def choose(exams: list[Exam], data: ConfigDict, labelled: bool = True,
           named: Collection[str] | None = None) -> list[Exam]:
    """The exams in their order, '' in place of 'train' for those that are not learnt from. val and test stay as they are.

    exams:    with their splits
    data:     the config's section, which `check` passes; by data.use those with a label are learnt from ('labelled'), 'all'
              of them, or those of the classes that it names; 'auto' is 'labelled' or 'all', as `labelled` says
    labelled: whether the method learns from labels
    named:    ids; only exams of these are learnt from. None: no matter
    Raises: UserError where nothing is left to learn from, and for exams without a label where the method needs labels.
    """
    use = data.use
    if use == 'auto':
        use = 'labelled' if labelled else 'all'

    def reason(exam):
        """Why the exam is not learnt from, or ''."""
        if exam.split != 'train':
            return 'are in val or test'
        if named is not None and exam.id not in named:
            return f'are not in {data.include}'
        if use != 'all' and not exam.label:
            return 'have no label'
        if not is_used(exam, data):
            return f'are not of --config.data.use={use}'
        return ''

    reasons = [reason(exam) for exam in exams]
    if '' not in reasons:
        counted = ', '.join(f'{count} {why}' for why, count in Counter(reasons).items())
        hint = '; the method learns from labels' if labelled and 'have no label' in reasons else ''
        raise UserError(f'no exam is left to learn from: of {len(exams)} exams {counted or "none"}{hint}')
    unlabelled = sum(not why and not exam.label for exam, why in zip(exams, reasons, strict=True))
    if labelled and unlabelled:
        raise UserError(f'--config.data.use={use}: {unlabelled} exams of the train split have no label, and the method learns from '
                        'labels: take --config.data.use=labelled')
    return [exam._replace(split='') if why and exam.split == 'train' else exam
            for exam, why in zip(exams, reasons, strict=True)]


def _classes(use):
    return {name.strip() for name in use.split(',')}


def assign(exams: list[Exam], classes: Sequence[str], val: float = 0.2, test: float = 0.2, folds: int = 1, fold: int = 0,
           seed: int = 0, held_out: Collection[str] = (), name: str = 'the source') -> list[Exam]:
    """The exams in their order, each with its split: 'train', 'val' or 'test'.

    A patient whose split the source gives keeps it, for all exams; a patient of held_out is in test whatever the source
    says. The others are drawn by patient from strata (the set of a patient's classes, shared among the sites): test if neither the source nor
    held_out names any, then val if the source names none, floor(fraction * patients of the stratum + 1/2) of each
    stratum; the rest is train. With folds > 1 test is the fold-th of so many nearly equal parts of the drawn patients,
    each in test in one fold. An exam without a label follows its patient; a patient of none but such exams is in train.

    classes:   the declared classes (see class_index)
    val, test: fractions of the patients that the source does not place
    fold:      in [0, folds)
    name:      what the source is called in errors
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
        drawn = _deal(strata, folds, fold, name, len(fixed.keys() - set(held_out)))
    else:
        drawn = [] if 'test' in given else _draw(strata, strata, test)
    split = fixed | {patient: 'train' for patients in strata.values() for patient in patients}
    split |= dict.fromkeys(drawn, 'test')
    if 'val' not in given:
        rest = {stratum: [p for p in patients if split[p] != 'test'] for stratum, patients in strata.items()}
        split |= dict.fromkeys(_draw(rest, strata, val), 'val')
    return [exam._replace(split=split.get(exam.patient, 'train')) for exam in exams]


def _fixed(exams, held_out):
    """{patient: split} of the patients that the source or held_out places."""
    given = defaultdict(set)
    for exam in exams:
        given[exam.patient] |= {exam.split} - {''}
    unknown = sorted(held_out - given.keys())
    if unknown:
        raise UserError(f'held_out names patients that the data does not have: {some(unknown, LISTED)}; it has '
                        f'{some(sorted(given))}')
    given |= {patient: {'test'} for patient in held_out}
    torn = sorted(patient for patient, splits in given.items() if len(splits) > 1)
    if torn:
        listed = [f'{patient} ({" and ".join(sorted(given[patient]))})' for patient in torn]
        raise UserError(f'{len(torn)} patients are in more than one split: {some(listed, LISTED)}; give each patient one split')
    return {patient: splits.pop() for patient, splits in given.items() if splits}


def _strata(exams, classes, fixed, seed):
    """{sorted classes of a patient, and before them the sites where there are several: such patients that are not fixed,
    shuffled}, whatever the order of the exams."""
    sites = sorted({exam.site for exam in exams})
    number = {site: -i for i, site in enumerate(sites, 1)} if len(sites) > 1 else {}  # no class has such a one
    found = defaultdict(set)
    for exam in exams:
        if exam.label:
            found[exam.patient].add(class_index(exam.label, classes))
    for exam in exams:
        if exam.patient in found and number:
            found[exam.patient].add(number[exam.site])
    strata = defaultdict(list)
    for patient in sorted(found.keys() - fixed.keys()):
        strata[tuple(sorted(found[patient]))].append(patient)
    for stratum, patients in strata.items():
        np.random.default_rng([seed, *(n % SEEDS for n in stratum)]).shuffle(patients)
    return dict(sorted(strata.items()))


def _draw(strata, whole, fraction):
    """The first patients of every stratum: of the strata of the same classes together floor(fraction * size + 1/2), the size being
    that of these strata when they were whole, shared among their sites as evenly as whole patients can be."""
    drawn: list[str] = []
    size: Counter = Counter()  # of the strata up to here, by their classes
    count: Counter = Counter()  # of those drawn from them
    for stratum, patients in strata.items():
        classes = tuple(n for n in stratum if n >= 0)
        size[classes] += len(whole[stratum])
        taken = patients[:math.floor(fraction * size[classes] + 0.5) - count[classes]]
        count[classes] += len(taken)
        drawn += taken
    return drawn


def _deal(strata, folds, fold, name, placed):
    """Every folds-th patient, dealt through one stratum after the other, so the parts differ by one patient at most.

    name: of the source; placed: how many patients it places itself.
    """
    patients = [patient for stratum in strata.values() for patient in stratum]
    if len(patients) < folds:
        hint = f', or --config.data.split=drawn for the {placed} that have a split' if placed else ''
        raise UserError(f'folds={folds} needs at least {folds} labelled patients to deal out, not the {len(patients)} of {name}: '
                        f'take fewer folds{hint}')
    return patients[fold::folds]
