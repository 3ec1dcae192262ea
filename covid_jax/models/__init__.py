"""The networks by name. Every one: net.apply(variables, image, train) -> logits, {'map', 'features'}."""

import difflib
from functools import partial

from covid_jax import UserError
from covid_jax.models import densenet, resnest, resnet

NETWORKS = {
    'ResNet18': resnet.ResNet18,
    'ResNet50': resnet.ResNet50,
    'ResNet50GRU': resnet.ResNet50GRU,
    'ResNet14Small': resnet.ResNet14Small,
    'ResNet14GRUSmall': resnet.ResNet14GRUSmall,
    '_ResNetTiny': resnet._ResNetTiny,
    '_ResNetGRUTiny': resnet._ResNetGRUTiny,
    'ResNeSt50': resnest.ResNeSt50,
    'ResNeSt14Small': resnest.ResNeSt14Small,
    '_ResNeStTiny': resnest._ResNeStTiny,
    'DenseNet121': densenet.DenseNet121,
    'DenseNet169': densenet.DenseNet169,
    '_DenseNetTiny': densenet._DenseNetTiny,
}


def network(name, **fields):
    """The network's constructor, with some of its fields. UserError for a name, field or number of strides that is none."""
    if name not in NETWORKS:
        lower = {n.lower(): n for n in NETWORKS if n[0] != '_'}
        close = difflib.get_close_matches(name.lower(), lower, 1) or list(lower)
        raise UserError(f'no network is called {name!r}: set --config.model.name={"|".join(lower[n] for n in close)}')
    make = NETWORKS[name]
    for field in fields:
        if field not in getattr(make, 'func', make).__dataclass_fields__:
            raise UserError(f'{name} has no --config.model.{field}: leave it unset')
    given = len(fields.get('depth_strides', ()))
    if given and given != (wanted := 2 + len(make.keywords['stage_sizes'])):
        raise UserError(f'--config.model.depth_strides has {given} numbers, {name} takes {wanted}: of the stem, its pool, '
                        'and each stage')
    return partial(make, **fields)
