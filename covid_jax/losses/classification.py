"""Classification losses. Per example, in float32, on logits (never on probabilities): the caller reduces."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-sum_c target_c log softmax(logits)_c.

    logits [n, classes]; target [n, classes], rows that sum to 1 (one-hot, or mixed by mixup). Returns float32 [n].
    CMC-COV19D (Hou et al. 2021) Eq 4, and with mixed targets the summand of Eq 6.
    """
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), target)
