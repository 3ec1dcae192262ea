"""A split -> Predictions -> metrics with intervals, and the files that hold them."""

import json
from functools import partial
from pathlib import Path

import jax
import numpy as np

from covid_jax import predictions as answers
from covid_jax.data import pipeline
from covid_jax.metrics.classification import classification_metrics, confusion, decide, frozen_threshold
from covid_jax.metrics.intervals import with_intervals
from covid_jax.predictions import Predictions
from covid_jax.report import plots
from covid_jax.runtime.files import write, write_csv
from covid_jax.runtime.mesh import put, replicated
from covid_jax.sources.exams import class_names

POSITIVE = 1  # COVID, in binary and in ternary tasks
OF_POSITIVE = ('sensitivity', 'specificity', 'precision', 'auc', 'average_precision', 'threshold')


def predictor(method, mesh, features=False):
    """Compiled (params, state, batch, key or None) -> {name: [batch, ...]} on every host: what method.predict answers, with
    'probability' [batch, classes] in place of its logits, and without its features where they are not asked for."""

    @partial(jax.jit, out_shardings=replicated(mesh))
    def answer(params, state, batch, key=None):
        found = method.predict(params, state, batch, key)
        if 'logits' in found:
            found['probability'] = jax.nn.softmax(found.pop('logits'))
        if not features:
            del found['features']
        return found

    return answer


def predict_split(predict, state, dataset, split, batch, mesh, key=None, passes=0):
    """{name: [n, ...]}, the answers for the split's exams in order: plain, or the mean over `passes` random views drawn from
    `key` (CMC-COV19D section 3.4.2)."""
    rows = []
    hosts = jax.process_index(), jax.process_count()
    with pipeline.eval_batches(dataset, split, batch, *hosts) as batches:
        for b in batches:
            b = put(mesh, b)
            keys = [jax.random.fold_in(key, t) for t in range(passes)] or [None]
            drawn = [jax.device_get(predict(state.params, state.state, b, k)) for k in keys]
            rows.append(jax.tree.map(lambda *views: np.mean(views, 0), *drawn))
    n = len(dataset.of_split(split))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *rows)


def collect(run, predict, state, dataset, splits, key=None) -> Predictions:
    """The Predictions of these splits, with the run's test-time augmentation where there is a key."""
    config = run.config
    passes = 0 if key is None else config.eval.tta
    present = [split for split in splits if len(dataset.of_split(split))]
    parts = [predict_split(predict, state, dataset, split, config.eval.batch, run.mesh, key, passes) for split in present]
    rows = np.concatenate([dataset.of_split(split) for split in present]) if present else np.zeros(0, int)
    whole = jax.tree.map(lambda *some: np.concatenate(some), *parts) if present else {}
    return Predictions(class_names(config.data.classes), [dataset.exams[i] for i in rows], dataset.label[rows],
                       whole.pop('probability', None), whole.pop('features', None), whole)


def score(predictions, threshold=None, resamples=0, seed=0):
    """{metric: {value, low, high, n}} of the labelled rows; without resamples no intervals."""
    p = predictions.labelled()
    metrics = partial(classification_metrics, names=p.names, threshold=threshold, positive=POSITIVE)
    if not resamples:
        return metrics(p.label, p.probability)
    patients = [e.patient for e in p.exams]
    return with_intervals(metrics, p.label, p.probability, patients, resamples=resamples, seed=seed, names=p.names)


def groups(predictions):
    """{'all': rows, 'site NAME': rows of each of several sites, 'patients': one row for each, where some have several exams},
    and the patients that are in none of the last."""
    grouped = {'all': predictions}
    if len(predictions.sites) > 1:
        grouped |= {f'site {site}': predictions.of(site=site) for site in predictions.sites}
    patients, torn = predictions.by_patient()
    if len({(e.split, e.patient) for e in predictions.exams}) < len(predictions.exams):
        grouped['patients'] = patients
    return grouped, torn


