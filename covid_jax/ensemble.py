"""Finished runs -> their mean, as if it were a run: the inter-model ensemble of CMC-COV19D (section 3.4.2)."""

import csv
import hashlib
import os
from pathlib import Path

import jax
import ml_collections
import numpy as np

from covid_jax import UserError, evaluate
from covid_jax import config as configs
from covid_jax.data.exams import Exam, class_names
from covid_jax.data.pipeline import Dataset
from covid_jax.data.scan import blame
from covid_jax.report import plots


def average(config, workdir):
    """The unweighted mean of the probabilities that the runs in config.ensemble.runs left, and all that a run leaves of it.

    Each run had its own preparation and test-time augmentation; what they share are the exams, splits and labels.
    roc_runs_<split>.png has the runs and the ensemble on one axis (Fig 4). Returns the metrics, as train_and_evaluate
    does. UserError for a folder without predictions, and for runs of other exams.
    """
    if jax.process_index() > 0:
        return None
    folders, names = config.ensemble.runs.split(','), class_names(config.data.classes)
    if len({os.path.realpath(folder) for folder in folders}) < len(folders):
        raise UserError(f'--config.ensemble.runs={config.ensemble.runs} names a run twice')
    config = ml_collections.ConfigDict({  # all that an ensemble has of a config
        'seed': config.seed, 'ensemble': {'runs': config.ensemble.runs}, 'data': {'classes': config.data.classes},
        'eval': {'resamples': config.eval.resamples}})
    configs.check(config, workdir)
    runs = [read(folder, names) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if odd := runs[0].keys() ^ run.keys():
            raise UserError(f'{folders[0]} and {folder} did not predict the same exams, with the same splits and labels: '
                            f'{len(odd)} differ, one is {min(odd).id}')
    dataset = dataset_of(list(runs[0]), names)
    configs.check(config, workdir, dataset.digest)
    members = {split: dataset.of_split(split) for split in dict.fromkeys(e.split for e in dataset.exams)}
    each = [{split: np.array([run[dataset.exams[i]] for i in at]) for split, at in members.items()} for run in runs]
    mean = {split: np.mean([probabilities[split] for probabilities in each], 0) for split in members}
    configs.keep(config, workdir, dataset.digest)
    metrics = evaluate.write_report(config, workdir, dataset, mean)
    for split in members:
        if not (dataset.label[members[split]] >= 0).any():
            continue
        curves = {name: evaluate.curve(dataset, split, p[split]) for name, p in zip(short(folders), each, strict=True)}
        curves[f'mean of {len(runs)}'] = evaluate.curve(dataset, split, mean[split])
        plots.roc_png(Path(workdir) / f'roc_runs_{split}.png', curves)
    return metrics


def read(folder, names):
    """{Exam: probabilities [classes]} of the run in `folder`, whose classes have these names."""
    path = Path(folder) / 'predictions.csv'
    if not path.is_file():
        below = [p.parent for p in sorted(Path(folder).glob('*/predictions.csv')) + sorted(Path(folder).glob('*/*/predictions.csv'))]
        raise UserError(f'{folder} holds no predictions.csv: --config.ensemble.runs takes folders of finished runs'
                        + (f', as {below[-1]}' if below else ''))
    with blame(path), path.open(newline='', encoding='utf-8') as f:
        header, *rows = list(csv.reader(f)) or [[]]
    wanted = evaluate.columns(names)
    if header != wanted:
        raise UserError(f'{path} has the columns {",".join(header) or "of nothing"}, and these classes {",".join(wanted)}')
    run = {}
    for line, row in enumerate(rows, 2):
        try:
            name, patient, site, split, label, *p = row
            p = np.array(p, np.float32)
            exam = Exam(name, patient, site, label, split, ())
            if (p.shape != (len(names),) or not ((p >= 0) & (p <= 1)).all() or abs(p.sum() - 1) > 1e-3
                    or label not in ('', *names) or exam in run):
                raise ValueError
        except ValueError:
            raise UserError(f'{path} line {line} is damaged: run the run again, which rewrites it') from None
        run[exam] = p
    return run


def dataset_of(exams, names):
    """A data set without images: what write_report needs of one."""
    label = np.array([names.index(e.label) if e.label else -1 for e in exams], np.int32)
    return Dataset(exams, label, None, None, None, {}, hashlib.sha256(repr(exams).encode()).hexdigest()[:16])


def short(folders):
    """The folders, less what all of them begin and end with."""
    parts = [Path(folder).parts for folder in folders]
    same = [len(set(at)) == 1 for at in zip(*parts, strict=False)]
    first = same.index(False) if False in same else 0
    tail = [len(set(at)) == 1 for at in zip(*(p[::-1] for p in parts), strict=False)]
    last = tail.index(False) if False in tail else 0
    short = ['/'.join(p[first:len(p) - last]) for p in parts]
    return short if len(set(short)) == len(short) else folders
