"""What a site has of its own beside the weights that all share: residual adapters, each a 1x1 convolution by site.

  series    Rebuffi, Bilen and Vedaldi, "Learning multiple visual domains with residual adapters" (2017): after a convolution
            y + conv_s(norm_s(y)), in place of its normalisation (Compute.norm).
  parallel  the same, "Efficient parametrization of multi-domain deep neural networks" (2018): beside a convolution,
            conv(x) + conv_s(x) (Compute.adapter).

Each adapter starts at 0, where both are the network without them; the authors' code draws them from a normal law.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax.models.norm import DomainBatchNorm, of_sites


class SiteConv(nn.Module):
    """1x1 convolution of each site: x [batch, depth, height, width, in], site int [batch] -> [batch, depth', height', width',
    features]. Kernel [sites, in, features], started at 0; zeros for a row whose site is none of them. One site is for all
    rows. Every row goes through the kernels of all sites, so that time and memory grow with their number. `form` does nothing:
    it is a product of matrices on every platform. ValueError where there are several sites and `site` is None."""

    features: int
    strides: tuple[int, int, int] = (1, 1, 1)
    sites: int = 1
    dtype: str = 'float32'
    form: str = 'native'

    @nn.compact
    def __call__(self, x: jax.Array, site: jax.Array | None = None) -> jax.Array:
        depth, height, width = self.strides
        x = x[:, ::depth, ::height, ::width].astype(self.dtype)
        kernel = self.param('kernel', nn.initializers.zeros, (self.sites, x.shape[-1], self.features))
        of_all = jnp.einsum('b...i,sif->b...sf', x, kernel.astype(self.dtype))
        if site is None and self.is_initializing():
            site = jnp.zeros(x.shape[0], jnp.int32)
        return jnp.einsum('b...sf,bs->b...f', of_all, of_sites(site, self.sites, x.shape[0]).astype(self.dtype))


class SeriesAdapter(nn.Module):
    """The normalisation of a convolution's output in a network with series adapters: called like the layers of norm.py, with
    one array. ValueError as DomainBatchNorm."""

    sites: int
    use_running_average: bool
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array, site: jax.Array | None = None, group: jax.Array | None = None) -> jax.Array:
        def norm(name):
            return DomainBatchNorm(self.sites, self.use_running_average, dtype=self.dtype, name=name)

        adapted = norm('adapter_norm')(x, site=site, group=group)
        x = x + SiteConv(x.shape[-1], sites=self.sites, dtype=self.dtype, name='adapter')(adapted, site)
        return norm('norm')(x, site=site, group=group)
