"""Folders as finished runs leave them, of made-up answers."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from covid_jax import evaluate, experiment, predictions, stages
from covid_jax.data import lineage
from covid_jax.predictions import Predictions
from covid_jax.runtime import workdir
from covid_jax.sources.exams import Exam

NAMES = ('normal', 'covid')
BINARY = ('noncovid', 'covid')


def exam(i, split='test', patient=None, site='oslo'):
    """Exam i, of its own patient; every second is covid."""
    return Exam(f'e{i}', patient or f'p{i}', site, NAMES[i % 2], split, '')


def scores(n, quality, seed):
    """Of covid, float [n]: better runs with a higher quality; runs of one quality agree in part."""
    label = np.arange(n) % 2
    hard = np.random.default_rng(7).normal(size=n)
    noise = np.random.default_rng(seed).normal(size=n)
    return 1 / (1 + np.exp(-quality * (2 * label - 1) - hard - noise / 2))


def leave(folder, exams, score, names=NAMES, columns=None):
    """predictions.csv of one training, its classes beyond two with the probability zero."""
    score = np.asarray(score)
    p = np.stack([1 - score, score, *np.zeros((len(names) - 2, len(exams)))], 1)
    label = np.array([names.index(e.label) if e.label else -1 for e in exams], np.int32)
    Path(folder).mkdir(parents=True, exist_ok=True)
    predictions.write(Path(folder) / 'predictions.csv', Predictions(names, exams, label, p, None, columns or {}))


def finish(folder, stage='', fold=0, seed=0, folds=1, learnt=(), seeds=1, config=None, last=True, metrics=None):
    """results.json, config.json and, where something was learnt from, exams.csv."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    grid = SimpleNamespace(folds=folds, seeds=seeds)
    below = stages.part_folder(grid, grid, stage, fold, seed)
    todo = [SimpleNamespace(config=SimpleNamespace(kind='train'), stage=stage, fold=fold + i, seed=seed + j, folder=below)
            for i in range(folds) for j in range(seeds)]
    after = [] if last else [SimpleNamespace(stage='after', fold=0, seed=0)]
    experiment.write_results(folder, todo[0], metrics or {}, todo + after)
    workdir.keep({'folds': folds, 'seeds': 1, **(config or {})}, folder)
    if learnt:
        lineage.write(folder, lineage.own(list(learnt), [e.id for e in learnt]))


def run(folder, quality, folds=1, seeds=(0,), n=60, stage='', change=lambda exam: exam):
    """A run with folds and seeds, its folders as experiment.py names them. Exam i is tested in fold (i // 2) % folds."""
    config = SimpleNamespace(folds=folds, seeds=len(seeds))
    for fold in range(folds):
        test = [i for i in range(n) if i // 2 % folds == fold]
        for seed in seeds:
            path = Path(folder, stages.part_folder(config, config, stage, fold, seed))
            leave(path, [change(exam(i)) for i in test], scores(n, quality, 100 * seed + fold)[test])
            finish(path, stage, fold, seed, folds, seeds=len(seeds), learnt=[exam(i, 'test' if i in test else 'train') for i in range(n)])
    return Path(folder)


def finished(folder, rows, stage='', fold=0, seed=0, config=None, last=True, folds=1, seeds=1, learnt=()):
    """A part that answered (id, split, label, probability of covid), each exam of a patient of its own, at the site that its id
    begins with, as 'oslo/3', else 'here': its metrics. learnt: exams that exams.csv names."""
    exams = [Exam(name, name, name.rpartition('/')[0] or 'here', label, split, '') for name, split, label, _ in rows]
    leave(folder, exams, [row[3] for row in rows], BINARY)
    metrics = evaluate.all_metrics(predictions.of_run(folder))
    finish(folder, stage, fold, seed, folds, learnt, seeds, {'data.classes': list(BINARY), **(config or {})}, last, metrics)
    return metrics
