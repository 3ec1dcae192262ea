"""What a finished run is, and what can be done with it, read from its folder alone: no network is made, and no jax is loaded."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from covid_jax import UserError, runs
from covid_jax.data import lineage
from covid_jax.runs import Part
from covid_jax.runtime import workdir
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import POSITIVE, class_index, class_names

SHOWN = ('auc', 'accuracy', 'sensitivity', 'specificity')  # metrics of test that a person sees: at the frozen threshold, where there is one
PREP = ('window', 'size', 'spacing', 'lungs', 'keep_aspect')
UNKNOWN = 'without a label'


def info(run: str | Path) -> dict[str, Any]:
    """What a run is, as JSON can hold it: its fields below 'run', and below 'trainings' what each of its folds and seeds has of its own.

    run: the folder of a finished run, or of a part of one. UserError where it is none, has not finished, or is damaged.
    """
    run = Path(run)
    parts = [Part(run, run)] if (run / 'config.json').is_file() else runs.parts(run)
    if not (parts[0].folder / 'results.json').is_file():
        raise UserError(f'{run} has not finished: give its command again, which goes on')
    kept = workdir.read(parts[0].folder) or {}
    classes = kept.get('data.classes') or []
    names = class_names(classes)
    answers = (parts[0].folder / 'predictions.csv').is_file()
    trained = 'method' in kept and (parts[0].folder / 'checkpoints').is_dir()
    return {
        'run': str(run),
        'kind': kept.get('kind', 'train'),
        'row': kept.get('row') or None,
        'method': kept.get('method'),
        'network': kept.get('model.name') if trained else None,
        'parameters': _parameters(parts[0].folder),
        'classes': {name: each.split('|') for name, each in zip(names, classes, strict=True)},
        'positive': names[POSITIVE] if len(names) > POSITIVE else None,
        'input': {name: kept.get(f'prep.{name}') for name in PREP} if trained else None,
        'data': {'source': kept.get('data.source'), 'sites': kept.get('sites')} if trained else None,
        'versions': kept.get('versions'),
        'commands': list(_commands(run, parts[0].folder, trained, answers)),
        'trainings': [_training(part, classes) for part in parts]}


def lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, how it is) of all that a person should know of an `info`."""
    for name in ('run', 'kind', 'row', 'method', 'network'):
        if found[name]:
            yield name, str(found[name])
    if found['parameters']:
        yield 'parameters', f'{found["parameters"]:,}'
    if found['classes']:
        yield 'classes', ', '.join(f'{name} (also {", ".join(others)})' if others else name for name, (_, *others) in found['classes'].items())
        yield 'positive', str(found['positive'])
    if found['input']:
        yield 'input', _input(found['input'])
    for training in found['trainings']:
        several = len(found['trainings']) > 1
        of = f', fold {training["fold"]}, seed {training["seed"]}' if several else ''
        yield from ((f'{name}{of}', text) for name, text in _of_training(training))
    if found['versions']:
        yield 'versions', ', '.join(f'{name} {version}' for name, version in found['versions'].items())
    for command in found['commands']:
        yield 'try', command


def _of_training(training):
    for split, sites in training['exams'].items():
        for site, counts in sites.items():
            yield f'{split or "left out"}', f'{", ".join(f"{n} {name}" for name, n in counts.items())} at {site}'
    if training['threshold'] is not None:
        yield 'threshold', f'{training["threshold"]:.4g}, frozen on validation'
    if training['temperature'] is not None:
        yield 'temperature', f'{training["temperature"]:.4g}, fitted on validation'
    metrics = (training['metrics'] or {}).get('test', {}).get('all', {})
    for name in SHOWN:
        entry = metrics.get(f'{name}_frozen', metrics.get(name))
        if entry and entry['value'] is not None:
            bounds = f' ({entry["low"]:.3f} to {entry["high"]:.3f})' if entry.get('low') is not None else ''
            yield f'test {name}', f'{entry["value"]:.3f}{bounds} of {entry["n"]}'


def _input(prep):
    depth, height, width = prep['size']
    units = f'Hounsfield units {prep["window"][0]:g} to {prep["window"][1]:g}, or grey values' if prep['window'] else 'each scan from its least to its greatest value'
    spacing = f' at {" x ".join(f"{mm:g}" for mm in prep["spacing"])} mm' if prep['spacing'] else ''
    lungs = f', lungs: {prep["lungs"]}' if prep['lungs'] else ''
    what = f'{height} x {width} images' if depth == 1 else f'{depth} x {height} x {width} volumes'
    return f'{what}{spacing}, {units}{lungs}'


def _parameters(folder):
    """How many the network has, as network.txt says; None where it does not."""
    path = folder / 'network.txt'
    found = re.search(r'^Total: ([\d,]+)', path.read_text(encoding='utf-8'), re.M) if path.is_file() else None
    return int(found[1].replace(',', '')) if found else None


def _commands(run, part, trained, answers):
    """What can be done with a run. part: the folder of one of its trainings, which is all that some take."""
    if trained and answers:
        yield f'covid-jax predict SCAN --run={run} --out=DIR'
        yield f'covid-jax explain SCAN --run={part} --out=DIR'
        yield f'covid-jax evaluate --run={run} --root=DATA --out=DIR'
        yield f'covid-jax export {part} --out=DIR'
    if answers:
        yield f'covid-jax compare {run} OTHER'
        yield f'covid-jax report {run}'
    if trained:
        yield f'python -m covid_jax.main --config=CONFIG --config.init_from={run}'


def _training(part, classes):
    folder = part.folder
    calibration = _json(folder / 'calibration.json')
    metrics = _json(folder / 'metrics.json')
    frozen = next(iter(metrics.values()), {}).get('all', {}).get('threshold_frozen', {})
    heat = next(iter(calibration.values()), {}).get('temperature', {})
    return {'folder': str(folder), 'fold': part.fold, 'seed': part.seed, 'exams': _exams(folder, classes), 'threshold': frozen.get('value'),
            'temperature': heat.get('value'), 'metrics': metrics or None}


def _exams(folder, classes):
    """{split: {site: {class: how many exams}}} of those of the run itself."""
    if not (folder / 'exams.csv').is_file():
        return {}
    order = (*class_names(classes), UNKNOWN)
    count: Counter = Counter()
    for exam in (row.exam for row in lineage.read(folder) if not row.run):
        name = order[class_index(exam.label, classes)] if classes or not exam.label else exam.label
        count[exam.split, exam.site, name] += 1
    found: dict[str, dict[str, dict[str, int]]] = {}
    for split in ('train', 'val', 'test', ''):
        for (of, site, name), n in sorted(count.items(), key=lambda item: (item[0][1], order.index(item[0][2]) if classes else 0)):
            if of == split:
                found.setdefault(split, {}).setdefault(site, {})[name] = n
    return found


def _json(path):
    """What a file of the run holds, {} where there is none."""
    if not path.is_file():
        return {}
    with blame(path):
        try:
            return dict(json.loads(path.read_text(encoding='utf-8')))
        except (ValueError, TypeError):
            raise ValueError('it is damaged: give the command of its run again') from None
