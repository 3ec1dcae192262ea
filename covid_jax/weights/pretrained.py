"""Weights of torch's 2D networks put into ours, kernel by kernel, with a report; what does not fit is an error.

Each family's `torch_name` says what timm and torchvision call its modules. A 2D kernel is inflated in depth (Carreira and
Zisserman, "Quo Vadis, Action Recognition?", 2017; CMC-COV19D section 3.4.1), three colours are summed onto grey.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from covid_jax import UserError
from covid_jax.models import covidnet, crnet, densenet, efficientnet, resnest, resnet, vgg
from covid_jax.weights.tensors import SUFFIXES, read

__all__ = ('convert', 'load', 'read', 'summary', 'table')

Report = list[tuple[str, str, str]]  # our name, their name or '-', what was done

# By what a network's name starts with: its modules' names in torch, and its convolution that sees the image.
FAMILIES = {
    'ResNeSt': (resnest.torch_name, 'stem_conv0'),
    'ResNet': (resnet.torch_name, 'conv1'),
    'DenseNet': (densenet.torch_name, 'conv0'),
    'EfficientNet': (efficientnet.torch_name, 'conv_stem'),
    'VGG': (vgg.torch_name, 'conv0'),
    'CRNet': (crnet.torch_name, 'conv1'),
    'COVIDNet': (covidnet.torch_name, 'conv1'),
}
LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
OURS = ('slices',)  # modules that no file has: what follows a per-slice network
FLATTENING = ['fc1'], ['hidden', 'fc1']  # the dense layers of VGG and COVID-Net that see a whole map
MISFITS = 5  # of which an error tells
TIMM = 'https://huggingface.co/timm/'
TORCHVISION = 'https://download.pytorch.org/models/'
PUBLISHED = {
    'ResNet18': (TIMM + 'resnet18.tv_in1k', TORCHVISION + 'resnet18-f37072fd.pth'),
    'ResNet50': (TIMM + 'resnet50.tv_in1k', TORCHVISION + 'resnet50-0676ba61.pth'),
    'ResNeSt50': (TIMM + 'resnest50d.in1k', 'https://github.com/zhanghang1989/ResNeSt'),
    'VGG16': (TIMM + 'vgg16.tv_in1k', TORCHVISION + 'vgg16-397923af.pth'),
    'VGG19': (TIMM + 'vgg19.tv_in1k', TORCHVISION + 'vgg19-dcbb9e9d.pth'),
    'DenseNet121': (TIMM + 'densenet121.tv_in1k', TORCHVISION + 'densenet121-a639ec97.pth'),
    'DenseNet169': (TIMM + 'densenet169.tv_in1k', TORCHVISION + 'densenet169-b2777c0a.pth'),
    'EfficientNetB0': (TIMM + 'efficientnet_b0.ra_in1k', TORCHVISION + 'efficientnet_b0_rwightman-7f5810bc.pth'),
    'EfficientNetB1': (TIMM + 'efficientnet_b1.ft_in1k', TORCHVISION + 'efficientnet_b1_rwightman-bac287d4.pth'),
    'EfficientNetB4': (TIMM + 'efficientnet_b4.ra2_in1k', TORCHVISION + 'efficientnet_b4_rwightman-23ab8bcd.pth'),
}


class _Misfit(Exception):
    """Why one tensor does not fit."""


def load(path: Path | str, network: str) -> dict[str, np.ndarray]:
    """{torch's name: array} of a file of weights of `network`, which `find` finds."""
    find(path, network)
    return read(path)


def find(path: Path | str, network: str) -> None:
    """UserError where there is no such file, which says where this network's is usually found."""
    if not str(path).lower().endswith(SUFFIXES):
        raise UserError(f'{path} is not read: weights are {", ".join(SUFFIXES)}')
    if not Path(path).exists():
        places = next((f for name, f in PUBLISHED.items() if network.startswith(name)), None)
        usual = f'its weights are usually from {" or ".join(places)}' if places else f'no weights of {network} are published'
        raise UserError(f'there is no file {path}: set --config.model.pretrained to a file of weights of {network}; {usual}')


def convert(variables: dict[str, Any], tensors: dict[str, np.ndarray], network: str,
            inflate: str = 'mean') -> tuple[dict[str, Any], Report]:
    """Variables started from the tensors of a file, and what was done with each.

    Args:
      variables: {'params': tree, 'batch_stats': tree} of arrays (or shapes) of the network; some have no statistics.
      tensors: {torch's name: array}, from `load`: as timm names them, or torchvision.
      network: the network's name; its family says which name is whose.
      inflate: a 2D kernel becomes one of depth k as 'mean', k copies divided by k (the 2D answer where the scan does
        not change in depth), or 'centre', in the middle slice of zeros.

    Returns: variables of the same structure, numpy arrays where they were loaded and what was given where not; and the
    report, a sorted list of (our name, their name, action). A classifier of other classes keeps its start; a first
    convolution of another plane too, as the authors of CMC-COV19D had it; and a dense layer on a map of another size.
    torch's unbiased running variance is taken as it is.

    UserError for a tensor that is missing, unused, of another shape, no floating point or not finite: up to five.
    """
    torch_name, first_conv = _family(network)
    if inflate not in ('mean', 'centre'):
        raise UserError(f'--config.model.inflate={inflate} must be mean or centre')

    names_by = {library: _names(variables, torch_name, library) for library in ('timm', 'torchvision')}
    library = max(names_by, key=lambda library: len(tensors.keys() & {*names_by[library].values()}))
    names = names_by[library]
    report: Report = []
    misfits = []
    head = torch_name(['classifier'], library)
    classifier_afresh = _classifier_afresh(variables['params'], tensors.get(f'{head}.weight'))

    def value_of(path, x):
        *modules, leaf = (k.key for k in path[1:])
        ours = '/'.join((*modules, leaf))
        theirs = names[path]
        afresh = ''
        if modules[0] in OURS:
            afresh = 'initialised afresh (no part of a 2D network)'
        elif modules[0] == 'classifier':
            afresh = classifier_afresh
        if afresh:
            report.append((ours, '-', afresh))
            return x
        try:
            value, action = _fit(x, tensors.get(theirs), leaf, modules, first_conv, inflate)
        except _Misfit as e:
            misfits.append(f'{theirs} {e} for {ours} {tuple(x.shape)}')
            return x
        report.append((ours, theirs if value is not x else '-', action))
        return value

    new = jax.tree_util.tree_map_with_path(value_of, variables)
    wanted = {*names.values()}
    misfits += [f'{theirs} {tensor.shape} is unused' for theirs, tensor in tensors.items()
                if theirs not in wanted and not theirs.endswith('.num_batches_tracked')]
    if misfits:
        more = f'; and {len(misfits) - MISFITS} more' if len(misfits) > MISFITS else ''
        raise UserError(f'--config.model.pretrained is not of {network}: {"; ".join(misfits[:MISFITS])}{more}')
    return new, sorted(report)


def summary(report: Report) -> str:
    """The report in one line: '214 loaded; 1 summed RGB onto grey; ...'."""
    return '; '.join(f'{count} {action}' for action, count in Counter(action for *_, action in report).most_common())


def table(report: Report) -> str:
    """The report as text, a line for each tensor."""
    widths = [max(len(row[i]) for row in report) for i in (0, 1)]
    return ''.join(f'{ours:{widths[0]}}  {theirs:{widths[1]}}  {action}\n' for ours, theirs, action in report)


def _family(network):
    """torch_name of a network's family, and the name of its first convolution."""
    return next(family for name, family in FAMILIES.items() if network.lstrip('_').startswith(name))


def _names(variables, torch_name, library):
    """{path of a leaf: its name in a library's files}."""
    names = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(variables):
        *modules, leaf = (k.key for k in path[1:])
        names[path] = f'{torch_name(modules, library)}.{LEAVES[leaf]}'
    return names


def _classifier_afresh(params, tensor):
    """Why the classifier keeps its start, or '' where the file's, `tensor`, fits."""
    features, classes = params['classifier'].get('Dense_0', params['classifier'])['kernel'].shape
    theirs = None if tensor is None else tensor.shape
    if theirs == (classes, features):
        return ''
    if theirs is None or len(theirs) != 2:
        return f'initialised afresh (classifier: {classes} classes, file has none)'
    if theirs[0] != classes:
        return f'initialised afresh (classifier: {classes} classes, file has {theirs[0]})'
    return f'initialised afresh (classifier: {features} features, file has {theirs[1]})'


def _fit(x, tensor, leaf, modules, first_conv, inflate):
    """tensor in the form of x, and what was done; x itself where it keeps its start. _Misfit where it does not fit."""
    if tensor is None:
        raise _Misfit('is missing')
    if not np.issubdtype(tensor.dtype, np.floating) and tensor.dtype.name != 'bfloat16':
        raise _Misfit(f'is of {tensor.dtype}')
    shape = tuple(x.shape)
    actions = []
    value = tensor
    if leaf == 'kernel' and modules in FLATTENING:
        value = _on_a_map(tensor, shape)
        if value.shape[-2:] == shape[-2:] and value.shape != shape:
            return x, f'initialised afresh (first dense layer: {_plane(shape[:-2])}, file has {_plane(value.shape[:-2])})'
    elif leaf == 'kernel' and len(shape) == 2:
        as_a_convolution = tensor.shape[2:] == (1, 1)  # timm's VGG
        value = (tensor[:, :, 0, 0] if as_a_convolution else tensor).T
    elif leaf == 'kernel' and tensor.ndim in (4, 5):
        value = np.moveaxis(tensor if tensor.ndim == 5 else tensor[:, :, None], (0, 1), (4, 3))
        if modules == [first_conv] and value.shape[1:3] != shape[1:3]:
            return x, f'initialised afresh (first convolution: {_plane(shape[1:3])}, file has {_plane(value.shape[1:3])})'
        if _from_2d(value.shape, shape, modules == [first_conv]) == shape:
            value, actions = _to_3d(value.astype(np.float32), shape, inflate)
    if value.shape != shape:
        raise _Misfit(f'{tensor.shape} does not fit')
    value = np.ascontiguousarray(value, x.dtype)
    if not np.isfinite(value).all():
        raise _Misfit('is not finite')
    return value, ', '.join(actions) or 'loaded'


def _on_a_map(tensor, shape):
    """[out, c, *space] as timm has it, or flattened [out, c *space] of the space in `shape` or of a square -> [*space, c, out]."""
    *space, channels, _ = shape
    if tensor.ndim == 2:
        side = math.isqrt(tensor.shape[1] // channels)
        for sides in (space, (side, side)):
            if tensor.shape[1] == channels * math.prod(sides):
                tensor = tensor.reshape(-1, channels, *sides)
                break
    return np.moveaxis(tensor, (0, 1), (-1, -2)) if tensor.ndim > 2 else tensor


def _plane(shape):
    return 'x'.join(map(str, shape))


def _from_2d(there, here, first):
    """The shape [kd, kh, kw, in, out] that a kernel can be given: any depth from 1, grey from colour in the first."""
    depth, kh, kw, channels, features = there
    grey = first and (channels, here[3]) == (3, 1)
    return here[0] if depth == 1 else depth, kh, kw, 1 if grey else channels, features


def _to_3d(kernel, shape, inflate):
    """A kernel [kd, kh, kw, in, out] in another shape, and what was done to it."""
    actions = []
    if kernel.shape[3] != shape[3]:
        kernel = kernel.sum(3, keepdims=True)
        actions.append('summed RGB onto grey')
    depth = shape[0]
    if kernel.shape[0] != depth:
        if inflate == 'mean':
            kernel = np.repeat(kernel / depth, depth, 0)
        else:
            kernel = np.pad(kernel, ((depth // 2, depth - 1 - depth // 2), *((0, 0),) * 4))
        actions.append(f'inflated {depth} ({inflate})')
    return kernel, actions
