"""Weights of torch's 2D networks put into ours, kernel by kernel, with a report; what does not fit is an error.

Names of torchvision's and timm's ResNet, of timm's and the authors' ResNeSt. A 2D kernel is inflated in depth (Carreira
and Zisserman, "Quo Vadis, Action Recognition?", 2017; CMC-COV19D section 3.4.1), three colours are summed onto grey.
"""

from collections import Counter

import jax
import numpy as np

from covid_jax import UserError
from covid_jax.models.tensors import read

__all__ = ('convert', 'read', 'summary', 'table')

# Our module: theirs, where they differ; layer1_0 is layer1.0 in every family.
SHARED = {'classifier': 'fc', 'Dense_0': ''}
FAMILIES = {
    'ResNeSt': SHARED | {'stem_conv0': 'conv1.0', 'stem_bn0': 'conv1.1', 'stem_conv1': 'conv1.3', 'stem_bn1': 'conv1.4',
                         'stem_conv2': 'conv1.6', 'stem_bn2': 'bn1', 'downsample_conv': 'downsample.1',
                         'downsample_bn': 'downsample.2'},
    'ResNet': SHARED | {'downsample_conv': 'downsample.0', 'downsample_bn': 'downsample.1'},
}
LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
FIRST = {'ResNeSt': 'stem_conv0', 'ResNet': 'conv1'}  # the convolution that sees the image
OURS = ('slices',)  # modules that no file has: what follows a per-slice network


class _Misfit(Exception):
    """Why one tensor does not fit."""


def convert(variables, tensors, network, inflate='mean'):
    """Variables started from the tensors of a file, and what was done with each.

    Args:
      variables: {'params': tree, 'batch_stats': tree} of arrays (or shapes) of the network.
      tensors: {torch's name: array}, from `read`.
      network: the network's name; its family says which name is whose.
      inflate: a 2D kernel becomes one of depth k as 'mean', k copies divided by k (the 2D answer where the scan does
        not change in depth), or 'centre', in the middle slice of zeros.

    Returns: variables of the same structure, numpy arrays where they were loaded and what was given where not; and the
    report, a sorted list of (our name, their name, action). A classifier of other classes keeps its start; a first
    convolution of another plane too, as the authors of CMC-COV19D had it. torch's unbiased running variance is taken
    as it is.

    UserError for a tensor that is missing, unused, of another shape, no floating point or not finite: up to five.
    """
    family = next((f for f in FAMILIES if network.lstrip('_').startswith(f)), None)
    if family is None:
        raise UserError(f'--config.model.pretrained is for {" and ".join(FAMILIES)} networks, not for {network}')
    if inflate not in ('mean', 'centre'):
        raise UserError(f'--config.model.inflate={inflate} must be mean or centre')
    report, misfits, used = [], [], set()
    afresh = _classifier_afresh(variables['params'], tensors)

    def pick(path, x):
        *modules, leaf = (k.key for k in path[1:])
        ours, theirs = '/'.join((*modules, leaf)), _torch_name(modules, leaf, family)
        used.add(theirs)
        try:
            if modules[0] in OURS:
                value, action = x, 'initialised afresh (no part of a 2D network)'
            elif modules[0] == 'classifier' and afresh:
                value, action = x, afresh
            else:
                value, action = _fit(x, tensors.get(theirs), leaf, modules == [FIRST[family]], inflate)
        except _Misfit as e:
            misfits.append(f'{theirs} {e} for {ours} {tuple(x.shape)}')
            return x
        report.append((ours, theirs if value is not x else '-', action))
        return value

    new = jax.tree_util.tree_map_with_path(pick, variables)
    ignored = ('fc.weight', 'fc.bias')
    misfits += [f'{name} {tensors[name].shape} is unused' for name in tensors
                if name not in used and name not in ignored and not name.endswith('.num_batches_tracked')]
    if misfits:
        more = f'; and {len(misfits) - 5} more' if len(misfits) > 5 else ''
        raise UserError(f'--config.model.pretrained is not of {network}: {"; ".join(misfits[:5])}{more}')
    return new, sorted(report)


def summary(report):
    """The report in one line: '214 loaded; 1 summed RGB onto grey; ...'."""
    return '; '.join(f'{count} {action}' for action, count in Counter(action for *_, action in report).most_common())


def table(report):
    """The report as text, a line for each tensor."""
    widths = [max(len(row[i]) for row in report) for i in (0, 1)]
    return ''.join(f'{ours:{widths[0]}}  {theirs:{widths[1]}}  {action}\n' for ours, theirs, action in report)


def _torch_name(modules, leaf, family):
    renamed = [FAMILIES[family].get(m, m.replace('_', '.') if m.startswith('layer') else m) for m in modules]
    return '.'.join([*filter(None, renamed), LEAVES[leaf]])


def _classifier_afresh(params, tensors):
    """Why the classifier keeps its start, or None where the file's fits."""
    features, classes = params['classifier']['Dense_0']['kernel'].shape
    theirs = tensors['fc.weight'].shape if 'fc.weight' in tensors else None
    if theirs == (classes, features):
        return None
    if theirs is None or len(theirs) != 2:
        return f'initialised afresh (classifier: {classes} classes, file has none)'
    if theirs[0] != classes:
        return f'initialised afresh (classifier: {classes} classes, file has {theirs[0]})'
    return f'initialised afresh (classifier: {features} features, file has {theirs[1]})'


def _fit(x, tensor, leaf, first, inflate):
    """tensor in the form of x, and what was done; x itself where it keeps its start. _Misfit where it does not fit."""
    if tensor is None:
        raise _Misfit('is missing')
    if not np.issubdtype(tensor.dtype, np.floating) and tensor.dtype.name != 'bfloat16':
        raise _Misfit(f'is of {tensor.dtype}')
    actions, value = [], tensor
    if leaf == 'kernel' and len(x.shape) == 2:
        value = tensor.T
    elif leaf == 'kernel' and tensor.ndim in (4, 5):
        value = np.moveaxis(tensor if tensor.ndim == 5 else tensor[:, :, None], (0, 1), (4, 3))
        if first and value.shape[1:3] != x.shape[1:3]:
            here, there = ('x'.join(map(str, shape[1:3])) for shape in (x.shape, value.shape))
            return x, f'initialised afresh (first convolution: {here}, file has {there})'
        if _from_2d(value.shape, x.shape, first) == tuple(x.shape):
            value, actions = _to_3d(value.astype(np.float32), x.shape, inflate)
    if value.shape != tuple(x.shape):
        raise _Misfit(f'{tensor.shape} does not fit')
    value = np.ascontiguousarray(value, x.dtype)
    if not np.isfinite(value).all():
        raise _Misfit('is not finite')
    return value, ', '.join(actions) or 'loaded'


def _from_2d(there, here, first):
    """The shape [kd, kh, kw, in, out] that a kernel can be given: any depth from 1, grey from colour in the first."""
    depth, kh, kw, channels, features = there
    grey = first and (channels, here[3]) == (3, 1)
    return here[0] if depth == 1 else depth, kh, kw, 1 if grey else channels, features


def _to_3d(kernel, shape, inflate):
    actions = []
    if kernel.shape[3] != shape[3]:
        kernel = kernel.sum(3, keepdims=True)
        actions.append('summed RGB onto grey')
    depth = shape[0]
    if kernel.shape[0] != depth:
        before = depth // 2
        kernel = (np.repeat(kernel / depth, depth, 0) if inflate == 'mean' else
                  np.pad(kernel, ((before, depth - 1 - before), *((0, 0),) * 4)))
        actions.append(f'inflated {depth} ({inflate})')
    return kernel, actions
