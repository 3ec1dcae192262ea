"""A run's folder -> report.json: all that a report says, as text and numbers. The same folder gives the same bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from covid_jax import UserError, predictions
from covid_jax.data import lineage
from covid_jax.metrics.classification import confusion, decide
from covid_jax.predictions import Predictions
from covid_jax.report import checklists, data_card, evidence, looks, model_card
from covid_jax.runtime import workdir
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import POSITIVE

MISTAKES = 20  # that are listed
LEVEL = 0.95  # of intervals and bands, where the config names none
SEEN = 'seen_before'  # among metrics: how many exams are of patients that an earlier run learnt from, which measures nothing
USE = ('research: to reproduce and compare published methods. Not a medical device: no diagnosis, triage or treatment may rest on its '
       'answers')
UNKNOWN_USE = 'what the network uses is not known: probes and maps can show a shortcut, not exclude one'


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
    metrics = entries(folder / 'metrics.json')
    split = shown_split(answers)
    told = bool(answers or metrics)
    record = {
        'data': data_card.data(folder, kept, rows), 'reference': data_card.reference(kept),
        'splits': data_card.splits(kept, rows, [row for row in table if row.run]),
        'model': model_card.model(folder, kept, told), 'software': {'versions': kept.get('versions') or {}},
        'training': model_card.training(kept, rows, told),
        'evaluation': _evaluation(folder, kept, answers, metrics), 'results': _results(folder, kept, answers, metrics, split),
        'robustness': {'shortcuts': _shortcuts(folder, kept), 'sites': _sites(metrics.get(split, {}), answers)},
        'explanations': {'method': looks.METHOD if looks.read(folder) else ''},
        'limits': [UNKNOWN_USE, *_limits(kept, metrics, answers, split), *data_card.limits(kept, rows)], 'intended_use': USE,
        'availability': model_card.availability(folder, kept, answers is not None)}
    record = {'study': model_card.study(kept, record, told), **record}
    record['checklists'] = {name: checklists.answered(record, items) for name, items in checklists.LISTS.items()}
    return record


def load(path: Path) -> dict[str, Any]:
    """What a JSON file of a run holds, {} where there is none. UserError for a damaged one."""
    if not path.is_file():
        return {}
    with blame(path):
        try:
            found = json.loads(path.read_text(encoding='utf-8'), parse_constant=_no_number)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ValueError('it is damaged: give the command of its run again')
        return found


def entries(path: Path) -> dict[str, Any]:
    """The same of a file of metrics: names below names, down to entries, each with its value or the reason why there is none."""
    found = load(path)
    if not _is_of_entries(found):
        raise UserError(f'{path} is damaged: give the command of its run again')
    return found


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
    """The class that is decided for, int [n]: at the frozen threshold, without one the most probable."""
    return decide(rows.probability, threshold, POSITIVE)


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


def _no_number(name):
    raise ValueError(f'{name} is no number')


def _is_of_entries(tree):
    if not isinstance(tree, dict):
        return False
    if 'value' in tree:
        return tree['value'] is None or isinstance(tree['value'], int | float)
    return 'reason' in tree or all(map(_is_of_entries, tree.values()))


def _evaluation(folder, kept, answers, metrics):
    found = {name: entry for of_split in metrics.values() for name, entry in of_split.get('all', {}).items()}
    names = [name for name in found if not name.endswith('_frozen') and name != SEEN]
    bounded = any(entry.get('low') is not None for entry in found.values())
    level = kept.get('eval.level')
    value = threshold_of(metrics, next(iter(metrics), ''))
    heat = next(iter(entries(folder / 'calibration.json').values()), {}).get('temperature', {})
    return {'measures': [*names, *(['ece', 'brier', 'net benefit'] if heat else [])],
            'uncertainty': f'intervals of {100 * level:g} % over patients, by the jackknife' if bounded and level else '',
            'threshold': {'value': value, 'rule': "the largest Youden's J on validation, then frozen"} if value is not None else {},
            'calibration': {**heat, 'rule': 'a temperature, fitted on validation'} if heat else {},
            'kept': 'each answer stands in predictions.csv' if answers else ''}


def _results(folder, kept, answers, metrics, split):
    found = {'split': split, 'level': kept.get('eval.level') or LEVEL, 'metrics': metrics, 'internal': metrics.get(split, {}).get('all', {}),
             'calibration': entries(folder / 'calibration.json').get(split, {}), 'confusion': {}, 'mistakes': {}}
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


def _shortcuts(folder, kept):
    """What shortcuts.json says, or of a part that has none the answers of its probes and why there are none."""
    if found := entries(folder / 'shortcuts.json'):
        return found
    answers, notes = evidence.read(folder)
    probes = {kind: of_kind for kind, of_kind in answers.items() if kind in evidence.SHORTCUTS}
    return evidence.entries(probes, kept.get('eval.level') or LEVEL) or ({'reason': '; '.join(notes)} if notes else {})


def _sites(groups, answers):
    """{site: metrics}; of one site the sentence that there are no others, which nobody knows where the source names none."""
    found = {name.removeprefix('site '): metrics for name, metrics in groups.items() if name.startswith('site ')}
    alone = answers and answers.sites != (lineage.NAMELESS,)
    return found or ('all exams are of one site, as their source names it' if groups and alone else {})


def _limits(kept, metrics, answers, split):
    """What this run's numbers cannot tell."""
    if metrics:
        yield 'intervals are over the patients that were answered alone, and say nothing of other hospitals'
    if split == 'val':
        yield 'there is no labelled test split: validation chose the checkpoint and the threshold, so that these numbers are too good'
    if kept.get('allow_leak'):
        yield 'patients of val or test may be among those that an earlier run learnt from'
    if answers and 'seen' in answers.columns and np.any(answers.columns['seen']):
        yield f'{int(np.count_nonzero(answers.columns["seen"]))} answered exams are of patients that an earlier run learnt from'
