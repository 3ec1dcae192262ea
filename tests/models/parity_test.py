"""Our networks against others' with the same weights: timm's, or a torch module where no library has the network.

scripts/record_parity.py recorded what they answer; weights enter ours under their names, through `pretrained`.
"""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import pytest
from parity import rule

from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.weights import pretrained


class Case(NamedTuple):
    """Our network and its fields; of each recorded stage our module with that output, or 'map' or 'features'."""

    ours: str
    fields: dict
    stages: dict


def resnet(*sizes):
    return {f'layer{i}': f'layer{i}_{size - 1}' for i, size in enumerate(sizes, 1)}


def efficientnet(*sizes):
    return {f'blocks.{i}': f'blocks{i}_{size - 1}' for i, size in enumerate(sizes)}


def vgg(*last):
    """last: torch's numbers of the convolutions before each pool."""
    return {f'features.{k}': f'conv{k}' for k in last} | {f'features.{last[-1] + 2}': 'map', 'pre_logits.act1': 'features'}


FLAT = {'taps': 1}
SURE = {'dropout': 0.0, 'drop_connect': 0.0}
DENSE = {f'features.transition{i}': f'transition{i}' for i in (1, 2, 3)} | {'features.norm5': 'map'}  # timm's ends in ReLU
COVIDNET = {stage: stage for stage in ('p13', 'p24', 'p36', 'p43')}
CASES = {  # by timm's name, or that of the script which builds the network
    'resnet18': Case('ResNet18', FLAT, resnet(2, 2, 2, 2)),
    'resnet50': Case('ResNet50', FLAT, resnet(3, 4, 6, 3)),
    'resnest50d': Case('ResNeSt50', FLAT, resnet(3, 4, 6, 3)),
    'resnet18_3d': Case('ResNet18Hara', {'width': 16, 'stem_width': 16}, resnet(2, 2, 2, 2)),
    'resnest14_3d': Case('ResNeSt14Small', {}, resnet(1, 1, 1, 1)),
    'efficientnet_b0': Case('EfficientNetB0', FLAT | SURE, efficientnet(1, 2, 2, 3, 3, 4, 1)),
    'efficientnet_b1': Case('EfficientNetB1', FLAT | SURE, efficientnet(2, 3, 3, 4, 4, 5, 2)),
    'efficientnet_b4': Case('EfficientNetB4', FLAT | SURE, efficientnet(2, 4, 4, 6, 6, 8, 2)),
    'efficientnet_b0_3d': Case('EfficientNetB0', SURE | {'widen': 0.5, 'deepen': 0.6}, efficientnet(1, 2, 2, 2, 2, 3, 1)),
    'densenet121': Case('DenseNet121', {}, DENSE),
    'densenet169': Case('DenseNet169', {}, DENSE),
    'vgg16': Case('VGG16', FLAT | {'dropout': 0.0}, vgg(2, 7, 14, 21, 28)),
    'vgg19': Case('VGG19', FLAT | {'dropout': 0.0}, vgg(2, 7, 16, 25, 34)),
    'vgg19_3d': Case('VGG19', {'dropout': 0.0, 'width': 8, 'dense': 64}, vgg(2, 7, 16, 25, 34)),
    'crnet': Case('CRNet', {}, {'bn1': 'bn1', 'conv2': 'conv2', 'pool3': 'map'}),
    'covidnet': Case('COVIDNetSmall', {}, COVIDNET),
    'covidnet_redesign': Case('COVIDNetRedesignSmall', {}, COVIDNET),
}


# Each family has another; docs/fidelity.md is pinned by efficientnet_b0.
SLOW = 'resnet18', 'resnest50d', 'efficientnet_b1', 'efficientnet_b4', 'efficientnet_b0_3d', 'densenet169', 'vgg16', 'vgg19'


def loaded(name, ours, shapes, torch_name, flat):
    """Variables through `pretrained`, from the rule's tensors in torch's layout; `flat`: kernels of two dimensions there."""
    tensors = {}
    for path, like in jax.tree_util.tree_leaves_with_path(shapes):
        *modules, leaf = [p.key for p in path[1:]]
        theirs = f'{torch_name(modules)}.{pretrained.LEAVES[leaf]}'
        shape = like.shape
        if leaf == 'kernel':
            *space, channels, features = like.shape
            shape = features, channels, *(space[1:] if flat and len(space) == 3 else space)
        tensors[theirs] = rule.draw(theirs, shape, name)
    variables, report = pretrained.convert(shapes, tensors, ours)
    assert pretrained.summary(report) == f'{len(tensors)} loaded'
    return variables


def close(ours, theirs, name):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


@pytest.fixture(scope='module', params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES])
def case(request, pytestconfig):
    """What was recorded, and ours: the case, network, names, variables and arguments."""
    name = request.param
    case = CASES[name]
    with np.load(pytestconfig.rootpath / 'tests' / 'parity' / f'{name}.npz', allow_pickle=False) as file:
        theirs = dict(file)
    image = np.moveaxis(rule.image(name), 1, -1)
    net = network(case.ours)(classes=theirs['eval/logits'].shape[-1], compute=Compute(form='planar'), **case.fields)
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), image)
    torch_name = next(f[0] for start, f in pretrained.FAMILIES.items() if case.ours.startswith(start))
    variables = loaded(name, case.ours, shapes, torch_name, image.ndim == 4)
    return theirs, case, net, torch_name, variables, {'image': image, 'site': np.arange(len(image)) % 2}


def test_as_many_parameters(case):
    theirs, _, _, _, variables, _ = case
    assert sum(x.size for x in jax.tree.leaves(variables['params'])) == theirs['parameters']


def test_evaluation(case):
    theirs, case, net, _, variables, batch = case
    wanted = {*case.stages.values()}
    assert {f'eval/{stage}' for stage in case.stages} == {k for k in theirs if k.startswith('eval/')} - {'eval/logits'}
    keep = partial(net.apply, capture_intermediates=lambda module, _: module.name in wanted, mutable=['intermediates'],
                   method=getattr(net, 'once', None))
    (logits, out), state = jax.jit(keep)(variables, **batch)
    for stage, module in case.stages.items():
        x = out[module] if module in out else state['intermediates'][module]['__call__'][0]
        close(rule.sample(x), theirs[f'eval/{stage}'], stage)
    close(logits, theirs['eval/logits'], 'logits')


def test_training(case):
    """Also the statistics of the batch at every normalisation, out of the running ones."""
    theirs, case, net, torch_name, variables, batch = case
    (logits, _), state = jax.jit(partial(net.apply, train=True, mutable=['batch_stats']))(variables, **batch)
    close(logits, theirs['train/logits'], 'logits')
    old, new = (tree.get('batch_stats', {}) for tree in (variables, state))
    seen = {}
    for path, x in jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, new, old)):
        *modules, leaf = [p.key for p in path]
        seen[torch_name(modules), leaf] = rule.sample(x, rule.CHANNELS)
    modules = theirs['train/modules'].tolist()
    assert {*seen} == {(module, leaf) for module in modules for leaf in ('mean', 'var')}
    for module, (mean, var) in zip(modules, theirs['train/statistics'], strict=True):
        close(seen[module, 'mean'], mean, f'mean of {module}')
        close(seen[module, 'var'], var, f'variance of {module}')
