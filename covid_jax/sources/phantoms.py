"""The phantoms as exams: how many of which label, at which site, and which of them without a label."""

import math
from collections import Counter
from itertools import cycle, pairwise

from covid_jax import UserError, phantom
from covid_jax.sources.exams import SPLITS, Exam


def phantoms(seed: int, train: int, val: int, test: int, kind: str = 'ct', sites: int = 1, covid: float = 0.5,
             unlabelled: float = 0.0) -> list[Exam]:
    """So many phantoms of a kind per split; each split has its own seed.

    covid: the share of them in each split; of the rest every other one is normal, every other one pneumonia.
    sites: how many there are, with a scanner each; they share each class of a split evenly. With one, every phantom has a
           scanner of its own.
    unlabelled: the share of the training exams whose label is not told, the same of every class and site.
    UserError for a kind, a number of sites or a share that cannot be.
    """
    if kind not in phantom.KINDS:
        raise UserError(f'--config.data.phantom.kind={kind} must be one of {", ".join(phantom.KINDS)}')
    if not 1 <= sites <= len(phantom.SITES):
        raise UserError(f'--config.data.phantom.sites={sites} must be 1 to {len(phantom.SITES)}: so many scanners there are')
    for name, share in (('covid', covid), ('unlabelled', unlabelled)):
        if not 0 <= share <= 1:
            raise UserError(f'--config.data.phantom.{name}={share} must be a share from 0 to 1')
    exams = []
    for offset, (split, count) in enumerate(zip(SPLITS, (train, val, test), strict=True)):
        seen: Counter[str] = Counter()
        for index, label in enumerate(_phantom_labels(count, covid)):
            site = phantom.SITES[seen[label] % sites] if sites > 1 else ''
            seen[label] += 1
            name = f'phantom-{3 * seed + offset}-{index}'
            address = phantom.address(3 * seed + offset, index, label, kind, site)
            exams.append(Exam(name, name, site or 'phantom', label, split, address))
    untold = _untold([exam for exam in exams if exam.split == 'train'], unlabelled)
    return [exam._replace(label='') if exam.id in untold else exam for exam in exams]


def _phantom_labels(count, covid):
    """The label of each phantom of a split: as much covid in every stretch of them, normal and pneumonia in turn."""
    sick = _spread_evenly(count, covid)
    others = cycle(('normal', 'pneumonia'))
    return ['covid' if at else next(others) for at in sick]


def _untold(exams, share):
    """The ids of a share of the exams, chosen evenly from every class and site."""
    ordered = sorted(exams, key=lambda exam: (exam.label, exam.site))
    chosen = _spread_evenly(len(ordered), share)
    return {exam.id for exam, hit in zip(ordered, chosen, strict=True) if hit}


def _spread_evenly(count, share):
    """A bool for each of `count`: of the first n, share * n are true, rounded up, for every n."""
    reached = [math.ceil(round(n * share, 9)) for n in range(count + 1)]
    return [after > before for before, after in pairwise(reached)]
