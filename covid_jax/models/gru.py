"""The summary of slices by a recurrent network: the baseline of the COV19-CT-DB challenge, Kollias et al. (2021),
"MIA-COV19D: COVID-19 Detection through 3-D Chest CT Image Analysis": batch normalisation, dropout, GRU of 128 units."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from covid_jax.models.compute import Compute


class SliceGRU(nn.Module):
    """Slices' features [batch, depth, dim] -> the last state of the GRU [batch, units], float32.

    In training, dropout draws from the key in `net.apply(..., rngs={'dropout': key})`: a new key for each step.
    """

    units: int = 128
    dropout: float = 0.2
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, slices: jax.Array, train: bool = False, site: jax.Array | None = None,
                 group: jax.Array | None = None) -> jax.Array:
        norm = self.compute.norms(train, site, group, dtype='float32')
        x = norm(name='bn')(slices.astype(jnp.float32))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.RNN(nn.GRUCell(self.units, dtype='float32', name='gru'), return_carry=True)(x)[0]
