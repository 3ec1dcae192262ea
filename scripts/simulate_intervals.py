"""How often do the intervals of metrics hold the truth, and how wide are they? The tables of docs/results.md.

    python scripts/simulate_intervals.py                                # 8 minutes on 2 cores
    python scripts/simulate_intervals.py --simulations 200 --level 0.9  # the same, quickly and roughly, at another level

A cell is a law: scores of exams are normal with variance 1, half of it the patient's own, about 0 without COVID and about the
mean that gives the AUC with it; a probability of 0.5 lies midway. Numbers of patients of each class are fixed. The truth is
what the metric tends to with more and more patients. For each simulated cohort the interval is that of
metrics/intervals.py; the patients' metrics without each patient are computed by weights, all at once, which a test compares
with with_intervals. Beside it:

- the calibrated interval: that of Clopper and Pearson for one number of independent exams, the same for all cohorts, the
  largest with which the interval holds the truth as often as its level says. No real cohort knows that number.
- the percentile bootstrap over patients, stratified by class, in a tenth of the cohorts.
"""

import argparse
import itertools
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv
from scipy.stats import norm

from covid_jax.metrics.intervals import effective_size, interval

PATIENTS = (20, 60, 200)
PREVALENCE = (0.5, 0.25)
EXAMS = (1, 6)  # of each patient
AUC = (0.7, 0.9, 0.99)
OWN = 0.5  # share of a score's variance that all exams of a patient have in common
CELLS = tuple(itertools.product(PATIENTS, PREVALENCE, EXAMS, AUC))
METRICS = ('auc', 'accuracy', 'sensitivity', 'specificity', 'precision', 'f1', 'macro_f1', 'average_precision')
RESAMPLES = 400  # of the bootstrap
SLACK = 0.01  # by which the coverage may lie below the level
WIDE = 1.5  # times as wide as the calibrated interval


def truth(prevalence, auc):
    """{metric: what it tends to}, of the law."""
    mean = np.sqrt(2) * norm.ppf(auc)
    hit = norm.cdf(mean / 2)  # sensitivity, and specificity
    recall = np.linspace(0, 1, 200_001)[1:-1]
    alarm = norm.sf(norm.isf(recall) + mean)
    positive, negative = ((p * hit, p, p * hit + (1 - p) * (1 - hit)) for p in (prevalence, 1 - prevalence))
    f1 = [2 * hits / (examples + predictions) for hits, examples, predictions in (positive, negative)]
    return {'auc': auc, 'accuracy': hit, 'sensitivity': hit, 'specificity': hit, 'precision': positive[0] / positive[2],
            'f1': f1[0], 'macro_f1': np.mean(f1),
            'average_precision': np.mean(prevalence * recall / (prevalence * recall + (1 - prevalence) * alarm))}


def draw(random, patients, prevalence, exams, auc):
    """A cohort: is_positive bool [patients], score [patients, exams], of which 0 and more is called positive."""
    is_positive = np.arange(patients) < round(patients * prevalence)
    mean = np.sqrt(2) * norm.ppf(auc)
    own = np.sqrt(OWN) * random.normal(size=(patients, 1))
    return is_positive, own + np.sqrt(1 - OWN) * random.normal(size=(patients, exams)) + mean * (is_positive[:, None] - 0.5)


def weighted(is_positive, score, weight):
    """{metric: [cohorts]} of cohorts in which each patient stands as often as weight [cohorts, patients] says."""
    exams = score.shape[1]
    called = weight * (score >= 0).sum(1)
    hits = called[:, is_positive].sum(1)
    alarms = called[:, ~is_positive].sum(1)
    positives, negatives = (exams * weight[:, of].sum(1) for of in (is_positive, ~is_positive))
    right = hits + negatives - alarms
    won = (score[is_positive][:, :, None, None] > score[~is_positive]).sum((1, 3))  # pairs, by patient and patient
    patient = np.argsort(-score, axis=None) // exams  # of the exams, the highest score first
    taken = weight[:, patient]
    found = np.cumsum(taken * is_positive[patient], 1)
    with np.errstate(invalid='ignore'):
        f1 = 2 * hits / (positives + hits + alarms)
        other = 2 * (negatives - alarms) / (2 * negatives - alarms + positives - hits)
        precision = np.nan_to_num(found / np.cumsum(taken, 1))
        return {'auc': ((weight[:, is_positive] @ won) * weight[:, ~is_positive]).sum(1) / (positives * negatives),
                'accuracy': right / (positives + negatives), 'sensitivity': hits / positives,
                'specificity': 1 - alarms / negatives, 'precision': hits / (hits + alarms), 'f1': f1,
                'macro_f1': (f1 + other) / 2,
                'average_precision': (taken * is_positive[patient] * precision).sum(1) / positives}


def intervals(is_positive, score, level):
    """{metric: (value, low, high)}; low and high are None where the metric is undefined with or without a patient."""
    count, exams = score.shape
    whole = weighted(is_positive, score, np.ones((1, count)))
    rest = weighted(is_positive, score, 1 - np.eye(count))
    label = np.repeat(is_positive, exams)
    patient = np.repeat(np.arange(count), exams)
    about = {'sensitivity': label.sum(), 'specificity': (~label).sum(), 'precision': (score >= 0).sum()}
    result = {}
    for metric in METRICS:
        value = whole[metric][0]
        without = rest[metric]
        bounds = (None, None)
        if not np.isnan([value, *without]).any():
            independent = effective_size(metric, about.get(metric, label.size), label, patient)
            bounds = interval(value, [without[~is_positive], without[is_positive]], independent, level)
        result[metric] = (value, *bounds)
    return result


