"""A run before its first step, resolved, checked and built once, and a finished one, opened again."""

import importlib.metadata
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, methods, ranges, sites, warm
from covid_jax import config as configs
from covid_jax.data import lineage, order, pipeline
from covid_jax.data.prep import Prep
from covid_jax.methods.method import Method, abstract_batch
from covid_jax.metrics.classification import classification_metrics
from covid_jax.report.calibration import read_temperature
from covid_jax.runtime import checkpoint, optim, track, workdir
from covid_jax.runtime.mesh import default_batch, make_mesh, replicated
from covid_jax.runtime.state import TrainState
from covid_jax.sources.exams import Exam, class_index, class_names
from covid_jax.text import some
from covid_jax.weights import pretrained

OF_NEIGHBOURS = 'knn_auc', 'knn_macro_f1'  # what may choose a checkpoint of a method that does not classify


class Run(NamedTuple):
    """config: with nothing left to be filled in; folder: where the run lives; prep: how its scans are prepared.

    Of a finished run, as `load` opens it: thresholds, the probability of the positive class that was frozen on validation, or
    None, for exams under 'all' and for the means of patients under 'patients'; temperature, that was fitted there, or None; sites,
    what each number of batch['site'] means; versions, {package: version} that trained it. Of one that `settle` has settled, sites
    are those that it learns from.
    """

    config: ConfigDict
    folder: Path
    mesh: jax.sharding.Mesh
    method: Method
    prep: Prep
    thresholds: Mapping[str, float | None] = MappingProxyType({})
    temperature: float | None = None
    sites: tuple[str, ...] = ()
    versions: Mapping[str, str] = MappingProxyType({})

    @property
    def threshold(self) -> float | None:
        """That of exams."""
        return self.thresholds.get('all')

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in order."""
        return class_names(self.config.data.classes)


def begin(config: ConfigDict, folder: str | Path) -> Run:
    """The Run of a config in a folder, on all devices. Nothing is read of the data.

    UserError for what can be known to be wrong by now, the cheapest first: numbers, method, preparation, batch, the network, a
    folder of another run, a file of weights that is not there.
    """
    run = build(config, folder)
    workdir.check(workdir.fields(run.config), folder, defaults(run.config.method))
    if warm.from_file(run.config) and not warm.begun(folder):
        pretrained.find(run.config.model.pretrained, run.config.model.name)
    return run


def build(config: ConfigDict, folder: str | Path, devices: Sequence[jax.Device] | None = None) -> Run:
    """The Run of a config on these devices (all there are by default), whatever the folder holds but for its batch size and
    its number of sites."""
    check_fields(config)
    config = methods.resolve(config)
    prep = pipeline.prep_of(config)
    mesh = make_mesh(devices)
    resolve_batches(config, folder, mesh.size)
    config.model.sites = sites.resumed(config, folder)
    return Run(config, Path(folder), mesh, methods.make(config, mesh), prep)


def settle(run: Run, exams: Sequence[Exam]) -> Run:
    """The run with the sites that it learns from, of these exams with their splits, and with a set of statistics for each of them
    where its network normalises by site and config.model.sites does not say by how many."""
    names = sites.trained(exams)
    run = run._replace(sites=names)
    if (asked := sites.asked(run.config, names)) == run.config.model.sites:
        return run
    config = run.config.copy_and_resolve_references()
    config.model.sites = asked
    return run._replace(config=config, method=methods.make(config, run.mesh))


def load(folder: str | Path) -> tuple[Run, TrainState]:
    """A finished run, with the state of its best (else its last) checkpoint, on all devices.

    folder: may have been moved. The state has no optimizer. UserError where the folder holds no finished run.
    """
    kept = workdir.read(folder)
    if kept is None or not isinstance(kept.get('method'), str):
        raise UserError(f'{folder} holds no run that trained a network: give the folder of a finished run')
    mesh = make_mesh()
    config = methods.resolve(_config_of(kept))
    config.eval.batch = mesh.size * math.ceil(config.eval.batch / mesh.size)
    method = methods.make(config, mesh)
    run = Run(config, Path(folder), mesh, method, pipeline.prep_of(config), _thresholds(folder), read_temperature(folder),
              tuple(kept['sites'] or ()), kept['versions'] or {})
    step, saved = checkpoint.read(folder)
    if not Path(folder, 'results.json').exists():
        raise UserError(f'{folder} has not finished: give its command again, which goes on')
    params, state = jax.eval_shape(method.init, jax.eval_shape(jax.random.key, 0), abstract_batch(config, 1))
    where = replicated(mesh)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), {'params': params, 'state': state})
    found, missing = checkpoint.put({name: saved.get(name) for name in like}, like)
    if missing:
        raise UserError(f'the checkpoint in {folder} is of another network: it lacks {some(missing, 3)}')
    return run, TrainState(jnp.int32(step), found['params'], (), found['state'], jnp.int32(-1))


def _config_of(kept):
    """The config of a run, from what workdir.read gives: a field that it does not know has the default."""
    config = configs.base()
    with config.unlocked(), config.ignore_type():
        for name, value in kept.items():
            if name not in workdir.BESIDE:
                configs.put(config, name, tuple(value) if isinstance(value, list) else value)
    return config


def check_fields(config: ConfigDict) -> None:
    """UserError for a number or a word that cannot be, whatever the data are."""
    ranges.check(config)
    if config.train.patience and config.eval.select == 'last':
        raise UserError('--config.train.patience needs a score to wait for: set --config.eval.select to another than last')
    optim.check(config.train)
    track.check(config.track)


def resolve_batches(config: ConfigDict, folder: str | Path, devices: int) -> None:
    """Fills in the batch sizes. UserError where they do not divide over the devices."""
    started_with = workdir.read(folder) or {}
    with config.unlocked():
        config.train.batch = config.train.batch or started_with.get('train.batch') or default_batch(devices)
        config.eval.batch = config.eval.batch or config.train.batch
    for name in ('train', 'eval'):
        batch = config[name].batch
        if batch < 1 or batch % devices:
            raise UserError(f'--config.{name}.batch={batch} does not divide over {devices} devices: '
                            f'take a multiple of {devices}')


def defaults(method: str) -> dict:
    """{'section.field': value} of a config of this method in which nothing is set: what a run of an older version means by a
    field that it does not know. So a field that is new does by default what was done before there was one."""
    c = configs.base()
    with c.unlocked():
        c[method] = methods.METHODS[method].DEFAULTS
    return workdir.fields(c)


def trace(run: Run) -> None:
    """UserError where the network does not take the run's scans, by tracing a step of training and of evaluation; for a score
    or a module that the method does not have; and for a file of weights that does not fit."""
    config = run.config
    method = run.method
    key = jax.eval_shape(jax.random.key, 0)
    params, state = jax.eval_shape(method.init, key, abstract_batch(config, 1))
    jax.eval_shape(method.loss, params, state, abstract_batch(config, config.train.batch), key, 0)
    answers = jax.eval_shape(method.predict, params, state, abstract_batch(config, config.eval.batch))
    metrics = metric_names(run.classes) if 'logits' in answers else OF_NEIGHBOURS
    known = ('auto', 'last', 'loss', *method.scores, *metrics)
    if config.eval.select not in known:
        raise UserError(f'--config.eval.select={config.eval.select} must be one of {", ".join(known)}')
    warm.check(run, params, state)


def metric_names(classes: tuple[str, ...]) -> list[str]:
    """The metrics of a split, for classes of these names."""
    each = np.arange(len(classes))
    return list(classification_metrics(each, np.eye(len(classes)), classes))


def check_survey(run: Run, survey: pipeline.Survey, before: list[lineage.Row],
                 say: Callable[[str], None] = print) -> None:
    """UserError for what is wrong with a run and its data before a scan is prepared: a folder that was started with others,
    sites that the network does not normalise, an order that the exams do not allow, and a test that is none, because the runs
    `before` learnt from its patients."""
    workdir.check(workdir.fields(run.config), run.folder, defaults(run.config.method), survey.digest)
    sites.check(run.config, survey.exams, say)
    learnt = [exam for exam in survey.exams if exam.split == 'train']
    order.check(run.config.train.order, run.config.train.batch, [exam.site for exam in learnt],
                [class_index(exam.label, survey.classes) for exam in learnt])
    if not run.config.allow_leak:
        lineage.refuse(lineage.leaks(survey.exams, survey.hashes, before), survey.exams)


def versions() -> dict[str, str]:
    """{package: version} of this project and of what computes."""
    found = {name: importlib.metadata.version(name) for name in ('jax', 'flax', 'optax')}
    try:
        ours = importlib.metadata.version('covid-jax')
    except importlib.metadata.PackageNotFoundError:  # run from its folder
        ours = 'not installed'
    return {'covid-jax': ours, **found}


def _thresholds(folder):
    """The thresholds of metrics.json."""
    path = Path(folder) / 'metrics.json'
    return thresholds_in(json.loads(path.read_text()) if path.exists() else {})


def thresholds_in(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Run.thresholds, of what evaluate.all_metrics gives of val and test. Where each patient has one exam, that of exams is that of patients."""
    groups = next(iter(metrics.values()), {})
    of_exams = groups.get('all', {})
    found = {'all': of_exams, 'patients': groups.get('patients', of_exams)}
    return {unit: of_unit.get('threshold_frozen', {}).get('value') for unit, of_unit in found.items()}
