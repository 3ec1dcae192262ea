"""Our networks against others' with the same weights: timm's, or a torch module where no library has the network.

scripts/record_parity.py recorded what they answer; weights enter ours under their names, through `pretrained` where files of
such weights exist.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import pytest
from parity import rule

from covid_jax.models import covidnet, crnet, network, pretrained, vgg

LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
class Case(NamedTuple):
    """Our network and its fields; of each recorded stage our module with that output, or 'map' or 'features'; the function
    that names our modules, where no weights of such a network are published."""

    ours: str
    fields: dict
    stages: dict
    torch_name: Callable = None


def resnet(*sizes):
    return {f'layer{i}': f'layer{i}_{size - 1}' for i, size in enumerate(sizes, 1)}


def efficientnet(*sizes):
    return {f'blocks.{i}': f'blocks{i}_{size - 1}' for i, size in enumerate(sizes)}


def vggs(*last):
    """last: torch's numbers of the convolutions before each pool."""
    return {f'features.{k}': f'conv{k}' for k in last} | {f'features.{last[-1] + 2}': 'map', 'pre_logits.act1': 'features'}


FLAT, SURE = {'taps': 1}, {'dropout': 0.0, 'drop_connect': 0.0}
THICK = {'width': 16, 'stem_width': 16, 'stem_taps': 7, 'depth_strides': (1, 2, 1, 2, 2, 2)}  # of dual-track ranking
DENSE = {f'features.transition{i}': f'transition{i}' for i in (1, 2, 3)} | {'features.norm5': 'map'}  # timm's ends in ReLU
COVIDNET = {stage: stage for stage in ('p13', 'p24', 'p36', 'p43')}
CASES = {  # by timm's name, or that of the script which builds the network
    'resnet18': Case('ResNet18', FLAT, resnet(2, 2, 2, 2)),
    'resnet50': Case('ResNet50', FLAT, resnet(3, 4, 6, 3)),
    'resnest50d': Case('ResNeSt50', FLAT, resnet(3, 4, 6, 3)),
    'resnet18_3d': Case('ResNet18', THICK, resnet(2, 2, 2, 2)),
    'resnest14_3d': Case('ResNeSt14Small', {}, resnet(1, 1, 1, 1)),
    'efficientnet_b0': Case('EfficientNetB0', FLAT | SURE, efficientnet(1, 2, 2, 3, 3, 4, 1)),
    'efficientnet_b4': Case('EfficientNetB4', FLAT | SURE, efficientnet(2, 4, 4, 6, 6, 8, 2)),
    'efficientnet_b0_3d': Case('EfficientNetB0', SURE | {'widen': 0.5, 'deepen': 0.6}, efficientnet(1, 2, 2, 2, 2, 3, 1)),
    'densenet121': Case('DenseNet121', {}, DENSE),
    'densenet169': Case('DenseNet169', {}, DENSE),
    'vgg16': Case('VGG16', FLAT | {'dropout': 0.0}, vggs(2, 7, 14, 21, 28)),
    'vgg19': Case('VGG19', FLAT | {'dropout': 0.0}, vggs(2, 7, 16, 25, 34)),
    'vgg19_3d': Case('VGG19', {'dropout': 0.0, 'width': 8, 'dense': 64}, vggs(2, 7, 16, 25, 34), vgg.torch_name),
    'crnet': Case('CRNet', {}, {'bn1': 'bn1', 'conv2': 'conv2', 'pool3': 'map'}, crnet.torch_name),
    'covidnet': Case('COVIDNetSmall', {}, COVIDNET, covidnet.torch_name),
    'covidnet_redesign': Case('COVIDNetRedesignSmall', {}, COVIDNET, covidnet.torch_name),
}


def names(path, torch_name):
    """('params', 'layer1_0', 'conv1', 'kernel') -> 'layer1.0.conv1', 'weight'."""
    *modules, leaf = [p.key for p in path[1:]]
    return torch_name(modules), LEAVES[leaf]


def loaded(name, ours, shapes, torch_name, volumes):
    """Variables through `pretrained`, from the rule's tensors in torch's layout."""
    tensors = {}
    for path, like in jax.tree_util.tree_leaves_with_path(shapes):
        theirs, shape = '.'.join(names(path, torch_name)), like.shape[::-1]
        if like.ndim == 5:
            shape = (*shape[:2], *like.shape[0 if volumes else 1:3])
        tensors[theirs] = rule.draw(theirs, shape, name)
    variables, report = pretrained.convert(shapes, tensors, ours)
    assert pretrained.summary(report) == f'{len(tensors)} loaded'
    return variables


def laid_out(name, shapes, torch_name):
    """Variables from the rule's tensors, of a network of which no weights are published."""
    def leaf(path, like):
        module, part = names(path, torch_name)
        if module.endswith('_norm'):  # one for each site
            return np.stack([rule.draw(f'{module}.{site}.{part}', like.shape[1:], name) for site in range(len(like))])
        if like.ndim == 1:
            return rule.draw(f'{module}.{part}', like.shape, name)
        *space, channels, features = like.shape  # of a dense layer on a map, too: the same numbers as when it is flattened
        return np.moveaxis(rule.draw(f'{module}.{part}', (features, channels, *space), name), (0, 1), (-1, -2))
    return jax.tree_util.tree_map_with_path(leaf, shapes)


def close(ours, theirs, name):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


@pytest.fixture(scope='module', params=CASES)
def case(request, pytestconfig):
    """What was recorded, and ours: the case, network, names, variables and arguments."""
    name, case = request.param, CASES[request.param]
    with np.load(pytestconfig.rootpath / 'tests' / 'parity' / f'{name}.npz', allow_pickle=False) as file:
        theirs = dict(file)
    image = np.moveaxis(rule.image(name), 1, -1)
    net = network(case.ours)(classes=theirs['eval/logits'].shape[-1], conv_form='planar', **case.fields)
    shapes = jax.eval_shape(partial(net.init, jax.random.key(0)), image)
    if case.torch_name:
        torch_name, variables = case.torch_name, laid_out(name, shapes, case.torch_name)
    else:
        torch_name = next(f[0] for start, f in pretrained.FAMILIES.items() if case.ours.startswith(start))
        variables = loaded(name, case.ours, shapes, torch_name, image.ndim == 5)
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
    old, new = ({'batch_stats': tree.get('batch_stats', {})} for tree in (variables, state))
    seen = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, new, old)
    statistics = {}
    for path, x in jax.tree_util.tree_leaves_with_path(seen):
        module, part = names(path, torch_name)
        rows = {f'{module}.{site}': row for site, row in enumerate(x)} if x.ndim == 2 else {module: x}
        statistics.update({f'train/{m}.{part}': row for m, row in rows.items() if not re.search(rule.UNSEEN, m)})
    assert {*statistics} == {k for k in theirs if 'running' in k}
    for name, x in statistics.items():
        close(x[:len(theirs[name])], theirs[name], name)
