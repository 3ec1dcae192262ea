"""A run's folder -> report.json: all that a report says, as text and numbers. The same folder gives the same bytes."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from covid_jax import UserError, predictions
from covid_jax.data import lineage
from covid_jax.metrics.classification import confusion, decide
from covid_jax.predictions import Predictions
from covid_jax.report import checklists, data_card, looks
from covid_jax.runtime import workdir
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import POSITIVE, class_names

MISTAKES = 20  # that are listed
SECTIONS = ('model', 'train', 'views', 'eval', 'init_from', 'init_skip', 'method')  # of the config, that say how it was trained
USE = ('research: to reproduce and compare published methods. Not a medical device: no diagnosis, triage or treatment may rest on its '
       'answers')
LIMITS = ('intervals are over the patients of this test split alone, and say nothing of other hospitals',
          'what the network uses is not known: probes and maps can show a shortcut, not exclude one')
AVAILABILITY = ('covid-jax, Apache-2.0; the config in config.json, the weights in checkpoints/, the answers in predictions.csv; '
                'the data are had from their source')


def read(folder: Path | str) -> dict[str, Any]:
    """The report of a finished part of a run. What the folder does not tell is '' or empty: nothing is guessed.

    UserError for a folder that holds no finished run, and for a damaged file.
    """
    folder = Path(folder)
    kept = workdir.read(folder)
    if kept is None or not (folder / 'results.json').is_file():
        raise UserError(f'{folder} holds no finished run: give the folder of one, or its command again, which goes on')
    table = lineage.read(folder) if (folder / 'exams.csv').is_file() else []
    rows = [row for row in table if not row.run]
    answers = answers_of(folder)
    metrics = load(folder / 'metrics.json')
    split = shown_split(answers)
    record = {
        'data': data_card.data(folder, kept, rows), 'reference': data_card.reference(kept),
        'splits': data_card.splits(kept, rows, [row for row in table if row.run]),
        'model': _model(folder, kept), 'software': {'versions': kept.get('versions') or {}}, 'training': _training(kept),
        'evaluation': _evaluation(folder, kept, metrics), 'results': _results(folder, answers, metrics, split),
        'robustness': {'shortcuts': load(folder / 'shortcuts.json'), 'sites': _sites(metrics.get(split, {}))},
        'explanations': {'method': looks.METHOD if looks.there(folder) else ''},
        'limits': [*LIMITS, *_own_limits(kept, rows, answers, split)], 'intended_use': USE, 'availability': AVAILABILITY}
    record = {'study': _study(kept, record, split), **record}
    record['checklists'] = {name: checklists.answered(record, items) for name, items in checklists.LISTS.items()}
    return record


def load(path: Path) -> dict[str, Any]:
    """What a JSON file of a run holds, {} where there is none. UserError for a damaged one."""
    if not path.is_file():
        return {}
    with blame(path):
        try:
            return dict(json.loads(path.read_text(encoding='utf-8')))
        except (ValueError, TypeError):
            raise ValueError('it is damaged: give the command of its run again') from None


def answers_of(folder: Path) -> Predictions | None:
    """What the run answered, None where it does not classify."""
    return predictions.of_run(folder) if (folder / 'predictions.csv').is_file() else None


def shown_split(answers: Predictions | None) -> str:
    """The split that a report is of: test, else val, where it has labels; '' where neither has."""
    labelled = answers.labelled().splits if answers else ()
    return next((split for split in ('test', 'val') if split in labelled), '')


def threshold_of(metrics: Mapping[str, Any], split: str) -> float | None:
    """The frozen threshold of metrics.json."""
    return metrics.get(split, {}).get('all', {}).get('threshold_frozen', {}).get('value')


def decided(rows: Predictions, threshold: float | None) -> np.ndarray:
    """The class that is decided for, int [n]: of two classes at the frozen threshold, of more the most probable."""
    return decide(rows.probability, threshold if len(rows.names) == 2 else None, POSITIVE)


def wrong(rows: Predictions, threshold: float | None) -> list[int]:
    """The positions of labelled rows that are decided wrongly, the surest first."""
    assert rows.probability is not None
    called = decided(rows, threshold)
    at = np.arange(len(called))
    sure = rows.probability[at, called] - rows.probability[at, np.maximum(rows.label, 0)]
    return sorted(np.flatnonzero((rows.label >= 0) & (called != rows.label)).tolist(), key=lambda i: (-sure[i], rows.exams[i].id))


def asked_about(rows: Predictions, called: np.ndarray, i: int) -> str:
    """The class whose probability tells most of row i: of two the positive one, which has the threshold, of more the decided one."""
    return rows.names[POSITIVE if len(rows.names) == 2 else called[i]]


def _study(kept, record, split):
    kind = kept.get('kind') or 'train'
    names = list(record['data']['classes'])
    network = kept.get('model.name') if kind == 'train' else ''
    others = ' and '.join(name for i, name in enumerate(names) if i != POSITIVE)
    task = f'telling {names[POSITIVE]} from {others}' if len(names) > POSITIVE else 'learning from chest images'
    means = f'deep learning ({", ".join(filter(None, (kept.get("method"), network)))})' if network else f'a part of the kind {kind}'
    made_up = kept.get('data.source') == data_card.PHANTOM
    made = 'made-up scans: neither prospective nor retrospective'
    design = made if made_up else 'retrospective: the scans were there before the training'
    auc = record['results']['internal'].get('auc', {})
    reached = f'AUC {auc["value"]:.3f} on {split}, n = {auc["n"]}' if auc.get('value') is not None else ''
    flow = ', '.join(f'{n} {name.replace("_", " ")}' for name, n in record['data']['flow'].items())
    return {'title': f'{task[0].upper()}{task[1:]} by {means}', 'row': kept.get('row') or '', 'design': design,
            'goal': 'a model is made, and tested on exams of the same source' if kind == 'train' else f'a part of the kind {kind}',
            'summary': {'design': design, 'data': flow, 'method': means, 'result': reached} if reached else {}}


def _model(folder, kept):
    path = folder / 'network.txt'
    with blame(path):
        text = path.read_text(encoding='utf-8') if path.is_file() else ''
    total = re.search(r'^Total: ([\d,]+)', text, re.M)
    trained = bool(text)
    start = kept.get('init_from') or kept.get('model.pretrained')
    names = class_names(kept.get('data.classes') or [])
    return {'network': (kept.get('model.name') or '') if trained else '', 'method': kept.get('method') or '',
            'parameters': int(total[1].replace(',', '')) if total else None,
            'architecture': f'{kept.get("model.name")} of covid_jax/models, layer by layer in network.txt' if trained else '',
            'start': (f'from {Path(start).name}' if start else f'drawn at random, seed {kept.get("seed", 0)}') if trained else '',
            'input': 'the voxels of the prepared scan, and nothing of its file or its patient' if trained else '',
            'output': f'a probability for each of {", ".join(names)}: softmax of the logits' if trained and names else ''}


def _training(kept):
    config = {name: value for name, value in sorted(kept.items()) if name not in workdir.BESIDE and name not in workdir.PATHS}
    sections = (*SECTIONS, kept.get('method'))
    of_training = {name: value for name, value in config.items() if name.split('.')[0] in sections}
    select = kept.get('eval.select', 'auto')
    best = 'macro F1' if select == 'auto' else select
    runs = kept.get('ensemble.runs')
    views = f', each answer the mean of {kept["eval.tta"]} views' if kept.get('eval.tta') else ''
    return {'settings': of_training if 'method' in kept else {},
            'selection': f'the checkpoint that is best on validation by {best}' if 'method' in kept else '',
            'ensemble': (f'the mean of {len(runs.split(","))} runs' if runs else f'no, one network{views}'), 'config': config}


def _evaluation(folder, kept, metrics):
    names = dict.fromkeys(name for of_split in metrics.values() for name in of_split.get('all', {}) if not name.endswith('_frozen'))
    level = kept.get('eval.level')
    value = threshold_of(metrics, next(iter(metrics), ''))
    heat = next(iter(load(folder / 'calibration.json').values()), {}).get('temperature', {})
    return {'measures': [*names, *(['ece', 'brier', 'net benefit'] if heat else [])],
            'uncertainty': f'intervals of {100 * level:g} % over patients, by the jackknife' if metrics and level else '',
            'threshold': {'value': value, 'rule': "the largest Youden's J on validation, then frozen"} if value is not None else {},
            'calibration': {**heat, 'rule': 'a temperature, fitted on validation'} if heat else {},
            'kept': 'each answer stands in predictions.csv' if metrics else ''}


def _results(folder, answers, metrics, split):
    found = {'split': split, 'metrics': metrics, 'internal': metrics.get(split, {}).get('all', {}),
             'calibration': load(folder / 'calibration.json').get(split, {}), 'confusion': {}, 'mistakes': {}}
    if not answers or not split:
        return found
    rows = answers.of(split).labelled()
    threshold = threshold_of(metrics, split)
    called = decided(rows, threshold)
    listed = wrong(rows, threshold)
    found['confusion'] = {'classes': list(rows.names), 'counts': confusion(rows.label, called, len(rows.names)).tolist()}
    found['mistakes'] = {'number': len(listed), 'of': len(rows.exams), 'surest': [_mistake(rows, called, i) for i in listed[:MISTAKES]]}
    return found


def _mistake(rows, called, i):
    exam = rows.exams[i]
    asked = asked_about(rows, called, i)
    return {'id': exam.id, 'patient': exam.patient, 'site': exam.site, 'label': rows.names[rows.label[i]], 'decided': rows.names[called[i]],
            'asked': asked, 'probability': round(float(rows.probability[i, rows.names.index(asked)]), 4)}


def _sites(groups):
    """{site: metrics}; of one site the sentence that there are no others."""
    found = {name.removeprefix('site '): metrics for name, metrics in groups.items() if name.startswith('site ')}
    return found or ('all exams are of one site' if groups else {})


def _own_limits(kept, rows, answers, split):
    """What this run cannot tell."""
    if kept.get('data.source') == data_card.PHANTOM:
        yield 'the scans are made up: nothing here says how it does on patients'
    elif rows and len({row.exam.patient for row in rows}) == len(rows):
        yield 'each exam counts as a patient of its own, as its source names them: two exams of one person would not be seen'
    if split == 'val':
        yield 'there is no labelled test split: validation chose the checkpoint and the threshold, so that these numbers are too good'
    if kept.get('allow_leak'):
        yield 'patients of val or test may be among those that an earlier run learnt from'
    if answers and 'seen' in answers.columns and np.any(answers.columns['seen']):
        yield f'{int(np.count_nonzero(answers.columns["seen"]))} answered exams are of patients that an earlier run learnt from'
