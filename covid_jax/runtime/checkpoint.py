"""Checkpoints: the last and the best, on any number of devices and hosts."""

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from covid_jax import UserError
from covid_jax.runtime.state import TrainState
from covid_jax.text import printable


def manager(directory: str | Path, read_only: bool = False) -> ocp.CheckpointManager:
    """An Orbax manager that keeps the latest checkpoint and the one of the best score, the later of two equal ones."""
    policy = checkpoint_managers.preservation_policy
    best = policy.BestN(get_metric_fn=_rank, reverse=False, n=1, keep_checkpoints_without_metrics=False)
    options = ocp.CheckpointManagerOptions(
        best_fn=_rank, best_mode='max', cleanup_tmp_directories=not read_only, read_only=read_only,
        preservation_policy=policy.AnyPreservationPolicy([policy.LatestN(1), best]))
    return ocp.CheckpointManager(os.path.abspath(directory), options=options)


def latest_step(directory: str | Path) -> int | None:
    """The step of the latest finished checkpoint in the folder, or None. A manager would make hosts wait for each other."""
    return max(ocp.utils.checkpoint_steps(directory), default=None) if os.path.isdir(directory) else None


def _rank(metrics):
    return metrics['score'], metrics['step']


def save(checkpoints: ocp.CheckpointManager, state: TrainState, score: float | None = None) -> None:
    """Saves the state as the checkpoint of its step; score (higher is better) makes it a candidate for the best.

    A checkpoint that is already there is left as it is. The write goes on in the background.
    """
    step = int(state.step)
    if step in checkpoints.all_steps():
        return
    metrics = None
    if score is not None:
        metrics = {'score': float(score), 'step': step, 'first': _first_reached(checkpoints, float(score), step)}
    checkpoints.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(_fields(state))), metrics=metrics, force=True)


def _first_reached(checkpoints, score, step):
    """The step at which the best score was first reached, if this one is not better."""
    best = _best(checkpoints)
    return step if best is None or score > best['score'] else best['first']


def since_better(checkpoints: ocp.CheckpointManager, step: int) -> int:
    """Steps since the best score was first reached; 0 while there is none."""
    best = _best(checkpoints)
    return 0 if best is None else step - best['first']


def _best(checkpoints):
    """What `save` noted of the best checkpoint, or None."""
    checkpoints.wait_until_finished()  # of one that is still written Orbax knows no metrics
    step = checkpoints.best_step()
    return None if step is None else checkpoints.metrics(step)


def restore(checkpoints: ocp.CheckpointManager, step: int, like: TrainState) -> TrainState:
    """The state at `step`, onto the devices and into the structure of `like`. UserError where they do not fit."""
    saved = shapes(_metadata(os.path.join(checkpoints.directory, str(step), 'state')))
    wanted = shapes(like)
    misfits = [f'{name} {saved.get(name)} there, {wanted.get(name)} here' for name in sorted({*saved, *wanted})
               if saved.get(name) != wanted.get(name)]
    if misfits:
        raise UserError(f'the checkpoint in {checkpoints.directory} is of another network or optimizer '
                        f'({"; ".join(misfits[:3])}): choose another --workdir')
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _fields(like))
    found = checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))['state']
    return dataclasses.replace(like, **found)


def _fields(state):
    """What of a state is in its checkpoint: a run that averages nothing has no average there."""
    fields = vars(state)
    return {name: fields[name] for name in fields if fields[name] is not None}


def _metadata(item):
    with ocp.PyTreeCheckpointer() as reader:
        return reader.metadata(item).item_metadata.tree


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """{name: shape}; a field, a key and a place of a tuple are named alike, as they are in a checkpoint."""
    return {name_of(path): tuple(x.shape) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def name_of(path: tuple) -> str:
    """What a leaf of this path is called here."""
    return jax.tree_util.keystr(path, simple=True, separator='/')


def read(source: str | Path) -> tuple[int, dict[str, Any]]:
    """The best (else the last) checkpoint of the run in the folder `source`: its step, and the tree as numpy arrays, with the params
    and the state that answer (state.answering). UserError where there is none, or it is damaged."""
    directory = os.path.join(source, 'checkpoints')
    if not os.path.isdir(directory):
        raise UserError(f'{source} holds no checkpoints: give the folder of a finished run')
    try:
        with manager(directory, read_only=True) as checkpoints:
            step = checkpoints.best_step() or checkpoints.latest_step()
        saved = None if step is None else _as_numpy(os.path.join(os.path.abspath(directory), str(step), 'state'))
    except MemoryError:
        raise
    except Exception as error:  # whatever damaged bytes do to the reader
        raise UserError(printable(f'{directory} is damaged ({str(error) or type(error).__name__}): train again in another --workdir')) from error
    if saved is None:
        raise UserError(f'{source} holds no finished checkpoint: give the folder of a finished run')
    if average := saved.pop('average', None):
        saved = {**saved, 'params': average['params'], 'state': {**saved['state'], 'network': average['network']}}
    return step, saved


def _as_numpy(item):
    with ocp.PyTreeCheckpointer() as reader:
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), _metadata(item))
        return reader.restore(item, restore_args=arguments)


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
        return jax.device_put(value.astype(x.dtype), x.sharding)

    return jax.tree_util.tree_map_with_path(saved_or_own, like), unchanged
