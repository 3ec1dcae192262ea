from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.models.conv import Conv
from covid_jax.models.norm import BatchNorm
from covid_jax.models.resnest import SplitAttention


def test_running_statistics_move_only_in_training(rng):
    x = rng.random((4, 6, 16, 16, 1), np.float32)
    net = network('_ResNeStTiny')(classes=2, compute=Compute(mean=0.35, std=0.3))
    variables = jax.jit(net.init)(jax.random.key(0), x)
    _, after = jax.jit(partial(net.apply, train=True, mutable=['batch_stats']))(variables, x)
    mean = after['batch_stats']['stem_bn0']['mean']
    # a running mean that starts at zero and takes a tenth of the batch's
    stem = Conv(4, (3, 3, 3), (1, 2, 2)).apply({'params': variables['params']['stem_conv0']}, (x - 0.35) / 0.3)
    np.testing.assert_allclose(mean, 0.1 * stem.mean((0, 1, 2, 3)), rtol=1e-4, atol=1e-6)


def test_split_attention_weighs_two_splits_that_sum_to_one(rng):
    """With both splits equal the attention cannot matter: the output is that split."""
    x = rng.normal(size=(2, 3, 5, 5, 4)).astype('f')
    layer = SplitAttention(4, 3, Conv, partial(BatchNorm, use_running_average=True))
    variables = layer.init(jax.random.key(0), x)
    half = rng.normal(size=(3, 3, 3, 2, 4)).astype('f')
    variables['params']['conv']['kernel'] = jnp.concatenate([half, half], -1)
    same = np.concatenate([x[..., :2], x[..., :2]], -1)
    expected = np.maximum(Conv(4, (3, 3, 3)).apply({'params': {'kernel': half}}, x[..., :2]), 0) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(layer.apply(variables, same), expected, rtol=1e-4, atol=1e-5)
