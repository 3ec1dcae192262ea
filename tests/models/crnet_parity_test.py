"""CRNet against scripts/parity_crnet.py in torch, with the same weights: what scripts/record_parity.py recorded."""

from functools import partial

import jax
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from parity import rule

from covid_jax.models import network
from covid_jax.models.crnet import torch_name

LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}


def drawn(path, like):
    """The rule's tensor for one of our variables, in our layout."""
    *modules, leaf = [p.key for p in path[1:]]
    name = f'{torch_name(modules)}.{LEAVES[leaf]}'
    if like.ndim == 5:
        _, kh, kw, features_in, features = like.shape
        return rule.draw(name, (features, features_in, kh, kw)).transpose(2, 3, 1, 0)[None]
    return rule.draw(name, like.shape[::-1]).T


def close(ours, theirs, name):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


@pytest.fixture(scope='module')
def case(pytestconfig):
    with np.load(pytestconfig.rootpath / 'tests' / 'parity' / 'crnet.npz', allow_pickle=False) as file:
        theirs = dict(file)
    net = network('CRNet')(classes=2, conv_form='planar')
    image = rule.image((2, 1, 224, 224)).transpose(0, 2, 3, 1)
    variables = jax.tree_util.tree_map_with_path(drawn, jax.eval_shape(partial(net.init, jax.random.key(0)), image))
    assert sum(x.size for x in jax.tree.leaves(variables['params'])) == theirs['parameters'] == 546_882
    return net, variables, image, theirs


def test_evaluation(case):
    net, variables, image, theirs = case
    keep = partial(net.apply, capture_intermediates=lambda m, _: m.name in ('bn1', 'conv2'), mutable=['intermediates'])
    (logits, out), state = jax.jit(keep)(variables, image)
    for layer, pool in (('bn1', 'pool1'), ('conv2', 'pool2')):
        x = np.maximum(state['intermediates'][layer]['__call__'][0][:, 0], 0)
        x = sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-2, -1))
        close(rule.sample(x), theirs[f'eval/{pool}'], pool)
    close(rule.sample(out['map']), theirs['eval/pool3'], 'pool3')
    pooled = out['features'].reshape(2, 128, 13, 13).transpose(0, 2, 3, 1)  # from torch's order
    close(rule.sample(pooled), theirs['eval/avgpool'], 'features')
    close(logits, theirs['eval/logits'], 'logits')


def test_training(case):
    net, variables, image, theirs = case
    (logits, _), state = jax.jit(partial(net.apply, train=True, mutable=['batch_stats']))(variables, image)
    close(logits, theirs['train/logits'], 'logits')
    for ours, name in (('mean', 'running_mean'), ('var', 'running_var')):
        batch = (state['batch_stats']['bn1'][ours] - 0.9 * variables['batch_stats']['bn1'][ours]) / 0.1
        expected = theirs[f'train/bn1.{name}']
        close(batch[:len(expected)], expected, name)
