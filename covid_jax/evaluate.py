"""A split -> predictions -> metrics with intervals, and the files that hold them."""

import csv
import json
import os
from functools import partial
from pathlib import Path

import jax
import numpy as np

from covid_jax.data import pipeline
from covid_jax.data.exams import class_names
from covid_jax.metrics.classification import classification_metrics, confusion, decide, frozen_threshold
from covid_jax.metrics.intervals import with_intervals
from covid_jax.report import plots
from covid_jax.runtime.mesh import put, replicated

POSITIVE = 1  # COVID, in binary and in ternary tasks


def predictor(method, mesh):
    """Compiled (params, state, batch, key or None) -> probabilities [batch, classes], on every host."""

    @partial(jax.jit, out_shardings=replicated(mesh))
    def probabilities(params, state, batch, key=None):
        return jax.nn.softmax(method.predict(params, state, batch, key)['logits'])

    return probabilities


def predict_split(predict, state, dataset, split, batch, mesh, key=None, passes=0):
    """float32 [n, classes], the split's exams in order: plain, or the mean over `passes` random views drawn from `key`
    (CMC-COV19D section 3.4.2)."""
    rows = []
    hosts = jax.process_index(), jax.process_count()
    with pipeline.eval_batches(dataset, split, batch, *hosts) as batches:
        for b in batches:
            b = put(mesh, b)
            draws = [jax.random.fold_in(key, t) for t in range(passes)] or [None]
            rows.append(np.mean([np.asarray(predict(state.params, state.state, b, k)) for k in draws], 0))
    return np.concatenate(rows)[:len(dataset.of_split(split))]


def split_metrics(config, dataset, split, probability, threshold=None, resamples=0):
    """{metric: {value, low, high, n}} of the split's labelled exams; resamples 0: no intervals."""
    members = dataset.of_split(split)
    label = dataset.label[members]
    known = label >= 0
    names = class_names(config.data.classes)
    score = partial(classification_metrics, names=names, threshold=threshold, positive=POSITIVE)
    if not resamples:
        return score(label[known], probability[known])
    patient = [dataset.exams[i].patient for i in members[known]]
    return with_intervals(score, label[known], probability[known], patient, resamples=resamples, seed=config.seed,
                          names=names)


def write_report(config, workdir, dataset, probabilities):
    """predictions.csv, metrics.json and plots from {split: [n, classes]}. Returns the metrics.

    Where patients have several exams, the same by patient: predictions_patients.csv, and 'val_patients', 'test_patients'
    among the metrics.
    """
    names = class_names(config.data.classes)
    metrics = _all_metrics(config, dataset, probabilities)
    _write_csv(workdir / 'predictions.csv', columns(names), _prediction_rows(dataset, probabilities, names))
    if any(len({dataset.exams[i].patient for i in dataset.of_split(s)}) < len(p) for s, p in probabilities.items()):
        patients, means, torn = by_patient(dataset, probabilities)
        metrics |= {f'{split}_patients': m for split, m in _all_metrics(config, patients, means).items()}
        if torn:
            print(f'{len(torn)} patients have images of different labels and are not in the metrics by patient: '
                  f'{", ".join(torn[:5])}{", ..." if len(torn) > 5 else ""}', flush=True)
        _write_csv(workdir / 'predictions_patients.csv', columns(names)[1:],
                   (r[1:] for r in _prediction_rows(patients, means, names)))
    _replace(workdir / 'metrics.json', json.dumps(metrics, indent=1))
    write_submission(workdir / 'submission', dataset, probabilities)
    labelled = {split: p for split, p in probabilities.items() if (dataset.label[dataset.of_split(split)] >= 0).any()}
    for split, probability in labelled.items():
        label = dataset.label[dataset.of_split(split)]
        known = label >= 0
        matrix = confusion(label[known], decide(probability[known], positive=POSITIVE), len(names))
        plots.confusion_png(workdir / f'confusion_{split}.png', matrix, names)
    if labelled:
        plots.roc_png(workdir / 'roc.png', {split: curve(dataset, split, p) for split, p in labelled.items()})
    return metrics


def curve(dataset, split, probability):
    """What roc_png draws: (1 for positive, else 0; score) of the split's labelled exams."""
    label = dataset.label[dataset.of_split(split)]
    return (label[label >= 0] == POSITIVE).astype(int), probability[label >= 0, POSITIVE]


