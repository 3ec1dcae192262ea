"""What is more than one training: stages, folds, seeds and ensembles, each part in its own folder, tables at the end."""

from pathlib import Path

import jax
import numpy as np
import rich.console
import rich.table

from covid_jax import UserError, ensemble
from covid_jax.train import check, check_shapes, train_and_evaluate

SHOWN = ('accuracy', 'macro_f1', 'sensitivity', 'specificity', 'auc', 'average_precision', 'macro_f1_frozen')
BRIEF = ('accuracy', 'macro_f1', 'auc')


def run(config, workdir):
    """Runs all that the config asks for below `workdir`, each part where an earlier call left it; prints the table.

    Where config.ensemble.runs names finished runs, nothing is trained: they are averaged. Returns {folder: {split:
    {metric: ...}}} of the last stage, the folder relative to workdir.
    """
    check_ranges(config)
    workdir = Path(workdir)
    store = config.data.store or workdir / 'store'
    results, said = {}, set()

    def say(line):
        """Once, however many parts read the same data."""
        if line not in said and jax.process_index() == 0:
            print(line, flush=True)
        said.add(line)

    several = config.folds > 1 or config.seeds > 1
    parts = [(stage, fold, seed, Path(f'fold{fold}', f'seed{seed}') if several else Path()) for stage in stages(config)
             for fold in range(config.folds) for seed in range(config.seed, config.seed + config.seeds)]
    ready = [part_config(config, workdir, stage, part, seed) for stage, _, seed, part in parts]
    for c, (stage, fold, seed, part) in zip(ready, parts, strict=True):  # all of them, before the first trains
        if not c.ensemble.runs:
            check(c, workdir / stage / part)
            if (fold, seed) == (0, config.seed):  # the stage's others have the same shapes
                check_shapes(c, workdir / stage / part)
    for c, (stage, fold, _, part) in zip(ready, parts, strict=True):
        name, folder = Path(stage, part), workdir / stage / part
        if jax.process_index() == 0 and name.parts:
            print(f'== {name}', flush=True)
        metrics = ensemble.average(c, folder) if c.ensemble.runs else train_and_evaluate(c, folder, store, fold, say)
        results.setdefault(stage, {})[str(name)] = metrics
    if jax.process_index() == 0:
        show(results, workdir)
    return results[parts[-1][0]]


def stages(config):
    """The stages of a config in order, ('',) where it has none; given runs take the place of all."""
    return ('',) if config.ensemble.runs else config.stages or ('',)


def check_ranges(config):
    """UserError for a number that cannot be."""
    least = {'seeds': 1, 'folds': 1, 'seed': 0, 'data.split_seed': 0, 'data.workers': 0, 'train.epochs': 0,
             'train.eval_every': 0, 'train.log_every': 1, 'eval.tta': 0, 'eval.resamples': 0}
    for name, low in least.items():
        value = config
        for part in name.split('.'):
            value = value[part]
        if value < low:
            raise UserError(f'--config.{name}={value} must be at least {low}')
    if config.model.dtype not in ('auto', 'float32', 'bfloat16', 'float64'):
        raise UserError(f'--config.model.dtype={config.model.dtype} must be auto, float32 or bfloat16')
    if config.model.inflate not in ('mean', 'centre'):
        raise UserError(f'--config.model.inflate={config.model.inflate} must be mean or centre')


def part_config(config, workdir, stage, part, seed):
    """The config of one training: the stage's overrides put in, its seed, and `init_from` as a folder."""
    c = config.copy_and_resolve_references()
    if stage and stage not in c:
        raise UserError(f'config.stages names {stage!r}, which has no overrides: add config.{stage} = {{...}}')
    overrides = c[stage].to_dict() if stage else {}
    with c.unlocked():
        for name in config.stages:
            del c[name]
    try:
        c.update(overrides)
    except (AttributeError, KeyError, TypeError) as e:
        raise UserError(f'stage {stage!r}: {" ".join(str(e).split())}') from None
    c.update({'stages': (), 'seeds': 1, 'seed': seed})
    if c.init_from in config.stages:
        c.init_from = str(workdir / c.init_from / part)
    if c.ensemble.runs:
        runs = [run.strip() for run in c.ensemble.runs.split(',')]
        if '' in runs or len(runs) < 2:
            raise UserError(f'--config.ensemble.runs={c.ensemble.runs!r} must be two or more folders, with commas between them')
        runs = [Path(workdir, run) if stage and run in config.stages else Path(run) for run in runs]
        c.ensemble.runs = ','.join(str(run / part) for run in runs)
    return c


def show(results, workdir):
    """The tables, of {stage: {folder: metrics}}: of several stages a line each; of the last, value and interval of a
    single run, mean and spread of several; by image and, where that differs, by patient."""
    console = rich.console.Console()
    *_, last = results.values()
    splits = next(iter(last.values())) or {}
    labelled = [s for s in ('test', 'val') if s in splits and splits[s]['accuracy']['n']]
    split = (labelled or list(splits) or [None])[0]
    if len(results) > 1 and split:
        _show_stages(console, results, split)
    for name in (split, f'{split}_patients'):
        if name in splits:
            _show_split(console, last, name)
    if not splits:
        console.print('no val and no test split: nothing was evaluated')
    console.print(f'predictions, metrics and plots: {", ".join(str(workdir / folder) for folder in last)}', soft_wrap=True)
    console.print('Research software, not a medical device.')


def _show_stages(console, results, split):
    *_, last = results.values()
    what = 'value and 95 % interval' if len(last) == 1 else 'mean ± s.d.'
    table = rich.table.Table('stage', *BRIEF, title=f'{_title(last, split)}: {what}')
    for stage, parts in results.items():
        cells = [_cells([metrics[split][metric] for metrics in parts.values()]) for metric in BRIEF]
        table.add_row(stage, *(f'{value} ({spread.replace(" to ", "-")})' if spread and len(parts) == 1 else value
                               for value, spread in cells))
    console.print(table)


def _show_split(console, parts, split):
    runs, reasons = [metrics[split] for metrics in parts.values()], {}
    columns = ('value', '95 % interval') if len(runs) == 1 else ('mean ± s.d.', 'median, range')
    table = rich.table.Table('metric', *columns, title=_title(parts, split))
    for metric in SHOWN if split.startswith('test') else SHOWN[:-1]:  # the threshold was frozen on val itself
        entries = [run[metric] for run in runs if metric in run]
        if entries:
            table.add_row(metric, *_cells(entries))
            for e in entries:
                reasons |= dict.fromkeys(e.get('reason', '').split('; '))
    console.print(table)
    for reason in filter(None, reasons):
        console.print(reason, soft_wrap=True)


def _title(parts, split):
    name = split.replace('_patients', ', by patient')
    chosen = ' (it chose the checkpoint)' if split.startswith('val') else ''
    positive = next(iter(parts.values()))[split]['auc']['positive']
    return f'{name}{chosen}, positive class {positive}' + (f', {len(parts)} runs' if len(parts) > 1 else '')


def _cells(entries):
    values = [e['value'] for e in entries]
    if None in values:
        return '-', ''
    if len(entries) > 1:
        return (f'{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}',
                f'{np.median(values):.3f}, {min(values):.3f} to {max(values):.3f}')
    e = entries[0]
    return f'{e["value"]:.3f}', '' if e.get('low') is None else f'{e["low"]:.3f} to {e["high"]:.3f}'
