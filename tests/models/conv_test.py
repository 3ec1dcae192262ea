import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from covid_jax.models import conv

CASES = [  # shape, kernel, strides, padding
    ((2, 5, 12, 12, 3), (3, 3, 3), (1, 1, 1), ((1, 1),) * 3),
    ((2, 5, 13, 12, 3), (3, 3, 3), (2, 2, 2), ((1, 1),) * 3),
    ((2, 6, 16, 16, 1), (7, 7, 7), (1, 2, 2), ((3, 3),) * 3),
    ((2, 6, 12, 12, 4), (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
    ((2, 6, 12, 12, 4), (1, 1, 1), (2, 2, 2), ((0, 0),) * 3),
    ((1, 2, 3, 3, 5), (3, 3, 3), (1, 1, 1), ((1, 1),) * 3),  # few positions: one matrix product
    ((1, 4, 5, 6, 5), (3, 3, 3), (2, 1, 2), ((1, 0), (0, 1), (2, 2))),
]


@pytest.mark.parametrize('form', ['native', 'planar'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_xla_with_gradients(rng, case, form):
    shape, taps, strides, padding = case
    x, w = rng.normal(size=shape).astype('f'), rng.normal(size=(*taps, shape[-1], 6)).astype('f')
    dn = ('NDHWC', 'DHWIO', 'NDHWC')

    def theirs(x, w):
        return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=dn, precision='highest')

    def ours(x, w):
        return conv.conv3d(x, w, strides, padding, form)

    y = theirs(x, w)
    cotangent = rng.normal(size=y.shape).astype('f')
    expected = (y, *jax.vjp(theirs, x, w)[1](cotangent))
    for a, b in zip((ours(x, w), *jax.vjp(ours, x, w)[1](cotangent)), expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_two_groups_equal_the_grouped_convolution(rng):
    x = rng.normal(size=(2, 4, 9, 9, 6)).astype('f')
    layer = conv.Conv(8, (3, 3, 3), (1, 2, 2), groups=2, form='planar')
    variables = layer.init(jax.random.key(0), x)
    kernel = variables['params']['kernel']
    assert kernel.shape == (3, 3, 3, 3, 8)
    expected = lax.conv_general_dilated(x, kernel, (1, 2, 2), ((1, 1),) * 3, feature_group_count=2,
                                        dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=2e-5)


POOLS = [((3, 3, 3), (2, 2, 2), ((1, 1),) * 3), ((1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
         ((2, 2, 2), (2, 2, 2), ((0, 1), (0, 0), (0, 1)))]


@pytest.mark.parametrize('window,strides,padding', POOLS)
def test_pools_equal_reduce_window_with_gradients(rng, window, strides, padding):
    x = rng.permutation(2 * 5 * 8 * 7 * 3).reshape(2, 5, 8, 7, 3).astype('f')  # no ties
    for ours, theirs in ((conv.max_pool, nn.max_pool), (conv.avg_pool, nn.avg_pool)):
        y, back = jax.vjp(lambda x, f=ours: f(x, window, strides, padding), x)
        expected, their_back = jax.vjp(lambda x, f=theirs: f(x, window, strides, padding), x)
        np.testing.assert_allclose(y, expected, rtol=1e-5)
        cotangent = rng.normal(size=y.shape).astype('f')
        np.testing.assert_allclose(back(cotangent)[0], their_back(cotangent)[0], rtol=1e-4, atol=1e-5)


def test_average_without_padding_in_the_count():
    x = jnp.arange(1.0, 4.0).reshape(1, 1, 1, 3, 1)  # 1 2 | 3 and nothing: means 1.5 and 3
    y = conv.avg_pool(x, (1, 1, 2), (1, 1, 2), ((0, 0), (0, 0), (0, 1)), count_include_pad=False)
    np.testing.assert_allclose(y.ravel(), [1.5, 3.0])
    y = conv.avg_pool(x, (1, 1, 2), (1, 1, 2), ((0, 0), (0, 0), (0, 1)))
    np.testing.assert_allclose(y.ravel(), [1.5, 1.5])


def test_form_by_platform():
    assert [conv.form_for(p) for p in ('cpu', 'gpu', 'tpu')] == ['planar', 'native', 'native']
