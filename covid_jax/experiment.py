"""What is more than one training: stages, folds, seeds and ensembles, each part in its own folder, tables at the end."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from covid_jax import UserError, ensemble, start
from covid_jax import config as configs
from covid_jax.data import lineage, pipeline
from covid_jax.report import tables
from covid_jax.runtime import workdir
from covid_jax.train import train_and_evaluate

REFERENCES = ('init_from', 'ensemble.runs')  # fields that name earlier stages, or folders of runs, with commas between several


class Part(NamedTuple):
    """One training, or what else a stage does, of one fold and seed. folder: below the workdir, '' where it is the only one."""

    stage: str
    fold: int
    seed: int
    folder: Path
    config: ConfigDict


class Kind(NamedTuple):
    """check(config): UserError for what can be known before anything is done. run(part, folder, ready, say) -> metrics; ready:
    of a training, as `prepare_trainings` has it."""

    check: Callable
    run: Callable


KINDS = {
    'train': Kind(pipeline.check, lambda part, folder, ready, say: train_and_evaluate(*ready, say)),
    'ensemble': Kind(ensemble.check, lambda part, folder, ready, say: ensemble.average(part.config, folder)),
}


def run(config, folder):
    """Runs all that the config asks for below `folder`, each part where an earlier call left it; prints the table.

    Where config.ensemble.runs names finished runs, nothing is trained: they are averaged. Returns {part: {split: {group:
    {metric: ...}}}} of the last stage, the part's folder relative to `folder`.
    """
    folder = Path(folder)
    say = sayer()
    start.check_ranges(config)
    todo = parts(config, folder)
    for part in todo:  # all of them, before the first trains
        KINDS[part.config.kind].check(part.config)
    ready = prepare_trainings(todo, folder, say)
    results = {}
    for part in todo:
        if jax.process_index() == 0 and part.folder.parts:
            print(f'== {part.folder}', flush=True)
        metrics = KINDS[part.config.kind].run(part, folder / part.folder, ready.get(part.folder), say)
        results.setdefault(part.stage, {})[str(part.folder)] = metrics
        if jax.process_index() == 0:
            write_results(folder / part.folder, part, metrics)
    if jax.process_index() == 0:
        tables.show(results, folder)
    return results[todo[-1].stage]


def parts(config, folder):
    """The Parts of a config in the order in which they run.

    A stage with folds=1 or seeds=1 of its own, among others of several, is done once and found by all that name it. UserError
    for a stage that is not there, or is called like a field, and for a kind that is none.
    """
    folder = Path(folder)
    stages = ('',) if config.ensemble.runs else config.stages or ('',)
    todo = []
    for stage in stages:
        c = stage_config(config, stage)
        for name in ('folds', 'seeds'):
            if c[name] not in (1, config[name]):
                raise UserError(f'--config.{stage}.{name}={c[name]} must be 1 or as --config.{name}, {config[name]}')
        for fold in range(c.folds):
            for seed in range(c.seed, c.seed + c.seeds):
                todo.append(part_config(config, folder, stage, fold, seed))
    return todo


def stage_config(config, stage):
    """The config of a stage, of all its folds and seeds."""
    c = config.copy_and_resolve_references()
    if stage and stage not in c:
        raise UserError(f'config.stages names {stage!r}, which has no overrides: add config.{stage} = {{...}}')
    if stage in configs.base():
        raise UserError(f'a stage may not be called {stage!r}: the config has a field of that name')
    overrides = c[stage].to_dict() if stage else {}
    with c.unlocked():
        for name in config.stages:
            del c[name]
        if (method := overrides.get('method', c.method)) != c.method:
            if c.method in c:
                del c[c.method]
            c[method] = overrides.pop(method, {})
    try:
        c.update(overrides)
    except (AttributeError, KeyError, TypeError) as e:
        raise UserError(f'stage {stage!r}: {" ".join(str(e).split())}') from None
    if c.ensemble.runs:
        c.kind = 'ensemble'
    if c.kind not in KINDS:
        raise UserError(f'--config.kind={c.kind} must be one of {", ".join(KINDS)}')
    return c


def part_config(config, folder, stage, fold, seed):
    """The Part of a stage, a fold and a seed: earlier stages that it names become folders."""
    c = stage_config(config, stage)
    here = part_folder(config, c, stage, fold, seed)
    c.update({'stages': (), 'seeds': 1, 'seed': seed, 'fold': fold})
    c.data.store = c.data.store or str(folder / 'store')
    for name in REFERENCES:
        *sections, last = name.split('.')
        at = c
        for section in sections:
            at = at[section]
        at[last] = ','.join(_earlier(config, folder, run.strip(), stage, fold, seed) for run in at[last].split(','))
    return Part(stage, fold, seed, here, c)


def part_folder(config, c, stage, fold, seed):
    """stage/fold0/seed0, without fold and seed where there is one of each, and without either where the stage has one alone."""
    several = config.folds > 1 or config.seeds > 1
    once = {name: c[name] == 1 < config[name] for name in ('folds', 'seeds')}
    names = [stage]
    if several and not once['folds']:
        names.append(f'fold{fold}')
    if several and not once['seeds']:
        names.append(f'seed{seed}')
    return Path(*names)


def _earlier(config, folder, run, stage, fold, seed):
    """The folder of the run that a part names: that of an earlier stage, of the same fold and seed where it has several."""
    if run not in config.stages:
        return run
    if config.stages.index(run) >= config.stages.index(stage):
        raise UserError(f'stage {stage!r} names {run!r}, which does not come before it')
    c = stage_config(config, run)
    return str(folder / part_folder(config, c, run, fold, seed if c.seeds > 1 else c.seed))


def prepare_trainings(todo, folder, say):
    """{folder of a part: (its Run, the survey of its data, what the runs before it learnt from)} of all that is trained.

    UserError for what is wrong with any of them, before the first trains: the cheapest check of all comes before the next of
    any. Runs of equal shapes are traced once, equal data are surveyed once.
    """
    trained = [part for part in todo if part.config.kind == 'train']
    runs = {part.folder: start.begin(part.config, folder / part.folder) for part in trained}
    traced, surveys, learnt, ready = set(), {}, {}, {}
    for run in runs.values():
        if (shape := _traced_fields(run)) not in traced:
            start.trace(run)
            traced.add(shape)
    for name, run in runs.items():
        c = run.config
        data = json.dumps([c.data.to_json(), c.prep.to_json(), c.folds, c.fold, run.method.labelled])
        if data not in surveys:
            surveys[data] = pipeline.survey(c, c.data.store, run.method.labelled, say)
        survey = surveys[data]
        before = _before(run, learnt)
        if not c.allow_leak:
            lineage.refuse(lineage.leaks(survey.exams, survey.hashes, before), survey.exams)
        learnt[os.path.normpath(run.folder)] = [*lineage.own(survey.exams, survey.hashes), *before]
        ready[name] = run, survey, before
    return ready


def _before(run, learnt):
    """What the runs before this one learnt from: of a run that has begun as it knew it then, else of its source, which may be
    yet to be trained, with its rows in `learnt`."""
    source = start.source_run(run.config)
    if not source:
        return []
    if os.path.normpath(source) in learnt:
        return lineage.inherited(learnt[os.path.normpath(source)], source)
    if Path(run.folder, 'exams.csv').exists():
        return [row for row in lineage.read(run.folder) if row.run]
    return lineage.inherited(lineage.read(source), source)


def _traced_fields(run):
    """All fields on which it depends whether a step can be traced."""
    sections = 'method', run.config.method, 'model', 'views', 'prep', 'train.batch', 'train.patience', 'eval', 'data.classes'
    return json.dumps({name: value for name, value in workdir.fields(run.config).items() if name.startswith(sections)})


def write_results(folder, part, metrics):
    """results.json: what a part was, and its metrics."""
    result = {'kind': part.config.kind, 'stage': part.stage, 'fold': part.fold, 'seed': part.seed, 'metrics': metrics}
    workdir.write(Path(folder) / 'results.json', json.dumps(result, indent=1))


def sayer():
    """say(line): prints each line once, on the first host, however many parts say it."""
    said = set()

    def say(line):
        if line not in said and jax.process_index() == 0:
            print(line, flush=True)
        said.add(line)

    return say