def columns(names):
    """The header of predictions.csv, for classes of these names."""
    return ['id', 'patient', 'site', 'split', 'label', *(f'p_{n}' for n in names)]


def by_patient(dataset, probabilities):
    """The data set with one exam for each patient, {split: [patients, classes]} the means of their probabilities, and the
    patients that are left out because their exams have different labels (the unlabelled ones aside)."""
    rows, means, torn = [], {}, []
    for split, probability in probabilities.items():
        members = {}
        for position, i in enumerate(dataset.of_split(split)):
            members.setdefault(dataset.exams[i].patient, []).append((position, i))
        means[split] = []
        for patient, places in members.items():
            at, own = map(list, zip(*places, strict=True))
            label = set(dataset.label[own].tolist()) - {-1}
            if len(label) > 1:
                torn.append(patient)
                continue
            rows.append((dataset.exams[own[0]]._replace(id=patient), label.pop() if label else -1))
            means[split].append(probability[at].mean(0))
        means[split] = np.array(means[split], np.float32).reshape(-1, probability.shape[1])
    exams, labels = zip(*rows, strict=True) if rows else ((), ())
    return dataset._replace(exams=list(exams), label=np.array(labels, np.int32)), means, torn


def _all_metrics(config, dataset, probabilities):
    """{split: {metric: ...}}, the threshold frozen on the validation split."""
    names = class_names(config.data.classes)
    threshold = None
    if 'val' in probabilities:
        val = dataset.label[dataset.of_split('val')]
        threshold = frozen_threshold(val[val >= 0], probabilities['val'][val >= 0], POSITIVE)
    metrics = {}
    for split, probability in probabilities.items():
        metrics[split] = split_metrics(config, dataset, split, probability, threshold, config.eval.resamples)
        frozen = {'value': threshold, 'low': None, 'high': None, 'n': len(dataset.of_split('val'))}
        if threshold is None:
            frozen['reason'] = 'undefined: no validation split with both classes to freeze it on'
        metrics[split]['threshold_frozen'] = frozen
        for name, entry in metrics[split].items():
            if name.startswith(('sensitivity', 'specificity', 'auc', 'average_precision', 'threshold')):
                entry['positive'] = names[POSITIVE]
    return metrics


def write_quarantine(workdir, dataset):
    """quarantine.csv, where exams could not be prepared."""
    if dataset.broken:
        _write_csv(workdir / 'quarantine.csv', ('id', 'reason'), dataset.broken.items())


def write_submission(folder, dataset, probabilities):
    """The challenge's two files, covid.csv and non-covid.csv: one row with the names of the unlabelled scans that were
    decided so, with commas between them. Nothing where all scans have labels."""
    rows = {'covid': [], 'non-covid': []}
    for split, probability in probabilities.items():
        for i, decided in zip(dataset.of_split(split), decide(probability, positive=POSITIVE), strict=True):
            if dataset.label[i] < 0:
                rows['covid' if decided == POSITIVE else 'non-covid'].append(dataset.exams[i].id)
    scans = [name for row in rows.values() for name in row]
    if not scans:
        return
    folder.mkdir(exist_ok=True)
    unique = len({name.rpartition('/')[2] for name in scans}) == len(scans)
    print(f'{folder}: {len(rows["covid"])} unlabelled scans in covid.csv, {len(rows["non-covid"])} in non-covid.csv'
          + (f'; {len(dataset.broken)} scans that could not be prepared are in neither, see quarantine.csv' if dataset.broken
             else ''), flush=True)
    for name, row in rows.items():
        _write_csv(folder / f'{name}.csv', [x.rpartition('/')[2] if unique else x for x in row], ())


def _prediction_rows(dataset, probabilities, names):
    for split, probability in probabilities.items():
        for i, p in zip(dataset.of_split(split), probability, strict=True):
            e, label = dataset.exams[i], dataset.label[i]
            yield e.id, e.patient, e.site, split, names[label] if label >= 0 else '', *(f'{x:.6f}' for x in p)


def _write_csv(path, header, rows):
    temporary = Path(path).with_suffix('.tmp')
    with open(temporary, 'w', newline='') as f:
        csv.writer(f).writerows([header, *rows])
    os.replace(temporary, path)


def _replace(path, text):
    temporary = Path(path).with_suffix('.tmp')
    temporary.write_text(text)
    os.replace(temporary, path)
