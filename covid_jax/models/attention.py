"""The attention decoder of CMT-CNN (Li et al., Pattern Recognition 2021, section 5 and Fig 5)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax.models.pool import avg_pool

SCALE = 2  # of each transposed convolution, and of the pool that undoes it
KERNEL = 4  # twice the scale: neighbours overlap evenly


class AttentionDecoder(nn.Module):
    """A network's last map [batch, (d,) h, w, channels] -> what it is multiplied by [batch, (d,) h, w, 1], and the attention
    [batch, (4 d,) 4 h, 4 w, 1], both float32 in (0, 1). A depth of one slice stays one.

    The mean over channels is scaled up by two transposed convolutions, then the sigmoid is the attention; two mean pools bring
    it back to the map. Text and caption of Fig 5 differ in how the two meet: here they are multiplied, as the text has it.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        still = x.ndim == 5 and x.shape[1] == 1
        space = x.ndim - 2
        scale = (1 if still else SCALE, SCALE, SCALE)[-space:]
        kernel = (1 if still else KERNEL, KERNEL, KERNEL)[-space:]
        y = jnp.mean(x.astype(jnp.float32), -1, keepdims=True)
        for name in ('up1', 'up2'):
            y = nn.ConvTranspose(1, kernel, scale, name=name)(y)
        attention = nn.sigmoid(y)
        gate = attention
        for _ in range(2):
            gate = avg_pool(gate, scale, scale, [(0, 0)] * space)
        return gate, attention
