"""VGG against timm's, with the same weights: what scripts/record_parity.py recorded."""

from functools import partial

import jax
import numpy as np
import pytest
from parity import rule

from covid_jax.models import network
from covid_jax.models.vgg import torch_name

CASES = {'vgg16': 'VGG16', 'vgg19': 'VGG19'}


def drawn(path, like):
    """The rule's tensor for one of our parameters, in our layout."""
    *modules, leaf = [p.key for p in path[1:]]
    name = torch_name(modules)
    if leaf == 'bias':
        return rule.draw(f'{name}.bias', like.shape)
    if like.ndim == 2:
        return rule.draw(f'{name}.weight', like.shape[::-1]).T
    kh, kw, features_in, features = like.shape[-4:]
    return rule.draw(f'{name}.weight', (features, features_in, kh, kw)).transpose(2, 3, 1, 0).reshape(like.shape)


def relu_and_pool(x):
    """[batch, 1, h, w, channels] of even sides -> [batch, h / 2, w / 2, channels]."""
    batch, _, h, w, channels = x.shape
    return np.maximum(x, 0).reshape(batch, h // 2, 2, w // 2, 2, channels).max((2, 4))


def close(ours, theirs, name):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


@pytest.mark.parametrize('name', CASES)
def test_outputs_of_timm(pytestconfig, name):
    with np.load(pytestconfig.rootpath / 'tests' / 'parity' / f'{name}.npz', allow_pickle=False) as file:
        theirs = dict(file)
    net = network(CASES[name])(classes=1000, taps=1, dropout=0.0, conv_form='planar')
    image = rule.image((2, 3, 64, 64)).transpose(0, 2, 3, 1)
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), image)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == theirs['parameters']
    variables = jax.tree_util.tree_map_with_path(drawn, shapes)
    pools = [int(key.rpartition('.')[2]) for key in theirs if key.startswith('eval/features.')]
    last = [f'conv{k - 2}' for k in pools]  # a convolution, its ReLU, the pool

    @jax.jit
    def run(variables):
        out = net.apply(variables, image, capture_intermediates=lambda m, _: m.name in last, mutable=['intermediates'])
        return out, net.apply(variables, image, True)[0]

    ((logits, out), state), train_logits = run(variables)
    assert len(pools) == 5
    for k, conv in zip(pools, last, strict=True):
        stage = relu_and_pool(state['intermediates'][conv]['__call__'][0])
        close(rule.sample(stage), theirs[f'eval/features.{k}'], conv)
    np.testing.assert_array_equal(out['map'], stage)
    close(rule.sample(out['features']), theirs['eval/pre_logits.act1'], 'features')
    close(logits, theirs['eval/logits'], 'logits')
    close(train_logits, theirs['train/logits'], 'logits in training')
