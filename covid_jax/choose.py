"""Finished runs -> the one that was best on validation, as if it were a run: the test split has no part in the choice."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, evaluate, start
from covid_jax.data import lineage
from covid_jax.predictions import aligned, of_run
from covid_jax.report import evidence
from covid_jax.runtime import files, workdir
from covid_jax.sources.exams import class_names

FIELDS = ('row', 'kind', 'seed', 'choose.runs', 'choose.by', 'data.classes', 'eval.level')  # all that a choice has of a config


def check(config: ConfigDict) -> None:
    """UserError where the config's choice cannot be, whatever the runs hold."""
    runs = config.choose.runs.split(',')
    if '' in runs or len({os.path.realpath(run) for run in runs}) < max(2, len(runs)):
        raise UserError(f'--config.choose.runs={config.choose.runs!r} must be two or more folders, all different, with commas '
                        'between them')
    names = start.metric_names(class_names(config.data.classes))
    if config.choose.by not in names:
        raise UserError(f'--config.choose.by={config.choose.by} must be one of {", ".join(names)}')


def best(config: ConfigDict, folder: str | Path, say: Callable[[str], None] = print) -> dict | None:
    """Takes the run of config.choose.runs whose metric config.choose.by is highest on val, among equals the first.

    The folder gets all that a run leaves of its answers, the shortcut probes beside the run, and chosen.json: the run and the
    score of each. Returns the metrics, as train_and_evaluate does; None on all hosts but the first. UserError for a folder
    without predictions, for runs of other exams, and for a run whose val split does not give the metric.
    """
    check(config)
    if jax.process_index() > 0:
        return None
    runs = config.choose.runs.split(',')
    by = config.choose.by
    names = class_names(config.data.classes)
    mine = workdir.fields(config, FIELDS)
    workdir.check(mine, folder, {})
    members = aligned([of_run(run, names) for run in runs], runs)
    digest = hashlib.sha256(repr(members[0].exams).encode()).hexdigest()[:16]
    workdir.check(mine, folder, {}, digest)
    scores = []
    for run, member in zip(runs, members, strict=True):
        entry = evaluate.score(member.of('val'))[by]
        if entry['value'] is None:
            raise UserError(f'{run} cannot be judged by {by} on its val split, {entry["reason"]}: give it a larger '
                            '--config.data.val')
        scores.append(entry['value'])
    taken = int(np.argmax(scores))
    beside = evidence.of_member(runs[taken], members[taken])
    workdir.keep(mine, folder, dataset=digest)
    lineage.write(folder, lineage.inherited_from(runs))
    record = {'chosen': os.path.relpath(runs[taken], folder), 'by': by,
              'val': {os.path.relpath(run, folder): score for run, score in zip(runs, scores, strict=True)}}
    files.write(Path(folder) / 'chosen.json', json.dumps(record, indent=1))
    listed = ', '.join(f'{run} {score:.3f}' for run, score in zip(runs, scores, strict=True))
    say(f'{folder}: {runs[taken]} is taken, by {by} on val ({listed})')
    note = 'some exams are of patients that the run learnt from' if np.any(members[taken].columns.get('seen', 0)) else ''
    evidence.leave(folder, *beside)
    return evaluate.write_report(folder, members[taken], config.eval.level, note=note)
