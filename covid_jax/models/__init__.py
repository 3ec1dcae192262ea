"""The networks by name. Every one: net.apply(variables, image, train) -> logits, {'map', 'features'}."""

import difflib

from covid_jax import UserError
from covid_jax.models import resnest

NETWORKS = {
    'ResNeSt14Small': resnest.ResNeSt14Small,
    '_ResNeStTiny': resnest._ResNeStTiny,
}


def network(name):
    """The network's constructor. UserError for a name that is none."""
    if name not in NETWORKS:
        close = difflib.get_close_matches(name, NETWORKS, 1) or [n for n in NETWORKS if n[0] != '_']
        raise UserError(f'no network is called {name!r}: set --config.model.name={"|".join(close)}')
    return NETWORKS[name]
