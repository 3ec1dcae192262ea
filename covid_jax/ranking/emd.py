"""Earth mover's distances of all pairs of histograms: least work that turns one into the other, by the mass that is moved.

Rubner, Tomasi and Guibas, "The Earth Mover's Distance as a Metric for Image Retrieval" (2000); dual-track ranking (Li et al., IEEE JBHI
2020), Eq 3 and 4, which leaves the ground distance open. Histograms are rows [n, bins] and [m, bins], numpy, finite, at least 0, none of
them all 0. Distances are float32 [n, m], numpy.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from covid_jax import UserError

GROUNDS = 'index', 'value', 'uniform'
BINS = 16  # that are added to the distances of a block of pairs at once
CELLS = 2**20  # pairs of a block
CHUNK = 32  # pairs that are solved side by side, where there is no closed form


def emd_matrix(p: np.ndarray, q: np.ndarray, ground: str = 'index', mesh: Mesh | None = None) -> np.ndarray:
    """Distances of all pairs of histograms whose mass is made 1, in closed form.

    ground: what a unit of mass pays to go from bin i to bin j.
      index:   |i - j| / (bins - 1)
      uniform: 1, unless i = j: half the sum of differences
      value:   the bins have no places: the numbers of a row are samples, each of mass 1 / bins, and pay how far their values are apart;
               they may be of any sign
    mesh: over whose devices the rows of p are cut, every host with the same histograms, to which all distances come; None: the first
    device. Memory is that of the distances and of the histograms. UserError for what are no histograms of the same bins.
    """
    a, b = (_placed(x, ground) for x in checked(p, q, masses=ground != 'value'))
    devices = mesh.size if mesh else 1
    a = np.pad(a, ((0, -len(p) % devices), (0, 0)))
    rows = len(a) // devices
    of_device = partial(_manhattan, blocks=min(rows, -(-rows * len(q) // CELLS)))
    if mesh is None:
        return np.asarray(of_device(a, b))
    cut = PartitionSpec(mesh.axis_names[0])
    of_all = jax.shard_map(of_device, mesh=mesh, in_specs=(cut, PartitionSpec()), out_specs=cut)
    return np.asarray(jax.jit(of_all, out_shardings=NamedSharding(mesh, PartitionSpec()))(a, b))[:len(p)]


def checked(p: np.ndarray, q: np.ndarray, masses: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64. UserError for what are no histograms of the same bins; masses: False for samples, of which any finite will do."""
    p = np.asarray(p, np.float64)
    q = np.asarray(q, np.float64)
    if p.ndim != 2 or q.ndim != 2 or p.shape[1] != q.shape[1] or p.shape[1] < 2 or not p.size or not q.size:
        raise UserError(f'histograms are rows of the same two or more bins; here are arrays of {p.shape} and {q.shape}')
    for name, x in (('first', p), ('second', q)):
        _refuse(name, ~np.isfinite(x).all(1), 'has finite masses, and this others')
        if masses:
            _refuse(name, (x < 0).any(1), 'has masses of 0 or more, and this others')
            _refuse(name, x.sum(1) == 0, 'has some mass, and this is all 0')
    return p, q


def _refuse(name, rows, why):
    """UserError for the first of these rows, bool [n]."""
    if rows.any():
        raise UserError(f'row {np.argmax(rows)} of the {name} histograms: a histogram {why}')


def _placed(x, ground):
    """Rows float32 [n, d] whose sum of differences is the distance: the line makes a distribution of its cumulative sum."""
    bins = x.shape[1]
    if ground == 'value':
        return _single(np.sort(x, 1), 1 / bins)
    if ground == 'uniform':
        return _single(x, 0.5 / x.sum(1, keepdims=True))
    if ground == 'index':
        x = np.cumsum(x, 1)
        return _single(x[:, :-1], 1 / (bins - 1) / x[:, -1:])
    raise UserError(f'no ground distance is called {ground!r}: take {", ".join(GROUNDS[:-1])} or {GROUNDS[-1]}')


def _single(x, by):
    """x * by as float32."""
    return np.multiply(x, by, out=np.empty(x.shape, np.float32), casting='same_kind')


