"""COVID-Net and its redesign for CT: Wang, Lin and Wong, "COVID-Net" (2020); Wang, Liu and Dou, "Contrastive Cross-Site
Learning With Redesigned Net for COVID-19 CT Classification" (2020), section III.A, in 2D.

Two branches, level by level. The upper is one 1x1 convolution a level, c1 to c4. The lower is PEPX blocks, p11 to p43, each
of which takes the sum of all earlier ones of its level and c; the next level's first takes their sum, pooled. What c and the
blocks of a level sum to goes up to the next c.

  COVIDNet          the graph that the paper starts from: no normalisation, ReLU after the stem; the embedding is the whole
                    last sum, 7 x 7 x 2048.
  COVIDNetRedesign  normalisation by site and ReLU after the stem and each c; the embedding is p43 pooled to 2 x 2, 8192 (the
                    paper's 8096 is a misprint: its twelfth of the dense parameters is 4 of 49 places). Of two classes it has
                    40,149,650 parameters with one site, and 7,808 more for each further one.

Both have ReLU between the dense layers; the redesign's code has it in normalisations alone, and so none where its head has
none. Each of p31 to p36 goes down to p41; the code takes p32 twice and no p33. Everything starts as torch starts it.

Names of scripts/parity_covidnet.py, by rule (no weights are published); kernels [out, in, kh, kw] -> [1, kh, kw, in, out]:

    conv1.*, c{i}.*                     conv1/*, c{i}/*                 i in 1 2 3 4: the level
    {conv1,c{i}}_norm.*                 {conv1,c{i}}_norm/*             [sites, channels]: one row for each site
    p{i}{j}.{k}.*                       p{i}{j}/conv{k + 1}/*           j from 1: the block, k in 0 1 2 3 4
    fc1.weight                          hidden/fc1/kernel               [out, c h w] -> [h, w, c, out]
    fc2.*, classifier.*                 hidden/fc2/*, classifier/*      kernel transposed
    fc{k}_norm.*                        hidden/fc{k}_norm/*             [sites, channels], with head_norm
    {conv1,c{i}}_norm.norm.* and so on  {conv1,c{i}}_norm/norm/*        of adapters (adapters.py) the names are ours
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from covid_jax import UserError
from covid_jax.models.compute import Compute
from covid_jax.models.conv import DepthwiseConv
from covid_jax.models.heads import MapDense
from covid_jax.models.norm import BatchNorm, DomainBatchNorm
from covid_jax.models.pool import adaptive_avg_pool, max_pool
from covid_jax.models.resnet import POINT


def _bias(key, shape, fan_in):
    return jax.random.uniform(key, shape, jnp.float32, -(fan_in**-0.5), fan_in**-0.5)


# torch's default: kernel and bias at U(-b, b), b = 1 / sqrt(fan_in)
TORCH: dict[str, Any] = {'kernel_init': nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform'), 'bias_init': _bias}


class PEPX(nn.Module):
    """[batch, 1, h, w, in] -> [batch, 1, h, w, features]: projection, expansion, 3x3 of each channel, projection, extension,
    to in / 2, 3 in / 4, the same, in / 2 and `features` channels, with neither activation nor normalisation between them."""

    features: int
    conv: Callable
    depthwise: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        half = x.shape[-1] // 2
        most = 3 * x.shape[-1] // 4
        x = self.conv(half, POINT, name='conv1')(x)
        x = self.conv(most, POINT, name='conv2')(x)
        x = self.depthwise((1, 3, 3), name='conv3')(x)
        x = self.conv(half, POINT, name='conv4')(x)
        return self.conv(self.features, POINT, name='conv5')(x)


class Hidden(nn.Module):
    """[batch, ...] -> [batch, widths[-1]]: dense layers with ReLU, the last only if `last_relu`, normalised if there is a norm;
    stride as in MapDense."""

    widths: tuple[int, ...]
    stride: int = 1
    last_relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, norm: Callable | None = None) -> jax.Array:
        for k, width in enumerate(self.widths, 1):
            x = MapDense(width, stride=self.stride, **TORCH, name=f'fc{k}')(x)
            if norm:
                x = norm(name=f'fc{k}_norm')(x)
            if self.last_relu or k < len(self.widths):
                x = nn.relu(x)
        return x


class COVIDNet(nn.Module):
    """image in [0, 1], [batch, height, width, channels] or a volume of that one slice -> logits [batch, classes],
    {'map' [batch, (1,) h, w, 32 width], 'features' [batch, dim], 'sites' int32 [batch]}. The dense layer fits one size of
    images alone without `pool`.

    sites: sets of statistics and parameters of the normalisations; 0: no normalisation; 1: one set for all rows, whatever
      `site` says.
    pool: the embedding is the last block pooled to so many rows and columns; 0: the whole sum of the last level.
    p33: False takes the second block of the third level down in place of the third too (a slip of the authors' code).
    head_norm: normalise by site between the dense layers too (the authors' code; the paper does not).
    stage_sizes: PEPX blocks of each level; width: channels of the stem, which all others follow.
    compute.remat: of the stem and each block.
    compute.norm: stands in for the trunk's normalisation by site where it is another than BatchNorm.
    compute.adapter: what each site adds to the convolutions of the stem and of the upper branch.

    `group` does nothing without sites; with them, normalisation by site is a ValueError by group.

    Where sites > 1, training, `trunk` and `head` ask for the site of each row; what they give for one of a site that is not known
    is NaN (a head without head_norm goes by its map alone). Evaluation answers for any row: of a known site, by that site alone;
    of another (negative, or `sites` and above; all rows where site is None), by the average of the known sites' predictions.
    The logits are then the log of the mean over sites of the softmax, the map and features the means of theirs, and
    out['sites'] says of how many: 1 for a row of a known site. Only a batch with a row of another site costs more than one
    pass.
    """

    classes: int
    sites: int = 0
    pool: int = 0
    p33: bool = True
    head_norm: bool = False
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    compute: Compute = Compute()

    def setup(self) -> None:
        self.hidden = Hidden((16 * self.width, 4 * self.width), self._stride())
        self.classifier = MapDense(self.classes, **TORCH)

    @nn.compact
    def trunk(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
              group: jax.Array | None = None) -> jax.Array:
        """Last feature map [batch, (1,) h, w, 32 width], in the compute dtype: the last block with `pool`, else the whole
        sum. UserError for a volume of more slices than one, and for an image of which the pools would leave nothing."""
        if image.ndim == 5 and image.shape[1] > 1:
            raise UserError(f'COVID-Net takes single images, not {image.shape[1]} slices: set the first of --config.prep.size '
                            'to 1')
        conv = self.compute.conv(use_bias=True, **TORCH)
        depthwise = self.compute.conv(DepthwiseConv, use_bias=True, **TORCH)
        norm = self._norms(self._norm_of_trunk(), train, site, group)
        adapter = self.compute.adapter and self.compute.conv(self.compute.adapter)
        block = self.compute.block(PEPX)

        def upper(x, name, features, kernel=POINT, strides=POINT, relu=False):
            """Convolution, normalised by site and ReLU; without sites ReLU only if `relu`: the stem and the upper branch."""
            def layers(net, x):
                y = conv(features, kernel, strides, name=name)(x)
                if adapter:
                    y += adapter(features, strides, name=f'{name}_adapter')(x, site)
                if net.sites:
                    y = norm(name=f'{name}_norm')(y)
                return nn.relu(y) if net.sites or relu else y
            return self.compute.block(layers)(self, x)

        x = self.compute.volume(image, (1, self._stride(), self._stride()))
        up = _halve(upper(x, 'conv1', self.width, (1, 7, 7), (1, 2, 2), relu=True))
        level = [up]  # what the level above hands down
        for i, size in enumerate(self.stage_sizes, 1):
            features = 2**(i + 1) * self.width
            shrink = _halve if i > 1 else lambda x: x
            c = shrink(upper(up, f'c{i}', features))
            if i == 4 and not self.p33:
                level[2] = level[1]
            seen = sum(shrink(x) for x in level)
            blocks = []
            for j in range(1, size + 1):
                blocks.append(block(features, conv, depthwise, name=f'p{i}{j}')(seen))
                seen = sum(blocks) + c
            level = [*blocks, c]
            up = seen
        x = self._known_alone(blocks[-1] if self.pool else up, site)
        return x if image.ndim == 5 else x[:, 0]

    def head(self, x: jax.Array, train: bool = False, site: jax.Array | None = None,
             group: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Feature map -> logits [batch, classes], features [batch, dim], both float32 (float64 for float64)."""
        x = (x if x.ndim == 4 else x[:, 0]).astype(jnp.promote_types(x.dtype, jnp.float32))
        x = adaptive_avg_pool(x, (self.pool, self.pool)) if self.pool else x
        norm = self._norms(self._by_site(), train, site, group, dtype='float32') if self.head_norm else None
        logits = self.classifier(self.hidden(x, norm))
        return self._known_alone(logits, site) if self.head_norm else logits, x.reshape(x.shape[0], -1)

    def __call__(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
                 group: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        if train or self.sites < 2 or self.is_initializing():
            return self.once(image, train, site, group)
        site = jnp.full(image.shape[0], -1) if site is None else site
        known = self._known(site)
        net = self.clone(parent=None)  # not this one, whose scope is that of the trace outside of lax.map and lax.cond
        variables = self.variables

        def as_if_at(k):
            return net.apply(variables, image, site=jnp.where(known, site, k), method='once')

        def average():
            logits, out = lax.map(as_if_at, jnp.arange(self.sites))
            mean_logits = jax.nn.logsumexp(jax.nn.log_softmax(logits), 0) - math.log(self.sites)
            means = jax.tree.map(lambda x: jnp.mean(x, 0), out) | {'sites': jnp.full(image.shape[0], self.sites)}

            def chosen(by_site, mean):  # a row of a known site has the same answer in every pass
                return jnp.where(known.reshape(-1, *(1,) * (mean.ndim - 1)), by_site[0], mean)

            return jax.tree.map(chosen, (logits, out), (mean_logits, means))

        return lax.cond(jnp.all(known), lambda: as_if_at(0), average)

    def once(self, image: jax.Array, train: bool = False, site: jax.Array | None = None,
             group: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """One pass, every row by the site that `site` says."""
        x = self.trunk(image, train, site, group)
        logits, features = self.head(x, train, site, group)
        return logits, {'map': x, 'features': features, 'sites': jnp.ones(image.shape[0], jnp.int32)}

    def _known(self, site):
        return (site >= 0) & (site < self.sites)

    def _known_alone(self, x, site):
        """NaN for the rows of a site that is not known: no answer is better than one of zeros."""
        if self.sites < 2 or site is None:
            return x
        return jnp.where(jnp.expand_dims(self._known(site), range(1, x.ndim)), x, jnp.nan)

    def _by_site(self):
        return partial(DomainBatchNorm, sites=self.sites)

    def _norm_of_trunk(self):
        return self._by_site() if self.compute.norm is BatchNorm else self.compute.norm

    def _norms(self, norm, train, site, group, **fields):
        return replace(self.compute, norm=norm).norms(train, site, group, **fields)

    def _stride(self):
        """Of the last map in the image."""
        return 2 ** (len(self.stage_sizes) + 1)


def _halve(x):
    return max_pool(x, (1, 2, 2), (1, 2, 2), ((0, 0),) * 3)


def torch_name(modules: Sequence[str], library: str = 'timm') -> str:
    """['p11', 'conv2'] -> 'p11.1': what scripts/parity_covidnet.py calls our module."""
    block, *rest = [m for m in modules if m != 'hidden']
    if not rest:
        return block
    return f'{block}.{int(rest[0][-1]) - 1}' if rest[0].startswith('conv') else f'{block}.{rest[0]}'


COVIDNetRedesign = partial(COVIDNet, sites=2, pool=2)
# Narrow: what a laptop trains on the phantom in minutes.
COVIDNetSmall = partial(COVIDNet, width=8)
COVIDNetRedesignSmall = partial(COVIDNetRedesign, width=8)
# For tests alone.
_COVIDNetTiny = partial(COVIDNet, stage_sizes=(1, 2), width=4)
_COVIDNetRedesignTiny = partial(COVIDNetRedesign, stage_sizes=(1, 2), width=4)
