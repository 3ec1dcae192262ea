"""DenseNet-BC in 2D: Huang et al., "Densely Connected Convolutional Networks" (2017), sections 3 and 4.3, Table 1.

A layer sees all that the layers before it in its block made (equation 2). What the latest made stays in pieces, each
normalised where it lies, and only what a convolution reads is put side by side; every fourth layer joins the pieces into
one. Joined at every layer, each of them is read, copied and averaged over again: a sixth more time on a CPU and half as
much memory again for a block of 32 layers. Never joined, they make a network that is slow to compile. A transition's
average pool stands before its 1x1 convolution, with which it commutes: a quarter of the work.

Names of torchvision's and timm's densenet121 and densenet169, by rule; kernels [out, in, kh, kw] -> [1, kh, kw, in, out]:

    features.{conv,norm}0.*                                 {conv,norm}0/*
    features.denseblock{i}.denselayer{j}.{norm,conv}{k}.*   denseblock{i}_denselayer{j}/{norm,conv}{k}/*    i, j, k from 1
    features.transition{i}.{norm,conv}.*                    transition{i}/{norm,conv}/*
    features.norm5.*                                        norm5/*
    classifier.{weight,bias}                                classifier/Dense_0/{kernel,bias}    kernel transposed

The files that torchvision publishes are older than its names: they say norm.1 and conv.2 where the network has norm1 and
conv2, and so does `torch_name` for torchvision.
"""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax.models.compute import Compute
from covid_jax.models.heads import Classifier
from covid_jax.models.pool import avg_pool, max_pool
from covid_jax.models.resnet import POINT

JOIN = 4  # layers after which the pieces become one


def norm_relu(norm: Callable, pieces: Sequence[jax.Array]) -> list[jax.Array]:
    """Arrays whose channels stand side by side in the parameters of `norm` -> the same, normalised, then ReLU."""
    normalised = norm(*pieces)
    if len(pieces) == 1:
        normalised = [normalised]
    return [nn.relu(piece) for piece in normalised]


class DenseLayer(nn.Module):
    """Pieces [batch, d, h, w, any] -> [batch, d, h, w, growth]: 1x1 to `bottleneck` times growth, then 3x3 (section 3,
    "Bottleneck layers")."""

    growth: int
    bottleneck: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, *pieces: jax.Array) -> jax.Array:
        x = jnp.concatenate(norm_relu(self.norm(name='norm1'), pieces), -1)
        y = self.conv(self.bottleneck * self.growth, POINT, name='conv1')(x)
        return self.conv(self.growth, (1, 3, 3), name='conv2')(nn.relu(self.norm(name='norm2')(y)))


class Transition(nn.Module):
    """Pieces [batch, d, h, w, any] -> [batch, d, h // 2, w // 2, half of all channels]: 1x1 and a 2x2 average."""

    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, *pieces: jax.Array) -> jax.Array:
        window = (1, 2, 2)
        halved = [avg_pool(piece, window, window, [(0, 0)] * 3) for piece in norm_relu(self.norm(name='norm'), pieces)]
        x = jnp.concatenate(halved, -1)
        return self.conv(x.shape[-1] // 2, POINT, name='conv')(x)


class DenseNet(nn.Module):
    """image in [0, 1], [batch, height, width, channels] or a volume, of which it sees each slice alone -> logits
    [batch, classes], {'map' [batch, (depth,) h, w, dim], normalised and through ReLU; 'features' [batch, dim], its mean}.

    stage_sizes: layers of each dense block; growth: channels that each adds (k); width: channels of the stem.
    compute.remat: of the stem, each layer and each transition.
    """

    stage_sizes: tuple[int, ...]
    classes: int
    growth: int = 32
    bottleneck: int = 4
    width: int = 64
    compute: Compute = Compute()

    def setup(self) -> None:
        self.classifier = Classifier(self.classes)

    @nn.compact
    def trunk(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
              group: jax.Array | None = None) -> jax.Array:
        """Last feature map, in the compute dtype. UserError for an image of which the pools would leave nothing."""
        conv = self.compute.conv()
        norm = self.compute.norms(train, site, group)
        layer = self.compute.block(DenseLayer)
        transition = self.compute.block(Transition)

        def stem(net, x):
            x = conv(net.width, (1, 7, 7), (1, 2, 2), name='conv0')(x)
            x = nn.relu(norm(name='norm0')(x))
            return max_pool(x, (1, 3, 3), (1, 2, 2), [(0, 0), (1, 1), (1, 1)])

        side = 2 ** (len(self.stage_sizes) + 1)  # what the pools make one pixel of
        x = self.compute.volume(image, (1, side, side))
        x = self.compute.block(stem)(self, x)
        for i, size in enumerate(self.stage_sizes, 1):
            pieces = [x]
            for j in range(1, size + 1):
                dense = layer(self.growth, self.bottleneck, conv, norm, name=f'denseblock{i}_denselayer{j}')
                pieces.append(dense(*pieces))
                if j % JOIN == 0:
                    pieces = [jnp.concatenate(pieces, -1)]
            if i < len(self.stage_sizes):
                x = transition(conv, norm, name=f'transition{i}')(*pieces)
        x = jnp.concatenate(norm_relu(norm(name='norm5'), pieces), -1)
        return x if image.ndim == 5 else x[:, 0]

    def head(self, x: jax.Array, train: bool = False, site: jax.Array | None = None,
             group: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Feature map -> logits [batch, classes], features [batch, dim], both float32."""
        features = jnp.mean(x.astype(jnp.float32), range(1, x.ndim - 1))
        return self.classifier(features), features

    def __call__(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
                 group: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.trunk(image, train, site, group)
        logits, features = self.head(x, train, site, group)
        return logits, {'map': x, 'features': features}


def torch_name(modules: Sequence[str], library: str = 'timm') -> str:
    """['denseblock1_denselayer2', 'conv1'] -> 'features.denseblock1.denselayer2.conv1', the name in timm and torchvision, or
    'features.denseblock1.denselayer2.conv.1', the name in torchvision's files."""
    first, *inner = modules
    if first == 'classifier':
        return 'classifier'
    if library == 'torchvision' and first.startswith('denseblock'):
        inner = [f'{m[:-1]}.{m[-1]}' for m in inner]
    return '.'.join(['features', first.replace('_', '.'), *inner])


DenseNet121 = partial(DenseNet, stage_sizes=(6, 12, 24, 16))
DenseNet169 = partial(DenseNet, stage_sizes=(6, 12, 32, 32))
# For tests alone.
_DenseNetTiny = partial(DenseNet, stage_sizes=(2, 2), growth=4, width=6)
