"""Mixup of two views of every scan (Zhang et al. 2018; CMC-COV19D Eq 5), with a partner that stays on the device."""

import jax
import jax.numpy as jnp


def partner_views(x: jax.Array, swap: jax.Array) -> jax.Array:
    """Each view's partner: the view of the neighbouring scan.

    Scan k is paired with scan k ^ 1 of the (already shuffled) batch. A random permutation in its place would gather the
    whole batch of volumes on every device.

    Args:
      x: [2 n, ...], views interleaved: rows 2k and 2k + 1 are the two views of scan k; n even.
      swap: bool [n / 2], one coin a pair of scans: which of the partner's two views meets which of ours.

    Returns: [2 n, ...], row i the partner of row i. The relation is symmetric.
    """
    pairs = x.reshape(-1, 2, 2, *x.shape[1:])[:, ::-1]  # [pair, scan, view, ...]
    coin = swap.reshape(-1, *[1] * (pairs.ndim - 1))
    return jnp.where(coin, pairs[:, :, ::-1], pairs).reshape(x.shape)


def mix(x: jax.Array, partner: jax.Array, weight: jax.Array | float) -> jax.Array:
    """weight * x + (1 - weight) * partner: images and one-hot labels alike (Eq 5)."""
    return weight * x + (1 - weight) * partner
