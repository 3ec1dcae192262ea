"""Classification losses. Per example, in float32, on logits (never on probabilities): the caller reduces."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import optax

POSITIVE = 1  # COVID is the second class


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-sum_c target_c log softmax(logits)_c.

    logits [n, classes]; target [n, classes], rows that sum to 1 (one-hot, or mixed by mixup). Returns float32 [n].
    CMC-COV19D (Hou et al. 2021) Eq 4, and with mixed targets the summand of Eq 6.
    """
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), target)


def focal(logits: jax.Array, target: jax.Array, gamma: float = 2.0, alpha: float = 0.25) -> jax.Array:
    """-sum_c target_c a_c (1 - p_c)^gamma log p_c of p = softmax(logits), with a = alpha of COVID, class 1, and 1 - alpha of others.

    logits [n, classes], two or more; target [n, classes], rows that sum to 1; gamma at least 0, alpha in [0, 1]. Returns float32 [n],
    not divided by the sum of a. Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), Eq 5: gamma 2 and alpha 0.25 are
    their best. optax has it of one logit alone, and so of two classes.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    classes = log_p.shape[-1]
    # The sum over the others, not 1 - p, which rounds to 0, where a power below 1 has an infinite slope.
    log_rest = jax.nn.logsumexp(log_p[:, None], -1, where=~jnp.eye(classes, dtype=bool))
    a = jnp.where(jnp.arange(classes) == POSITIVE, alpha, 1 - alpha)
    return -jnp.sum(target * a * jnp.exp(gamma * log_rest) * log_p, -1)


def ohem(losses: jax.Array, keep: float) -> jax.Array:
    """1 for the hardest rows, the ceil(keep n) of the largest loss, and 0 for the others: float32 [n], without a gradient.

    losses [n]; keep in (0, 1]. Of equal losses the first rows come first, and one that is not a number before all. The mean over the
    hardest is sum(losses w) / sum(w). Online hard example mining, Shrivastava et al. (CVPR 2016), of exams in place of regions.
    """
    kept = math.ceil(Fraction(str(keep)) * len(losses))  # in binary 0.55 * 20 is more than 11
    _, hardest = jax.lax.top_k(jax.lax.stop_gradient(losses), kept)
    return jnp.zeros(len(losses), jnp.float32).at[hardest].set(1.0)
