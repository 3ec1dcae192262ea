"""How often does the interval of `covid-jax compare` hold the true difference of two runs? A few lines of docs/results.md.

    python scripts/simulate_comparisons.py        # 40 s of CPU time

Two runs answer the same patients, each with one exam. The log odds of a run are `sharp` times: plus or minus half of its
distance, by class, and noise of variance 1, of which a share is common to both runs. The true difference is that of 4,000 times as
many patients.
"""

import numpy as np

from covid_jax.metrics.significance import paired_bootstrap
from covid_jax.metrics.weighted import weighted_metrics

COHORTS = 300
RESAMPLES = 300
NAMES = ('other', 'covid')
LAWS = [  # patients with COVID, without; distances of the runs; share of noise in common; sharp
    (10, 10, 1.5, 1.0, 0.7, 2), (10, 10, 3.5, 3.0, 0.7, 2), (10, 10, 4.5, 4.0, 0.9, 4), (10, 50, 2.0, 2.0, 0.7, 2),
    (30, 30, 1.5, 1.0, 0.7, 8), (30, 30, 3.5, 3.0, 0.7, 2), (100, 100, 1.5, 1.5, 0.5, 4), (100, 100, 3.0, 2.8, 0.8, 8),
]


def draw(random, positives, negatives, distance_a, distance_b, common, sharp):
    """label int [n]; probability of A and of B, float [n, 2]."""
    label = np.repeat([1, 0], [positives, negatives])
    shared = np.sqrt(common) * random.normal(size=len(label))

    def answered(distance):
        noise = shared + np.sqrt(1 - common) * random.normal(size=len(label))
        p = 1 / (1 + np.exp(-sharp * (distance * (label - 0.5) + noise)))
        return np.stack([1 - p, p], 1)

    return label, answered(distance_a), answered(distance_b)


def truth(random, law):
    """{metric: A - B}."""
    label, a, b = draw(random, law[0] * 4000, law[1] * 4000, *law[2:])
    once = np.ones((1, len(label)))
    of_a = weighted_metrics(label, a, once)
    of_b = weighted_metrics(label, b, once)
    return {metric: (of_a[metric] - of_b[metric]).item() for metric in of_a}


def main():
    random = np.random.default_rng(3)
    print('| patients | distances | ' + ' | '.join(weighted_metrics([0, 1], np.eye(2), np.ones((1, 2)))) + ' |')
    for law in LAWS:
        difference = truth(random, law)
        held = {metric: [] for metric in difference}
        for cohort in range(COHORTS):
            label, a, b = draw(random, *law)
            found = paired_bootstrap(weighted_metrics, label, a, b, np.arange(len(label)), NAMES, RESAMPLES, seed=cohort)
            for metric, d in found.items():
                if d.low is not None:
                    held[metric].append(d.low <= difference[metric] <= d.high)
        cells = ' | '.join(f'{np.mean(h):.3f}' for h in held.values())
        print(f'| {law[0]} + {law[1]} | {law[2]}, {law[3]} | {cells} |', flush=True)


if __name__ == '__main__':
    main()
