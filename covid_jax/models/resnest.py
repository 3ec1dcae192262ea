"""ResNeSt: Zhang et al., "ResNeSt: Split-Attention Networks" (2020), in 2D and 3D as resnet.py says.

Radix 2, cardinality 1, deep stem, average-pooled shortcuts, and the stride of a stage as an average pool after the
split attention (avd). The two splits are two dense convolutions from the halves of the channels; what is stored keeps
the layout of the grouped one. The stem and its pool halve the plane alone, each later stage halves depth too, as the
authors of CMC-COV19D do; their own network is ResNeSt50(taps=1, stem_plane=7).

Names of timm's resnest50d (and the authors' resnest50), by rule; kernels [out, in, kh, kw] -> [1, kh, kw, in, out]:

    conv1.{0,3,6}.weight, conv1.{1,4}.*, bn1.*      stem_conv{0,1,2}/kernel, stem_bn{0,1}/*, stem_bn2/*
    layer{i}.{j}.{conv1,bn1,conv3,bn3}.*            layer{i}_{j}/{conv1,bn1,conv3,bn3}/*        i from 1, j from 0
    layer{i}.{j}.conv2.{conv,bn0,fc1,bn1,fc2}.*     layer{i}_{j}/conv2/{conv,bn0,fc1,bn1,fc2}/*     fc1, fc2 have a bias
    layer{i}.{j}.downsample.1.*                     layer{i}_{j}/downsample_conv/*
    layer{i}.{j}.downsample.2.*                     layer{i}_{j}/downsample_bn/*
    fc.{weight,bias}                                classifier/Dense_0/{kernel,bias}            kernel transposed
"""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax.models.pool import avg_pool
from covid_jax.models.resnet import HALVED, POINT, ResNet

STEM = {'stem_conv0': 'conv1.0', 'stem_bn0': 'conv1.1', 'stem_conv1': 'conv1.3', 'stem_bn1': 'conv1.4',
        'stem_conv2': 'conv1.6', 'stem_bn2': 'bn1'}
SHORTCUT = {'downsample_conv': 'downsample.1', 'downsample_bn': 'downsample.2'}


def torch_name(modules: Sequence[str], library: str = 'timm') -> str:
    """['layer1_0', 'conv2', 'fc1'] -> 'layer1.0.conv2.fc1': what timm and the authors call our module."""
    first, *inner = modules
    if first == 'classifier':
        return 'fc'
    return '.'.join([STEM.get(first, first.replace('_', '.')), *(SHORTCUT.get(m, m) for m in inner)])


class SplitAttention(nn.Module):
    """[batch, d, h, w, features] -> the same shape: two splits, weighted by a softmax that sees both (section 3.1)."""

    features: int
    taps: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        splits = self.conv(2 * self.features, (self.taps, 3, 3), groups=2, join=False, name='conv')(x)
        splits = [nn.relu(split) for split in self.norm(name='bn0')(*splits)]
        gap = sum(jnp.mean(split, (1, 2, 3), keepdims=True) for split in splits)
        inner = max(self.features * 2 // 4, 32)
        attention = self.conv(inner, POINT, use_bias=True, name='fc1')(gap)
        attention = nn.relu(self.norm(name='bn1')(attention))
        attention = self.conv(2 * self.features, POINT, use_bias=True, name='fc2')(attention)
        weights = jax.nn.softmax(jnp.stack(jnp.split(attention.astype(jnp.float32), 2, -1)), 0).astype(x.dtype)
        return weights[0] * splits[0] + weights[1] * splits[1]


class SplitBottleneck(nn.Module):
    """[batch, d, h, w, in] -> [batch, d', h', w', 4 features]: 1x1, split attention, pool, 1x1 and the shortcut."""

    features: int
    strides: tuple[int, int, int]
    taps: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        strides = self.strides
        y = nn.relu(self.norm(name='bn1')(self.conv(self.features, POINT, name='conv1')(x)))
        y = SplitAttention(self.features, self.taps, self.conv, self.norm, name='conv2')(y)
        window = [3 if n > 1 else 1 for n in strides]
        y = avg_pool(y, window, strides, [(k // 2, k // 2) for k in window])
        y = self.norm(name='bn3')(self.conv(4 * self.features, POINT, name='conv3')(y))
        if max(strides) > 1 or x.shape[-1] != 4 * self.features:
            to_whole_windows = [(0, -size % n) for size, n in zip(x.shape[1:4], strides, strict=True)]
            x = avg_pool(x, strides, strides, to_whole_windows, count_include_pad=False)
            x = self.norm(name='downsample_bn')(self.conv(4 * self.features, POINT, name='downsample_conv')(x))
        return nn.relu(x + y)


def deep_stem(x: jax.Array, conv: Callable, norm: Callable, kernel: tuple[int, int, int], width: int,
              strides: tuple[int, int, int]) -> jax.Array:
    """Three convolutions: the strided one with `kernel`, then two 3x3, the last twice as wide."""
    small = (kernel[0], 3, 3)
    layers = (width, kernel, strides), (width, small, POINT), (2 * width, small, POINT)
    for i, layer in enumerate(layers):
        x = conv(*layer, name=f'stem_conv{i}')(x)
        x = nn.relu(norm(name=f'stem_bn{i}')(x))
    return x


ResNeSt = partial(ResNet, block=SplitBottleneck, stem=deep_stem, stem_plane=3, stem_width=32, depth_strides=HALVED)
ResNeSt50 = partial(ResNeSt, stage_sizes=(3, 4, 6, 3))
# One block a stage and narrow: what a laptop trains on the phantom in minutes.
ResNeSt14Small = partial(ResNeSt, stage_sizes=(1, 1, 1, 1), width=12, stem_width=8)
# For tests alone.
_ResNeStTiny = partial(ResNeSt, stage_sizes=(1,), width=4, stem_width=4)
