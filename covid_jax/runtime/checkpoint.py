"""Checkpoints: the last two and the best, on any number of devices and hosts. What is damaged is noticed."""

import gc
import math
import os
import sys
import warnings
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from covid_jax import UserError
from covid_jax.runtime import digests, hosts
from covid_jax.runtime.digests import name_of
from covid_jax.runtime.state import TrainState

KEPT = 2  # latest ones: where the last is damaged, the one before it goes on
NONE: tuple[int | None, dict[str, Any]] = None, {}
ASIDE = 'damaged'  # the folder beside the checkpoints that damaged ones are moved to


class Damaged(UserError):
    """A checkpoint that is not what was saved."""


def manager(directory: str | Path) -> ocp.CheckpointManager:
    """An Orbax manager that keeps the latest checkpoints and the one of the best score, the later of two equal ones."""
    policy = checkpoint_managers.preservation_policy
    best = policy.BestN(get_metric_fn=_rank, reverse=False, n=1, keep_checkpoints_without_metrics=False)
    options = ocp.CheckpointManagerOptions(
        best_fn=_rank, best_mode='max', cleanup_tmp_directories=True,
        preservation_policy=policy.AnyPreservationPolicy([policy.LatestN(KEPT), best]))
    return ocp.CheckpointManager(os.path.abspath(directory), options=options)


def latest_step(directory: str | Path) -> int | None:
    """The step of the latest finished checkpoint in the folder, or None. A manager would make hosts wait for each other."""
    return max(_steps(directory), default=None)


def _steps(directory):
    return ocp.utils.checkpoint_steps(directory) if os.path.isdir(directory) else []


def _rank(metrics):
    return metrics['score'], metrics['step']


def save(checkpoints: ocp.CheckpointManager, state: TrainState, score: float | None = None) -> None:
    """Saves the state as the checkpoint of its step; a finite score (higher is better) makes it a candidate for the best.

    A checkpoint that is already there is left as it is. The write goes on in the background. Beside the state lies its record: the
    digest of each array, the score, and the best score so far with the step that first reached it.
    """
    step = int(state.step)
    if step in checkpoints.all_steps():
        return
    metrics = {'score': float(score), 'step': step} if score is not None and math.isfinite(score) else None
    best = best_so_far(checkpoints)
    if metrics and (best is None or metrics['score'] > best['score']):
        best = metrics
    fields = _fields(state)
    record = digests.seal({'arrays': digests.of_arrays(fields), 'metrics': metrics, 'best': best})
    items = ocp.args.Composite(state=ocp.args.StandardSave(fields), record=ocp.args.JsonSave(record))
    checkpoints.save(step, args=items, metrics=metrics, force=True)


def best_so_far(checkpoints: ocp.CheckpointManager) -> dict[str, Any] | None:
    """{'score': the best one until the latest checkpoint, 'step': that first reached it}, or None."""
    checkpoints.wait_until_finished()  # of one that is still written nothing is known
    latest = checkpoints.latest_step()
    return None if latest is None else _record(checkpoints.directory / str(latest))['best']


def since_better(checkpoints: ocp.CheckpointManager, step: int) -> int:
    """Steps since the best score was first reached; 0 while there is none."""
    best = best_so_far(checkpoints)
    return 0 if best is None else step - best['step']


def newest(directory: str | Path, say: Callable[[str], None] = print) -> tuple[int | None, dict[str, Any]]:
    """The step and the tree, as numpy arrays, of the newest checkpoint that is as it was saved; None and {} where there is none. Damaged
    ones that are newer are moved to the folder ASIDE, which is said. The first host looks, and the others wait for it.

    UserError where an older one is damaged: it may be the best, and no other can stand for it.
    """
    folder = epath.Path(os.path.abspath(directory))
    found = NONE
    error = None
    if jax.process_index() == 0:
        try:
            found = _first_whole(folder, say)
        except UserError as e:
            error = e
    hosts.agree(error)
    if jax.process_index() > 0 and (step := latest_step(folder)) is not None:
        found = step, _arrays(folder / str(step))
    return found


def _first_whole(directory, say):
    found = NONE
    for step in sorted(_steps(directory), reverse=True):
        path = directory / str(step)
        try:
            tree = _arrays(path)
            found = (step, tree) if found is NONE else found
        except Damaged as e:
            if found is not NONE:
                raise UserError(f'{e}. It may be the best of {directory.parent}: delete that folder, and give its command again') from e
            aside = directory.parent / ASIDE
            aside.mkdir(exist_ok=True)
            path.rename(_free(aside / path.name))
            say(f'{e}. It lies in {aside} now, and what goes on is the one before it')
    return found


def _free(path):
    """The path, or the first of those with a number behind it that is not there yet."""
    found = path
    number = 1
    while found.exists():
        number += 1
        found = path.with_name(f'{path.name}_{number}')
    return found


