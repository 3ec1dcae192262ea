"""Folders as finished parts leave them, made by hand."""

import json

import numpy as np

from covid_jax import evaluate, predictions
from covid_jax.predictions import Predictions
from covid_jax.runtime import workdir
from covid_jax.sources.exams import Exam

NAMES = ('noncovid', 'covid')


def finished(folder, rows, stage='', fold=0, seed=0, config=None, last=True):
    """Leaves predictions.csv, metrics.json, results.json and config.json of (id, split, label, probability of covid), and returns
    the metrics. Each exam has a patient of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    exams = [Exam(name, name, 'here', label, split, '') for name, split, label, _ in rows]
    label = np.array([NAMES.index(label) for _, _, label, _ in rows])
    p = np.array([row[3] for row in rows])
    answers = Predictions(NAMES, exams, label, np.stack([1 - p, p], 1))
    predictions.write(folder / 'predictions.csv', answers)
    metrics = evaluate.all_metrics(answers)
    (folder / 'metrics.json').write_text(json.dumps(metrics))
    result = {'kind': 'train', 'stage': stage, 'last': last, 'fold': fold, 'seed': seed, 'metrics': metrics}
    (folder / 'results.json').write_text(json.dumps(result))
    workdir.keep({'data.classes': list(NAMES), **(config or {})}, folder, dataset='d')
    return metrics
