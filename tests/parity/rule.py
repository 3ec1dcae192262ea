"""Weights and images that two libraries can draw alike: by numpy, from the names of a network and of its tensors in torch."""

from zlib import crc32

import numpy as np

IMAGES = {  # torch's layout; the sizes of the first are such that a pool meets an odd side
    **dict.fromkeys(('resnet18', 'resnet50', 'resnest50d', 'efficientnet_b0', 'efficientnet_b1', 'efficientnet_b4'),
                    (6, 3, 72, 56)),
    'resnet18_3d': (3, 1, 24, 36, 28), 'efficientnet_b0_3d': (3, 1, 24, 36, 28), 'resnest14_3d': (2, 1, 16, 56, 72),
    'densenet121': (3, 3, 64, 64), 'densenet169': (3, 3, 64, 64), 'vgg16': (2, 3, 64, 64), 'vgg19': (2, 3, 64, 64),
    'vgg19_3d': (2, 1, 32, 32, 64), 'crnet': (2, 1, 224, 224), 'covidnet': (6, 3, 144, 112),
    'covidnet_redesign': (6, 3, 144, 112),
}
SHEETS = {  # the images that volumes are cut from
    'resnet18_3d': (6, 3, 72, 56), 'efficientnet_b0_3d': (6, 3, 72, 56), 'resnest14_3d': (2, 16, 56, 72),
    'vgg19_3d': (2, 32, 32, 64),
}
# With smaller ones nothing of the image is left behind the gates of an EfficientNet.
SCALES = {'efficientnet_b0': 2.1, 'efficientnet_b1': 1.95, 'efficientnet_b4': 1.85, 'efficientnet_b0_3d': 2.4}
# Sixteen blocks of five convolutions without the ReLU that a gain of 2 is for.
GAINS = {'covidnet': 0.8, 'covidnet_redesign': 0.8}
CHANNELS = 8  # of each normalisation whose statistics are recorded


def draw(name, shape, network=None):
    """float32 tensor in torch's layout: kernels N(0, gain / fan in), variances in [0.5, 1.5], scales in [0.25, 0.75] times
    the network's (so that blocks add little and a softmax in the last of them does not blow up rounding), the rest
    N(0, 0.01)."""
    rng = np.random.default_rng(crc32(name.encode()))
    if name.endswith('running_var'):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith('weight') and (len(shape) == 1 or '_norm.' in name):
        value = SCALES.get(network, 1.0) * rng.uniform(0.25, 0.75, shape)
    elif name.endswith('weight'):
        value = rng.normal(0, np.sqrt(GAINS.get(network, 2) / np.prod(shape[1:])), shape)
    else:
        value = rng.normal(0, 0.1, shape)
    return value.astype(np.float32)


def image(network):
    """Images in [0, 1]: squares of 8 pixels and noise; the images differ in contrast, or normalising them would blow up
    rounding."""
    shape = IMAGES[network]
    drawn = SHEETS.get(network, shape)
    rng = np.random.default_rng(0)
    batch, channels, height, width = drawn
    squares = rng.random((batch, channels, height // 8, width // 8)).repeat(8, 2).repeat(8, 3)
    contrast = np.linspace(0.1, 1, batch).reshape(-1, 1, 1, 1)
    return (contrast * (0.8 * squares + 0.2 * rng.random(drawn))).astype(np.float32).reshape(shape)


def sample(x, count=64):
    """`count` numbers, evenly spaced over the flattened array (channels last)."""
    x = np.asarray(x).ravel()
    return x[np.linspace(0, x.size - 1, count).astype(int)]
