"""What a run is before its first step: resolved, checked and built once; and how a finished one is opened again."""

import importlib.metadata
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, methods
from covid_jax import config as configs
from covid_jax.data import pipeline
from covid_jax.data.exams import class_names
from covid_jax.data.prep import Prep
from covid_jax.methods.method import Method
from covid_jax.metrics.classification import classification_metrics
from covid_jax.models import pretrained, sites
from covid_jax.runtime import checkpoint, optim, workdir
from covid_jax.runtime.mesh import default_batch, make_mesh, replicated
from covid_jax.runtime.state import TrainState, create

LEAST = {'seeds': 1, 'folds': 1, 'fold': 0, 'seed': 0, 'data.split_seed': 0, 'data.workers': 0, 'train.epochs': 0,
         'train.eval_every': 0, 'train.log_every': 1, 'train.patience': 0, 'eval.tta': 0, 'eval.resamples': 0}
CHOICES = {'model.dtype': ('auto', 'float32', 'bfloat16', 'float64'), 'model.inflate': ('mean', 'centre')}


class Run(NamedTuple):
    """config: with nothing left to be filled in; folder: where the run lives; prep: how its scans are prepared.

    Of a finished run, as `load` opens it: threshold, the probability of the positive class that was frozen on validation,
    or None; sites, what each number of batch['site'] means; versions, {package: version} that trained it.
    """

    config: ConfigDict
    folder: Path
    mesh: jax.sharding.Mesh
    method: Method
    prep: Prep
    threshold: float | None = None
    sites: tuple[str, ...] = ()
    versions: dict[str, str] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in order."""
        return class_names(self.config.data.classes)


def begin(config, folder, devices=None) -> Run:
    """The Run of a config in a folder, on these devices (all there are by default). Nothing is read of the data.

    UserError for what can be known to be wrong by now, the cheapest first: numbers, method, preparation, batch, a folder of
    another run, the network, a file of weights that is not there.
    """
    check_ranges(config)
    optim.check(config.train)
    config = methods.resolve(config)
    prep = pipeline.prep_of(config)
    mesh = make_mesh(devices)
    resolve_batches(config, folder, mesh.size)
    workdir.check(workdir.fields(config), folder, defaults(config.method))
    method = methods.make(config, mesh)
    if _from_file(config):
        pretrained.find(config.model.pretrained, config.model.name)
    return Run(config, Path(folder), mesh, method, prep)


def load(folder) -> tuple[Run, TrainState]:
    """A finished run, with the state of its best (else its last) checkpoint, on this host's devices.

    folder: may have been moved. The state has no optimizer. UserError where the folder holds no finished run.
    """
    kept = workdir.read(folder)
    if kept is None:
        raise UserError(f'{folder} holds no run: give the folder of a finished run')
    known = configs.base()
    with known.unlocked(), known.ignore_type():
        for name, value in kept.items():
            if name not in workdir.BESIDE:
                _set(known, name, tuple(value) if isinstance(value, list) else value)
    mesh = make_mesh()
    config = methods.resolve(known)
    config.eval.batch = mesh.size * -(-config.eval.batch // mesh.size)
    method = methods.make(config, mesh)
    run = Run(config, Path(folder), mesh, method, pipeline.prep_of(config), _threshold(folder), tuple(kept['sites'] or ()),
              kept['versions'] or {})
    step, saved = checkpoint.read(folder)
    params, state = jax.eval_shape(method.init, jax.eval_shape(jax.random.key, 0), abstract_batch(config, 1))
    like = {'params': params, 'state': state}
    where = replicated(mesh)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), like)
    found, missing = checkpoint.put({name: saved.get(name) for name in like}, like)
    if missing:
        raise UserError(f'the checkpoint in {folder} is of another network: it lacks {", ".join(missing[:3])}')
    return run, TrainState(jnp.int32(step), found['params'], (), found['state'], jnp.int32(-1))


def check_ranges(config):
    """UserError for a number or a word that cannot be."""
    for name, low in LEAST.items():
        if (value := _get(config, name)) < low:
            raise UserError(f'--config.{name}={value} must be at least {low}')
    for name, allowed in CHOICES.items():
        if (value := _get(config, name)) not in allowed:
            raise UserError(f'--config.{name}={value} must be {", ".join(allowed[:-1])} or {allowed[-1]}')


def resolve_batches(config, folder, devices):
    """Fills in the batch sizes. UserError where they do not divide over the devices."""
    kept = workdir.read(folder) or {}
    with config.unlocked():
        config.train.batch = config.train.batch or kept.get('train.batch') or default_batch(devices)
        config.eval.batch = config.eval.batch or config.train.batch
    for name in ('train', 'eval'):
        batch = config[name].batch
        if batch < 1 or batch % devices:
            raise UserError(f'--config.{name}.batch={batch} does not divide over {devices} devices: '
                            f'take a multiple of {devices}')


def defaults(method):
    """{'section.field': value} of all fields of a config of this method that are what they were when they came to be: what a
    run of an older version, which does not know a field, means by it."""
    c = configs.base()
    with c.unlocked():
        c[method] = methods.METHODS[method].DEFAULTS
    return workdir.fields(c)


def trace(run):
    """UserError where the network does not take the run's scans, by tracing a step of training and of evaluation, or the file
    of weights."""
    config, method = run.config, run.method
    key = jax.eval_shape(jax.random.key, 0)
    params, state = jax.eval_shape(method.init, key, abstract_batch(config, 1))
    _, (_, scalars) = jax.eval_shape(method.loss, params, state, abstract_batch(config, config.train.batch), key, 0)
    answers = jax.eval_shape(method.predict, params, state, abstract_batch(config, config.eval.batch))
    metrics = metric_names(run.classes) if 'logits' in answers else []
    if config.eval.select not in (known := ['auto', 'last', 'loss', *scalars, *metrics]):
        raise UserError(f'--config.eval.select={config.eval.select} must be one of {", ".join(known)}')
    if config.train.patience and config.eval.select == 'last':
        raise UserError('--config.train.patience needs a score to wait for: set --config.eval.select to another than last')
    if _from_file(config) and checkpoint.latest_step(run.folder / 'checkpoints') is None:
        _weights(config, params, state)


def metric_names(classes):
    """The metrics of a split, for classes of these names."""
    each = np.arange(len(classes))
    return list(classification_metrics(each, np.eye(len(classes)), classes))


def abstract_batch(config, n):
    """A batch of n scans, as shapes."""
    fields = {'label': jnp.int32, 'site': jnp.int32, 'draw': jnp.uint32}
    return {'image': jax.ShapeDtypeStruct((n, *config.prep.size, 1), jnp.uint8),
            **{name: jax.ShapeDtypeStruct((n,), dtype) for name, dtype in fields.items()}}


def check_sites(config, exams, say):
    """UserError where the network normalises by another number of sites than are trained on, or than the run that it starts
    from was."""
    normalised = config.model.sites or sites(config.model.name)
    if normalised < 2:
        return
    trained = sorted({e.site for e in exams if e.split == 'train'})
    if normalised != len(trained):
        raise UserError(f'{config.model.name} normalises {normalised} sites, not the {len(trained)} to train on '
                        f'({", ".join(trained)}): set --config.model.sites={len(trained)}')
    if unseen := sorted({e.site for e in exams if e.split} - {*trained}):
        say(f'no scan of {", ".join(unseen)} is trained on: there the answer is the average of the answers at '
            f'{", ".join(trained)}')
    source = source_run(config)
    theirs = (workdir.read(source) or {}).get('sites') if source else None
    if theirs and theirs[:normalised] != trained:
        raise UserError(f'{source} normalises by the sites {", ".join(theirs[:normalised])}, this run by '
                        f'{", ".join(trained)}: a site would get the statistics of another')


def initial_state(run, steps_per_epoch, key, say=print):
    """The training state before its first step, replicated on the mesh, and the optimizer. Where the config names a run or a
    file of weights, the network (and what else of the method agrees) starts from it."""
    config, method = run.config, run.method
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_batch(config, 1))
    where = replicated(run.mesh)
    init = jax.jit(lambda k, start=None: method.init(k, batch, start), out_shardings=where)
    params, state = init(key)
    tx = optim.make(config.train, steps_per_epoch, method.frozen(params))
    if (config.init_from or config.model.pretrained) and checkpoint.latest_step(run.folder / 'checkpoints') is None:
        params, state = init(key, (_of_file if _from_file(config) else _of_run)(run, params, state, say))
    return jax.jit(partial(create, tx=tx), out_shardings=where)(params, state), tx


def _of_run(run, params, state, say):
    """(params, collections of the network) with what agrees in name and shape with the run that this one starts from."""
    config = run.config
    source = source_run(config)
    theirs = workdir.read(source) or {}
    _, saved = checkpoint.read(source)
    mine = {'params': params, 'state': {'network': state['network']}}
    skip = skipped(config, theirs)
    found, kept = checkpoint.put({name: saved[name] for name in mine}, mine, skip)
    fresh = [name.removeprefix('params/') for name in kept]
    say(f'started from {source}; freshly initialised: {", ".join(fresh) or "nothing"}')
    differ = [name for name, value in workdir.fields(config).items()
              if name.startswith('prep.') and theirs.get(name, value) != value]
    if differ:
        here = ', '.join(f'{name}={_get(config, name)}' for name in differ)
        there = ', '.join(f'{name}={theirs[name]}' for name in differ)
        say(f'its scans were prepared with {there}; here with {here}')
    return found['params'], found['state']['network']


def skipped(config, theirs):
    """The modules that keep their own start: config.init_skip, or the classifier where the run whose fields are `theirs` had
    other classes or another method."""
    if config.init_skip != 'auto':
        return tuple(filter(None, config.init_skip.split(',')))
    classes = theirs.get('data.classes')
    same = theirs.get('method') == config.method and classes and class_names(classes) == class_names(config.data.classes)
    return () if same else ('classifier',)


def _of_file(run, params, state, say):
    """The same from a file of weights; pretrained.txt says what became of each."""
    given = run.config.model.pretrained
    variables, new, report = _weights(run.config, params, state)
    skip = () if run.config.init_skip == 'auto' else skipped(run.config, {})
    new, fresh = checkpoint.put(new, variables, skip)
    say(f'started from {given}: {pretrained.summary(report)}; see pretrained.txt'
        + (f'; freshly initialised, as --config.init_skip says: {", ".join(fresh)}' if fresh else ''))
    if jax.process_index() == 0:
        run.folder.mkdir(parents=True, exist_ok=True)
        workdir.write(run.folder / 'pretrained.txt', pretrained.table(report))
    return {**params, 'network': new.pop('params')}, {**state['network'], **new}


def _weights(config, params, state):
    """The network's variables, the same from its file of weights, and the report on each tensor."""
    name = config.model.name
    variables = {'params': params['network']} | {k: x for k, x in state['network'].items() if k == 'batch_stats'}
    tensors = pretrained.load(config.model.pretrained, name)
    return variables, *pretrained.convert(variables, tensors, name, config.model.inflate)


def source_run(config):
    """The folder of the run that the config starts from; '' where it starts from a file of weights, or afresh."""
    return '' if _from_file(config) else config.init_from or config.model.pretrained


def _from_file(config):
    """Whether the run starts from a file of weights."""
    return bool(config.model.pretrained) and not config.init_from and not Path(config.model.pretrained).is_dir()


def versions():
    """{package: version} of what computes."""
    return {name: importlib.metadata.version(name) for name in ('jax', 'flax', 'optax')}


def _threshold(folder):
    path = Path(folder) / 'metrics.json'
    metrics = json.loads(path.read_text()) if path.exists() else {}
    groups = next(iter(metrics.values()), {})
    return groups.get('all', {}).get('threshold_frozen', {}).get('value')


def _get(config, name):
    for part in name.split('.'):
        config = config[part]
    return config


def _set(config, name, value):
    *sections, last = name.split('.')
    for section in sections:
        if section not in config:
            config[section] = ConfigDict()
        config = config[section]
    config[last] = value
