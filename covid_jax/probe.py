"""A finished run -> what a linear probe and the nearest neighbours read from its features, beside what simpler evidence reaches.

The trunk is used in evaluation mode and stays as it is. Of a network that learnt without labels the linear probe is the result.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, evaluate, shortcuts, start
from covid_jax import config as configs
from covid_jax.data import lineage, pipeline
from covid_jax.data.prep import blank_words
from covid_jax.methods.method import abstract_batch
from covid_jax.metrics import probes
from covid_jax.metrics.probes import ONE_CLASS
from covid_jax.predictions import Predictions, aligned, marked, of_run
from covid_jax.report import evidence
from covid_jax.report.tables import interval, number
from covid_jax.runtime import files, workdir
from covid_jax.runtime.mesh import replicated
from covid_jax.runtime.state import TrainState
from covid_jax.sources.exams import class_names

# All that a probe has of a config: the data, where they are not the run's own, too.
FIELDS = ('row', 'kind', 'seed', 'folds', 'fold', 'init_from', 'allow_leak', 'eval.level')
OF_ANY = ('data.source', 'data.store', 'data.workers')  # fields that say nothing of other data
SPLITS = ('train', 'val', 'test')
Say = Callable[[str], None]


class Probed(NamedTuple):
    """What is probed. config: the run's, with the data that are asked about; run, state: its trunk; survey, dataset: of these
    data; root: where prepared scans are kept; own: whether their val and test are scans that the run had there, too."""

    config: ConfigDict
    run: start.Run
    state: TrainState
    survey: pipeline.Survey
    dataset: pipeline.Dataset
    root: str
    own: bool


class Seen(NamedTuple):
    """What all hosts work out together. trunk: features of train, val and test; fresh: those by random weights; blank: those of
    the scans without lungs, None where there are none; done: what was done to these, or why there are none; itself: what the run
    answers of val and test, None where it answers no such classes."""

    trunk: Predictions
    fresh: Predictions
    blank: Predictions | None
    done: str
    itself: Predictions | None


def check(config: ConfigDict) -> None:
    """UserError where the config names no run, or data that cannot be."""
    if not config.init_from:
        raise UserError('which run is to be probed? set --config.init_from to the folder of a finished run')
    if config.data.source:
        pipeline.check(config)
        return
    plain = _of_data(configs.base())
    idle = [name for name, value in _of_data(config).items() if name not in OF_ANY and value != plain[name]]
    if idle:
        raise UserError(f'--config.{idle[0]} is of other data than the run\'s own: name them with --config.data.source, or leave it out')


def run(config: ConfigDict, folder: str | Path, say: Say = print) -> dict | None:
    """Probes the trunk of config.init_from on its own data, or on those of config.data where a source is named.

    The answers that the folder is left (predictions.csv, metrics.json, ...) are the linear probe's. evidence/ has those of all
    else: the run itself where it classifies, nearest neighbours, the linear probe of a trunk with random weights, of scans
    without lungs, and the shortcut probes; probes.json the AUC of each, and how well the features tell sites.
    Returns the metrics, as train_and_evaluate does; None on all hosts but the first. UserError for a run that is not finished,
    and for data of which nothing can be learnt, or that the run learnt from.
    """
    check(config)
    folder = Path(folder)
    source = config.init_from
    mine = workdir.fields(config, FIELDS) | (_of_data(config) if config.data.source else {})
    _check_source(source, folder)
    workdir.check(mine, folder, {})
    opened, state = start.load(source)
    asked = _asked(config, opened.config)
    root = asked.data.store or str(folder / 'store')
    survey = pipeline.survey(asked, root, True, say)
    workdir.check(mine, folder, {}, survey.digest)
    table = lineage.read(source)
    before = lineage.inherited(table, source)
    if not config.allow_leak:
        lineage.refuse(lineage.leaks(survey.exams, survey.hashes, before), survey.exams)
    dataset = _known_sites(pipeline.prepare(survey, root, asked.data.workers, say), opened)
    if not {exam.split for exam in dataset.exams} - {'train', ''}:
        raise UserError(f'{source} cannot be probed: its data have no val and no test split')
    if not shortcuts.teaches(np.array([exam.split for exam in dataset.exams]), dataset.label):
        raise UserError(f'{source} cannot be probed: {ONE_CLASS}')
    probed = Probed(asked, opened._replace(config=asked), state, survey, dataset, root, _are_own(dataset, table))
    names = class_names(asked.data.classes)
    seen = _see(probed, names == opened.classes)
    if jax.process_index() > 0:  # what follows is numpy alone
        return None
    linear, answers, site, notes = _answers(probed, seen, names)
    workdir.keep(mine, folder, dataset=survey.digest)
    lineage.write(folder, [*lineage.own(dataset.exams, dataset.hashes, dataset.facts), *before])
    evaluate.write_quarantine(folder, dataset.broken)
    evidence.leave(folder, answers, notes)
    found = {'site': site, **evidence.entries({evidence.LINEAR: linear, **answers}, config.eval.level)}
    files.write(folder / 'probes.json', json.dumps(found, indent=1))
    linear, note = marked(linear, lineage.leaks(dataset.exams, dataset.hashes, before))
    return evaluate.write_report(folder, linear, config.eval.level, dataset.broken, note)


def _check_source(source, folder):
    """UserError for a folder that is no run, that holds the parts of one, or that the answers would be written over."""
    if os.path.realpath(source) == os.path.realpath(folder):
        raise UserError(f'{source} is the run that is to be probed: set another --workdir')
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


def _are_own(dataset, table):
    """Whether all exams of val and test are in the run's table, in the same split and of the same content."""
    theirs = {(row.exam.id, row.exam.split, row.hash) for row in table if not row.run}
    return all((exam.id, exam.split, digest) in theirs for exam, digest in zip(dataset.exams, dataset.hashes, strict=True)
               if exam.split in ('val', 'test'))


