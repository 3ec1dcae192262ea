"""A finished run, opened to read the features of its trunk, with the exams that it is asked about: its own, or another data set's."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, start
from covid_jax import config as configs
from covid_jax.data import lineage, pipeline
from covid_jax.runtime import workdir
from covid_jax.runtime.state import TrainState

# All that a part which reads features has of a config: the data, where they are not the run's own, too.
FIELDS = ('row', 'kind', 'seed', 'folds', 'fold', 'init_from', 'allow_leak', 'eval.level')
OF_ANY = ('data.source', 'data.store', 'data.workers')  # fields that say nothing of other data


class Trunk(NamedTuple):
    """config: the run's, with the data that are asked about; run, state: the network; survey, dataset: of these data; root: where
    prepared scans are kept; table: what the run's exams.csv says; before: what it and the runs before it learnt from; classes: the names of
    the run's own."""

    config: ConfigDict
    run: start.Run
    state: TrainState
    survey: pipeline.Survey
    dataset: pipeline.Dataset
    root: str
    table: list[lineage.Row]
    before: list[lineage.Row]
    classes: tuple[str, ...]


def check(config: ConfigDict) -> None:
    """UserError where the config names no run, or data that cannot be."""
    if not config.init_from:
        raise UserError('whose features are to be read? set --config.init_from to the folder of a finished run')
    if config.data.source:
        pipeline.check(config)
        return
    plain = _of_data(configs.base())
    idle = [name for name, value in _of_data(config).items() if name not in OF_ANY and value != plain[name]]
    if idle:
        raise UserError(f'--config.{idle[0]} is of other data than the run\'s own: name them with --config.data.source, or leave it out')


def opened(config: ConfigDict, folder: str | Path, names: Sequence[str] = (), say: Callable[[str], None] = print) -> tuple[Trunk, dict]:
    """The Trunk of config.init_from on its own data, or on those of config.data where a source is named; and the fields that the part in
    `folder` is known by: FIELDS, those called `names`, and of the data.

    UserError for a run that is not finished, for a folder that holds another part, and for data of which the run, or one before it,
    learnt from patients of val or test.
    """
    source = config.init_from
    mine = workdir.fields(config, (*FIELDS, *names)) | (_of_data(config) if config.data.source else {})
    _check_source(source, folder)
    workdir.check(mine, folder, {})
    run, state = start.load(source)
    asked = _asked(config, run.config)
    root = asked.data.store or str(Path(folder) / 'store')
    survey = pipeline.survey(asked, root, True, say)
    workdir.check(mine, folder, {}, survey.digest)
    table = lineage.read(source)
    before = lineage.inherited(table, source)
    if not config.allow_leak:
        lineage.refuse(lineage.leaks(survey.exams, survey.hashes, before), survey.exams)
    dataset = known_sites(pipeline.prepare(survey, root, asked.data.workers, say), run)
    return Trunk(asked, run._replace(config=asked), state, survey, dataset, root, table, before, run.classes), mine


def known_sites(dataset: pipeline.Dataset, run: start.Run) -> pipeline.Dataset:
    """The data set with the run's numbers of its sites; -1 for one that the run does not know."""
    number = {site: i for i, site in enumerate(run.sites)}
    return dataset._replace(site=np.array([number.get(exam.site, -1) for exam in dataset.exams], np.int32))


def _check_source(source, folder):
    """UserError for a folder that is no run, that holds the parts of one, or that the answers would be written over."""
    if os.path.realpath(source) == os.path.realpath(folder):
        raise UserError(f'{source} is the run whose features are read: set another --workdir')
    if not Path(source).is_dir():
        raise UserError(f'there is no folder {source}: set --config.init_from to the folder of a finished run')
    parts = sorted(path.parent for path in Path(source).rglob('results.json'))
    if parts and not Path(source, 'results.json').exists():
        raise UserError(f'{source} holds {len(parts)} finished parts: set --config.init_from to one of them, as {parts[0]}, or to its '
                        'stage, with the --config.folds and --config.seeds of the run')


def _asked(config, theirs):
    """The run's config, its data those of `config` where these name a source, else its own, of whose train split all labels are
    learnt from, though the run may have learnt without them. Classes that are not set are the run's."""
    asked = theirs.copy_and_resolve_references()
    with asked.unlocked():
        if config.data.source:
            asked.data = config.data.copy_and_resolve_references()
            if config.data.classes == configs.base().data.classes:
                asked.data.classes = theirs.data.classes
            asked.update(folds=config.folds, fold=config.fold)
        else:
            asked.data.use = 'labelled'
        asked.data.workers = config.data.workers
        asked.eval.level = config.eval.level
    return asked


def _of_data(config):
    return {name: value for name, value in workdir.fields(config).items() if name.startswith('data.')}
