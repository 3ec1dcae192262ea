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


@pytest.mark.parametrize('form', ['native', 'planar', 'flat'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_xla_with_gradients(rng, case, form):
    shape, taps, strides, padding = case
    x = rng.normal(size=shape).astype('f')
    w = rng.normal(size=(*taps, shape[-1], 6)).astype('f')

    def theirs(x, w):
        return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
                                        precision='highest')

    close_with_gradients(rng, lambda x, w: conv.conv3d(x, w, strides, padding, form), theirs, x, w)


def close_with_gradients(rng, ours, theirs, x, w):
    cotangent = rng.normal(size=jax.eval_shape(theirs, x, w).shape).astype('f')
    given, expected = (jax.jit(lambda x, w, f=f: (f(x, w), *jax.vjp(f, x, w)[1](cotangent)))(x, w) for f in (ours, theirs))
    for a, b in zip(given, expected, strict=True):
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


DEPTHWISE = [  # shape, kernel, strides, padding
    ((2, 5, 9, 8, 3), (3, 3, 3), (1, 1, 1), ((1, 1),) * 3),
    ((2, 5, 9, 8, 3), (3, 3, 3), (2, 2, 2), ((1, 1),) * 3),
    ((2, 7, 8, 11, 3), (5, 3, 3), (2, 2, 2), ((2, 2), (1, 1), (1, 1))),
    ((3, 1, 12, 13, 4), (1, 5, 5), (1, 1, 1), ((0, 0), (2, 2), (2, 2))),
    ((2, 3, 12, 13, 4), (1, 5, 5), (1, 2, 2), ((0, 0), (2, 2), (2, 2))),
    ((2, 6, 9, 9, 4), (1, 3, 3), (2, 1, 1), ((0, 0), (1, 1), (1, 1))),
    ((1, 2, 2, 2, 5), (3, 5, 5), (2, 2, 2), ((1, 1), (2, 2), (2, 2))),  # the kernel is wider than the map
    ((1, 4, 7, 6, 5), (3, 3, 3), (2, 1, 3), ((1, 0), (0, 1), (2, 2))),  # what lies at the end is never read
]


@pytest.mark.parametrize('form', ['native', 'planar', 'flat'])
@pytest.mark.parametrize('case', DEPTHWISE, ids=str)
def test_depthwise_equals_xla_with_gradients(rng, case, form):
    shape, taps, strides, padding = case
    x = rng.normal(size=shape).astype('f')
    w = rng.normal(size=(*taps, 1, shape[-1])).astype('f')

    def theirs(x, w):
        return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
                                        feature_group_count=shape[-1], precision='highest')

    close_with_gradients(rng, lambda x, w: conv.depthwise(x, w, strides, padding, form), theirs, x, w)


def test_a_tap_moves_its_channel_alone():
    layer = conv.DepthwiseConv((1, 1, 3), form='planar')
    x = jnp.arange(8.0).reshape(1, 1, 1, 4, 2)  # channels 0 2 4 6 and 1 3 5 7
    kernel = jnp.array([[1.0, 0], [0, 0], [0, 10]]).reshape(1, 1, 3, 1, 2)  # from the left; ten times from the right
    y = layer.apply({'params': {'kernel': kernel}}, x)
    np.testing.assert_array_equal(y[0, 0, 0], [[0, 30], [0, 50], [2, 70], [4, 0]])


def test_depthwise_in_bfloat16_sums_in_float32():
    weights = jnp.full((1, 5, 5, 1, 2), 2.0**-9, 'bfloat16').at[:, 0, 0].set(1)  # 1 + 2^-9 is 1 in bfloat16
    ones = jnp.ones((1, 1, 9, 9, 2), 'bfloat16')
    y, back = jax.vjp(lambda x, w: conv.depthwise(x, w, form='planar'), ones, weights)
    dx, dw = back(weights.reshape(y.shape))
    assert y.dtype == dx.dtype == dw.dtype == 'bfloat16'
    np.testing.assert_array_equal(y.astype('f'), 1 + 24 / 512)
    np.testing.assert_array_equal(dw.astype('f'), 1 + 24 / 512)


def test_depthwise_gradients_of_rows_on_many_devices_meet_only_as_kernels(rng):
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (('data',), ()))
    x = rng.normal(size=(8, 1, 16, 16, 4)).astype('f')
    w = rng.normal(size=(1, 3, 3, 1, 4)).astype('f')

    def loss(x, w):
        return jnp.sum(conv.depthwise(x, w, (1, 2, 2), ((0, 0), (1, 1), (1, 1)), 'planar') ** 2)

    gradient = jax.jit(jax.grad(loss, (0, 1)), in_shardings=(rows, whole), out_shardings=(rows, whole))
    text = gradient.lower(x, w).compile().as_text()
    assert text.count('all-reduce(') == 1 and 'f32[9,4]' in next(t for t in text.splitlines() if 'all-reduce(' in t)
    assert not any(name in text for name in ('all-gather', 'all-to-all', 'collective-permute'))


@pytest.mark.parametrize('form', ['native', 'planar', 'flat'])
@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_the_gradient_of_a_kernel_is_summed_in_the_type_that_is_computed_in(form, dtype):
    """Over rows and positions, so over the devices that hold them: bfloat16 on TPU and GPU."""
    layer = conv.Conv(4, (3, 3, 3), dtype=dtype, form=form)
    x = jax.ShapeDtypeStruct((8, 4, 9, 9, 3), 'float32')
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    program = jax.make_jaxpr(jax.grad(lambda v, x: jnp.sum(layer.apply(v, x).astype('f'))))(variables, x)
    sums = [e.outvars[0].aval for e in program.eqns if e.primitive.name == 'conv_general_dilated']
    assert [a.dtype for a in sums if a.size == 27 * 3 * 4] == [dtype]
    assert program.out_avals[0].dtype == 'float32'


def test_each_platform_has_the_form_that_is_fast_there():
    """docs/benchmarks.md: planar sums on a CPU, the native convolution elsewhere."""
    assert [conv.form_for(platform) for platform in ('cpu', 'gpu', 'tpu', 'onnx')] == ['planar', 'native', 'native', 'flat']
