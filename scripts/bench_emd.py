"""Earth mover's distances of all pairs, next to what a user would take instead.

    pip install -e '.[test]'
    python scripts/bench_emd.py [--rounds=7]

Exact distances of equal mass: all pairs by `emd_matrix`; all pairs by scipy's cdist on cumulative sums; as many pairs as take about a
tenth of a second by scipy's wasserstein_distance, by POT (emd2_1d, and emd2 with a matrix of costs) and by OTT (its exact solver on a
line), one after another. Of unequal mass: partial_emd_matrix and POT's partial_wasserstein2. All take turns in one process, and the ratios
are of pairs a second, by the medians. Then how time and memory grow to 100,000 x 1,000 pairs. Prints Markdown tables.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import ot
from interleaved import measure
from ott.geometry import pointcloud
from ott.problems.linear import linear_problem
from ott.solvers.linear import univariate
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from covid_jax.ranking.emd import emd_matrix, partial_emd_matrix

CASES = {'246 x 1785 of 512 bins': (246, 1785, 512), '1785 x 1785 of 246 bins': (1785, 1785, 246)}
BINS = 512
GROWN = 1_000, 10_000, 100_000  # rows against 1,000
RNG = np.random.default_rng(0)


def histograms(n: int, bins: int) -> np.ndarray:
    return RNG.dirichlet(np.full(bins, 0.5), n)


def one_by_one(solve, p, q, n):
    """A function of the first n pairs of a row each."""
    return lambda: [solve(p[i % len(p)], q[i % len(q)]) for i in range(n)]


def by_ott(places):
    """OTT's exact distance on a line, of one pair."""
    line = jnp.asarray(places[:, None], 'float32')

    @jax.jit
    def solve(a, b):
        geometry = pointcloud.PointCloud(line, line)
        return univariate.quantile_solver(linear_problem.LinearProblem(geometry, a, b)).ot_costs

    return lambda a, b: solve(jnp.asarray(a, 'float32'), jnp.asarray(b, 'float32')).block_until_ready()


def equal(p, q):
    """{who: (pairs, function)} of equal masses."""
    places = np.arange(p.shape[1], dtype=float)
    cost = np.abs(np.subtract.outer(places, places))
    cumulative = [np.cumsum(x, 1) for x in (p, q)]
    pairs = len(p) * len(q)
    many = 1000
    return {
        'emd_matrix': (pairs, partial(emd_matrix, p, q)),
        'cdist on cumulative sums': (pairs, lambda: cdist(*cumulative, 'cityblock')),
        'wasserstein_distance': (many, one_by_one(partial(wasserstein_distance, places, places), p, q, many)),
        'POT emd2_1d': (many, one_by_one(lambda a, b: ot.emd2_1d(places, places, a, b, 'cityblock'), p, q, many)),
        'OTT, on a line': (many, one_by_one(by_ott(places), p, q, many)),
        'POT emd2': (5, one_by_one(lambda a, b: ot.emd2(a, b, cost), p, q, 5)),
    }


def unequal(p, q):
    """The same of unequal masses."""
    places = np.arange(p.shape[1], dtype=float)
    cost = np.abs(np.subtract.outer(places, places))
    p = p[:16] * RNG.uniform(0.5, 2, (16, 1))
    q = q[:16] * RNG.uniform(0.5, 2, (16, 1))

    def by_pot(a, b):
        return ot.partial.partial_wasserstein2(a, b, cost, m=min(a.sum(), b.sum()))

    return {'partial_emd_matrix': (256, partial(partial_emd_matrix, p, q)), 'POT partial': (5, one_by_one(by_pot, p, q, 5))}


def table(title: str, runs: dict, rounds: int) -> None:
    times = measure({who: run for who, (_, run) in runs.items()}, rounds)
    rate = {who: pairs / statistics.median(wall for wall, _ in times[who]) for who, (pairs, _) in runs.items()}
    ours = next(iter(rate.values()))
    print(f'\n| {title} | pairs a second | ours is faster |\n|---|---|---|')
    for who, of in rate.items():
        print(f'| {who} | {of:,.0f} | {ours / of:,.1f} |', flush=True)


def grown(rows: int) -> None:
    """A line of the table of growth, of a process of its own: by how much a first call raises the most memory that it has held."""
    q = histograms(1000, BINS)
    p = np.concatenate([histograms(1000, BINS)] * (rows // 1000))
    emd_matrix(p[:10], q)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = emd_matrix(p, q)
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    began = time.perf_counter()
    emd_matrix(p, q)
    seconds = time.perf_counter() - began
    sizes = ' | '.join(f'{x.nbytes / 2**20:,.0f}' for x in (p, found))
    print(f'| {rows:,} | {seconds:.2f} | {1e9 * seconds / found.size:.1f} | {more:,.0f} | {sizes} |', flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--grown', type=int, help='only the line of the table of growth of so many rows')
    args = parser.parse_args()
    if args.grown:
        grown(args.grown)
        sys.exit()
    device = jax.devices()[0]
    print(f'{device.device_kind}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}')
    for name, (n, m, bins) in CASES.items():
        p = histograms(n, bins)
        q = histograms(m, bins)
        table(name, equal(p, q), args.rounds)
        table(f'unequal masses, {bins} bins', unequal(p, q), args.rounds)
    print(f'\n| rows x 1,000 of {BINS} bins | s | ns a pair | more memory, MiB | histograms, MiB | distances, MiB |\n|---|---|---|---|---|---|')
    for rows in GROWN:
        subprocess.run([sys.executable, __file__, f'--grown={rows}'], check=True)
    print(f'\nload after: {os.getloadavg()[0]:.1f}')
