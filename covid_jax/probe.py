"""A finished run -> what a linear probe and the nearest neighbours read from its features, beside what simpler evidence reaches.

The trunk is used in evaluation mode and stays as it is. Of a network that learnt without labels the linear probe is the result.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, evaluate, shortcuts, start
from covid_jax.data import lineage, pipeline
from covid_jax.data.prep import blank_words
from covid_jax.methods.method import abstract_batch
from covid_jax.metrics import probes
from covid_jax.predictions import marked
from covid_jax.report import evidence
from covid_jax.report.tables import interval, number
from covid_jax.runtime import files, workdir
from covid_jax.runtime.mesh import replicated
from covid_jax.runtime.state import TrainState
from covid_jax.sources.exams import class_names

# All that a probe has of a config: the data, where they are not the run's own, too.
FIELDS = ('row', 'kind', 'seed', 'folds', 'fold', 'init_from', 'allow_leak', 'eval.level')
SPLITS = ('train', 'val', 'test')
Say = Callable[[str], None]


class Probed(NamedTuple):
    """What is probed. config: the run's, with the data that are asked about; run, state: its trunk; survey, dataset: of these
    data; root: where prepared scans are kept."""

    config: ConfigDict
    run: start.Run
    state: TrainState
    survey: pipeline.Survey
    dataset: pipeline.Dataset
    root: str


def check(config: ConfigDict) -> None:
    """UserError where the config names no run, or data that cannot be."""
    if not config.init_from:
        raise UserError('which run is to be probed? set --config.init_from to the folder of a finished run')
    if config.data.source:
        pipeline.check(config)


def run(config: ConfigDict, folder: str | Path, say: Say = print) -> dict | None:
    """Probes the trunk of config.init_from on its own data, or on those of config.data where a source is named.

    The answers that the folder is left (predictions.csv, metrics.json, ...) are the linear probe's. evidence/ has those of all
    else: the run itself where it classifies, nearest neighbours, the linear probe of a trunk with random weights, of scans
    without lungs, and the shortcut probes; probes.json and probes.md the AUC of each, and how well the features tell sites.
    Returns the metrics, as train_and_evaluate does; None on all hosts but the first. UserError for a run that is not finished,
    and for data of which nothing can be learnt, or that the run learnt from.
    """
    check(config)
    folder = Path(folder)
    source = config.init_from
    mine = workdir.fields(config, FIELDS) | (_of_data(config) if config.data.source else {})
    workdir.check(mine, folder, {})
    opened, state = start.load(source)
    asked = _asked(config, opened.config)
    root = asked.data.store or str(folder / 'store')
    survey = pipeline.survey(asked, root, True, say)
    workdir.check(mine, folder, {}, survey.digest)
    before = lineage.inherited(lineage.read(source), source)
    if not config.allow_leak:
        lineage.refuse(lineage.leaks(survey.exams, survey.hashes, before), survey.exams)
    dataset = _known_sites(pipeline.prepare(survey, root, asked.data.workers, say), opened)
    if not {exam.split for exam in dataset.exams} - {'train', ''}:
        raise UserError(f'{source} cannot be probed: its data have no val and no test split')
    probed = Probed(asked, opened._replace(config=asked), state, survey, dataset, root)
    names = class_names(asked.data.classes)
    try:
        linear, answers, site, notes = _answers(probed, names, names == opened.classes)
    except ValueError as error:
        raise UserError(f'{source} cannot be probed: {error}') from None
    if jax.process_index() > 0:
        return None
    workdir.keep(mine, folder, dataset=survey.digest)
    lineage.write(folder, [*lineage.own(dataset.exams, dataset.hashes, dataset.facts), *before])
    evaluate.write_quarantine(folder, dataset.broken)
    _write(folder, linear, answers, site, notes, config.eval.level)
    linear, note = marked(linear, lineage.leaks(dataset.exams, dataset.hashes, before))
    return evaluate.write_report(folder, linear, config.eval.level, dataset.broken, note)


def _asked(config, theirs):
    """The run's config with the data that are asked about, all labels of whose train split are learnt from."""
    asked = theirs.copy_and_resolve_references()
    with asked.unlocked():
        if config.data.source:
            asked.data = config.data.copy_and_resolve_references()
            asked.update(folds=config.folds, fold=config.fold)
        else:
            asked.data.use = 'labelled'
        asked.data.workers = config.data.workers
        asked.eval.level = config.eval.level
    return asked


def _of_data(config):
    return {name: value for name, value in workdir.fields(config).items() if name.startswith('data.')}


def _known_sites(dataset, opened):
    """The data set with the run's numbers of its sites; -1 for one that the run does not know."""
    number = {site: i for i, site in enumerate(opened.sites)}
    return dataset._replace(site=np.array([number.get(exam.site, -1) for exam in dataset.exams], np.int32))


