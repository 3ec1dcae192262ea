"""Two finished runs on the same exams -> paired differences and tests of them."""

import os
from functools import partial
from pathlib import Path

import numpy as np

from covid_jax import UserError, runs
from covid_jax.data import lineage
from covid_jax.metrics import significance
from covid_jax.metrics.classification import decide
from covid_jax.metrics.significance import Difference
from covid_jax.metrics.weighted import weighted_metrics
from covid_jax.report.comparison import BOOTSTRAP, CORRECTED, DELONG, FOLDS, MCNEMAR, SEEDS, Comparison, Row
from covid_jax.sources.exams import POSITIVE


def compare(run_a: str | Path, run_b: str | Path, split: str = 'test', resamples: int = 1000, level: float = 0.95,
            seed: int = 0) -> Comparison:
    """Compares two finished runs: each the folder of one training, or a folder with those of folds and seeds below it.

    The bootstrap over patients is of the answers of all folds together, and of the mean of a metric over the seeds. One seed:
    McNemar and DeLong, too. Several seeds: a paired t-test over them. Several folds: paired t-tests over the folds in its place,
    each fold the mean over its seeds. Several sites: the bootstrap for each of them.

    Args:
        split: whose labelled exams are compared.
        resamples, seed: of the bootstrap.
        level: of the intervals, in (0, 1).

    Raises:
        UserError: no finished run; other exams, labels, splits, folds, seeds or classes.
    """
    if resamples < 1:
        raise UserError(f'--resamples={resamples} must be at least 1')
    if not 0 < level < 1:
        raise UserError(f'--level={level} must be above 0 and below 1, as 0.95')
    if os.path.realpath(run_a) == os.path.realpath(run_b):
        raise UserError(f'{run_a} is given twice: a comparison is of two runs')
    parts_a = runs.parts(run_a, split)
    parts_b = runs.parts(run_b, split)
    folds = runs.match(str(run_a), parts_a, str(run_b), parts_b)
    names = parts_a[0].predictions.names
    whole = runs.pool(folds, run_a) if len(folds) > 1 else folds[0]
    units = folds if len(folds) > 1 else [whole.of_seed(i) for i in range(whole.a.shape[1])]

    rows = _bootstrap_rows(whole, names, resamples, level, seed)
    discordant = None
    if whole.a.shape[1] == 1:
        single, discordant = _single_rows(whole, level)
        rows += single
    share = _test_share(parts_a, parts_b) if len(folds) > 1 else None
    if len(folds) > 1:
        rows += _fold_rows(folds, share, level)
    elif len(units) > 1:
        rows += _t_rows(units, SEEDS, partial(significance.paired_t, level=level))
    return Comparison((str(run_a), str(run_b)), split, names, len(folds), tuple(sorted({p.seed for p in parts_a})),
                      len(whole.exams), len({e.patient for e in whole.exams}), (_seen(parts_a), _seen(parts_b)), resamples,
                      level, share, discordant, rows)


def over_folds(run_a: str, parts_a: list[runs.Part], run_b: str, parts_b: list[runs.Part], level: float = 0.95) -> list[Row]:
    """The paired t-tests over folds alone, of the answers that these parts carry: each fold the mean over its seeds.

    parts_a, parts_b: by fold and seed, their predictions labelled rows. UserError as `runs.match`. A difference of one fold has the
    reason why there is no test; the corrected test is left out where a run does not say what it learnt from.
    """
    return _fold_rows(runs.match(run_a, parts_a, run_b, parts_b), _test_share(parts_a, parts_b), level)


def _fold_rows(folds, share, level):
    """The plain paired t-test, and the corrected one where the share of a fold is known."""
    rows = _t_rows(folds, FOLDS, partial(significance.paired_t, level=level))
    if share is not None:
        rows += _t_rows(folds, CORRECTED, partial(significance.corrected_t, test_share=share, level=level))
    return rows


