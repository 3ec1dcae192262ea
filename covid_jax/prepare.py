"""A config -> the prepared scans of all that it trains, kept where its trainings look for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from covid_jax import UserError, stages, start
from covid_jax.data import pipeline
from covid_jax.runtime import workdir

Say = Callable[[str], None]


class Prepared(NamedTuple):
    """store: the folder that keeps the scans; scans: how many it has of these data; broken: {exam id: reason} of those that could not be
    prepared."""

    store: Path
    scans: int
    broken: dict[str, str]


def prepare(config: ConfigDict, folder: str | Path, say: Say = print) -> list[Prepared]:
    """Prepares the scans of each training of a config that lives in the folder, and keeps them in config.data.store, by default in
    folder/store. Folds, seeds and stages of the same data share theirs. What is there already is not made again.

    UserError for a config that cannot be or trains nothing, for a folder that holds another run, and for data that cannot be read.
    """
    made = {}
    for part in stages.parts(config, folder):
        if part.config.kind != 'train':
            continue
        with stages.named(part.stage):
            run = start.begin(part.config, Path(folder) / part.folder)
        data = json.dumps([workdir.section(run.config, 'data'), workdir.section(run.config, 'prep')])
        if data in made:
            continue
        store = Path(run.config.data.store)
        dataset = pipeline.prepare(pipeline.survey(run.config, store, run.method.labelled, say), store, run.config.data.workers, say)
        made[data] = Prepared(store, len(dataset.exams), dataset.broken)
    if not made:
        raise UserError('this config trains nothing, so there is nothing to prepare: give one that trains')
    return list(made.values())
