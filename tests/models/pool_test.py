from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.models import pool
from covid_jax.models.pool import adaptive_avg_pool

POOLS = [((3, 3, 3), (2, 2, 2), ((1, 1),) * 3), ((1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
         ((2, 2, 2), (2, 2, 2), ((0, 1), (0, 0), (0, 1)))]


@pytest.mark.parametrize('window,strides,padding', POOLS)
def test_pools_equal_reduce_window_with_gradients(rng, window, strides, padding):
    x = rng.permutation(2 * 5 * 8 * 7 * 3).reshape(2, 5, 8, 7, 3).astype('f')  # no ties
    for ours, theirs in ((pool.max_pool, nn.max_pool), (pool.avg_pool, nn.avg_pool)):
        cotangent = rng.normal(size=jax.eval_shape(lambda x, f=theirs: f(x, window, strides, padding), x).shape).astype('f')

        @partial(jax.jit, static_argnums=1)
        def both(x, pool, cotangent=cotangent):
            y, back = jax.vjp(lambda x: pool(x, window, strides, padding), x)
            return y, back(cotangent)[0]

        for given, expected in zip(both(x, ours), both(x, theirs), strict=True):
            np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)


def test_average_without_padding_in_the_count():
    x = jnp.arange(1.0, 4.0).reshape(1, 1, 1, 3, 1)  # 1 2 | 3 and nothing: means 1.5 and 3
    y = pool.avg_pool(x, (1, 1, 2), (1, 1, 2), ((0, 0), (0, 0), (0, 1)), count_include_pad=False)
    np.testing.assert_allclose(y.ravel(), [1.5, 3.0])
    y = pool.avg_pool(x, (1, 1, 2), (1, 1, 2), ((0, 0), (0, 0), (0, 1)))
    np.testing.assert_allclose(y.ravel(), [1.5, 1.5])


@pytest.mark.parametrize('size', [1, 2, 4, 5, 7])
def test_pooling_to_two_by_two(rng, size):
    x = rng.normal(size=(2, size, 7, 3)).astype('f')
    pooled = adaptive_avg_pool(x, (2, 2))
    assert pooled.shape == (2, 2, 2, 3)
    first = -(-size // 2)  # rows of either half
    np.testing.assert_allclose(pooled[:, 1, 0], x[:, size - first:, :4].mean((1, 2)), rtol=1e-5, atol=1e-6)
    if size == 7:
        np.testing.assert_allclose(pooled, nn.avg_pool(x, (4, 4), (3, 3)), rtol=1e-5, atol=1e-6)
