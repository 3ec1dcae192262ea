"""VGG against timm's, with the same weights: what scripts/record_parity.py recorded."""

from functools import partial

import jax
import numpy as np
import pytest
from parity import rule

from covid_jax.models import network, pretrained
from covid_jax.models.vgg import torch_name

CASES = {'vgg16': 'VGG16', 'vgg19': 'VGG19'}


def loaded(shapes, name):
    """Variables from the rule's tensors under timm's names."""
    tensors = {}
    for path, like in jax.tree_util.tree_leaves_with_path(shapes):
        *modules, leaf = [p.key for p in path[1:]]
        theirs = f'{torch_name(modules)}.{"bias" if leaf == "bias" else "weight"}'
        shape = like.shape[::-1]
        tensors[theirs] = rule.draw(theirs, (*shape[:2], *like.shape[1:3]) if like.ndim == 5 else shape)
    variables, report = pretrained.convert(shapes, tensors, name)
    assert pretrained.summary(report) == f'{len(tensors)} loaded'
    return variables


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
    variables = loaded(shapes, CASES[name])
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
