"""Our EfficientNet against timm's in 2D and a torch module in 3D: what scripts/record_parity.py wrote."""

from functools import partial

import jax
import numpy as np
import pytest
from parity import rule

from covid_jax.models import network, pretrained
from covid_jax.models.efficientnet import torch_name

LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
# their name: ours, its fields, what the rule's scales are multiplied by (with 1, nothing of the image reaches the logits)
CASES = {'efficientnet_b0': ('EfficientNetB0', {'taps': 1}, 2.1), 'efficientnet_b4': ('EfficientNetB4', {'taps': 1}, 1.85),
         'efficientnet_b0_3d': ('EfficientNetB0', {'widen': 0.5, 'deepen': 0.6}, 2.4)}


def name_of(path):
    *modules, leaf = [p.key for p in path[1:]]
    return f'{torch_name(modules)}.{LEAVES[leaf]}'


def loaded(shapes, name, flat, scale):
    """Variables from the rule's tensors under timm's names; kernels have two dimensions there where `flat`."""
    tensors = {}
    for path, like in jax.tree_util.tree_leaves_with_path(shapes):
        shape = like.shape[::-1]
        if like.ndim == 5:
            shape = (*shape[:2], *like.shape[1 if flat else 0:3])
        tensors[name_of(path)] = rule.draw(name_of(path), shape, scale=scale)
    variables, report = pretrained.convert(shapes, tensors, name)
    assert pretrained.summary(report) == f'{len(tensors)} loaded'
    return variables


def close(ours, theirs, name):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


@pytest.fixture(scope='module', params=CASES)
def case(request, pytestconfig):
    with np.load(pytestconfig.rootpath / 'tests' / 'parity' / f'{request.param}.npz', allow_pickle=False) as file:
        theirs = dict(file)
    name, fields, scale = CASES[request.param]
    net = network(name)(classes=1000, conv_form='planar', dropout=0.0, drop_connect=0.0, **fields)
    flat = 'taps' in fields
    image = rule.image().transpose(0, 2, 3, 1) if flat else rule.image().reshape(3, 24, 36, 28, 1)
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), image)
    return net, loaded(shapes, name, flat, scale), image, theirs


def test_as_many_parameters(case):
    _, variables, _, theirs = case
    assert sum(x.size for x in jax.tree.leaves(variables['params'])) == theirs['parameters']


def test_evaluation(case):
    net, variables, image, theirs = case
    blocks = sorted(m for m in variables['params'] if m.startswith('blocks'))
    last = {f'eval/blocks.{m[6]}': m for m in blocks}  # sorted: the last of a stage wins
    assert len(last) == 7
    wanted = {*last.values()}
    keep = partial(net.apply, capture_intermediates=lambda module, _: module.name in wanted, mutable=['intermediates'])
    (logits, _), state = jax.jit(keep)(variables, image)
    for stage, block in last.items():
        close(rule.sample(state['intermediates'][block]['__call__'][0]), theirs[stage], stage)
    close(logits, theirs['eval/logits'], 'logits')


def test_training(case):
    net, variables, image, theirs = case
    (logits, _), state = jax.jit(partial(net.apply, train=True, mutable=['batch_stats']))(variables, image)
    close(logits, theirs['train/logits'], 'logits')
    batch = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, state, {'batch_stats': variables['batch_stats']})
    statistics = {f'train/{name_of(path)}': x for path, x in jax.tree_util.tree_leaves_with_path(batch)}
    assert {*statistics} == {k for k in theirs if 'running' in k}
    for name, x in statistics.items():
        close(x[:len(theirs[name])], theirs[name], name)
