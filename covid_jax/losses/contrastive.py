"""Contrastive losses on rows of unit length. Per anchor or pair, in float32: the caller reduces."""

import jax
import jax.numpy as jnp


def supcon(z: jax.Array, label: jax.Array, temperature: float = 0.1, base_temperature: float | None = None) -> jax.Array:
    """Supervised contrastive loss of every anchor: CMC-COV19D (Hou et al. 2021) Eq 2; Khosla et al. 2020, L_out.

        L_i = -1 / |P(i)| sum_{j in P(i)} [ s_ij - log sum_{k != i} exp(s_ik) ],   s = z z^T / temperature,
        P(i) = {j != i : label_j = label_i}

    In Eq 2 |P(i)| is written 2 N_y - 1, with N_y the scans of that class before augmentation.

    Args:
      z: [n, dim], rows of unit length.
      label: int [n].
      temperature: > 0. The paper gives none; 0.1 is the authors' code.
      base_temperature: None is the paper's form; 0.07 multiplies by temperature / 0.07, as the authors' code does.

    Returns: float32 [n]; 0 for an anchor without a positive.
    """
    z = z.astype(jnp.float32)
    similarity = jnp.matmul(z, z.T, precision='highest') / temperature  # float32 on TPU and GPU too
    itself = jnp.eye(len(z), dtype=bool)
    positive = (label[:, None] == label[None, :]) & ~itself
    log_p = similarity - jax.nn.logsumexp(jnp.where(itself, -jnp.inf, similarity), 1, keepdims=True)
    loss = -jnp.sum(jnp.where(positive, log_p, 0.0), 1) / jnp.maximum(jnp.sum(positive, 1), 1)
    return loss if base_temperature is None else loss * (temperature / base_temperature)


def nt_xent(z: jax.Array, temperature: float = 0.1) -> jax.Array:
    """Normalised temperature-scaled cross entropy of every view: CMT-CNN (Li et al. 2021) Eq 1 and 2, whose mean is Eq 3;
    Chen et al. 2020 (SimCLR).

        l_i = -log [ exp(s_ij) / sum_{k != i} exp(s_ik) ],   s = z z^T / temperature,   j the other view of the same scan

    Args:
      z: [2 n, dim], rows of unit length, 2k and 2k + 1 the views of scan k; an odd row at the end has no other view, and 0.
      temperature: > 0.

    Returns: float32 [2 n]; all 0 for the views of one scan, which have nothing to be told from.
    """
    return supcon(z, jnp.arange(len(z)) // 2, temperature)


def label_pairs(z: jax.Array, label: jax.Array, temperature: float = 0.05) -> tuple[jax.Array, jax.Array]:
    """Contrastive loss of every pair of one class, whatever the sites: contrastive cross-site learning (Wang et al. 2020) Eq 4.

        l(m, n) = -log [ exp(s_mn) / (exp(s_mn) + sum_{k of another class} exp(s_mk)) ],   s = z z^T / temperature

    Eq 4 as printed has the other classes alone below the line, so that it falls without end; the positive is in it here, as in the
    authors' code (pytorch-metric-learning's NTXentLoss).

    Args:
      z: [n, dim], rows of unit length.
      label: int [n].
      temperature: > 0.

    Returns: float32 (float64 for float64) [n, n], 0 where m and n are no pair, and everywhere in a batch of one class; bool
    [n, n], which are pairs: of one class, in both orders, none with itself. The authors take the mean over the pairs.
    """
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    similarity = jnp.matmul(z, z.T, precision='highest') / temperature
    same = label[:, None] == label[None, :]
    pair = same & ~jnp.eye(len(z), dtype=bool)
    least = -0.5 * jnp.finfo(jnp.float32).max  # finite: the gradient of an empty sum is 0, not NaN
    others = jax.nn.logsumexp(jnp.where(same, least, similarity), 1, keepdims=True)
    return jnp.where(pair, jax.nn.softplus(others - similarity), 0.0), pair


def info_nce(query: jax.Array, key: jax.Array, queue: jax.Array, temperature: float = 0.07) -> tuple[jax.Array, jax.Array]:
    """Loss of telling each query's key from a queue of others: Self-Trans (He et al. 2020) Algorithm 1; He et al. 2020 (MoCo) Eq 1.

        l_i = -log [ exp(q_i k_i / t) / (exp(q_i k_i / t) + sum_j exp(q_i n_j / t)) ],   n_j the rows of the queue

    Eq 1 of Self-Trans as printed lacks t in the sum; its Algorithm 1 and its code have it.

    Args:
      query, key: [n, dim], rows of unit length, row i of both of one scan.
      queue: [K, dim], rows of unit length.
      temperature: t > 0.

    Returns: float32 (float64 for float64) [n]; bool [n], whether the key is nearer to its query than all of the queue.
    """
    query, key, queue = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (query, key, queue))
    own = jnp.sum(query * key, 1) / temperature
    others = jnp.matmul(query, queue.T, precision='highest') / temperature
    return jax.nn.softplus(jax.nn.logsumexp(others, 1) - own), own > jnp.max(others, 1)