def all_metrics(predictions, resamples=0, seed=0):
    """{split: {group: {metric: ...}}}. The threshold is frozen on the validation split, by exam, and by patient for them."""
    metrics = {split: {} for split in predictions.splits}
    grouped, _ = groups(predictions)
    for group, rows in grouped.items():
        basis = grouped['patients' if group == 'patients' else 'all'].of('val').labelled()
        threshold = frozen_threshold(basis.label, basis.probability, POSITIVE)
        frozen = {'value': threshold, 'low': None, 'high': None, 'n': len(basis.exams)}
        if threshold is None:
            frozen['reason'] = 'undefined: no validation split with both classes to freeze it on'
        for split in rows.splits:
            entries = score(rows.of(split), threshold, resamples, seed)
            entries['threshold_frozen'] = frozen
            if 'seen' in rows.columns:
                entries['seen_before'] = seen_before(rows.of(split))
            metrics[split][group] = {name: _with_positive(name, entry, predictions.names) for name, entry in entries.items()}
    return metrics


def seen_before(predictions):
    """How many rows are of patients that an earlier run learnt from, as a metric's entry with the reason."""
    count = int(np.count_nonzero(predictions.columns['seen']))
    n = len(predictions.exams)
    reason = f'{count} of {n} are of patients that an earlier run learnt from: these numbers are no test of new patients'
    return {'value': count, 'low': None, 'high': None, 'n': n, **({'reason': reason} if count else {})}


def _with_positive(name, entry, names):
    return {**entry, 'positive': names[POSITIVE]} if name.startswith(OF_POSITIVE) else entry


def write_report(folder, predictions, resamples=0, seed=0, broken=(), note=''):
    """predictions.csv, metrics.json, submission files and plots, in the folder. Returns the metrics.

    Where patients have several exams, predictions_patients.csv holds one row for each. broken: exams that could not be
    prepared; note: a sentence that every plot carries.
    """
    folder = Path(folder)
    p = predictions
    metrics = all_metrics(p, resamples, seed)
    answers.write(folder / 'predictions.csv', p)
    grouped, torn = groups(p)
    if 'patients' in grouped:
        if torn:
            print(f'{len(torn)} patients have images of different labels and are not in the metrics by patient: '
                  f'{", ".join(torn[:5])}{", ..." if len(torn) > 5 else ""}', flush=True)
        answers.write(folder / 'predictions_patients.csv', grouped['patients'], without=('id',))
    write(folder / 'metrics.json', json.dumps(metrics, indent=1))
    write_submission(folder / 'submission', p, broken)
    curves = {}
    for split in p.splits:
        rows = p.of(split).labelled()
        if not rows.exams:
            continue
        matrix = confusion(rows.label, decide(rows.probability, positive=POSITIVE), len(p.names))
        plots.confusion_png(folder / f'confusion_{split}.png', matrix, p.names, note)
        curves[split] = curve(rows)
    if curves:
        plots.roc_png(folder / 'roc.png', curves, note)
    return metrics


def curve(predictions):
    """What roc_png draws: (1 for positive, else 0; score) of the labelled rows."""
    p = predictions.labelled()
    return (p.label == POSITIVE).astype(int), p.probability[:, POSITIVE]


def write_quarantine(folder, broken):
    """quarantine.csv, where exams could not be prepared: {exam id: reason}."""
    if broken:
        write_csv(Path(folder) / 'quarantine.csv', [('id', 'reason'), *broken.items()])


def write_submission(folder, predictions, broken=()):
    """The challenge's two files, covid.csv and non-covid.csv: one row with the names of the unlabelled scans that were
    decided so, with commas between them. Nothing where all scans have labels."""
    unknown = predictions.at(np.flatnonzero(predictions.label < 0))
    if not unknown.exams:
        return
    rows = {'covid': [], 'non-covid': []}
    for exam, decided in zip(unknown.exams, decide(unknown.probability, positive=POSITIVE), strict=True):
        rows['covid' if decided == POSITIVE else 'non-covid'].append(exam.id)
    folder.mkdir(exist_ok=True)
    unique = len({exam.id.rpartition('/')[2] for exam in unknown.exams}) == len(unknown.exams)
    print(f'{folder}: {len(rows["covid"])} unlabelled scans in covid.csv, {len(rows["non-covid"])} in non-covid.csv'
          + (f'; {len(broken)} scans that could not be prepared are in neither, see quarantine.csv' if broken else ''),
          flush=True)
    for name, row in rows.items():
        write_csv(folder / f'{name}.csv', [[x.rpartition('/')[2] if unique else x for x in row]])