def bootstrap(random, is_positive, score, level):
    """{metric: (low, high)} of the percentile bootstrap."""
    weight = np.empty((RESAMPLES, len(score)))
    for of in (is_positive, ~is_positive):
        weight[:, of] = random.multinomial(of.sum(), np.full(of.sum(), 1 / of.sum()), RESAMPLES)
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {metric: np.nanquantile(values, tails) for metric, values in weighted(is_positive, score, weight).items()}


def calibrated_width(values, true, level):
    """The mean width of the calibrated interval, of the metric's values over the cohorts."""
    value, times = np.unique(np.minimum(values, 1), return_counts=True)
    tail = (1 - level) / 2
    for n in np.geomspace(20_000, 0.5, 400):
        hits = value * n
        high = (hits >= n) | (betainc(hits + 1, np.maximum(n - hits, 1e-9), true) <= 1 - tail)
        low = (hits <= 0) | (betainc(np.maximum(hits, 1e-9), n - hits + 1, true) >= tail)
        if np.average(low & high, weights=times) >= level:
            break
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1e-9), n - hits + 1, tail), 0)
    high = np.where(hits < n, betaincinv(hits + 1, np.maximum(n - hits, 1e-9), 1 - tail), 1)
    return np.average(high - low, weights=times)


def simulate(cell, simulations, level):
    """{metric: (coverage, mean width, its ratio to the calibrated one, the bootstrap's coverage, share without an interval)}."""
    patients, prevalence, exams, auc = cell
    random = np.random.default_rng([CELLS.index(cell), simulations])
    true = truth(prevalence, auc)
    ours = []
    drawn = []
    for i in range(simulations):
        cohort = draw(random, *cell)
        ours.append(intervals(*cohort, level))
        if i % 10 == 0:
            drawn.append(bootstrap(random, *cohort, level))
    rows = {}
    for metric in METRICS:
        bounds = np.array([one[metric][1:] for one in ours if one[metric][1] is not None])
        values = np.array([one[metric][0] for one in ours if one[metric][1] is not None])
        width = np.mean(bounds[:, 1] - bounds[:, 0])
        rows[metric] = (_covered(bounds, true[metric]), width, width / calibrated_width(values, true[metric], level),
                        _covered(np.array([one[metric] for one in drawn]), true[metric]), 1 - len(values) / simulations)
    return rows


def ones(positives, negatives, auc):
    """The share of cohorts whose AUC is exactly 1, with one exam a patient: all positives are above the highest negative."""
    highest = np.linspace(-10, 15, 50_001)
    density = negatives * norm.cdf(highest)**(negatives - 1) * norm.pdf(highest)
    return np.trapezoid(density * norm.sf(highest - np.sqrt(2) * norm.ppf(auc))**positives, highest)


def _covered(bounds, true):
    return np.mean((bounds[:, 0] <= true) & (true <= bounds[:, 1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--simulations', type=int, default=4000)
    parser.add_argument('--level', type=float, default=0.95)
    options = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        cells = list(pool.map(partial(simulate, simulations=options.simulations, level=options.level), CELLS))

    print('| metric | least coverage | mean | width to calibrated, mean | largest | above 1.5 | bootstrap, least coverage | mean |')
    print('|---' * 8 + '|')
    for metric in METRICS:
        coverage, _, ratio, drawn, _ = np.array([cell[metric] for cell in cells]).T
        print(f'| {metric} | {coverage.min():.3f} | {coverage.mean():.3f} | {ratio.mean():.2f} | {ratio.max():.2f} | '
              f'{(ratio > WIDE).sum()} of {len(CELLS)} | {drawn.min():.3f} | {drawn.mean():.3f} |')
    print('\n| patients | positive | exams | AUC | ' + ' | '.join(METRICS) + ' |')
    print('|---' * (4 + len(METRICS)) + '|')
    for (patients, prevalence, exams, auc), cell in zip(CELLS, cells, strict=True):
        columns = [f'{coverage:.3f}, {width:.3f} ({ratio:.2f})' for coverage, width, ratio, _, _ in cell.values()]
        print(f'| {patients} | {prevalence} | {exams} | {auc} | ' + ' | '.join(columns) + ' |')
    print()
    for law, cell in zip(CELLS, cells, strict=True):
        for metric, (coverage, _, ratio, _, without) in cell.items():
            if coverage < options.level - SLACK:
                print(f'short: {metric} of {law} covers {coverage:.3f}')
            if ratio > WIDE:
                print(f'wide: {metric} of {law} is {ratio:.2f} times as wide')
            if without:
                print(f'no interval: {metric} of {law} in {without:.4f} of the cohorts')
    for positives, negatives in ((10, 10), (5, 15)):
        least = brentq(lambda auc, *of: ones(*of, auc) - (1 - options.level) / 2, 0.5, 0.999, (positives, negatives))
        print(f'an AUC of 1: of {positives} and {negatives} patients with one exam each, {ones(positives, negatives, 0.99):.3f} '
              f'of the cohorts have it where the AUC is 0.99, and {(1 - options.level) / 2:.3f} where it is {least:.3f}')


if __name__ == '__main__':
    main()
