"""VGG without batch normalisation, in 2D and 3D from one definition: Simonyan and Zisserman, "Very Deep Convolutional
Networks for Large-Scale Image Recognition" (2015), configurations D (VGG16) and E (VGG19) of Table 1.

With `taps` 1 every kernel and pool is of one slice, and the last map is averaged to 7x7 as torchvision does (timm slides the
first dense layer over a larger one): an image of any size. With `taps` 3 kernels are 3x3x3 and pools 2x2x2, and the map is
flattened as it is (CMT-CNN: 128^3 becomes 4^3 x 512 = 32,768), so a network takes scans of the size it was started on.
The features are the first dense layer's, after its ReLU: the latent r of CMT-CNN, section 3.2.

Names of timm's vgg16 and vgg19, and of torchvision's where they differ, by rule; kernels [out, in, kh, kw] ->
[1, kh, kw, in, out]; k counts their convolutions, ReLUs and pools together, from 0:

    features.{k}.*                                  conv{k}/*
    pre_logits.fc1.* (torchvision classifier.0.*)   fc1/*
    pre_logits.fc2.* (torchvision classifier.3.*)   fc2/*
    head.fc.*        (torchvision classifier.6.*)   classifier/Dense_0/*

They flatten [c, h, w] before fc1. Ours is stored [h, w, c, out] (in 3D [d, h, w, c, out]): timm's [out, c, 7, 7], or
torchvision's [out, c * 7 * 7] cut into it, with its axes exchanged and no row moved. timm's fc2 is a 1x1 convolution.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax.models.compute import Compute
from covid_jax.models.heads import Classifier, MapDense
from covid_jax.models.pool import adaptive_avg_pool, max_pool

PLANE = (7, 7)  # what the last map of an image is averaged to
DENSE = {'timm': {'fc1': 'pre_logits.fc1', 'fc2': 'pre_logits.fc2', 'classifier': 'head.fc'},
         'torchvision': {'fc1': 'classifier.0', 'fc2': 'classifier.3', 'classifier': 'classifier.6'}}


def torch_name(modules: Sequence[str], library: str = 'timm') -> str:
    """['conv5'] -> 'features.5': what timm, or torchvision, calls our module."""
    name = modules[0]
    return DENSE[library].get(name, name.replace('conv', 'features.'))


class VGG(nn.Module):
    """image in [0, 1], [batch, depth, height, width, channels] or without depth -> logits [batch, classes],
    {'map' [batch, (d,) h, w, 8 width], 'features' [batch, dense]}. An image has a map without depth.

    stage_sizes: convolutions before each pool; width: channels of the first stage, doubled up to eight times.
    dense: width of the two dense layers; dropout: rate after each, in training, from the key named 'dropout'.
    taps: depth of the kernels; 1 pools the plane alone, and the mean over slices is what the dense layers see.
    compute.remat: of each stage.
    """

    stage_sizes: tuple[int, ...]
    classes: int
    width: int = 64
    dense: int = 4096
    dropout: float = 0.5
    taps: int = 3
    compute: Compute = Compute()

    def setup(self) -> None:
        init = nn.initializers.normal(0.01)
        self.fc1 = MapDense(self.dense, init, stride=2 ** len(self.stage_sizes))
        self.fc2 = nn.Dense(self.dense, kernel_init=init)
        self.drop = nn.Dropout(self.dropout)
        self.classifier = Classifier(self.classes)

    @nn.compact
    def trunk(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
              group: jax.Array | None = None) -> jax.Array:
        """Last feature map, in the compute dtype. UserError for an image of which the pools would leave nothing."""
        conv = self.compute.conv(use_bias=True)
        window = (2 if self.taps > 1 and image.ndim == 5 else 1, 2, 2)

        def stage(i, net, x):
            first = sum(2 * size + 1 for size in net.stage_sizes[:i])  # in torch's list of layers
            for j in range(net.stage_sizes[i]):
                x = nn.relu(conv(net.width * min(2**i, 8), (net.taps, 3, 3), name=f'conv{first + 2 * j}')(x))
            return max_pool(x, window, window, [(0, 0)] * 3)

        x = self.compute.volume(image, [n ** len(self.stage_sizes) for n in window])
        for i in range(len(self.stage_sizes)):
            x = self.compute.block(partial(stage, i))(self, x)
        return x if image.ndim == 5 else x[:, 0]

    def head(self, x: jax.Array, train: bool = False, site: jax.Array | None = None,
             group: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Feature map -> logits [batch, classes], features [batch, dense], both float32."""
        x = x.astype(jnp.float32)
        if self.taps == 1:
            x = adaptive_avg_pool(x if x.ndim == 4 else jnp.mean(x, 1), PLANE)
        features = nn.relu(self.fc1(x))
        y = nn.relu(self.fc2(self.drop(features, not train)))
        return self.classifier(self.drop(y, not train)), features

    def __call__(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
                 group: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.trunk(image, train, site, group)
        logits, features = self.head(x, train, site, group)
        return logits, {'map': x, 'features': features}


VGG16 = partial(VGG, stage_sizes=(2, 2, 3, 3, 3))
VGG19 = partial(VGG, stage_sizes=(2, 2, 4, 4, 4))
# For tests alone.
_VGGTiny = partial(VGG, stage_sizes=(1, 1), width=4, dense=8)
