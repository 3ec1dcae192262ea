"""How often does the interval of the expected calibration error hold the truth? The table of docs/results.md.

    python scripts/simulate_calibration.py                     # minutes on one core
    python scripts/simulate_calibration.py --simulations 100   # the same, quickly and roughly

A cell is a law: scores of exams are normal with variance 1, half of it the patient's own, about two means that give an AUC of
0.85; half of the patients are positive. Answered is the probability that such a score has, its log odds divided by a
temperature, or moved. The truth is the error of one cohort of 400,000 patients, and 0 where the answers are right. Beside the
interval of metrics/calibration.py are the percentiles of the same resamples, and the basic bootstrap: twice the value less
them, not below 0 nor apart from the value. Last come the mean value and the mean width of the first.
"""

import argparse
import itertools

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from covid_jax.metrics.calibration import BINS, RESAMPLES, calibration_metrics, ece

LAWS = {'right': (1.0, 0.0), 'twice too sure': (0.5, 0.0), 'not sure enough': (1.5, 0.0), 'moved': (1.0, 0.7)}
PATIENTS = (40, 60, 200, 1000)
EXAMS = (1, 5)  # of each patient
MEAN = np.sqrt(2) * norm.ppf(0.85)
OWN = 0.5  # share of a score's variance that all exams of a patient have in common


def draw(random, patients, exams, temperature, moved):
    """A cohort: label int [patients], probability [patients, exams]."""
    label = (random.random(patients) < 0.5).astype(int)
    own = np.sqrt(OWN) * random.normal(size=(patients, 1))
    score = own + np.sqrt(1 - OWN) * random.normal(size=(patients, exams)) + MEAN * (label[:, None] - 0.5)
    return label, expit(MEAN * score / temperature + moved)


def bootstraps(random, label, probability, value):
    """(low, high) of percentiles, and of the basic bootstrap."""
    patients, exams = probability.shape
    of_bin = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability)
    sums = np.zeros((patients, BINS))
    np.add.at(sums, (np.arange(patients)[:, None], of_bin), probability - label[:, None])
    weight = random.multinomial(patients, np.full(patients, 1 / patients), RESAMPLES)
    low, high = np.quantile(np.abs(weight @ sums).sum(1) / probability.size, [0.025, 0.975])
    return (low, high), (max(0.0, 2 * value - high), max(value, 2 * value - low))


def cell(law, patients, exams, simulations):
    """The truth, the mean value, the share of cohorts whose interval holds the truth, for each of three, and the mean width."""
    random = np.random.default_rng([patients, exams])
    label, probability = draw(random, 400_000, 1, *law)
    truth = 0.0 if law == LAWS['right'] else ece(label, probability[:, 0])
    held = []
    width = []
    values = []
    while len(held) < simulations:
        label, probability = draw(random, patients, exams, *law)
        score = probability.ravel()
        patient = np.repeat(np.arange(patients), exams)
        found = calibration_metrics(label[patient], np.stack([1 - score, score], 1), patient, ('noncovid', 'covid'), 0.95)['ece']
        if found['low'] is None:
            continue
        intervals = (found['low'], found['high']), *bootstraps(random, label, probability, found['value'])
        held.append([low <= truth <= high for low, high in intervals])
        width.append(found['high'] - found['low'])
        values.append(found['value'])
    return truth, np.mean(values), *np.mean(held, 0), np.mean(width)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--simulations', type=int, default=1000)
    simulations = parser.parse_args().simulations
    print('| answers | patients | exams | truth | mean | interval | percentile | basic | width |')
    print('|---|---|---|---|---|---|---|---|---|')
    for (name, law), patients, exams in itertools.product(LAWS.items(), PATIENTS, EXAMS):
        numbers = ' | '.join(f'{x:.3f}' for x in cell(law, patients, exams, simulations))
        print(f'| {name} | {patients} | {exams} | {numbers} |', flush=True)


if __name__ == '__main__':
    main()
