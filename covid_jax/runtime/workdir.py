"""The folder of a run: the fields that it was started with, and whether another command may go on in it."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.runtime.files import write

# Fields that change nothing of the training: a run may go on with others, and a finished one be evaluated again. Where the
# data lie is one of them: the digest of the data says whether they are the same.
FREE = ('data.workers', 'data.store', 'data.root', 'data.exclude', 'data.include', 'train.log_every', 'eval.tta',
        'eval.level', 'eval.resamples', 'eval.features', 'row', 'track', 'cross.roots')
# Fields that hold paths, with commas between several. They are kept relative to the folder, which can then be moved.
PATHS = ('init_from', 'ensemble.runs', 'choose.runs', 'cross.runs', 'cross.roots', 'model.pretrained', 'data.store', 'data.root',
         'data.exclude', 'data.include', 'data.negatives.ranking')
BESIDE = ('dataset', 'sites', 'versions')  # what config.json says beside the fields


def fields(config: ConfigDict, names: tuple[str, ...] = ()) -> dict:
    """{'section.field': value} of a config as JSON keeps it: all, or those of these names."""
    flat = _flat(json.loads(config.to_json()))
    return {name: flat[name] for name in names} if names else flat


def section(config: ConfigDict, name: str) -> dict:
    """The same of one section, all that begins with its name and a dot."""
    return {field: value for field, value in fields(config).items() if field.startswith(f'{name}.')}


def check(mine: dict, folder: str | Path, defaults: dict, dataset: str | None = None) -> None:
    """UserError where the folder holds another run: one of other fields, or of other scans, labels or splits.

    mine: as from `fields`. defaults: the same of what a field means that the run in the folder does not know yet, because an
    older version started it. dataset: the digest of the data, once it is known.
    """
    started = read(folder)
    if started is None:
        return
    if dataset is not None and started['dataset'] != dataset:
        raise UserError(f'{folder} was started with other scans, labels, splits or preparation: choose another --workdir')
    theirs = {name: value for name, value in started.items() if name not in BESIDE}
    for name in mine.keys() - theirs.keys():
        theirs[name] = defaults.get(name)
    differ = [f'{name}: {theirs.get(name)} there, {mine.get(name)} now' for name in sorted({*theirs, *mine} - set(FREE))
              if not _same(name, theirs.get(name), mine.get(name))]
    if differ:
        raise UserError(f'{folder} holds another run ({"; ".join(differ[:5])}): choose another --workdir')


def keep(mine: dict, folder: str | Path, **beside: Any) -> None:
    """Writes folder/config.json: the fields, and beside them what BESIDE names."""
    tree = dict(beside)
    for name, value in mine.items():
        *sections, last = name.split('.')
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[last] = _each(value, lambda p: os.path.relpath(p, folder)) if name in PATHS else value
    path = Path(folder) / 'config.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(tree, indent=1, sort_keys=True))


def read(folder: str | Path) -> dict | None:
    """What `keep` wrote, flat, with paths as they are from here; None where the folder holds no run."""
    path = Path(folder) / 'config.json'
    if not path.exists():
        return None
    try:
        tree = json.loads(path.read_text())
        beside = {name: tree.pop(name, None) for name in BESIDE}
        flat = _flat(tree)
        for name in PATHS:
            if name in flat:
                flat[name] = _each(flat[name], lambda p: os.path.normpath(os.path.join(folder, p)))
    except (OSError, ValueError, AttributeError, TypeError):
        raise UserError(f'{path} is damaged: give another folder, or delete this one and run its command again') from None
    return flat | beside


@contextmanager
def held(folder: str | Path) -> Iterator[None]:
    """No other process of this machine holds the folder meanwhile, which is made where it is not there, and gone again where nothing came
    into it. UserError where one does. A file system that knows no locks is taken as it is."""
    new = not Path(folder).exists()
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f'another process is at work in {folder}: wait for it, or choose another --workdir') from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(handle)  # and the lock is gone, as it is where the process dies
        if new and not any(Path(folder).iterdir()):
            os.rmdir(folder)


def _each(paths, change):
    return ','.join(change(path) if path else '' for path in paths.split(','))


def _same(name, a, b):
    if name in PATHS and a and b:
        return _each(a, os.path.realpath) == _each(b, os.path.realpath)
    return a == b


def _flat(tree, prefix=''):
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f'{prefix}{key}.')
        else:
            flat[prefix + key] = value
    return flat