@partial(jax.jit, static_argnames='blocks')
def _manhattan(a, b, blocks):
    """Sums of differences [n, m] of rows [n, d] and [m, d], the first in so many blocks."""
    rows = len(a)
    a = jnp.pad(a, ((0, -rows % blocks), (0, -a.shape[1] % BINS))).T.reshape(-1, BINS, blocks, -(-rows // blocks))
    b = jnp.pad(b, ((0, 0), (0, -b.shape[1] % BINS))).T.reshape(-1, BINS, len(b))

    def add(total, of_bins):
        x, y = of_bins
        # Term by term, in pairs: a sum over an axis would be computed from all differences, which do not fit.
        return total + _in_pairs([jnp.abs(x[i][:, None] - y[i]) for i in range(BINS)]), None

    def of_block(a):
        start = a[0, 0][:, None] * 0 + jnp.zeros(b.shape[2])
        return jax.lax.scan(add, start, (a, b))[0]

    return jax.lax.map(of_block, jnp.moveaxis(a, 2, 0)).reshape(-1, b.shape[2])[:rows]


def _in_pairs(terms):
    """Their sum, pair by pair: in a chain each addition would wait for the one before it."""
    while len(terms) > 1:
        terms = [x + y for x, y in zip(terms[::2], terms[1::2], strict=True)]
    return terms[0]


def partial_emd_matrix(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Distances of all pairs of histograms as they are: what the heavier one has too much goes nowhere and costs nothing.

    The ground distance is |i - j| / (bins - 1). Eq 3 and 4 as printed: the least work of moving the lighter mass, by that mass. Exact, in
    float64, at a cost of the square of the bins for a pair. Unequal masses make no metric: a histogram that is nowhere less than another
    has distance 0 to it. UserError as in emd_matrix.
    """
    p, q = checked(p, q)
    least = np.minimum(p.sum(1)[:, None], q.sum(1)[None])
    with jax.enable_x64(True):  # of a mass a thousand times the other float32 would leave three digits
        work = np.asarray(_partial(p, q))
    return (work / least / (p.shape[1] - 1)).astype(np.float32)


def all_pairs(of_pair: Callable[[jax.Array, jax.Array], Any], p: jax.Array, q: jax.Array) -> Any:
    """What a function of two histograms tells of all pairs, each number an array [n, m], CHUNK of them side by side."""
    i, j = (x.ravel() for x in jnp.meshgrid(jnp.arange(len(p)), jnp.arange(len(q)), indexing='ij'))
    found = jax.lax.map(lambda pair: of_pair(p[pair[0]], q[pair[1]]), (i, j), batch_size=CHUNK)
    return jax.tree.map(lambda x: x.reshape(len(p), len(q)), found)


@jax.jit
def _partial(p, q):
    return all_pairs(_least_work, p, q)


def _least_work(p, q):
    """The least work of serving all of the lighter of two histograms [bins] from the heavier, |i - j| a unit of mass.

    With F the cumulative sum of the heavier less the lighter, and R that of what the heavier keeps (0 <= R_k - R_{k-1} <= its mass at k,
    R_end the surplus), the work is the least sum of |F_k - R_k|. Up to a bin its least value is a convex function of R_k, a line between
    kinks, of which all of a bin's mass moves the upper half: their places, sorted, are all that a step needs.
    """
    bins = len(p)
    heavier = p.sum() >= q.sum()
    high = jnp.where(heavier, p, q)
    low = jnp.where(heavier, q, p)
    surplus = jnp.cumsum(high - low)
    upper = jnp.arange(2 * bins) >= bins

    def step(carry, of_bin):
        work, kinks = carry
        own, f, most = of_bin
        kinks = kinks + jnp.where(upper, own, 0)
        at = jnp.clip(f, 0, most)
        apart = jnp.maximum(kinks[bins - 1] - at, at - kinks[bins])
        work = work + jnp.abs(f - at) + jnp.maximum(0, apart)
        # |f - R| bends twice at `at`: sorted in twice, and what is least and greatest leaves
        before = jnp.concatenate([jnp.zeros(1), kinks[:-1]])
        after = jnp.concatenate([kinks[1:], most[None]])
        return (work, jnp.clip(at, before, after)), None

    start = jnp.zeros(()), jnp.zeros(2 * bins)
    (work, kinks), _ = jax.lax.scan(step, start, (high, surplus, jnp.cumsum(high)))
    return work + jnp.sum(jnp.maximum(0, jnp.where(upper, surplus[-1] - kinks, kinks - surplus[-1])))
