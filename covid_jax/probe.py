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

from covid_jax import UserError, evaluate, shortcuts
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
from covid_jax.trunk import known_sites, opened

SPLITS = ('train', 'val', 'test')
Say = Callable[[str], None]


class Seen(NamedTuple):
    """What all hosts work out together. trunk: features of train, val and test; fresh: those by random weights; blank: those of
    the scans without lungs, None where there are none; done: what was done to these, or why there are none; itself: what the run
    answers of val and test, None where it answers no such classes."""

    trunk: Predictions
    fresh: Predictions
    blank: Predictions | None
    done: str
    itself: Predictions | None


def run(config: ConfigDict, folder: str | Path, say: Say = print) -> dict | None:
    """Probes the trunk of config.init_from on its own data, or on those of config.data where a source is named.

    The answers that the folder is left (predictions.csv, metrics.json, ...) are the linear probe's. evidence/ has those of all
    else: the run itself where it classifies, nearest neighbours, the linear probe of a trunk with random weights, of scans
    without lungs, and the shortcut probes; probes.json the AUC of each, and how well the features tell sites.
    Returns the metrics, as train_and_evaluate does; None on all hosts but the first. UserError for a run that is not finished,
    and for data of which nothing can be learnt, or that the run learnt from.
    """
    folder = Path(folder)
    probed, mine = opened(config, folder, say=say)
    source = config.init_from
    dataset = probed.dataset
    if not {exam.split for exam in dataset.exams} - {'train', ''}:
        raise UserError(f'{source} cannot be probed: its data have no val and no test split')
    if not shortcuts.teaches(np.array([exam.split for exam in dataset.exams]), dataset.label):
        raise UserError(f'{source} cannot be probed: {ONE_CLASS}')
    names = class_names(probed.config.data.classes)
    seen = _see(probed, names == probed.classes)
    if jax.process_index() > 0:  # what follows is numpy alone
        return None
    linear, answers, site, notes = _answers(probed, seen, names)
    workdir.keep(mine, folder, dataset=probed.survey.digest)
    lineage.write(folder, [*lineage.own(dataset.exams, dataset.hashes, dataset.facts), *probed.before])
    evaluate.write_quarantine(folder, dataset.quarantine)
    evidence.leave(folder, answers, notes)
    found = {'site': site, **evidence.entries({evidence.LINEAR: linear, **answers}, config.eval.level)}
    files.write(folder / 'probes.json', json.dumps(found, indent=1))
    linear, note = marked(linear, lineage.leaks(dataset.exams, dataset.hashes, probed.before))
    return evaluate.write_report(folder, linear, config.eval.level, dataset.broken, note)


def _are_own(dataset, table):
    """Whether all exams of val and test are in the run's table, in the same split and of the same content."""
    theirs = {(row.exam.id, row.exam.split, row.hash) for row in table if not row.run}
    return all((exam.id, exam.split, digest) in theirs for exam, digest in zip(dataset.exams, dataset.hashes, strict=True)
               if exam.split in ('val', 'test'))


def _see(probed, classifies):
    """The Seen of what is probed. classifies: whether the run knows the classes that are asked about."""
    finished = probed.run
    predict = evaluate.predictor(finished.method, finished.mesh, features=True)
    trunk = evaluate.collect(finished, predict, probed.state, probed.dataset, SPLITS)
    fresh = evaluate.collect(finished, predict, _random(finished), probed.dataset, SPLITS)
    blank, done = _see_blank(probed, predict)
    itself = _itself(probed, predict, trunk) if classifies and trunk.probability is not None else None
    return Seen(trunk, fresh, blank, done, itself)


def _itself(probed, predict, trunk):
    """What the run answers of val and test: of its own what it has left, of others with its test-time augmentation, the views
    drawn from its seed, as in evaluate.on."""
    plain = trunk.at([i for i, exam in enumerate(trunk.exams) if exam.split != 'train'])
    if _are_own(probed.dataset, probed.table):
        labels = [plain.names[k] if k >= 0 else '' for k in plain.label]  # as a table has them
        named = plain._replace(exams=[exam._replace(label=label, path='') for exam, label in zip(plain.exams, labels, strict=True)])
        try:
            return plain._replace(probability=aligned([named, of_run(probed.run.folder)], ['now', 'then'])[1].probability)
        except UserError:  # its table is gone, or has other exams or labels: it is asked again
            pass
    if not probed.config.eval.tta:
        return plain
    views = jax.random.fold_in(jax.random.key(probed.config.seed), evaluate.TEST_VIEWS)
    return evaluate.collect(probed.run, predict, probed.state, probed.dataset, plain.splits, views)


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


def _random(finished):
    """The state of the same network with random weights, of the run's seed."""
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_batch(finished.config, 1))
    init = jax.jit(lambda key: finished.method.init(key, batch), out_shardings=replicated(finished.mesh))
    params, state = init(jax.random.key(finished.config.seed))
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
    return evaluate.collect(probed.run, predict, probed.state, known_sites(dataset, probed.run), SPLITS), done


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

