"""The methods by name; each has make(config, mesh) -> Method."""

from covid_jax import UserError
from covid_jax.methods import cmc, supervised

METHODS = {'cmc': cmc.make, 'supervised': supervised.make}


def make(config, mesh):
    """The config's method. UserError for a name that is none."""
    if config.method.name not in METHODS:
        raise UserError(f'no method is called {config.method.name!r}: set --config.method.name={"|".join(METHODS)}')
    return METHODS[config.method.name](config, mesh)
