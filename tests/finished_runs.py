"""Folders as finished runs leave them, of made-up answers."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from covid_jax import evaluate, experiment, predictions
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


def finish(folder, stage='', fold=0, seed=0, folds=1, learnt=()):
    """results.json, config.json and, where something was learnt from, exams.csv."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    part = SimpleNamespace(config=SimpleNamespace(kind='train'), stage=stage, fold=fold, seed=seed)
    experiment.write_results(Path(folder), part, {})
    workdir.keep({'folds': folds, 'seeds': 1}, folder)
    if learnt:
        lineage.write(folder, lineage.own(list(learnt), [e.id for e in learnt]))


def run(folder, quality, folds=1, seeds=(0,), n=60, stage='', change=lambda exam: exam):
    """A run with folds and seeds, its folders as experiment.py names them. Exam i is tested in fold (i // 2) % folds."""
    config = SimpleNamespace(folds=folds, seeds=len(seeds))
    for fold in range(folds):
        test = [i for i in range(n) if i // 2 % folds == fold]
        for seed in seeds:
            path = Path(folder, experiment.part_folder(config, config, stage, fold, seed))
            leave(path, [change(exam(i)) for i in test], scores(n, quality, 100 * seed + fold)[test])
            finish(path, stage, fold, seed, folds, [exam(i, 'test' if i in test else 'train') for i in range(n)])
    return Path(folder)


def finished(folder, rows, stage='', fold=0, seed=0, config=None, last=True):
    """Leaves predictions.csv, metrics.json, results.json and config.json of (id, split, label, probability of covid), and returns
    the metrics. Each exam has a patient of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    exams = [Exam(name, name, 'here', label, split, '') for name, split, label, _ in rows]
    label = np.array([BINARY.index(label) for _, _, label, _ in rows])
    p = np.array([row[3] for row in rows])
    answers = Predictions(BINARY, exams, label, np.stack([1 - p, p], 1))
    predictions.write(folder / 'predictions.csv', answers)
    metrics = evaluate.all_metrics(answers)
    (folder / 'metrics.json').write_text(json.dumps(metrics))
    result = {'kind': 'train', 'stage': stage, 'last': last, 'fold': fold, 'seed': seed, 'metrics': metrics}
    (folder / 'results.json').write_text(json.dumps(result))
    workdir.keep({'data.classes': list(BINARY), **(config or {})}, folder, dataset='d')
    return metrics
