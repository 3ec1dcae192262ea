"""Weights and images that two libraries can draw alike: by numpy, from a tensor's name in torch."""

from zlib import crc32

import numpy as np

IMAGE = (4, 3, 72, 56)  # batch, channels, height, width: sizes at which a pool meets an odd side


def draw(name, shape):
    """float32 tensor in torch's layout: kernels N(0, 2 / fan in), scales and variances in [0.5, 1.5], the rest N(0, 0.01)."""
    rng = np.random.default_rng(crc32(name.encode()))
    if name.endswith('running_var') or (name.endswith('weight') and len(shape) == 1):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith('weight'):
        value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    else:
        value = rng.normal(0, 0.1, shape)
    return value.astype(np.float32)


def image():
    """IMAGE, in [0, 1]."""
    return np.random.default_rng(0).random(IMAGE, np.float32)


def sample(x, count=64):
    """`count` numbers, evenly spaced over the flattened array (channels last)."""
    x = np.asarray(x).ravel()
    return x[np.linspace(0, x.size - 1, count).astype(int)]
