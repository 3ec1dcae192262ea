"""Our DenseNets against timm's, with the same weights: what scripts/record_parity.py recorded."""

from functools import partial

import jax
import numpy as np
import pytest
from parity import rule

from covid_jax.models import network, pretrained
from covid_jax.models.densenet import torch_name

LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
CASES = {'densenet121': 'DenseNet121', 'densenet169': 'DenseNet169'}


def theirs(path):
    *modules, leaf = [p.key for p in path[1:]]
    return f'{torch_name(modules)}.{LEAVES[leaf]}'


def loaded(shapes, name):
    """Variables from the rule's tensors under timm's names."""
    tensors = {}
    for path, like in jax.tree_util.tree_leaves_with_path(shapes):
        shape = like.shape[::-1]
        tensors[theirs(path)] = rule.draw(theirs(path), (*shape[:2], *like.shape[1:3]) if like.ndim == 5 else shape)
    variables, report = pretrained.convert(shapes, tensors, name)
    assert pretrained.summary(report) == f'{len(tensors)} loaded'
    return variables


def close(ours, recorded, name):
    np.testing.assert_allclose(ours, recorded, rtol=0, atol=1e-4 * np.abs(recorded).max(), err_msg=name)


@pytest.fixture(scope='module', params=CASES)
def case(request, pytestconfig):
    with np.load(pytestconfig.rootpath / 'tests' / 'parity' / f'{request.param}.npz', allow_pickle=False) as file:
        recorded = dict(file)
    net = network(CASES[request.param])(classes=1000, conv_form='planar')
    image = rule.image((3, 3, 64, 64)).transpose(0, 2, 3, 1)
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), image)
    return net, loaded(shapes, CASES[request.param]), image, recorded


def test_as_many_parameters(case):
    _, variables, _, recorded = case
    assert sum(x.size for x in jax.tree.leaves(variables['params'])) == recorded['parameters']


def test_evaluation(case):
    net, variables, image, recorded = case
    keep = partial(net.apply, capture_intermediates=lambda module, _: (module.name or '').startswith('transition'),
                   mutable=['intermediates'])
    (logits, out), state = jax.jit(keep)(variables, image)
    for i in (1, 2, 3):
        stage = f'transition{i}'
        close(rule.sample(state['intermediates'][stage]['__call__'][0]), recorded[f'eval/features.{stage}'], stage)
    close(rule.sample(out['map']), recorded['eval/features.norm5'], 'map')  # timm's norm5 ends in ReLU
    close(logits, recorded['eval/logits'], 'logits')


def test_training(case):
    """The layers' norm1 see again what the transition after them sees, and are not recorded."""
    net, variables, image, recorded = case
    (logits, _), state = jax.jit(partial(net.apply, train=True, mutable=['batch_stats']))(variables, image)
    close(logits, recorded['train/logits'], 'logits')
    batch = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, state, {'batch_stats': variables['batch_stats']})
    statistics = {f'train/{theirs(path)}': x for path, x in jax.tree_util.tree_leaves_with_path(batch)}
    names = {k for k in recorded if 'running' in k}
    assert names == {k for k in statistics if '.norm1.' not in k}
    for name in names:
        close(statistics[name][:len(recorded[name])], recorded[name], name)
