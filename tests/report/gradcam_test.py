"""Grad-CAM, against maps worked out apart from it, and on the scan's own grid."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from types import SimpleNamespace

from covid_jax import UserError
from covid_jax.data.prep import Prep
from covid_jax.methods.method import Method, to_float
from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.phantom import address
from covid_jax.report import gradcam
from covid_jax.scans.decode import decode

VOLUMES = ('_ResNetTiny', '_ResNetGRUTiny', '_ResNeStTiny', '_EfficientNetTiny', '_VGGTiny')
IMAGES = ('_DenseNetTiny', '_CRNetTiny', '_COVIDNetTiny', '_COVIDNetRedesignTiny')
SIZES = {'_CRNetTiny': 40, '_DenseNetTiny': 32}


def case(name, depth=1, rows=3, **compute):
    """A method of the network with weights far from zero, and a batch."""
    side = SIZES.get(name, 16)
    rng = np.random.default_rng(0)
    batch = {'image': rng.integers(0, 256, (rows, depth, side, side, 1)).astype(np.uint8), 'site': np.arange(rows) % 2}
    flat = {'taps': 1} if depth == 1 and name in VOLUMES else {}
    net = network(name, **flat)(classes=3, compute=Compute(mean=0.4, std=0.3, **compute))
    shapes = jax.eval_shape(net.init, jax.random.key(0), to_float(batch['image']))
    variables = jax.tree.map(lambda x: rng.uniform(0.2, 1, x.shape).astype('f') * rng.choice([-0.5, 1], x.shape), shapes)
    variables['batch_stats'] = jax.tree.map(np.abs, variables.get('batch_stats', {}))
    params = {'network': variables.pop('params')}

    def predict(params, state, batch, key=None):
        logits, out = net.apply({'params': params['network'], **state['network']}, to_float(batch['image']), site=batch['site'])
        return {'features': out['features'], 'logits': logits}

    return Method(net, None, None, predict), params, {'network': variables}, batch


def by_hand(net, params, state, batch, target, site):
    """Trunk and head apart: the loop over channels as the paper writes it."""
    variables = {'params': params['network'], **state['network']}
    x = jax.jit(partial(net.apply, method='trunk'))(variables, to_float(batch['image']), site=site)

    def logit(x, i):
        return net.apply(variables, x, site=site, method='head')[0][i, target[i]]

    heat = np.zeros(x.shape[:-1])
    for i in range(len(x)):
        slope = np.asarray(jax.grad(logit)(x, i)[i], float)
        for k in range(x.shape[-1]):
            heat[i] += slope[..., k].mean() * np.asarray(x[i, ..., k], float)
    return np.maximum(heat, 0)


@pytest.mark.parametrize('name, depth', [*((name, d) for name in VOLUMES for d in (1, 6)), *((name, 1) for name in IMAGES)])
def test_every_network_as_trunk_and_head_apart(name, depth):
    method, params, state, batch = case(name, depth)
    target = np.array([2, 0, 1])
    heat = gradcam.gradcam(method, params, state, batch, target)
    expected = by_hand(method.network, params, state, batch, target, batch['site'])
    assert heat.dtype == np.float32 and expected.max() > 0
    np.testing.assert_allclose(heat, expected, rtol=1e-4, atol=1e-5 * expected.max())