def _score(label, probability, weight=None):
    """weighted_metrics, the means over the seeds of probability, [n, seeds, classes]; without weights each exam counts once."""
    weight = np.ones((1, len(label))) if weight is None else weight
    each = [weighted_metrics(label, probability[:, i], weight, POSITIVE) for i in range(probability.shape[1])]
    return {name: np.mean([scores[name] for scores in each], 0) for name in each[0]}


def _bootstrap_rows(whole, names, resamples, level, seed):
    """Of all exams, and of each site where there are several."""
    sites = sorted({exam.site for exam in whole.exams})
    groups = {'all': whole} | ({f'site {site}': whole.of_site(site) for site in sites} if len(sites) > 1 else {})
    rows = []
    for group, answers in groups.items():
        found = significance.paired_bootstrap(_score, answers.label, answers.a, answers.b, [e.patient for e in answers.exams],
                                              names, resamples, level, seed)
        values = _values([answers.of_seed(i) for i in range(answers.a.shape[1])])
        rows += [Row(group, BOOTSTRAP, name, *values[name], difference) for name, difference in found.items()]
    return rows


def _single_rows(whole, level):
    """McNemar and DeLong of one answer for each exam, and how many exams each run alone has right."""
    values = _values([whole])
    a = whole.a[:, 0]
    b = whole.b[:, 0]
    decisions = significance.mcnemar(*(decide(p, positive=POSITIVE) == whole.label for p in (a, b)))
    ranks = significance.delong(whole.label == POSITIVE, a[:, POSITIVE], b[:, POSITIVE], level)
    rows = [Row('all', MCNEMAR, 'accuracy', *values['accuracy'], decisions.difference),
            Row('all', DELONG, 'auc', *values['auc'], ranks)]
    return rows, (decisions.only_a, decisions.only_b)


def _t_rows(units, test, t_test):
    """A t-test over the folds or seeds for each metric that is defined in all of them."""
    rows = []
    for name, (a, b) in _values(units).items():
        if None in a + b:
            many = sum(None in pair for pair in zip(a, b, strict=True))
            found = Difference(n=len(a), reason=f'undefined in {many} of {len(a)}')
        else:
            found = _cut(t_test(np.subtract(a, b)))
        rows.append(Row('all', test, name, a, b, found))
    return rows


def _cut(difference):
    """Its interval within [-1, 1], where differences of metrics lie: Student's law of two folds goes far beyond."""
    if difference.low is None:
        return difference
    return difference._replace(low=max(-1.0, difference.low), high=min(1.0, difference.high))


def _values(units):
    """{metric: (the values of A, those of B)}, one for each unit, None where it is undefined."""
    a = [_score(unit.label, unit.a) for unit in units]
    b = [_score(unit.label, unit.b) for unit in units]
    return {name: tuple(tuple(None if np.isnan(scores[name]) else scores[name].item() for scores in run) for run in (a, b))
            for name in a[0]}


def _test_share(*both):
    """Patients of a fold that are tested on, over those that are learnt from, at the same sites where there are any: the mean over a
    run's folds, of the run where it is larger; None where a run does not say what it learnt from."""
    shares = []
    for parts in both:
        each = []
        for part in parts:
            table = lineage.read(part.folder) if (part.folder / 'exams.csv').is_file() else []
            own = [row for row in table if not row.run] or table  # an ensemble has those of its members
            learnt = {(row.exam.site, row.exam.patient) for row in own if row.exam.split == 'train'}
            if not learnt:
                return None
            sites = {exam.site for exam in part.predictions.exams}
            there = {patient for patient in learnt if patient[0] in sites}
            each.append(len({exam.patient for exam in part.predictions.exams}) / len(there or learnt))
        shares.append(np.mean(each))
    return float(max(shares))


def _seen(parts):
    """How many exams are of patients that an earlier run learnt from."""
    return len({exam.id for part in parts if 'seen' in part.predictions.columns
                for exam, seen in zip(part.predictions.exams, part.predictions.columns['seen'], strict=True) if seen})
