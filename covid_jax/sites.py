"""How many sets of statistics a network has that normalises by site, whose each of them is, and how they go from run to run."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from covid_jax import UserError, methods, models
from covid_jax.methods.method import abstract_batch
from covid_jax.runtime import checkpoint, digests, workdir
from covid_jax.sources.exams import Exam

Names = Sequence[str]


def trained(exams: Sequence[Exam]) -> tuple[str, ...]:
    """The sites of the exams in train, in the order of their numbers in a batch."""
    return tuple(sorted({exam.site for exam in exams if exam.split == 'train'}))


def resumed(config: ConfigDict, folder: str | Path) -> int:
    """config.model.sites, or where it is 0 what the run in the folder, if there is one, was started with."""
    name = config.model.name
    return config.model.sites or (models.sites(name) and (workdir.read(folder) or {}).get('model.sites') or 0)


def asked(config: ConfigDict, names: Names) -> int:
    """config.model.sites for a training on the sites of these names: where it is 0 and the network normalises by another number
    of sites by itself, theirs."""
    own = models.sites(config.model.name)
    return len(names) if own not in (0, len(names)) and not config.model.sites else config.model.sites


def check(config: ConfigDict, exams: Sequence[Exam], say: Callable[[str], None] = print) -> None:
    """UserError where the network has more sets of statistics than one, and another number than there are sites to train on.
    Says how many it has, if that is not the network's own number, and which sites' exams are of none of them."""
    name = config.model.name
    sets = models.sites(name, config.model.sites)
    names = trained(exams)
    if sets > 1 and sets != len(names):
        raise UserError(f'{name} normalises {sets} sites, not the {len(names)} to train on ({", ".join(names)}): set '
                        f'--config.model.sites={len(names)}')
    if not sets or sets != len(names):
        return
    alone = len(names) == 1
    if sets != models.sites(name):
        hint = ': sites are named by the column site of a manifest, or are several sources' if names == ('default',) else ''
        say(f'{name} normalises by {sets} {"set" if alone else "sets"} of statistics: {", ".join(names)} '
            f'{"alone is" if alone else "are"} trained on{hint}')
    if unseen := sorted({exam.site for exam in exams if exam.split} - {*names}):
        answer = 'that' if alone else 'the average of the answers'
        say(f'no scan of {", ".join(unseen)} is trained on: there the answer is {answer} at {", ".join(names)}')


def axes(config: ConfigDict, mesh: Mesh) -> dict[str, int]:
    """{name of an array of parameters or statistics, as in a checkpoint: its axis of sites}, of all that are by site in the
    config's method: the axis that is one longer where there is one site more."""
    sets = models.sites(config.model.name, config.model.sites)
    if not sets:
        return {}
    here = _shapes(config, mesh, sets)
    try:
        more = _shapes(config, mesh, sets + 1)
    except UserError:  # a method that takes one set alone
        return {}
    found = {}
    for name, shape in here.items():
        longer = [axis for axis, pair in enumerate(zip(shape, more.get(name, ()), strict=False)) if pair == (sets, sets + 1)]
        if longer:
            found[name] = longer[0]
    return found


def _shapes(config, mesh, sets):
    config = config.copy_and_resolve_references()
    config.model.sites = sets
    init = methods.make(config, mesh).init
    params, state = jax.eval_shape(init, jax.eval_shape(jax.random.key, 0), abstract_batch(config, 1))
    return checkpoint.shapes({'params': params, 'state': state})


def carried(run: Any, saved: Any, like: Any, theirs: Mapping[str, Any]) -> tuple[Any, str]:
    """What a start.Run takes from another run, each site what is of the site of its name there, and what to say of it.

    saved: the tree of the other run's checkpoint; like: ours, for checkpoint.put; theirs: the other's fields, as from
    workdir.read. Returns `saved` with its arrays by site as `like` has them: a site that the other run does not know keeps the
    row of `like`, and an array of another form is left out. One set for all is of no site: it starts every site; and where
    there is one for all here, it starts from no site's.
    """
    sets = models.sites(run.config.model.name, run.config.model.sites)
    count = models.sites(theirs.get('model.name', ''), theirs.get('model.sites') or 0)
    there = tuple(theirs.get('sites') or ())[:count]
    ours = run.sites if len(run.sites) == sets else ('',) * sets
    rows = [0 if count == 1 else there.index(site) if site in there else None for site in ours]
    axis_of = axes(run.config, run.mesh)
    tree = jax.tree_util.tree_map_with_path(partial(_by_row, rows, count, axis_of, _leaves(like)), saved)
    if not axis_of.keys() & _leaves(tree).keys():
        return tree, ''
    return tree, _told(count, there, ours)


def _by_row(rows, count, axis_of, own, path, value):
    """A saved array, where it is by site with our rows: those of so many there, or our own. None: it is of another form."""
    name = digests.name_of(path)
    if name not in axis_of:
        return value
    axis = axis_of[name]
    if name not in own or value.shape != (*own[name].shape[:axis], count, *own[name].shape[axis + 1:]):
        return None
    taken = np.moveaxis(np.array(own[name]), axis, 0)
    for here, row in enumerate(rows):
        if row is not None:
            taken[here] = np.moveaxis(value, axis, 0)[row]
    return np.moveaxis(taken, 0, axis)


def _leaves(tree):
    return {digests.name_of(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _told(count, there, ours):
    """What became of the sets of statistics, in words."""
    if count == 1:
        return '; normalisation: its one set of statistics starts every site'
    if '' in ours:
        return f'; normalisation: afresh, for it is by site there ({", ".join(there)}) and one for all here'
    found = {'carried': [site for site in ours if site in there], 'afresh': [site for site in ours if site not in there],
             'left out': [site for site in there if site not in ours]}
    return '; normalisation by site: ' + ', '.join(f'{" and ".join(names)} {how}' for how, names in found.items() if names)
