"""Stages, folds and seeds -> the parts of a config, each with the folder that it lies in and the parts that it starts from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from covid_jax import UserError, ranges
from covid_jax import config as configs

# By kind, what is done with the finished runs that the field `runs` of its section names.
OF_RUNS = {'ensemble': 'are averaged', 'choose': 'one is chosen', 'cross': 'each is asked about the data of the others'}
OF_FEATURES = 'probe', 'rank'  # kinds that read the features of the run in init_from
RUNS = tuple(f'{kind}.runs' for kind in OF_RUNS)  # finished runs, of which nothing is trained
REFERENCES = ('init_from', 'data.negatives.ranking', *RUNS)  # fields that name earlier stages, or folders of runs, with commas


class Part(NamedTuple):
    """One training, or what else a stage does, of one fold and seed. folder: below the workdir, '' where it is the only one."""

    stage: str
    fold: int
    seed: int
    folder: Path
    config: ConfigDict


def parts(config: ConfigDict, folder: str | Path) -> list[Part]:
    """The Parts of a config in the order in which they run.

    A stage with folds=1 or seeds=1 of its own, among others of several, is done once and found by all that name it. UserError
    for a stage that is not there, or is called like a field, and for a kind that is none.
    """
    if config.fold:
        raise UserError(f'--config.fold={config.fold} is for a run to set in its parts: set --config.folds')
    folder = Path(folder)
    of_finished = any(configs.get(config, name) for name in RUNS)
    stages = ('',) if of_finished else config.stages or ('',)
    todo = []
    for stage in stages:
        own = stage_config(config, stage)
        for name in ('folds', 'seeds'):
            if own[name] not in (1, config[name]):
                raise UserError(f'--config.{stage}.{name}={own[name]} must be 1 or as --config.{name}, {config[name]}')
        for fold in range(own.folds):
            for seed in range(own.seed, own.seed + own.seeds):
                todo.append(part_of(config, folder, stage, fold, seed))
    return todo


def stage_config(config: ConfigDict, stage: str) -> ConfigDict:
    """The config of a stage, of all its folds and seeds."""
    c = config.copy_and_resolve_references()
    if stage and stage not in c:
        raise UserError(f'config.stages names {stage!r}, which has no overrides: add config.{stage} = {{...}}')
    if stage in configs.base() or stage == 'store':
        raise UserError(f'a stage may not be called {stage!r}: a field or a folder of that name is there')
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
    kinds_given = [kind for kind in OF_RUNS if c[kind].runs]
    if len(kinds_given) > 1:
        fields = ' and '.join(f'--config.{kind}.runs' for kind in kinds_given)
        raise UserError(f'{fields}: finished runs {", or ".join(OF_RUNS[kind] for kind in kinds_given)}, not both')
    c.kind = kinds_given[0] if kinds_given else c.kind
    if c.kind == 'cross':  # it is of all folds and seeds of its runs
        c.update({'folds': 1, 'seeds': 1})
    if c.kind not in (kinds := ranges.CHOICES['kind']):
        raise UserError(f'--config.kind={c.kind} must be one of {", ".join(kinds)}')
    return c


@contextmanager
def named(stage: str) -> Iterator[None]:
    """In it a UserError names each field as that of the stage, by which it can be set whatever the stage has of its own."""
    try:
        yield
    except UserError as e:
        if not stage:
            raise
        raise UserError(str(e).replace('--config.', f'--config.{stage}.')) from None


def part_of(config: ConfigDict, folder: Path, stage: str, fold: int, seed: int) -> Part:
    """The Part of a stage, a fold and a seed: earlier stages that it names become folders."""
    c = stage_config(config, stage)
    here = part_folder(config, c, stage, fold, seed)
    for name in REFERENCES:
        named = [run.strip() for run in configs.get(c, name).split(',')]
        if stage:
            sources = [_earlier(config, folder, c, stage, run, fold, seed, name) if run in config.stages else run for run in named]
        elif name in RUNS or c.kind in OF_FEATURES:  # of finished runs, the parts of the same fold and seed
            sources = [str(Path(run, here)) if run else '' for run in named]
        elif name == 'data.negatives.ranking' and c.folds > 1:  # whose folds each have their own
            sources = [_of_fold(run, fold) if run else '' for run in named]
        else:
            sources = named
        configs.put(c, name, ','.join(sources))
    if not stage and c.kind != 'train' and not _ends_so(config, c.kind):
        c.row = ''  # of a table's row are runs that were trained so, not what was made of any runs
    c.update({'stages': (), 'seeds': 1, 'seed': seed, 'fold': fold})
    c.data.store = c.data.store or str(folder / 'store')
    return Part(stage, fold, seed, here, c)


def _of_fold(ranking, fold):
    """The folder of a fold of a finished ranking; its only seed has a folder of its own, or none where its run had other stages of several."""
    folder = Path(ranking, f'fold{fold}')
    return str(next(iter(sorted(folder.glob('seed*'))), folder))


def _ends_so(config, kind):
    """Whether the row of the config is itself such an average or choice of runs."""
    return bool(config.stages) and stage_config(config, config.stages[-1]).kind == kind


def part_folder(config: ConfigDict, c: ConfigDict, stage: str, fold: int, seed: int) -> Path:
    """stage/fold0/seed0; stage alone where it has one of each, and without what it has one of where the config has several.

    c: the config of the stage.
    """
    if c.folds == c.seeds == 1:
        return Path(stage)
    names = [stage]
    if c.folds == config.folds:
        names.append(f'fold{fold}')
    if c.seeds == config.seeds:
        names.append(f'seed{seed}')
    return Path(*names)


def _earlier(config, folder, c, stage, run, fold, seed, field):
    """The folder of the earlier stage `run` that a part of the stage names: of the same fold and seed, or its only one."""
    if config.stages.index(run) >= config.stages.index(stage):
        raise UserError(f'stage {stage!r} names {run!r}, which does not come before it')
    named = stage_config(config, run)
    if field == 'init_from' and named.kind != 'train':
        raise UserError(f'stage {stage!r} starts from {run!r}, which trains nothing: name a stage that trains')
    if field == 'data.negatives.ranking' and named.kind != 'rank':
        raise UserError(f'stage {stage!r} chooses from {run!r}, which ranks nothing: name a stage of kind rank')
    if field == 'cross.runs':
        return str(folder / run)
    for name in ('folds', 'seeds'):
        if named[name] > c[name]:
            raise UserError(f'stage {stage!r} has one of {name} and names {run!r}, which has {named[name]}: which of them is '
                            'meant?')
    theirs = named.seed + (seed - c.seed if named.seeds > 1 else 0)
    return str(folder / part_folder(config, named, run, fold, theirs))
