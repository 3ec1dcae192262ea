"""Normalisation layers."""

from functools import partial

import flax.linen as nn

# Under jit with a sharded batch the statistics are those of the global batch, without an axis name. momentum 0.9 is
# torch's 0.1; the running variance is the biased one.
BatchNorm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
