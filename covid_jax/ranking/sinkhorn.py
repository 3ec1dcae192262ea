"""Earth mover's distances for any ground distance, nearly: OTT's Sinkhorn on all pairs of histograms, and how far from exact it is."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn

from covid_jax import UserError
from covid_jax.ranking.emd import all_pairs, checked

TINY = 1e-30


class Sinkhorn(NamedTuple):
    """distance: float32 [n, m], of a plan that moves all the mass, so never below the exact one; gap: float32 [n, m], how far it may be
    above it; converged: bool [n, m]."""

    distance: np.ndarray
    gap: np.ndarray
    converged: np.ndarray


def sinkhorn_matrix(p: np.ndarray, q: np.ndarray, cost: np.ndarray, epsilon: float = 0.01, iterations: int = 2000) -> Sinkhorn:
    """Distances of all pairs of histograms whose mass is made 1, for any ground distance, by OTT's Sinkhorn.

    cost: [bins, bins], what a unit of mass pays to go from bin i of p to bin j of q; at least 0. epsilon: of the entropy, by the largest
    cost: the smaller, the nearer and the slower. The plan is rounded to one that moves exactly the masses (Altschuler et al. 2017,
    Algorithm 2), and the gap is to what the potentials prove nothing can be below. UserError as in emd_matrix, and for
    another cost, epsilon or number of iterations.
    """
    p, q = checked(p, q)
    cost = np.asarray(cost, np.float64)
    if cost.shape != 2 * p.shape[1:] or not (np.isfinite(cost) & (cost >= 0)).all() or not cost.any():
        raise UserError(f'a ground distance of these histograms is an array of {2 * p.shape[1:]}, finite, at least 0 and not all 0')
    if not epsilon > 0 or iterations < 1:
        raise UserError(f'Sinkhorn needs an epsilon above 0 and an iteration or more, not {epsilon} and {iterations}')
    most = np.float32(cost.max())
    masses = [(x / x.sum(1, keepdims=True)).astype(np.float32) for x in (p, q)]
    distance, gap, converged = _sinkhorn(*masses, cost.astype(np.float32) / most, epsilon, iterations)
    return Sinkhorn(np.asarray(distance) * most, np.asarray(gap) * most, np.asarray(converged))


@partial(jax.jit, static_argnames='iterations')
def _sinkhorn(p, q, cost, epsilon, iterations):
    solver = sinkhorn.Sinkhorn(max_iterations=iterations)

    def of_pair(a, b):
        out = solver(linear_problem.LinearProblem(geometry.Geometry(cost, epsilon=epsilon), a, b))
        plan = _rounded(out.matrix, a, b)
        # The potentials that are nowhere above the cost, of whatever the solver left: their value is a lower bound.
        g = jnp.min(cost - out.f[:, None], 0)
        f = jnp.min(cost - g, 1)
        distance = jnp.sum(plan * cost)
        return distance, distance - jnp.dot(f, a) - jnp.dot(g, b), out.converged

    return all_pairs(of_pair, p, q)


def _rounded(plan, a, b):
    """A plan that moves exactly a to b, near to one that nearly does."""
    plan = plan * jnp.minimum(1, a / jnp.maximum(plan.sum(1), TINY))[:, None]
    plan = plan * jnp.minimum(1, b / jnp.maximum(plan.sum(0), TINY))
    lacks = a - plan.sum(1)
    return plan + jnp.outer(lacks, b - plan.sum(0)) / jnp.maximum(lacks.sum(), TINY)
