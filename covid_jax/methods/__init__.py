"""The methods by name; each has DEFAULTS, the fields of its section of the config, and make(config, mesh) -> Method."""

import difflib

from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.methods import cmc, cmt, cross_site, moco, rubik, supervised
from covid_jax.methods.method import Method

METHODS = {'cmc': cmc, 'cmt': cmt, 'cross_site': cross_site, 'moco': moco, 'rubik': rubik, 'supervised': supervised}


def resolve(config: ConfigDict) -> ConfigDict:
    """A copy of the config with the section of its method whole, and without those of others. UserError for a method that is
    none, and for a field that it does not have."""
    if config.method not in METHODS:
        raise UserError(f'no method is called {config.method!r}: set --config.method={"|".join(METHODS)}')
    fields = METHODS[config.method].DEFAULTS
    given = config.get(config.method, {})
    for name in given:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            advice = f'did you mean {close[0]!r}?' if close else f'it has {", ".join(fields) or "none"}'
            raise UserError(f'{config.method} has no field {name!r}: {advice}')
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for name in METHODS.keys() & config.keys():
            del config[name]
        config[config.method] = {**fields, **given}
    return config


def make(config: ConfigDict, mesh: Mesh) -> Method:
    """The config's method. UserError where the config does not suit it."""
    config = resolve(config)
    return METHODS[config.method].make(config, mesh)