def _answers(probed, names, itself):
    """(the linear probe's answers of val and test, {kind: those of all other evidence}, how well the site is told, notes).

    names: of the classes; itself: whether the run answers with these, too. ValueError where train has labels of one class.
    """
    opened = probed.run
    predict = evaluate.predictor(opened.method, opened.mesh, features=True)
    trunk = evaluate.collect(opened, predict, probed.state, probed.dataset, SPLITS)
    fresh = evaluate.collect(opened, predict, _random(opened), probed.dataset, SPLITS)
    split = np.array([exam.split for exam in trunk.exams])
    learnt = (split == 'train') & (trunk.label >= 0)

    def answered(probability):
        whole = trunk._replace(names=names, probability=probability, features=None, columns={})
        return whole.at(np.flatnonzero(split != 'train'))

    def linear(features):
        return answered(shortcuts.linear(split, trunk.label, features, len(names)))

    result = linear(trunk.features)
    found = {evidence.SELF: answered(trunk.probability)} if itself and trunk.probability is not None else {}
    neighbours = probes.knn(trunk.features[learnt], trunk.label[learnt], len(names))
    found |= {'nearest neighbours': answered(neighbours(trunk.features)), 'random trunk': linear(fresh.features)}
    blank, note = _without_lungs(probed, predict, trunk, split, len(names))
    if blank is not None:
        found['no lungs'] = answered(blank)
    found |= shortcuts.answer(probed.dataset, names)
    site = _site(trunk, split, probed.config.eval.level)
    return result, found, site, (note, _said_of_sites(site))


def _random(opened):
    """The state of the same network with random weights, of the run's seed."""
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_batch(opened.config, 1))
    init = jax.jit(lambda key: opened.method.init(key, batch), out_shardings=replicated(opened.mesh))
    params, state = init(jax.random.key(opened.config.seed))
    return TrainState(jnp.int32(0), params, (), state, jnp.int32(-1))


def _without_lungs(probed, predict, trunk, split, classes):
    """(probability of each row of trunk by a linear probe on its features of the scans without lungs, what was done), or None
    and why. Of a scan whose lungs were not found the probability is the share of each class in train."""
    prep = replace(probed.survey.prep, blank=True)
    done = blank_words(prep.size[0])
    try:
        dataset = pipeline.prepare(probed.survey._replace(prep=prep), probed.root, probed.config.data.workers, lambda line: None)
    except UserError as error:
        return None, f'no lungs: -, for {error}'
    seen = evaluate.collect(probed.run, predict, probed.state, _known_sites(dataset, probed.run), SPLITS)
    place = {exam.id: i for i, exam in enumerate(seen.exams)}
    has = np.array([exam.id in place for exam in trunk.exams])
    features = seen.features[[place[exam.id] for exam in trunk.exams if exam.id in place]]
    known = trunk.label[(split == 'train') & (trunk.label >= 0)]
    probability = np.tile(np.bincount(known, minlength=classes) / len(known), (len(has), 1))
    try:
        probability[has] = shortcuts.linear(split[has], trunk.label[has], features, classes)
    except ValueError as error:
        return None, f'no lungs: -, for {error} and have lungs that were found'
    without = f'; in {(~has).sum()} of {len(has)} scans none were found' if not has.all() else ''
    return probability, f'no lungs: {done}, and a linear probe of the same trunk{without}'


def _site(trunk, split, level):
    """How well a linear probe on the features tells the sites that are trained on: its balanced accuracy, as a metric's entry,
    with what chance reaches."""
    site = np.array([exam.site for exam in trunk.exams])
    sites = np.unique(site[split == 'train'])
    index = np.where(np.isin(site, sites), np.searchsorted(sites, site).clip(max=len(sites) - 1), -1)
    asked = np.flatnonzero((split == ('test' if 'test' in split else 'val')) & (index >= 0))
    several = len(np.unique(index[asked]))
    if len(sites) < 2 or several < 2:
        return {'value': None, 'n': len(asked), 'reason': 'there is one site alone'}
    probability = shortcuts.linear(split, index, trunk.features, len(sites))
    rows = trunk._replace(names=tuple(sites.tolist()), label=index).at(asked)

    def metrics(label, p):
        right = p.argmax(1) == label
        return {'balanced_accuracy': {'value': float(np.mean([right[label == k].mean() for k in np.unique(label)])),
                                      'n': len(label)}}

    return {**evidence.with_bounds(metrics, rows, probability[asked], level)['balanced_accuracy'], 'chance': 1 / several}


def _said_of_sites(site):
    if site['value'] is None:
        return f'the site from the features: -, for {site["reason"]}'
    between = f' ({interval(site)})' if interval(site) else ''
    return f'the site from the features: balanced accuracy {number(site["value"])}{between}, chance {number(site["chance"])}'


def _write(folder, linear, answers, site, notes, level):
    """The evidence, probes.json and probes.md."""
    evidence.leave(folder, answers, notes)
    table = {'site': site, **evidence.entries({evidence.LINEAR: linear, **answers}, level)}
    files.write(folder / 'probes.json', json.dumps(table, indent=1))
    split = 'test' if 'test' in linear.splits else 'val'
    of_split = {kind: of_kind.of(split) for kind, of_kind in ((evidence.LINEAR, linear), *answers.items())}
    name = evidence.SELF if evidence.SELF in of_split else evidence.LINEAR
    found = evidence.gather(name, of_split.pop(name), of_split, level, notes)
    if found:
        files.write(folder / 'probes.md', evidence.markdown(found))
