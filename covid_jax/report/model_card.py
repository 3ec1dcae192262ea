"""What a run's model is and how it was made, from its folder: the sections 'study', 'model' and 'training' of report.json."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from covid_jax import models
from covid_jax.data.lineage import Row
from covid_jax.report import data_card
from covid_jax.report.data_card import Kept
from covid_jax.report.tables import interval
from covid_jax.runtime import workdir
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import POSITIVE, class_names

SECTIONS = ('model', 'train', 'views', 'eval', 'init_from', 'init_skip', 'method')  # of the config, that say how it was trained
MEANS = {'ensemble': 'deep learning (the mean of several runs)', 'choose': 'deep learning (the run that is best on validation)',
         'probe': 'deep learning (a linear probe of the features of a run)'}  # of a part that trains no network
MADE = 'made-up scans: neither prospective nor retrospective'


def study(kept: Kept, record: Mapping[str, Any], answers: bool) -> dict[str, Any]:
    """The section 'study'. record: the other sections; answers: whether the run answered anything."""
    kind = kept.get('kind') or 'train'
    names = list(record['data']['classes']) if answers else []
    others = ' and '.join(name for i, name in enumerate(names) if i != POSITIVE)
    task = f'telling {names[POSITIVE]} from {others}' if len(names) > POSITIVE else 'learning from chest images'
    by = ', '.join(filter(None, (kept.get('method'), record['model']['network'])))
    means = MEANS.get(kind) or f'deep learning{f" ({by})" if by else ""}'
    design = ''
    if kept.get('data.source'):  # which what is made of finished runs does not tell
        design = MADE if data_card.is_made_up(kept) else 'retrospective: the scans were there before the training'
    split = record['results']['split']
    auc = record['results']['internal'].get('auc', {})
    reached = ''
    if auc.get('value') is not None:
        reached = f'AUC {auc["value"]:.3f} ({interval(auc) or "no interval"}) on {split}, n = {auc["n"]}'
    flow = ', '.join(f'{n} {name.replace("_", " ")}' for name, n in record['data']['flow'].items())
    return {'title': f'{task[0].upper()}{task[1:]} by {means}', 'row': kept.get('row') or '', 'design': design,
            'goal': _goal(kept, kind, split),
            'summary': {'design': design, 'data': flow, 'method': means, 'result': reached} if reached else {}}


def model(folder: Path, kept: Kept, answers: bool) -> dict[str, Any]:
    """The section 'model'. answers: whether the run answered anything. UserError for a damaged file."""
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
            'input': f'the voxels of the prepared scan{_site(kept)}, and nothing else of its file or its patient' if trained else '',
            'output': f'a probability for each of {", ".join(names)}: softmax of the logits' if trained and names and answers else ''}


def training(kept: Kept, rows: Sequence[Row], answers: bool) -> dict[str, Any]:
    """The section 'training'. rows: the run's own exams; answers: whether the run answered anything."""
    config = {name: _finite(value) for name, value in sorted(kept.items()) if name not in workdir.BESIDE and name not in workdir.PATHS}
    sections = (*SECTIONS, kept.get('method'))
    of_training = {name: value for name, value in config.items() if name.split('.')[0] in sections}
    return {'settings': of_training if 'method' in kept else {}, 'selection': _selection(kept, rows, answers),
            'ensemble': _ensemble(kept), 'config': config}


def availability(folder: Path, kept: Kept, answers: bool) -> str:
    """Where software, weights, answers and data are to be had."""
    left = ['the config in config.json', *(['the weights in checkpoints/'] if (folder / 'checkpoints').is_dir() else []),
            *(['the answers in predictions.csv'] if answers else [])]
    data = 'the config makes the same scans again' if data_card.is_made_up(kept) else 'the data are had from their source'
    return '; '.join(['covid-jax, Apache-2.0', ', '.join(left), *([data] if kept.get('data.source') else [])])


def _goal(kept, kind, split):
    made = 'a model is made' if kind == 'train' else f'a part of the kind {kind} is made of finished runs'
    elsewhere = 'exams of sites that are held out' if kept.get('data.held_out_sites') else 'exams of the same source'
    asked = {'test': f', and tested on {elsewhere if kind == "train" else "their exams"}', 'val': ', and validated alone'}
    return f'{made}{asked.get(split, "")}'


def _site(kept):
    """What the network knows of the site, where it normalises by it."""
    sets = models.sites(kept.get('model.name') or '', kept.get('model.sites') or 0)
    return f' and its site, of which it has {sets} sets of statistics' if sets > 1 else ''


def _selection(kept, rows, answers):
    if 'method' not in kept:
        return ''
    select = kept.get('eval.select', 'auto')
    if select == 'last' or rows and all(row.exam.split != 'val' for row in rows):
        return 'the last checkpoint: nothing is chosen'
    best = select if select != 'auto' else 'macro F1' if answers else 'the lowest loss'
    return f'the checkpoint that is best on validation by {best}'


def _ensemble(kept):
    """Whether several models answer together."""
    if runs := kept.get('ensemble.runs'):
        return f'the mean of {len(runs.split(","))} runs'
    if runs := kept.get('choose.runs'):
        return f'no: of {len(runs.split(","))} runs the one that is best on validation by {kept.get("choose.by")}'
    views = kept.get('eval.tta')
    return f'no, one network{f", each answer the mean of {views} views" if views else ""}'


def _finite(value):
    """A field of the config as JSON can hold it."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
