"""COVID-Net and its redesign for CT: Wang, Lin and Wong, "COVID-Net" (2020); Wang, Liu and Dou, "Contrastive Cross-Site
Learning With Redesigned Net for COVID-19 CT Classification" (2020), section III.A, in 2D.

Two branches, level by level. The upper is one 1x1 convolution a level, c1 to c4. The lower is PEPX blocks, p11 to p43, each
of which takes the sum of all earlier ones of its level and c; the next level's first takes their sum, pooled. What c and the
blocks of a level sum to goes up to the next c.

  COVIDNet          the graph that the paper starts from: no normalisation, ReLU after the stem; the embedding is the whole
                    last sum, 7 x 7 x 2048.
  COVIDNetRedesign  normalisation by site and ReLU after the stem and each c; the embedding is p43 pooled to 2 x 2, 8192 (the
                    paper's 8096 is a misprint: its twelfth of the dense parameters is 4 of 49 places).

Both have ReLU between the dense layers; the redesign's code has it in normalisations alone, and so none where its head has
none. Each of p31 to p36 goes down to p41; the code takes p32 twice and no p33. Everything starts as torch starts it.

Names of scripts/parity_covidnet.py, by rule (no weights are published); kernels [out, in, kh, kw] -> [1, kh, kw, in, out]:

    conv1.*, c{i}.*                     conv1/*, c{i}/*                 i in 1 2 3 4: the level
    {conv1,c{i}}_norm.*                 {conv1,c{i}}_norm/*             [sites, channels]: one row for each site
    p{i}{j}.{k}.*                       p{i}{j}/conv{k + 1}/*           j from 1: the block, k in 0 1 2 3 4
    fc1.weight                          hidden/fc1/kernel               [out, c h w] -> [h, w, c, out]
    fc2.*, classifier.*                 hidden/fc2/*, classifier/*      kernel transposed
    fc{k}_norm.*                        hidden/fc{k}_norm/*             [sites, channels], with head_norm
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from covid_jax import UserError
from covid_jax.models.conv import adaptive_avg_pool, conv3d, depthwise, max_pool
from covid_jax.models.norm import DomainBatchNorm, as_volume
from covid_jax.models.resnet import POINT


def _weights(module, shape):
    """Kernel [..., in, features] and bias of a module, both started at U(-b, b), b = 1 / sqrt(fan in): torch's default."""
    bound = math.prod(shape[:-1]) ** -0.5

    def uniform(key, shape):
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    return module.param('kernel', uniform, shape), module.param('bias', uniform, shape[-1:])