def at(checkpoints: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The tree of a checkpoint as numpy arrays. Damaged where it is not what was saved."""
    return _arrays(checkpoints.directory / str(step))


def restore(saved: dict[str, Any], like: TrainState) -> TrainState:
    """What was saved, onto the devices and into the structure of `like`. UserError where they do not fit."""
    there = shapes(saved)
    here = shapes(like)
    misfits = [f'{name} {there.get(name)} there, {here.get(name)} here' for name in sorted({*there, *here})
               if there.get(name) != here.get(name)]
    if misfits:
        raise UserError(f'its checkpoint is of another network or optimizer ({"; ".join(misfits[:3])}): choose another --workdir')
    state, _ = put(saved, like)
    return state


def read(source: str | Path) -> tuple[int, dict[str, Any]]:
    """The best (else the last) checkpoint of the run in the folder `source`: its step, and the tree as numpy arrays, with the params
    and the state that answer (state.answering). UserError where there is none, Damaged where it is not what was saved."""
    directory = epath.Path(os.path.abspath(source)) / 'checkpoints'
    if not directory.is_dir():
        raise UserError(f'{source} holds no checkpoints: give the folder of a finished run')
    scored = {step: _record(directory / str(step))['metrics'] for step in _steps(directory)}
    if not scored:
        raise UserError(f'{source} holds no finished checkpoint: give the folder of a finished run')
    step = max(scored, key=lambda step: (scored[step] is not None, _rank(scored[step]) if scored[step] else (step,)))
    saved = _arrays(directory / str(step))
    if average := saved.pop('average', None):
        saved = {**saved, 'params': average['params'], 'state': {**saved['state'], 'network': average['network']}}
    return step, saved


def _arrays(path):
    """The tree of a checkpoint as numpy arrays. Damaged where any file of it is not what was saved."""
    error = None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # of what Orbax had begun when something failed
        try:
            with ocp.PyTreeCheckpointer() as reader:
                saved = reader.metadata(path / 'state').item_metadata.tree
                as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
                tree = reader.restore(path / 'state', restore_args=as_numpy)
        except MemoryError:
            raise
        except Exception as e:  # whatever Orbax and TensorStore make of files that are damaged
            error = type(e).__name__
        if error:
            _hush()
            gc.collect()
            raise _damaged(path, error)
    _expect(path, tree)
    return tree


def _hush():
    """Reads that were on their way when one failed come back to a loop that is closed: from then on nobody hears of it."""
    if getattr(sys.unraisablehook, 'func', None) is not _heard:
        sys.unraisablehook = partial(_heard, sys.unraisablehook)


def _heard(before, unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
        before(unraisable)


def _expect(path, tree):
    """Damaged where arrays, or the score, are not what the record says."""
    saved = _record(path)['arrays']
    if saved is None:
        return
    found = digests.of_arrays(tree)
    differ = sorted(name for name in {*found, *saved} if found.get(name) != saved.get(name))
    if differ:
        raise _damaged(path, differ[0])


def _record(path):
    """What `save` left beside the state; of an older version, which left none, the score alone. Damaged where it, or the score that Orbax
    keeps, is not what it was."""
    try:
        metrics = ocp.JsonCheckpointHandler(filename='metrics').restore(path / 'metrics') if (path / 'metrics').exists() else None
        if (path / 'state').exists() and not (path / 'record').exists():
            return {'arrays': None, 'metrics': metrics, 'best': None}
        record = ocp.JsonCheckpointHandler().restore(path / 'record')
    except (OSError, ValueError) as e:
        raise _damaged(path, 'its record') from e
    if not digests.is_whole(record) or metrics != record['metrics']:
        raise _damaged(path, 'its record')
    return record


def _damaged(path, what):
    return Damaged(f'the checkpoint {path} is damaged ({what})')


def _fields(state):
    """What of a state is in its checkpoint: a run that averages nothing has no average there."""
    fields = vars(state)
    return {name: fields[name] for name in fields if fields[name] is not None}


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """{name: shape}; a field, a key and a place of a tuple are named alike, as they are in a checkpoint."""
    return {name_of(path): tuple(x.shape) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def put(saved: Any, like: Any, skip: Collection[str] = ()) -> tuple[Any, list[str]]:
    """`like` with the values of `saved` where they agree in name and shape, and are in no module of `skip`.

    Returns the tree, on the devices of `like`, and the names of what kept its own value.
    """
    values = {name_of(path): x for path, x in jax.tree_util.tree_leaves_with_path(saved)}
    unchanged = []

    def saved_or_own(path, x):
        name = name_of(path)
        value = values.get(name)
        if value is None or value.shape != x.shape or set(skip) & set(name.split('/')):
            unchanged.append(name)
            return x
        value = value.astype(x.dtype)
        return jax.make_array_from_callback(value.shape, x.sharding, lambda part: value[part])  # each host has all of it

    return jax.tree_util.tree_map_with_path(saved_or_own, like), unchanged
