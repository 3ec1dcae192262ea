"""Which negatives are worth learning from: difficulty, diversity, and a choice by rank.

Dual-track ranking (Li et al., IEEE JBHI 2020), sections IV.D and IV.E. The soft label of a negative are its distances to all positives:
float [negatives, positives], a row each. Ranks are whole numbers from 1, the most valuable first; ties are in the order of the rows.
"""

import numpy as np

from covid_jax import UserError

LAWS = 'long-tail', 'normal', 'top', 'random'
ALPHA = 0.5  # of the rank by difficulty, in the joint rank; the rest is of the rank by diversity


def difficulty(soft: np.ndarray) -> np.ndarray:
    """Eq 5: the mean distance to the positives, [negatives]; the smaller, the harder to tell from them."""
    return soft.mean(1)


def diversity(apart: np.ndarray) -> np.ndarray:
    """Eq 6: the mean distance of a soft label to those of all other negatives, [negatives], from the distances [negatives, negatives];
    the larger, the less is it like them. UserError for a single negative."""
    n = len(apart)
    if n < 2:
        raise UserError('the diversity of a single negative is not defined: give two or more')
    return (apart.sum(1) - np.diag(apart)) / (n - 1)


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value, the least 1."""
    found = np.empty(len(values), int)
    found[np.argsort(values, kind='stable')] = np.arange(1, len(values) + 1)
    return found


def joint_ranks(dif: np.ndarray, div: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """Eq 7: the ranks of alpha * (rank by difficulty, the hardest first) + (1 - alpha) * (rank by diversity, the most diverse first).

    The paper's arrows are those of ascending and descending order. alpha 1 and 0 are the single tracks.
    """
    return ranks(alpha * ranks(dif) + (1 - alpha) * ranks(-div))


def choose(rank: np.ndarray, count: int, law: str, seed: int = 0) -> np.ndarray:
    """The places of `count` negatives, in order, chosen by their ranks [negatives] without replacement.

    law: top: the first; random: all alike. By weight (which the paper does not give): long-tail: 1 / rank; normal: a bell over the ranks
    about their middle, its deviation a sixth of them. UserError for another law, and for more than there are.
    """
    n = len(rank)
    if not 1 <= count <= n:
        raise UserError(f'{count} of {n} negatives cannot be chosen')
    if law not in LAWS:
        raise UserError(f'negatives are chosen by no law called {law!r}: take {", ".join(LAWS)}')
    if law == 'top':
        return np.sort(np.argsort(rank, kind='stable')[:count])
    log_weight = {'random': 0 * rank, 'long-tail': -np.log(rank), 'normal': -((rank - n / 2) / (n / 6))**2 / 2}[law]
    # The largest of so many Gumbel variables, each moved by its log weight, are draws without replacement.
    return np.sort(np.argsort(-(log_weight + np.random.default_rng(seed).gumbel(size=n)))[:count])
