"""Our 2D networks against timm's, with the same weights: what scripts/record_parity.py recorded."""

from functools import partial

import jax
import numpy as np
import pytest
from parity import rule

from covid_jax.models import network

LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
STEM = {'stem_conv0': 'conv1.0', 'stem_conv1': 'conv1.3', 'stem_conv2': 'conv1.6',
        'stem_bn0': 'conv1.1', 'stem_bn1': 'conv1.4', 'stem_bn2': 'bn1'}
CASES = {'resnet18': 'ResNet18', 'resnet50': 'ResNet50', 'resnest50d': 'ResNeSt50'}


def torch_name(path, first_downsample):
    """('params', 'layer1_0', 'conv1', 'kernel') -> 'layer1.0.conv1.weight'."""
    *modules, leaf = [p.key for p in path[1:]]
    name = '.'.join(STEM.get(m, m.replace('_', '.') if m.startswith('layer') else m) for m in modules)
    name = name.replace('downsample_conv', f'downsample.{first_downsample}')
    name = name.replace('downsample_bn', f'downsample.{first_downsample + 1}').replace('classifier.Dense_0', 'fc')
    return f'{name}.{LEAVES[leaf]}'


def drawn(variables, first_downsample):
    """The rule's weights, in the layout of `variables`."""
    def leaf(path, like):
        name = torch_name(path, first_downsample)
        if like.ndim == 5:
            _, kh, kw, features_in, features = like.shape
            return rule.draw(name, (features, features_in, kh, kw)).transpose(2, 3, 1, 0)[None]
        return rule.draw(name, like.shape[::-1]).T
    return jax.tree_util.tree_map_with_path(leaf, variables)


def close(ours, theirs, name):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


@pytest.fixture(scope='module', params=CASES)
def case(request, pytestconfig):
    name = request.param
    with np.load(pytestconfig.rootpath / 'tests' / 'parity' / f'{name}.npz', allow_pickle=False) as file:
        theirs = dict(file)
    net = network(CASES[name])(classes=1000, taps=1, conv_form='planar')
    image = rule.image().transpose(0, 2, 3, 1)
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), image)
    first_downsample = 1 if name == 'resnest50d' else 0
    return net, drawn(shapes, first_downsample), image, theirs, first_downsample


def test_as_many_parameters(case):
    _, variables, _, theirs, _ = case
    assert sum(x.size for x in jax.tree.leaves(variables['params'])) == theirs['parameters']


def test_evaluation(case):
    net, variables, image, theirs, _ = case
    last = {f'layer{i}_{size - 1}': f'eval/layer{i}' for i, size in enumerate(net.stage_sizes, 1)}
    keep = partial(net.apply, capture_intermediates=lambda module, _: module.name in last, mutable=['intermediates'])
    (logits, _), state = jax.jit(keep)(variables, image)
    for block, stage in last.items():
        close(rule.sample(state['intermediates'][block]['__call__'][0]), theirs[stage], stage)
    close(logits, theirs['eval/logits'], 'logits')


def test_training(case):
    net, variables, image, theirs, first_downsample = case
    (logits, _), state = jax.jit(partial(net.apply, train=True, mutable=['batch_stats']))(variables, image)
    close(logits, theirs['train/logits'], 'logits')
    batch = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, state, {'batch_stats': variables['batch_stats']})
    statistics = {f'train/{torch_name(path, first_downsample)}': x
                  for path, x in jax.tree_util.tree_leaves_with_path(batch)}
    assert {*statistics} == {k for k in theirs if 'running' in k}
    for name, x in statistics.items():
        close(x[:len(theirs[name])], theirs[name], name)
