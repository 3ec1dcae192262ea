import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.models.conv import Conv
from covid_jax.models.norm import BatchNorm
from covid_jax.models.resnest import SplitAttention


def tiny(**kwargs):
    return network('_ResNeStTiny')(classes=2, compute=Compute(mean=0.35, std=0.3), **kwargs)


@pytest.fixture(scope='module')
def started():
    x = np.random.default_rng(1).random((4, 6, 16, 16, 1), np.float32)
    return x, tiny().init(jax.random.key(0), x)


def test_contract(started):
    x, variables = started
    net = tiny()
    logits, out = net.apply(variables, x)
    assert logits.shape == (4, 2) and out['features'].shape == (4, 16) and out['map'].shape == (4, 6, 4, 4, 16)
    feature_map = net.apply(variables, x, method='trunk')
    again, features = net.apply(variables, feature_map, method='head')
    np.testing.assert_array_equal(again, logits)
    np.testing.assert_array_equal(features, out['features'])


def test_running_statistics_move_only_in_training(started):
    x, variables = started
    _, after = tiny().apply(variables, x, True, mutable=['batch_stats'])
    mean = after['batch_stats']['stem_bn0']['mean']
    # a running mean that starts at zero and takes a tenth of the batch's
    stem = Conv(4, (3, 3, 3), (1, 2, 2)).apply({'params': variables['params']['stem_conv0']}, (x - 0.35) / 0.3)
    np.testing.assert_allclose(mean, 0.1 * stem.mean((0, 1, 2, 3)), rtol=1e-4, atol=1e-6)


def test_split_attention_weighs_two_splits_that_sum_to_one(rng):
    """With both splits equal the attention cannot matter: the output is that split."""
    from functools import partial

    x = rng.normal(size=(2, 3, 5, 5, 4)).astype('f')
    layer = SplitAttention(4, 3, Conv, partial(BatchNorm, use_running_average=True))
    variables = layer.init(jax.random.key(0), x)
    half = rng.normal(size=(3, 3, 3, 2, 4)).astype('f')
    variables['params']['conv']['kernel'] = jnp.concatenate([half, half], -1)
    same = np.concatenate([x[..., :2], x[..., :2]], -1)
    expected = np.maximum(Conv(4, (3, 3, 3)).apply({'params': {'kernel': half}}, x[..., :2]), 0) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(layer.apply(variables, same), expected, rtol=1e-4, atol=1e-5)


def test_a_mistyped_name_is_one_helpful_line():
    with pytest.raises(UserError, match='ResNeSt14Small'):
        network('ResNest14small')


def test_a_scan_of_any_depth(started):
    _, variables = started
    shapes = [jax.eval_shape(lambda x: tiny().apply(variables, x)[0], jax.ShapeDtypeStruct((1, d, 16, 16, 1), 'float32'))
              for d in (1, 7, 64)]
    assert [s.shape for s in shapes] == [(1, 2)] * 3
