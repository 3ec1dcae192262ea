"""ResNeSt in 3D: Zhang et al., "ResNeSt: Split-Attention Networks" (2020), inflated in depth as CMC-COV19D section 3.4.1.

Radix 2, cardinality 1, deep stem, average-pooled shortcuts, and the stride of a stage as an average pool after the split
attention (avd). The 3x3 kernels are inflated to 3x3x3, 1x1 stay 1x1x1; the stem and its pool halve the plane alone, each
later stage halves depth too, as the authors' network does.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax.models.conv import Conv, avg_pool, max_pool
from covid_jax.models.heads import Classifier
from covid_jax.models.norm import BatchNorm

POINT, CUBE = (1, 1, 1), (3, 3, 3)


class SplitAttention(nn.Module):
    """[batch, d, h, w, features] -> the same shape: two splits, weighted by a softmax that sees both (section 3.1)."""

    features: int
    conv: nn.Module
    norm: nn.Module

    @nn.compact
    def __call__(self, x):
        x = nn.relu(self.norm(name='bn0')(self.conv(2 * self.features, CUBE, groups=2, name='conv')(x)))
        splits = jnp.split(x, 2, -1)
        gap = jnp.mean(splits[0] + splits[1], (1, 2, 3), keepdims=True)
        inner = max(self.features * 2 // 4, 32)
        attention = nn.relu(self.norm(name='bn1')(self.conv(inner, POINT, use_bias=True, name='fc1')(gap)))
        attention = self.conv(2 * self.features, POINT, use_bias=True, name='fc2')(attention)
        weights = jax.nn.softmax(jnp.stack(jnp.split(attention.astype(jnp.float32), 2, -1)), 0).astype(x.dtype)
        return weights[0] * splits[0] + weights[1] * splits[1]


class Bottleneck(nn.Module):
    """1x1x1, split attention, 1x1x1 to four times the width, plus the shortcut."""

    features: int
    strides: int
    conv: nn.Module
    norm: nn.Module

    @nn.compact
    def __call__(self, x):
        s = self.strides
        y = nn.relu(self.norm(name='bn1')(self.conv(self.features, POINT, name='conv1')(x)))
        y = SplitAttention(self.features, self.conv, self.norm, name='conv2')(y)
        if s > 1:
            y = avg_pool(y, CUBE, (s,) * 3, ((1, 1),) * 3)
        y = self.norm(name='bn3')(self.conv(4 * self.features, POINT, name='conv3')(y))
        if s > 1 or x.shape[-1] != 4 * self.features:
            ceil = [(0, -n % s) for n in x.shape[1:4]]
            x = avg_pool(x, (s,) * 3, (s,) * 3, ceil, count_include_pad=False)
            x = self.norm(name='downsample_bn')(self.conv(4 * self.features, POINT, name='downsample_conv')(x))
        return nn.relu(x + y)


class ResNeSt(nn.Module):
    """image [batch, depth, height, width, 1] in [0, 1] -> logits [batch, classes], {'map', 'features'}."""

    stage_sizes: tuple[int, ...]
    classes: int
    width: int = 64
    stem_width: int = 32
    mean: float = 0.0
    std: float = 1.0
    dtype: str = 'float32'
    conv_form: str = 'native'

    @nn.compact
    def trunk(self, image, train=False):
        """Last feature map [batch, d, h, w, dim], in the compute dtype."""
        conv = partial(Conv, dtype=self.dtype, form=self.conv_form)
        norm = partial(BatchNorm, use_running_average=not train, dtype=self.dtype)
        x = ((image - self.mean) / self.std).astype(self.dtype)
        for i, (features, strides) in enumerate(((self.stem_width, (1, 2, 2)), (self.stem_width, POINT),
                                                 (2 * self.stem_width, POINT))):
            x = nn.relu(norm(name=f'stem_bn{i}')(conv(features, CUBE, strides, name=f'stem_conv{i}')(x)))
        x = max_pool(x, (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1)))
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                strides = 2 if i > 0 and j == 0 else 1
                x = Bottleneck(self.width * 2**i, strides, conv, norm, name=f'layer{i + 1}_{j}')(x)
        return x

    def head(self, x):
        """Feature map -> logits [batch, classes], features [batch, dim] (the pooled map), both float32."""
        features = jnp.mean(x.astype(jnp.float32), (1, 2, 3))
        return self.classifier(features), features

    def setup(self):
        self.classifier = Classifier(self.classes)

    def __call__(self, image, train=False, site=None):
        x = self.trunk(image, train)
        logits, features = self.head(x)
        return logits, {'map': x, 'features': features}


# One block a stage and narrow: what a laptop trains on the phantom in minutes.
ResNeSt14Small = partial(ResNeSt, stage_sizes=(1, 1, 1, 1), width=12, stem_width=8)
# For tests alone.
_ResNeStTiny = partial(ResNeSt, stage_sizes=(1,), width=4, stem_width=4)
