"""Finished runs -> their mean, as if it were a run: the inter-model ensemble of CMC-COV19D (section 3.4.2)."""

import hashlib
import os
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, evaluate
from covid_jax.data import lineage
from covid_jax.predictions import Predictions, aligned, of_run
from covid_jax.report import evidence, pictures, plots
from covid_jax.runtime import workdir
from covid_jax.sources.exams import class_names

FIELDS = ('row', 'kind', 'seed', 'ensemble.runs', 'data.classes', 'eval.level')  # all that an ensemble has of a config


def check(config: ConfigDict) -> None:
    """UserError where the config's ensemble cannot be, whatever the runs hold."""
    runs = config.ensemble.runs.split(',')
    if '' in runs or len(runs) < 2:
        raise UserError(f'--config.ensemble.runs={config.ensemble.runs!r} must be two or more folders, with commas between them')
    if len({os.path.realpath(run) for run in runs}) < len(runs):
        raise UserError(f'--config.ensemble.runs={config.ensemble.runs} names a run twice')


def average(config: ConfigDict, folder: str | Path) -> dict | None:
    """The unweighted mean of the probabilities that the runs in config.ensemble.runs left, and all that a run leaves of it.

    Each run had its own preparation and test-time augmentation; what they share are the exams, splits and labels.
    roc_runs_<split>.png has the runs and the ensemble on one axis (Fig 4). The shortcut probes beside it are the first run's.
    Returns the metrics, as train_and_evaluate does. UserError for a folder without predictions, and for runs of other exams.
    """
    check(config)
    if jax.process_index() > 0:
        return None
    runs = config.ensemble.runs.split(',')
    names = class_names(config.data.classes)
    mine = workdir.fields(config, FIELDS)
    older = {'kind': 'ensemble'}  # what a folder of a version without kinds is
    workdir.check(mine, folder, older)
    members = [of_run(run, names) for run in runs]
    mean = mean_of(members, runs)
    digest = hashlib.sha256(repr(mean.exams).encode()).hexdigest()[:16]
    workdir.check(mine, folder, older, digest)
    beside = evidence.of_member(runs[0], mean)
    workdir.keep(mine, folder, dataset=digest)
    lineage.write(folder, lineage.inherited_from(runs))
    note = 'some exams are of patients that a member learnt from' if mean.columns.get('seen', np.zeros(1)).any() else ''
    evidence.leave(folder, *beside)
    metrics = evaluate.write_report(folder, mean, config.eval.level, note=note)
    for split in mean.splits:
        if not mean.of(split).labelled().exams:
            continue
        curves = {name: pictures.curve(member.of(split)) for name, member in zip(short(runs), members, strict=True)}
        of_mean = f'mean of {len(runs)}'
        curves[of_mean] = pictures.curve(mean.of(split))
        frozen = {of_mean: metrics[split]['all']['threshold_frozen']['value']}
        plots.roc_png(Path(folder) / f'roc_runs_{split}.png', curves, pictures.title(folder, mean.of(split), split), note,
                      names[evaluate.POSITIVE], frozen)
    return metrics


def mean_of(members: list[Predictions], runs: list[str]) -> Predictions:
    """The mean probability of each exam, in the first member's order. UserError where the members have other exams."""
    ordered = aligned(members, runs)
    seen = [member.columns['seen'] for member in ordered if 'seen' in member.columns]
    return members[0]._replace(probability=np.mean([member.probability for member in ordered], 0), features=None,
                               columns={'seen': np.max(seen, 0)} if seen else {})


def short(folders: list[str]) -> list[str]:
    """The folders, less what all of them begin and end with; as they are, where nothing would tell them apart."""
    parts = [Path(folder).parts for folder in folders]
    start = _shared(parts)
    end = _shared([p[::-1] for p in parts])
    names = ['/'.join(p[start:len(p) - end]) for p in parts]
    return names if len({*names}) == len(names) else folders


def _shared(sequences):
    """How many elements all sequences have in common from their start on; 0 where one of them is the start of the others."""
    same = [len({*elements}) == 1 for elements in zip(*sequences, strict=False)]
    return same.index(False) if False in same else 0