def _known_sites(dataset, opened):
    """The data set with the run's numbers of its sites; -1 for one that the run does not know."""
    number = {site: i for i, site in enumerate(opened.sites)}
    return dataset._replace(site=np.array([number.get(exam.site, -1) for exam in dataset.exams], np.int32))


def _see(probed, classifies):
    """The Seen of what is probed. classifies: whether the run knows the classes that are asked about."""
    opened = probed.run
    predict = evaluate.predictor(opened.method, opened.mesh, features=True)
    trunk = evaluate.collect(opened, predict, probed.state, probed.dataset, SPLITS)
    fresh = evaluate.collect(opened, predict, _random(opened), probed.dataset, SPLITS)
    blank, done = _see_blank(probed, predict)
    itself = _itself(probed, predict, trunk) if classifies and trunk.probability is not None else None
    return Seen(trunk, fresh, blank, done, itself)


def _itself(probed, predict, trunk):
    """What the run answers of val and test: of its own what it has left, of others with its test-time augmentation, the views
    drawn from its seed, as in evaluate.on."""
    plain = trunk.at([i for i, exam in enumerate(trunk.exams) if exam.split != 'train'])
    if probed.own:
        labels = [plain.names[k] if k >= 0 else '' for k in plain.label]  # as a table has them
        named = plain._replace(exams=[exam._replace(label=label, path='') for exam, label in zip(plain.exams, labels, strict=True)])
        try:
            return plain._replace(probability=aligned([named, of_run(probed.run.folder)], ['now', 'then'])[1].probability)
        except UserError:  # its table is gone, or has other exams or labels: it is asked again
            pass
    if not probed.config.eval.tta:
        return plain
    return evaluate.collect(probed.run, predict, probed.state, probed.dataset, plain.splits, jax.random.key(probed.config.seed))


def _answers(probed, seen, names):
    """(the linear probe's answers of val and test, {kind: those of all other evidence}, how well the site is told, notes), for
    classes of these names."""
    trunk = seen.trunk
    split = np.array([exam.split for exam in trunk.exams])
    learnt = (split == 'train') & (trunk.label >= 0)

    def answered(probability):
        whole = trunk._replace(names=names, probability=probability, features=None, columns={})
        return whole.at(np.flatnonzero(split != 'train'))

    def linear(features):
        return answered(shortcuts.linear(split, trunk.label, features, len(names)))

    found = {evidence.SELF: seen.itself._replace(features=None, columns={})} if seen.itself else {}
    neighbours = probes.knn(trunk.features[learnt], trunk.label[learnt], len(names))
    found |= {'nearest neighbours': answered(neighbours(trunk.features)), 'random trunk': linear(seen.fresh.features)}
    blank, note = _without_lungs(seen, split, len(names))
    if blank is not None:
        found['no lungs'] = answered(blank)
    found |= shortcuts.answer(probed.dataset, names)
    site = _site(trunk, split, probed.config.eval.level)
    return linear(trunk.features), found, site, (note, _said_of_sites(site))


def _random(opened):
    """The state of the same network with random weights, of the run's seed."""
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_batch(opened.config, 1))
    init = jax.jit(lambda key: opened.method.init(key, batch), out_shardings=replicated(opened.mesh))
    params, state = init(jax.random.key(opened.config.seed))
    return TrainState(jnp.int32(0), params, (), state, jnp.int32(-1))


def _see_blank(probed, predict):
    """The features of the scans without lungs and what was done to them, or None and why there are none."""
    survey = probed.survey._replace(prep=replace(probed.survey.prep, blank=True))
    try:
        dataset = pipeline.prepare(survey, probed.root, probed.config.data.workers, lambda line: None)
    except UserError as error:
        return None, str(error)
    rows = [dataset.row[i] for split in SPLITS for i in dataset.of_split(split)]
    done = blank_words(dataset.images[int(row)]['image'] for row in rows)
    return evaluate.collect(probed.run, predict, probed.state, _known_sites(dataset, probed.run), SPLITS), done


def _without_lungs(seen, split, classes):
    """(probability of each row of the trunk by a linear probe on its features of the scans without lungs, what was done), or None
    and why. Of a scan whose lungs were not found the probability is the share of each class in train."""
    if seen.blank is None:
        return None, f'no lungs: -, for {seen.done}'
    place = {exam.id: i for i, exam in enumerate(seen.blank.exams)}
    ids = [exam.id for exam in seen.trunk.exams]
    has = np.array([name in place for name in ids])
    label = seen.trunk.label
    if not shortcuts.teaches(split[has], label[has]):
        return None, f'no lungs: -, for {ONE_CLASS} and have lungs that were found'
    known = label[(split == 'train') & (label >= 0)]
    probability = np.tile(np.bincount(known, minlength=classes) / len(known), (len(has), 1))
    features = seen.blank.features[[place[name] for name in ids if name in place]]
    probability[has] = shortcuts.linear(split[has], label[has], features, classes)
    without = f'; in {(~has).sum()} of {len(has)} scans none were found' if not has.all() else ''
    return probability, f'no lungs: {seen.done}, and a linear probe of the same trunk{without}'


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

