"""The networks by name. Every one: net.apply(variables, image, train, site, group) -> logits,
{'map', 'features'}, and 'sites' where it normalises by site. Its field `compute` says how it computes (compute.py)."""

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn

from covid_jax import UserError
from covid_jax.models import covidnet, crnet, densenet, efficientnet, resnest, resnet, vgg

NETWORKS: dict[str, Any] = {  # classes, or some of their fields given
    'ResNet18': resnet.ResNet18,
    'ResNet50': resnet.ResNet50,
    'ResNet18Hara': resnet.ResNet18Hara,
    'ResNet50Hara': resnet.ResNet50Hara,
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
    'EfficientNetB0': efficientnet.EfficientNetB0,
    'EfficientNetB1': efficientnet.EfficientNetB1,
    'EfficientNetB4': efficientnet.EfficientNetB4,
    '_EfficientNetTiny': efficientnet._EfficientNetTiny,
    'VGG16': vgg.VGG16,
    'VGG19': vgg.VGG19,
    '_VGGTiny': vgg._VGGTiny,
    'CRNet': crnet.CRNet,
    '_CRNetTiny': crnet._CRNetTiny,
    'COVIDNet': covidnet.COVIDNet,
    'COVIDNetRedesign': covidnet.COVIDNetRedesign,
    'COVIDNetSmall': covidnet.COVIDNetSmall,
    'COVIDNetRedesignSmall': covidnet.COVIDNetRedesignSmall,
    '_COVIDNetTiny': covidnet._COVIDNetTiny,
    '_COVIDNetRedesignTiny': covidnet._COVIDNetRedesignTiny,
}


def sites(name: str, given: int = 0) -> int:
    """Sets of statistics of a network that normalises by site, `given` or the network's own number; 0: it does not."""
    return given or getattr(NETWORKS.get(name), 'keywords', {}).get('sites', 0)


def has(name: str, field: str) -> bool:
    """Whether the network called `name` has the field."""
    return field in getattr(NETWORKS[name], 'func', NETWORKS[name]).__dataclass_fields__


def network(name: str, **fields: Any) -> Callable[..., nn.Module]:
    """The network's constructor, with some of its fields given. UserError for a name that is none, and for such fields."""
    if name not in NETWORKS:
        lower = {n.lower(): n for n in NETWORKS if n[0] != '_'}
        close = difflib.get_close_matches(name.lower(), lower, 1) or list(lower)
        raise UserError(f'no network is called {name!r}: set --config.model.name={"|".join(lower[n] for n in close)}')
    make = NETWORKS[name]
    for field in fields:
        if not has(name, field):
            raise UserError(f'{name} has no --config.model.{field}: leave it unset')
    if fields.get('depth_strides'):
        _check_strides(name, fields['depth_strides'], 2 + len(make.keywords['stage_sizes']))
    if fields.get('sites', 0) < 0:
        raise UserError(f'--config.model.sites={fields["sites"]} must be at least 0')
    for field, allowed in (('taps', (1, 3)), ('stem_plane', (1, 3, 5, 7))):
        if fields.get(field, allowed[0]) not in allowed:
            raise UserError(f'--config.model.{field}={fields[field]} must be one of {", ".join(map(str, allowed))}')
    return partial(make, **fields)


def _check_strides(name, strides, wanted):
    if len(strides) != wanted or any(not isinstance(n, int) or n < 1 for n in strides):
        raise UserError(f'--config.model.depth_strides={tuple(strides)}: {name} takes {wanted} whole numbers from 1 up, of '
                        'the stem, its pool, and each stage')
