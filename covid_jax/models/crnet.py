"""CRNet, the small network of Self-Trans: He et al., "Sample-Efficient Deep Learning for COVID-19 Diagnosis Based on CT
Scans" (2020), section III-B, of 546,882 parameters (Table II).

The text says that the block repeats four times, its listing has three. Only one grey channel, biases, three blocks and an
average pool of 2x2 that leaves 13x13 give the number of parameters; paddings, which the paper does not give, are 3 in the
convolutions and none in the pools:

    conv 7x7, 32, bn, relu    224x224x32    max-pool 3x3 / 2    111x111x32
    conv 7x7, 64, relu        111x111x64    max-pool 3x3 / 2    55x55x64
    conv 7x7, 128, relu       55x55x128     max-pool 3x3 / 2    27x27x128
    average pool 2x2 / 2 ("global")    13x13x128 = 21,632       classifier

No weights were released. The names of scripts/parity_crnet.py are ours but for classifier/Dense_0, which is fc; kernels
[out, in, kh, kw] -> [1, kh, kw, in, out], the classifier's transposed: the features are flattened as torch does, [c, h, w].
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax import UserError
from covid_jax.models.compute import Compute
from covid_jax.models.heads import Classifier
from covid_jax.models.pool import avg_pool, max_pool


def torch_name(modules: Sequence[str], library: str = 'timm') -> str:
    """['classifier', 'Dense_0'] -> 'fc': what scripts/parity_crnet.py calls our module."""
    return 'fc' if modules[0] == 'classifier' else modules[0]


class CRNet(nn.Module):
    """grey image in [0, 1], [batch, size, size, 1] or a volume of that one slice -> logits [batch, classes],
    {'map' [batch, (1,) h, w, widths[-1]], 'features' [batch, widths[-1] (h // 2) (w // 2)]}.

    widths: channels of each block; size: height and width of the image, which the classifier is made for.
    compute.remat: of each block.
    """

    classes: int
    widths: tuple[int, ...] = (32, 64, 128)
    size: int = 224
    compute: Compute = Compute()

    def setup(self) -> None:
        self.classifier = Classifier(self.classes)

    @nn.compact
    def trunk(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
              group: jax.Array | None = None) -> jax.Array:
        """Map of the last block, in the compute dtype. UserError for an image of another size, or in colour."""
        x = self.compute.volume(image)
        if x.shape[1:] != (1, self.size, self.size, 1):
            wanted, given = ('x'.join(map(str, shape)) for shape in ((1, self.size, self.size, 1), x.shape[1:]))
            raise UserError(f'CRNet takes grey images of {self.size}x{self.size}: {wanted} (depth, height, width, channels) '
                            f'and not {given}; set --config.prep.size=(1,{self.size},{self.size})')
        conv = self.compute.conv(use_bias=True)
        norm = self.compute.norms(train, site, group)

        def block(i, net, x):
            x = conv(net.widths[i], (1, 7, 7), name=f'conv{i + 1}')(x)
            if i == 0:
                x = norm(name='bn1')(x)
            return max_pool(nn.relu(x), (1, 3, 3), (1, 2, 2), [(0, 0)] * 3)

        for i in range(len(self.widths)):
            x = self.compute.block(partial(block, i))(self, x)
        return x if image.ndim == 5 else x[:, 0]

    def head(self, x: jax.Array, train: bool = False, site: jax.Array | None = None,
             group: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Feature map -> logits [batch, classes], features [batch, dim] in torch's order, both float32."""
        x = x.astype(jnp.float32)
        pooled = avg_pool(x if x.ndim == 4 else x[:, 0], (2, 2), (2, 2), [(0, 0)] * 2)
        features = pooled.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        return self.classifier(features), features

    def __call__(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
                 group: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.trunk(image, train, site, group)
        logits, features = self.head(x, train, site, group)
        return logits, {'map': x, 'features': features}


# For tests alone.
_CRNetTiny = partial(CRNet, widths=(3, 4, 5), size=40)
