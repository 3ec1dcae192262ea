"""What MS-Net adds to a network of several sites: a classifier of each site, which teaches the one of all.

Liu, Dou, Yu and Heng, "MS-Net: Multi-Site Network for Improving Prostate Segmentation with Heterogeneous MRI Data" (2020), with
cross entropy in place of Dice; a baseline of contrastive cross-site learning (section IV.C.2).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax.losses.classification import cross_entropy
from covid_jax.models.norm import of_sites


def teachers(net: nn.Module, key: jax.Array, feature_map: jax.Array, sites: int) -> dict:
    """Parameters of `sites` classifiers like the network's own head, each started from a key of its own: [sites, ...]."""
    return jax.vmap(lambda k: net.init(k, feature_map, method='head')['params'])(jax.random.split(key, sites))


def taught(net: nn.Module, params: dict, feature_map: jax.Array, site: jax.Array) -> jax.Array:
    """What of each row the teacher of its own site says: logits [batch, classes]. params: of `teachers`; site: int [batch]."""
    of_all = jax.vmap(lambda head: net.apply({'params': head}, feature_map, method='head')[0])(params)
    sites, rows, _ = of_all.shape
    return jnp.einsum('sbn,bs->bn', of_all, of_sites(site, sites, rows), precision='highest')


def student_loss(logits: jax.Array, teacher: jax.Array, target: jax.Array) -> jax.Array:
    """What the classifier of all sites learns from: half the labels, half what the row's teacher takes for most probable.

    logits, teacher, target: [batch, classes]; the target is one-hot. The teacher has no gradient of it.
    """
    most_probable = jax.nn.one_hot(jnp.argmax(teacher, -1), logits.shape[-1])
    return 0.5 * jnp.mean(cross_entropy(logits, target)) + 0.5 * jnp.mean(cross_entropy(logits, most_probable))
