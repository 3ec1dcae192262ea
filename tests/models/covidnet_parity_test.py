"""COVID-Net and its redesign against torch, narrow, with the same weights: what scripts/record_parity.py recorded."""

from functools import partial

import jax
import numpy as np
import pytest
from parity import rule

from covid_jax.models import network
from covid_jax.models.covidnet import torch_name

LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
CASES = {'covidnet': 'COVIDNetSmall', 'covidnet_redesign': 'COVIDNetRedesignSmall'}
STAGES = ('p13', 'p24', 'p36', 'p43')
GAIN = 0.8
SITE = np.array([0, 1, 0, 1, 0, 1], np.int32)


def names(path):
    """('params', 'conv1_norm', 'scale') -> 'conv1_norm', 'weight'."""
    *modules, leaf = [p.key for p in path[1:]]
    return torch_name(modules), LEAVES[leaf]


def drawn(path, like):
    """The rule's weight, in the layout of `like`."""
    module, leaf = names(path)
    draw = partial(rule.draw, gain=GAIN)
    if module.endswith('_norm'):
        return np.stack([draw(f'{module}.{site}.{leaf}', like.shape[1:]) for site in range(len(like))])
    name = f'{module}.{leaf}'
    if like.ndim == 5:
        _, kh, kw, features_in, features = like.shape
        return draw(name, (features, features_in, kh, kw)).transpose(2, 3, 1, 0)[None]
    if like.ndim == 4:  # a dense layer on a map
        h, w, channels, features = like.shape
        return draw(name, (features, channels * h * w)).reshape(features, channels, h, w).transpose(2, 3, 1, 0)
    return draw(name, like.shape[::-1]).T


def close(ours, theirs, name):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


@pytest.fixture(scope='module', params=CASES)
def case(request, pytestconfig):
    with np.load(pytestconfig.rootpath / 'tests' / 'parity' / f'{request.param}.npz', allow_pickle=False) as file:
        theirs = dict(file)
    net = network(CASES[request.param])(classes=1000, conv_form='planar')
    image = rule.image((6, 3, 144, 112)).transpose(0, 2, 3, 1)
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), image)
    return net, jax.tree_util.tree_map_with_path(drawn, shapes), image, theirs


def test_as_many_parameters(case):
    _, variables, _, theirs = case
    assert sum(x.size for x in jax.tree.leaves(variables['params'])) == theirs['parameters']


def test_evaluation(case):
    net, variables, image, theirs = case
    keep = partial(net.apply, capture_intermediates=lambda module, _: module.name in STAGES, mutable=['intermediates'],
                   method='once')
    (logits, _), state = jax.jit(keep)(variables, image, site=SITE)
    for stage in STAGES:
        close(rule.sample(state['intermediates'][stage]['__call__'][0]), theirs[f'eval/{stage}'], stage)
    close(logits, theirs['eval/logits'], 'logits')


def test_training(case):
    net, variables, image, theirs = case
    (logits, _), state = jax.jit(partial(net.apply, train=True, mutable=['batch_stats']))(variables, image, site=SITE)
    close(logits, theirs['train/logits'], 'logits')
    old = {'batch_stats': variables.get('batch_stats', {})}
    batch = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, {'batch_stats': state.get('batch_stats', {})}, old)
    statistics = {f'train/{names(path)[0]}.{site}.{names(path)[1]}': x[site]
                  for path, x in jax.tree_util.tree_leaves_with_path(batch) for site in range(2)}
    assert {*statistics} == {k for k in theirs if 'running' in k}
    for name, x in statistics.items():
        close(x[:len(theirs[name])], theirs[name], name)
