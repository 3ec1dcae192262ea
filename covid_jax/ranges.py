"""What the numbers and words of a config may be, whatever the method, network and data are."""

import math
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.config import base, get

MOST_SEED = 2**31 - 1
# The least and the most that a number may be.
LEAST = {'seeds': 1, 'folds': 1, 'fold': 0, 'seed': 0, 'data.split_seed': 0, 'data.workers': 0, 'data.val': 0, 'data.test': 0,
         'data.imbalance': 0, 'data.negatives.count': 0, 'data.negatives.seed': 0,
         'data.phantom.seed': 0, 'data.phantom.train': 0, 'data.phantom.val': 0, 'data.phantom.test': 0, 'data.phantom.sites': 1,
         'data.phantom.covid': 0, 'data.phantom.unlabelled': 0,
         'train.lr': 0, 'train.weight_decay': 0, 'train.eval_every': 0, 'train.log_every': 1, 'train.patience': 0,
         'eval.tta': 0, 'views.plane': 0}
MOST = {'seed': MOST_SEED, 'data.split_seed': MOST_SEED, 'data.negatives.seed': MOST_SEED, 'data.phantom.seed': MOST_SEED,
        'data.phantom.sites': 4, 'data.phantom.covid': 1, 'data.phantom.unlabelled': 1, 'data.val': 1, 'data.test': 1}
CHOICES = {'kind': ('train', 'ensemble', 'choose', 'probe', 'rank', 'cross'), 'track': ('none', 'trackio', 'wandb', 'mlflow'),
           'model.dtype': ('auto', 'float32', 'bfloat16', 'float64'), 'model.inflate': ('mean', 'centre'),
           'data.group': ('source', 'clusters'), 'train.order': ('shuffle', 'by_site', 'balanced'),
           'data.negatives.law': ('long-tail', 'normal', 'top', 'random'), 'data.negatives.by': ('joint', 'difficulty', 'diversity'),
           'ranking.ground': ('index', 'value', 'uniform'), 'ranking.mass': ('normalise', 'partial')}
# Tuples of names; all others are of numbers.
NAMES = ('stages', 'data.classes', 'data.sites', 'data.held_out', 'data.held_out_sites', 'views.ops')


def check(config: ConfigDict) -> None:
    """UserError for a number or a word of the sections above that cannot be, whatever the method, network and data are."""
    _check_tuples(config)
    for name, value in _fields(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f'--config.{name}={value} must be a finite number')
    for name, low in LEAST.items():
        if (value := get(config, name)) < low:
            raise UserError(f'--config.{name}={value} must be at least {low}')
    for name, high in MOST.items():
        if (value := get(config, name)) > high:
            raise UserError(f'--config.{name}={value} must be at most {high}')
    std = config.model.std
    if min(std if isinstance(std, tuple) else (std,)) <= 0:
        raise UserError(f'--config.model.std={std} must be above 0')
    for name, allowed in CHOICES.items():
        if (value := get(config, name)) not in allowed:
            raise UserError(f'--config.{name}={value} must be {", ".join(allowed[:-1])} or {allowed[-1]}')
    if not 0 < config.eval.level < 1:
        raise UserError(f'--config.eval.level={config.eval.level} must be above 0 and below 1, as 0.95')
    if config.ranking.mass == 'partial' and config.ranking.ground != 'index':
        raise UserError('--config.ranking.mass=partial is known of --config.ranking.ground=index alone: set one of them')
    if config.folds > 1 and config.data.held_out_sites:
        raise UserError(f'--config.folds={config.folds} and --config.data.held_out_sites both say what is tested: set one of them')


def _check_tuples(config):
    """UserError for what is in a tuple and is no name, or no number, as the field has it."""
    for name, value in _fields(config):
        if not isinstance(value, tuple):
            continue
        if name in NAMES and any(not isinstance(item, str) or not item for item in value):
            raise UserError(f"--config.{name}={value} must be names: write --config.{name}=\"('a','b')\", or \"()\" for none")
        if name not in NAMES and any(isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item)
                                     for item in value):
            raise UserError(f'--config.{name}={value} must be numbers: write --config.{name}="(1,2)", or "()" for none')


def _fields(config: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of each field, but of a config those of its stages."""
    known = (*base(), config.get('method')) if not prefix else config
    for name in known:
        value = config[name] if name in config else None
        if isinstance(value, ConfigDict):
            yield from _fields(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value
