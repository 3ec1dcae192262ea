"""Weights and images that two libraries can draw alike: by numpy, from a tensor's name in torch."""

from zlib import crc32

import numpy as np

IMAGE = (6, 3, 72, 56)  # batch, channels, height, width: sizes at which a pool meets an odd side


def draw(name, shape):
    """float32 tensor in torch's layout: kernels N(0, 2 / fan in), variances in [0.5, 1.5], scales in [0.25, 0.75] (so that
    blocks add little and a softmax in the last of them does not blow up rounding), the rest N(0, 0.01)."""
    rng = np.random.default_rng(crc32(name.encode()))
    if name.endswith('running_var'):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith('weight') and len(shape) == 1:
        value = rng.uniform(0.25, 0.75, shape)
    elif name.endswith('weight'):
        value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    else:
        value = rng.normal(0, 0.1, shape)
    return value.astype(np.float32)


def image(shape=IMAGE):
    """Images in [0, 1]: squares of 8 pixels and noise; the images differ in contrast, or normalising them would blow up
    rounding."""
    rng, (batch, channels, height, width) = np.random.default_rng(0), shape
    squares = rng.random((batch, channels, height // 8, width // 8)).repeat(8, 2).repeat(8, 3)
    contrast = np.linspace(0.1, 1, batch).reshape(-1, 1, 1, 1)
    return (contrast * (0.8 * squares + 0.2 * rng.random(shape))).astype(np.float32)


def sample(x, count=64):
    """`count` numbers, evenly spaced over the flattened array (channels last)."""
    x = np.asarray(x).ravel()
    return x[np.linspace(0, x.size - 1, count).astype(int)]
