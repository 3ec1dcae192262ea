"""ResNet in 2D and 3D from one definition: He et al., "Deep Residual Learning" (2016), with the stride on the 3x3 (v1.5).

A network sees volumes. With `taps` 1 every kernel is one slice deep, and an image is a volume of one slice: that is the 2D
parent. With `taps` 3 the kernels that have a plane (k x k, k > 1) are three slices deep and 1x1 stay 1x1x1: that is the 3D
child (CMC-COV19D, section 3.4.1), and the parent's weights inflate into it, kernel by kernel. `depth_strides` says where
depth is halved: by default in stages 2 to 4, and nowhere with `taps` 1, the per-slice form that the authors ran.
ResNet18Hara and ResNet50Hara have the stem of Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and
ImageNet?" (2018), our reading of the dual-track ranking paper's "3D ResNet".

Names of torchvision's resnet50 and resnet18 (and timm's), by rule; kernels [out, in, kh, kw] -> [1, kh, kw, in, out]:

    conv1.weight                    conv1/kernel
    bn1.{weight,bias}               bn1/{scale,bias}
    bn1.running_{mean,var}          batch_stats: bn1/{mean,var}
    layer{i}.{j}.{conv,bn}{k}.*     layer{i}_{j}/{conv,bn}{k}/*         i from 1, j from 0, k in 1 2 3 (1 2 in resnet18)
    layer{i}.{j}.downsample.0.*     layer{i}_{j}/downsample_conv/*
    layer{i}.{j}.downsample.1.*     layer{i}_{j}/downsample_bn/*
    fc.{weight,bias}                classifier/Dense_0/{kernel,bias}    kernel transposed
"""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax.models.compute import Compute
from covid_jax.models.gru import SliceGRU
from covid_jax.models.heads import Classifier
from covid_jax.models.pool import max_pool

POINT = (1, 1, 1)
SHORTCUT = {'downsample_conv': 'downsample.0', 'downsample_bn': 'downsample.1'}
HALVED = (1, 1, 1, 2, 2, 2)


def torch_name(modules: Sequence[str], library: str = 'timm') -> str:
    """['layer1_0', 'downsample_bn'] -> 'layer1.0.downsample.1': what timm and torchvision call our module."""
    first, *inner = modules
    if first == 'classifier':
        return 'fc'
    return '.'.join([first.replace('_', '.'), *(SHORTCUT.get(m, m) for m in inner)])


class BasicBlock(nn.Module):
    """[batch, d, h, w, in] -> [batch, d', h', w', features]: two 3x3 convolutions and the shortcut."""

    features: int
    strides: tuple[int, int, int]
    taps: int
    conv: Callable
    norm: Callable
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = (self.taps, 3, 3)
        y = nn.relu(self.norm(name='bn1')(self.conv(self.features, kernel, self.strides, name='conv1')(x)))
        y = self.norm(name='bn2')(self.conv(self.features, kernel, name='conv2')(y))
        return nn.relu(y + _shortcut(self, x, y.shape[-1]))


class Bottleneck(nn.Module):
    """[batch, d, h, w, in] -> [batch, d', h', w', 4 features]: 1x1, strided 3x3, 1x1 and the shortcut."""

    features: int
    strides: tuple[int, int, int]
    taps: int
    conv: Callable
    norm: Callable
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(self.norm(name='bn1')(self.conv(self.features, POINT, name='conv1')(x)))
        y = self.conv(self.features, (self.taps, 3, 3), self.strides, name='conv2')(y)
        y = nn.relu(self.norm(name='bn2')(y))
        y = self.norm(name='bn3')(self.conv(4 * self.features, POINT, name='conv3')(y))
        return nn.relu(y + _shortcut(self, x, y.shape[-1]))


def _shortcut(block, x, features):
    if max(block.strides) == 1 and x.shape[-1] == features:
        return x
    return block.norm(name='downsample_bn')(block.conv(features, POINT, block.strides, name='downsample_conv')(x))


def plain_stem(x: jax.Array, conv: Callable, norm: Callable, kernel: tuple[int, int, int], width: int,
               strides: tuple[int, int, int]) -> jax.Array:
    """One convolution, by default 7x7."""
    return nn.relu(norm(name='bn1')(conv(width, kernel, strides, name='conv1')(x)))