class _Conv(nn.Module):
    """Convolution with a bias, zero-padded by half the kernel; `features` None: depthwise."""

    features: int | None
    kernel_size: tuple[int, int, int] = POINT
    strides: tuple[int, int, int] = POINT
    dtype: str = 'float32'
    form: str = 'native'

    @nn.compact
    def __call__(self, x):
        channels = (x.shape[-1], self.features) if self.features else (1, x.shape[-1])
        kernel, bias = (w.astype(self.dtype) for w in _weights(self, (*self.kernel_size, *channels)))
        convolve = conv3d if self.features else depthwise
        return convolve(x, kernel, self.strides, [(k // 2, k // 2) for k in self.kernel_size], self.form) + bias


class _Dense(nn.Module):
    """[batch, ...] -> [batch, features], with a kernel [..., features]: a map is flattened by its kernel."""

    features: int

    @nn.compact
    def __call__(self, x):
        kernel, bias = _weights(self, (*x.shape[1:], self.features))
        return jnp.tensordot(x, kernel, x.ndim - 1) + bias


class PEPX(nn.Module):
    """[batch, 1, h, w, in] -> [batch, 1, h, w, features]: projection, expansion, 3x3 of each channel, projection, extension,
    to in / 2, 3 in / 4, the same, in / 2 and `features` channels, with neither activation nor normalisation between them."""

    features: int
    conv: nn.Module

    @nn.compact
    def __call__(self, x):
        half, most = x.shape[-1] // 2, 3 * x.shape[-1] // 4
        x = self.conv(most, name='conv2')(self.conv(half, name='conv1')(x))
        x = self.conv(None, (1, 3, 3), name='conv3')(x)
        return self.conv(self.features, name='conv5')(self.conv(half, name='conv4')(x))


class Hidden(nn.Module):
    """[batch, ...], site [batch] -> [batch, widths[-1]]: dense layers with ReLU, normalised by site if there is a norm."""

    widths: tuple[int, ...]
    norm: nn.Module | None

    @nn.compact
    def __call__(self, x, site, train):
        for k, width in enumerate(self.widths, 1):
            x = _Dense(width, name=f'fc{k}')(x)
            if self.norm:
                x = self.norm(not train, name=f'fc{k}_norm')(x, site)
            x = nn.relu(x)
        return x


class COVIDNet(nn.Module):
    """image in [0, 1], [batch, height, width, channels] or a volume of that one slice -> logits [batch, classes],
    {'map' [batch, (1,) h, w, 32 width], 'features' [batch, dim], 'sites' int32 [batch]}. The dense layer fits one size of
    images alone where it is not `pooled`.

    sites: sets of statistics and parameters of the normalisations; 0: no normalisation; 1: one set for all rows, whatever
      `site` says.
    pooled: the embedding is the last block pooled to 2 x 2, not the whole sum of the last level.
    head_norm: normalise by site between the dense layers too (the authors' code; the paper does not).
    stage_sizes: PEPX blocks of each level; width: channels of the stem, which all others follow.
    remat: compute the stem and each block again in the backward pass instead of keeping what is inside them.

    Where sites > 1, training, `trunk` and `head` ask for the site of each row. Evaluation answers for any row: of a known
    site, by that site alone; of another (negative, or `sites` and above; all rows where site is None), by the average of the
    known sites' predictions. The logits are then the log of the mean over sites of the softmax, the map and features the
    means of theirs, and out['sites'] says of how many: 1 for a row of a known site. Only a batch with a row of another site
    costs more than one pass.
    """

    classes: int
    sites: int = 0
    pooled: bool = False
    head_norm: bool = False
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    remat: bool = False
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    dtype: str = 'float32'
    conv_form: str = 'native'

    def setup(self):
        widths = 16 * self.width, 4 * self.width
        self.hidden = Hidden(widths, partial(DomainBatchNorm, self.sites, dtype='float32') if self.head_norm else None)
        self.classifier = _Dense(self.classes)

    @nn.compact
    def trunk(self, image, train=False, site=None):
        """Last feature map [batch, (1,) h, w, 32 width], in the compute dtype: the last block if `pooled`, else the whole
        sum; nonsense for a row of a site that is not known. UserError for a volume of more slices than one, and for an
        image of which the pools would leave nothing."""
        if image.ndim == 5 and image.shape[1] > 1:
            raise UserError(f'COVID-Net takes single images, not {image.shape[1]} slices: set the first of --config.prep.size '
                            'and --config.method.depth to 1')
        site = self._site(site, len(image))
        conv = partial(_Conv, dtype=self.dtype, form=self.conv_form)
        remat = nn.remat if self.remat else lambda f: f
        block = remat(PEPX)

        def upper(x, name, features, kernel=POINT, strides=POINT, relu=False):
            """Convolution, normalised by site and ReLU; without sites ReLU only if `relu`: the stem and the upper branch."""
            def parts(net, x, site):
                x = conv(features, kernel, strides, name=name)(x)
                if self.sites:
                    x = DomainBatchNorm(self.sites, not train, dtype=self.dtype, name=f'{name}_norm')(x, site)
                return nn.relu(x) if self.sites or relu else x
            return remat(parts)(self, x, site)

        side = 2 ** (len(self.stage_sizes) + 1)
        x = as_volume(image, self.mean, self.std, self.dtype, (1, side, side))
        up = _halve(upper(x, 'conv1', self.width, (1, 7, 7), (1, 2, 2), relu=True))
        level = [up]  # what the level above hands down
        for i, size in enumerate(self.stage_sizes, 1):
            features = 2**(i + 1) * self.width
            shrink = _halve if i > 1 else lambda x: x
            c, down, p = shrink(upper(up, f'c{i}', features)), sum(map(shrink, level)), []
            for j in range(1, size + 1):
                p.append(block(features, conv, name=f'p{i}{j}')(sum(p) + c if p else down))
            level, up = [*p, c], sum(p) + c
        x = p[-1] if self.pooled else up
        return x if image.ndim == 5 else x[:, 0]

    def head(self, x, train=False, site=None):
        """Feature map -> logits [batch, classes], features [batch, dim], both float32."""
        site, x = self._site(site, len(x)), (x[:, 0] if x.ndim == 5 else x).astype(jnp.float32)
        x = adaptive_avg_pool(x, (2, 2)) if self.pooled else x
        return self.classifier(self.hidden(x, site, train)), x.reshape(len(x), -1)

    def __call__(self, image, train=False, site=None):
        if train or self.sites < 2 or self.is_initializing():
            return self.once(image, train, site)
        site = jnp.full(len(image), -1) if site is None else site
        known = (site >= 0) & (site < self.sites)
        net, variables = self.clone(parent=None), self.variables

        def as_if_at(k):
            return net.apply(variables, image, site=jnp.where(known, site, k), method='once')

        def average():
            logits, out = lax.map(as_if_at, jnp.arange(self.sites))
            mean = jax.nn.logsumexp(jax.nn.log_softmax(logits), 0) - math.log(self.sites)
            means = mean, {**jax.tree.map(lambda x: jnp.mean(x, 0), out), 'sites': jnp.full(len(image), self.sites)}
            return jax.tree.map(lambda x, mean: jnp.where(known.reshape(-1, *(1,) * (mean.ndim - 1)), x[0], mean),
                                (logits, out), means)

        return lax.cond(jnp.all(known), lambda: as_if_at(0), average)

    def once(self, image, train=False, site=None):
        """One pass, every row by the site that `site` says."""
        x = self.trunk(image, train, site)
        logits, features = self.head(x, train, site)
        return logits, {'map': x, 'features': features, 'sites': jnp.ones(len(image), jnp.int32)}

    def _site(self, site, batch):
        if self.sites > 1 and site is None and not self.is_initializing():
            raise ValueError(f'a network of {self.sites} sites needs the site of each row')
        return jnp.zeros(batch, jnp.int32) if self.sites < 2 or site is None else site


def _halve(x):
    return max_pool(x, (1, 2, 2), (1, 2, 2), ((0, 0),) * 3)


def torch_name(modules, torchvision=False):
    """['p11', 'conv2'] -> 'p11.1': what scripts/parity_covidnet.py calls our module."""
    block, *rest = [m for m in modules if m != 'hidden']
    return f'{block}.{int(rest[0][-1]) - 1}' if rest else block


COVIDNetRedesign = partial(COVIDNet, sites=2, pooled=True)
# Narrow: what a laptop trains on the phantom in minutes.
COVIDNetSmall = partial(COVIDNet, width=8)
COVIDNetRedesignSmall = partial(COVIDNetRedesign, width=8)
# For tests alone.
_COVIDNetTiny = partial(COVIDNet, stage_sizes=(1, 2), width=4)
_COVIDNetRedesignTiny = partial(COVIDNetRedesign, stage_sizes=(1, 2), width=4)
