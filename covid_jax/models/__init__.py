"""The networks by name. Every one: net.apply(variables, image, train) -> logits, {'map', 'features'}."""

import difflib

from covid_jax import UserError
from covid_jax.models import resnest, resnet

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
}


def network(name):
    """The network's constructor. UserError for a name that is none."""
    if name not in NETWORKS:
        lower = {n.lower(): n for n in NETWORKS if n[0] != '_'}
        close = difflib.get_close_matches(name.lower(), lower, 1) or list(lower)
        raise UserError(f'no network is called {name!r}: set --config.model.name={"|".join(lower[n] for n in close)}')
    return NETWORKS[name]