class ResNet(nn.Module):
    """image in [0, 1], [batch, depth, height, width, channels] or without depth -> logits [batch, classes],
    {'map' [batch, (d,) h, w, dim], 'features' [batch, dim]}. An image has a map without depth.

    stage_sizes: blocks of each stage; block, stem: what they are made of.
    taps: depth of the kernels that have a plane; stem_taps: of the first one, where it differs.
    depth_strides: of the stem, its pool, and each stage; (): halved in stages 2 to 4, or nowhere with taps 1. An image is
      not strided in depth.
    summary: makes a module (slices' features [batch, d, dim], train, site, group) -> [batch, dim'] of a `compute`; None: the
      mean over the map.
    compute.remat: of the stem and each block.
    """

    stage_sizes: tuple[int, ...]
    classes: int
    block: type = Bottleneck
    stem: Callable = plain_stem
    width: int = 64
    stem_width: int = 64
    stem_plane: int = 7
    stem_taps: int | None = None
    taps: int = 3
    depth_strides: tuple[int, ...] = ()
    summary: Callable | None = None
    compute: Compute = Compute()

    def setup(self) -> None:
        self.classifier = Classifier(self.classes)
        if self.summary:
            self.slices = self.summary(compute=self.compute)

    @nn.compact
    def trunk(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
              group: jax.Array | None = None) -> jax.Array:
        """Last feature map, in the compute dtype."""
        conv = self.compute.conv()
        norm = self.compute.norms(train, site, group)
        depth_strides = self._depth_strides(image)
        taps = self.taps if self.stem_taps is None else self.stem_taps

        def stem(net, x):
            kernel = (taps, net.stem_plane, net.stem_plane)
            x = net.stem(x, conv, norm, kernel, net.stem_width, (depth_strides[0], 2, 2))
            window = (3 if depth_strides[1] > 1 else 1, 3, 3)
            return max_pool(x, window, (depth_strides[1], 2, 2), [(k // 2, k // 2) for k in window])

        x = self.compute.volume(image)
        x = self.compute.block(stem)(self, x)
        block = self.compute.block(self.block)
        for i, size in enumerate(self.stage_sizes):
            plane = 1 if i == 0 else 2
            for j in range(size):
                strides = (depth_strides[2 + i], plane, plane) if j == 0 else POINT
                x = block(self.width * 2**i, strides, self.taps, conv, norm, name=f'layer{i + 1}_{j}')(x)
        return x if image.ndim == 5 else x[:, 0]

    def _depth_strides(self, image):
        if image.ndim == 5 and (self.depth_strides or self.taps > 1):
            return self.depth_strides or HALVED
        return (1,) * (2 + len(self.stage_sizes))

    def head(self, x: jax.Array, train: bool = False, site: jax.Array | None = None,
             group: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Feature map -> logits [batch, classes], features [batch, dim], both float32."""
        x = x.astype(jnp.float32)
        if self.summary:
            slices = jnp.mean(x if x.ndim == 5 else x[:, None], (2, 3))
            features = self.slices(slices, train, site, group)
        else:
            features = jnp.mean(x, tuple(range(1, x.ndim - 1)))
        return self.classifier(features), features

    def __call__(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
                 group: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.trunk(image, train, site, group)
        logits, features = self.head(x, train, site, group)
        return logits, {'map': x, 'features': features}


ResNet18 = partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
ResNet50 = partial(ResNet, stage_sizes=(3, 4, 6, 3))
HARA = {'stem_taps': 7, 'depth_strides': (1, 2, 1, 2, 2, 2)}
ResNet18Hara = partial(ResNet18, **HARA)
ResNet50Hara = partial(ResNet50, **HARA)
# One block a stage and narrow: what a laptop trains on the phantom in minutes.
ResNet14Small = partial(ResNet, stage_sizes=(1, 1, 1, 1), width=12, stem_width=12)
# The challenge's baseline: a ResNet for each slice, and a GRU over the slices (see gru.py).
ResNet50GRU = partial(ResNet50, taps=1, summary=SliceGRU)
ResNet14GRUSmall = partial(ResNet14Small, taps=1, summary=partial(SliceGRU, units=16))
# For tests alone.
_ResNetTiny = partial(ResNet, stage_sizes=(1,), width=4, stem_width=4)
_ResNetGRUTiny = partial(_ResNetTiny, taps=1, summary=partial(SliceGRU, units=4))
