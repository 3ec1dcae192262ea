"""EfficientNet: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), 2D and 3D.

Table 1 of the paper is B0; B1 and B4 are its width and depth multiplied (section 3.3), widths rounded to multiples of 8,
repeats rounded up. A block is MBConv (Sandler et al., "MobileNetV2", 2018) with squeeze-and-excitation (Hu et al., 2018)
whose inner width is a quarter of the block's input. Padding is half the kernel on both sides, as in torch.

A network sees volumes. With `taps` None a kernel is as deep as it is wide, a stride halves depth with the plane, and the
squeeze is the mean over the volume: that is the 3D network (CMT-CNN). With `taps` 1 kernels are one slice deep, depth is
never strided, and an image is a volume of one slice: the published 2D networks.

Names of timm's efficientnet_b0, b1 and b4, by rule; kernels [out, in, kh, kw] -> [1, kh, kw, in, out]:

    conv_stem.weight, conv_head.weight              conv_stem/kernel, conv_head/kernel
    bn{1,2}.{weight,bias}                           bn{1,2}/{scale,bias}                1 the stem's, 2 the head's
    bn{1,2}.running_{mean,var}                      batch_stats: bn{1,2}/{mean,var}
    blocks.{i}.{j}.{conv_pw,conv_dw,conv_pwl}.*     blocks{i}_{j}/{conv_pw,conv_dw,conv_pwl}/*      i and j from 0
    blocks.{i}.{j}.bn{k}.*                          blocks{i}_{j}/bn{k}/*
    blocks.{i}.{j}.se.{conv_reduce,conv_expand}.*   blocks{i}_{j}/se/{conv_reduce,conv_expand}/*    both have a bias
    classifier.{weight,bias}                        classifier/Dense_0/{kernel,bias}    kernel transposed

A block that does not expand (stage 0) has conv_dw, bn1, se, conv_pw, bn2. torchvision numbers the same tensors: see
`torch_name`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax.models.compute import Compute
from covid_jax.models.conv import DepthwiseConv
from covid_jax.models.heads import Classifier
from covid_jax.models.resnet import POINT

# kernel, stride, expansion, features, blocks: stages 2 to 8 of Table 1
B0 = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
      (3, 1, 6, 320, 1))


class SqueezeExcite(nn.Module):
    """[batch, d, h, w, c] -> the same shape: each channel times a number in (0, 1) that knows the mean of all."""

    inner: int
    conv: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gate = jnp.mean(x, (1, 2, 3), keepdims=True)
        gate = nn.swish(self.conv(self.inner, POINT, use_bias=True, name='conv_reduce')(gate))
        return x * nn.sigmoid(self.conv(x.shape[-1], POINT, use_bias=True, name='conv_expand')(gate))


class MBConv(nn.Module):
    """[batch, d, h, w, in] -> [batch, d', h', w', features]: 1x1 to `expand` times the channels (where that is more),
    depthwise, squeeze-and-excitation, 1x1. Where the shape stays, the input is added, and in training the rest is left
    out of a row with probability `drop` (Huang et al., "Deep Networks with Stochastic Depth", 2016), else divided by
    1 - drop."""

    features: int
    kernel: tuple[int, int, int]
    strides: tuple[int, int, int]
    expand: int
    drop: float
    conv: Callable
    depthwise: Callable
    norm: Callable
    dropout: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        width = x.shape[-1]
        middle_norm, last_conv, last_norm = ('bn1', 'conv_pw', 'bn2') if self.expand == 1 else ('bn2', 'conv_pwl', 'bn3')
        if self.expand > 1:
            y = self.conv(self.expand * width, POINT, name='conv_pw')(y)
            y = nn.swish(self.norm(name='bn1')(y))
        y = self.depthwise(self.kernel, self.strides, name='conv_dw')(y)
        y = nn.swish(self.norm(name=middle_norm)(y))
        y = SqueezeExcite(width // 4, self.conv, name='se')(y)
        y = self.conv(self.features, POINT, name=last_conv)(y)
        y = self.norm(name=last_norm)(y)
        if max(self.strides) > 1 or width != self.features:
            return y
        return x + self.dropout(self.drop, broadcast_dims=(1, 2, 3, 4))(y)


class EfficientNet(nn.Module):
    """image in [0, 1], [batch, depth, height, width, channels] or without depth -> logits [batch, classes],
    {'map' [batch, (d,) h, w, dim], 'features' [batch, dim]}. An image has a map without depth.

    stages: kernel, stride, expansion, features and blocks of each, before scaling; stem_width, head_width: the same.
    widen, deepen: what features and blocks are multiplied by.
    taps: depth of the kernels that have a plane; None: as deep as wide. 1: nothing is strided in depth.
    dropout: of the features; drop_connect: of a block, times the share of the blocks that come before it.
    epsilon, momentum: of the normalisation, as timm and torchvision have them; TensorFlow's are 1e-3 and 0.99.
    compute.remat: of the stem and each block.
    """

    classes: int
    stages: tuple[tuple[int, ...], ...] = B0
    widen: float = 1.0
    deepen: float = 1.0
    stem_width: int = 32
    head_width: int = 1280
    taps: int | None = None
    dropout: float = 0.2
    drop_connect: float = 0.2
    epsilon: float = 1e-5
    momentum: float = 0.9
    compute: Compute = Compute()

    def setup(self) -> None:
        self.classifier = Classifier(self.classes)
        self.forget = nn.Dropout(self.dropout)  # what it drops depends on its name

    @nn.compact
    def trunk(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
              group: jax.Array | None = None) -> jax.Array:
        """Last feature map, in the compute dtype."""
        conv = self.compute.conv(kernel_init=nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'))
        depthwise = self.compute.conv(DepthwiseConv)
        norm = self.compute.norms(train, site, group, momentum=self.momentum, epsilon=self.epsilon)
        dropout = partial(nn.Dropout, deterministic=not train)

        def stem(net, x):
            width = rounded(net.widen * net.stem_width)
            x = conv(width, net._kernel(3), net._strides(2), name='conv_stem')(x)
            return nn.swish(norm(name='bn1')(x))

        x = self.compute.volume(image)
        x = self.compute.block(stem)(self, x)
        block = self.compute.block(MBConv)
        done = 0
        repeats = [math.ceil(self.deepen * stage[-1]) for stage in self.stages]
        for i, (k, stride, expand, features, _) in enumerate(self.stages):
            for j in range(repeats[i]):
                strides = self._strides(stride if j == 0 else 1)
                drop = self.drop_connect * done / sum(repeats)
                x = block(rounded(self.widen * features), self._kernel(k), strides, expand, drop, conv, depthwise, norm, dropout,
                          name=f'blocks{i}_{j}')(x)
                done += 1
        x = conv(rounded(self.widen * self.head_width), POINT, name='conv_head')(x)
        x = nn.swish(norm(name='bn2')(x))
        return x if image.ndim == 5 else x[:, 0]

    def _kernel(self, k):
        return self.taps or k, k, k

    def _strides(self, s):
        return 1 if self.taps == 1 else s, s, s

    def head(self, x: jax.Array, train: bool = False, site: jax.Array | None = None,
             group: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Feature map -> logits [batch, classes], features [batch, dim], both float32; dropout comes after the features."""
        features = jnp.mean(x.astype(jnp.float32), tuple(range(1, x.ndim - 1)))
        return self.classifier(self.forget(features, deterministic=not train)), features

    def __call__(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
                 group: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.trunk(image, train, site, group)
        logits, features = self.head(x, train, site, group)
        return logits, {'map': x, 'features': features}


def rounded(width: float, to: int = 8) -> int:
    """The multiple of 8 nearest to `width`, or the next one where that takes away more than a tenth."""
    near = max(to, int(width + to / 2) // to * to)
    return near + to if near < 0.9 * width else near


def torch_name(modules: Sequence[str], library: str = 'timm') -> str:
    """The dotted name in timm, or in torchvision's efficientnet_b0, b1 and b4, of one of our modules.

    modules: the path below 'params', without the leaf: ['blocks1_0', 'se', 'conv_reduce'] -> 'blocks.1.0.se.conv_reduce',
    or 'features.2.0.block.2.fc1'.
    """
    first, *inner = modules
    if first == 'classifier':
        return 'classifier.1' if library == 'torchvision' else 'classifier'
    if not first.startswith('blocks'):
        return TORCHVISION[first] if library == 'torchvision' else first
    stage, j = first.removeprefix('blocks').split('_')
    if library == 'timm':
        return '.'.join(['blocks', stage, j, *inner])
    parts = PLAIN if stage == '0' else EXPANDED
    return f'features.{int(stage) + 1}.{j}.block.{parts[inner[-1]]}'


TORCHVISION = {'conv_stem': 'features.0.0', 'bn1': 'features.0.1', 'conv_head': 'features.8.0', 'bn2': 'features.8.1'}
EXPANDED = {'conv_pw': '0.0', 'bn1': '0.1', 'conv_dw': '1.0', 'bn2': '1.1', 'conv_reduce': '2.fc1', 'conv_expand': '2.fc2',
            'conv_pwl': '3.0', 'bn3': '3.1'}
PLAIN = {'conv_dw': '0.0', 'bn1': '0.1', 'conv_reduce': '1.fc1', 'conv_expand': '1.fc2', 'conv_pw': '2.0', 'bn2': '2.1'}

EfficientNetB0 = partial(EfficientNet, widen=1.0, deepen=1.0, dropout=0.2)  # section 5.1 and the authors' code
EfficientNetB1 = partial(EfficientNet, widen=1.0, deepen=1.1, dropout=0.2)
EfficientNetB4 = partial(EfficientNet, widen=1.4, deepen=1.8, dropout=0.4)
# For tests alone.
_EfficientNetTiny = partial(EfficientNet, stages=((3, 2, 1, 8, 1), (3, 1, 2, 8, 1)), stem_width=8, head_width=16)
