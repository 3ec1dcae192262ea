"""What a network starts from: afresh, from a finished run, or from a file of weights; parameters and statistics alike."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from covid_jax import UserError, sites
from covid_jax import config as configs
from covid_jax.methods.method import abstract_batch
from covid_jax.runtime import checkpoint, files, optim, workdir
from covid_jax.runtime.mesh import replicated
from covid_jax.runtime.state import TrainState, create
from covid_jax.sources.exams import class_names
from covid_jax.weights import pretrained

Run = Any  # a start.Run, of the room above this one


def source_run(config: ConfigDict) -> str:
    """The folder of the run that the config starts from; '' where it starts from a file of weights, or afresh."""
    return '' if from_file(config) else config.init_from or config.model.pretrained


def from_file(config: ConfigDict) -> bool:
    """Whether the run starts from a file of weights."""
    return bool(config.model.pretrained) and not config.init_from and not Path(config.model.pretrained).is_dir()


def begun(folder: str | Path) -> bool:
    """Whether the run in the folder has a checkpoint, which goes before whatever it started from."""
    return checkpoint.latest_step(Path(folder, 'checkpoints')) is not None


def initial_state(run: Run, steps_per_epoch: float, key: jax.Array,
                  say: Callable[[str], None] = print) -> tuple[TrainState, optax.GradientTransformation]:
    """The training state of a run before its first step, replicated on the mesh, and the optimizer.

    Where the config names a run or a file of weights, the network starts from it; from a run of the same method, all that it
    has of that name and shape.
    """
    config = run.config
    method = run.method
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_batch(config, 1))
    where = replicated(run.mesh)
    init = jax.jit(lambda k, start=None: method.init(k, batch, start), out_shardings=where)
    params, state = init(key)
    tx = optim.make(config.train, steps_per_epoch, method.frozen(params))
    if (config.init_from or config.model.pretrained) and not begun(run.folder):
        found = _of_file(run, params, state, say) if from_file(config) else _of_run(run, params, state, say)
        params, state = init(key, found)
    return jax.jit(partial(create, tx=tx, average=config.train.average), out_shardings=where)(params, state), tx


def check(run: Run, params: dict, state: dict) -> None:
    """UserError for a module that config.init_skip names and the network does not have, and for a file of weights that does
    not fit. params, state: of the method, as arrays or as shapes."""
    config = run.config
    modules = {getattr(key, 'key', None) for path, _ in jax.tree_util.tree_leaves_with_path(params) for key in path}
    if unknown := [name for name in skipped(config, {}) if name not in modules]:
        raise UserError(f'--config.init_skip={config.init_skip}: no module is called {unknown[0]!r}: network.txt of a run has '
                        'their names')
    if from_file(config) and not begun(run.folder):
        _weights(config, params, state)


def skipped(config: ConfigDict, theirs: dict) -> tuple[str, ...]:
    """The modules that keep their own start: config.init_skip, or the classifier where the run whose fields are `theirs` had
    other classes or another method."""
    if config.init_skip != 'auto':
        return tuple(filter(None, config.init_skip.split(',')))
    classes = theirs.get('data.classes')
    same = theirs.get('method') == config.method and classes and class_names(classes) == class_names(config.data.classes)
    return () if same else ('classifier',)


def _of_run(run, params, state, say):
    """(params, collections of the network) with what agrees in name and shape with the run that this one starts from; what is
    by site, by the names of the sites."""
    config = run.config
    source = source_run(config)
    theirs = workdir.read(source) or {}
    _, saved = checkpoint.read(source)
    wanted = params if theirs.get('method') == config.method else {'network': params['network']}
    skip = skipped(config, theirs)
    like = {'params': wanted, 'state': {'network': state['network']}}
    saved, by_site = sites.carried(run, saved, like, theirs)
    found, unchanged = checkpoint.put(saved, like, skip)
    fresh = [name.removeprefix('params/') for name in unchanged] + sorted(params.keys() - wanted.keys())
    say(f'started from {source}; freshly initialised: {", ".join(fresh) or "nothing"}{by_site}')
    if skip and config.init_skip == 'auto':
        say('its classifier is of another method or of other classes: --config.init_skip="" would carry it')
    differ = [name for name, value in workdir.fields(config).items()
              if name.startswith('prep.') and theirs.get(name, value) != value]
    if differ:
        here = ', '.join(f'{name}={configs.get(config, name)}' for name in differ)
        there = ', '.join(f'{name}={theirs[name]}' for name in differ)
        say(f'its scans were prepared with {there}; here with {here}')
    return {**params, **found['params']}, found['state']['network']


def _of_file(run, params, state, say):
    """The same from a file of weights; pretrained.txt says what became of each."""
    given = run.config.model.pretrained
    variables, converted, report = _weights(run.config, params, state)
    skip = () if run.config.init_skip == 'auto' else skipped(run.config, {})
    found, _ = checkpoint.put(converted, variables, skip)
    report = [(ours, '-', 'initialised afresh (--config.init_skip)') if set(skip) & set(ours.split('/'))
              else (ours, theirs, action) for ours, theirs, action in report]
    say(f'started from {given}: {pretrained.summary(report)}; see pretrained.txt')
    if jax.process_index() == 0:
        run.folder.mkdir(parents=True, exist_ok=True)
        files.write(run.folder / 'pretrained.txt', pretrained.table(report))
    return {**params, 'network': found.pop('params')}, {**state['network'], **found}


def _weights(config, params, state):
    """The network's variables, the same from its file of weights, and the report on each tensor."""
    name = config.model.name
    variables = {'params': params['network']} | {k: x for k, x in state['network'].items() if k == 'batch_stats'}
    tensors = pretrained.load(config.model.pretrained, name)
    return variables, *pretrained.convert(variables, tensors, name, config.model.inflate)
