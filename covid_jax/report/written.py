"""report.json and report.html of a finished run, from its folder alone: neither the data nor the network is needed."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from covid_jax.predictions import Predictions
from covid_jax.report import curves, gradcam, looks, markup, page, pictures, plots, record
from covid_jax.report.looks import Look
from covid_jax.report.markup import Picture
from covid_jax.runtime import files
from covid_jax.sources.exams import POSITIVE

WRONG = 4  # mistakes that are shown as scans
RIGHT = 2  # and right answers of each class
TALL = 160  # pixels of the shorter side of a slice that has fewer
QUALITY = 70  # of a JPEG
PLOT = 480  # pixels of a plot's width on the page, at most


def write(folder: Path | str) -> dict[str, Any]:
    """Writes report.json and report.html of a finished part of a run into its folder. Returns the report. UserError as record.read."""
    folder = Path(folder)
    found = record.read(folder)
    answers = record.answers_of(folder)
    name = pictures.name(folder)
    files.write(folder / 'report.json', json.dumps(found, indent=1, allow_nan=False) + '\n')
    files.write(folder / 'report.html', page.page(name, found, _plots(folder, found, answers), _scans(folder, found, answers)))
    return found


def write_whole(folder: Path | str, parts: Sequence[Path]) -> None:
    """Writes report.html of a run of several parts, whose reports are written. parts: their folders, below it."""
    folder = Path(folder)
    found = [(part.relative_to(folder).as_posix(), record.load(part / 'report.json')) for part in parts]
    files.write(folder / 'report.html', page.of_parts(pictures.name(folder), found))


def shown(answers: Predictions, metrics: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(id, class that was decided for) of the exams that a report shows as scans: the surest mistakes, and of each class the first right
    answers; of test, or else val. metrics: of metrics.json, which has the threshold."""
    split = record.shown_split(answers)
    if not split:
        return []
    rows = answers.of(split).labelled()
    threshold = record.threshold_of(metrics, split)
    called = record.decided(rows, threshold)
    picked = record.wrong(rows, threshold)[:WRONG]
    for label in range(len(rows.names)):
        picked += np.flatnonzero((rows.label == label) & (called == label))[:RIGHT].tolist()
    return [(rows.exams[i].id, int(called[i])) for i in picked]


def _plots(folder, found, answers):
    split = found['results']['split']
    rows = curves.training_rows(folder)
    figures = {'training': curves.training_figure(rows)}
    alts = {'training': f'Loss over {rows[-1]["step"] + 1} steps' if rows else ''}
    if split and answers:
        labelled = answers.of(split).labelled()
        threshold = found['evaluation']['threshold'].get('value')
        heat = found['evaluation']['calibration'].get('value')
        of = f'of {labelled.names[POSITIVE]} on {split}, n = {len(labelled.exams)}'
        of_all = f'of {labelled.names[POSITIVE]}, on each split with labels'
        auc = found['results']['internal'].get('auc', {}).get('value')
        figures |= curves.banded_figures(answers, threshold, found['results']['level']) | curves.calibration_figures(labelled, heat)
        figures['confusion'] = plots.confusion_figure(np.array(found['results']['confusion']['counts']), labelled.names)
        alts |= {'roc': f'ROC {of_all}{"" if auc is None else f", AUC on {split} {auc:.3f}"}', 'pr': f'Precision-recall curve {of_all}',
                 'reliability': f'Reliability diagram {of}', 'decision': f'Decision curve {of}',
                 'confusion': f'Confusion matrix on {split}, the table above as a picture'}
    return {name: Picture(curves.png(figure), alts[name], PLOT) for name, figure in figures.items() if figure is not None}


def _scans(folder, found, answers):
    split = found['results']['split']
    if not answers or not split:
        return []
    rows = answers.of(split).labelled()
    called = record.decided(rows, found['evaluation']['threshold'].get('value'))
    at = {exam.id: i for i, exam in enumerate(rows.exams)}
    scans = []
    for look in looks.read(folder):
        if look.id not in at:
            continue
        i = at[look.id]
        truth = rows.names[rows.label[i]]
        decided = rows.names[called[i]]
        how = 'right' if truth == decided else 'wrong'
        asked = record.asked_about(rows, called, i)
        probability = f'probability of {asked} {rows.probability[i, rows.names.index(asked)]:.3f}'
        caption = f'{truth}, decided {decided}, {probability}. Left the scan, right the map over it.'
        labels = [f'slice {z + 1} of {look.depth}' for z in look.slices]
        slices = [Picture(_side_by_side(look, k), f'{labels[k]} of {look.id}, and the same with Grad-CAM') for k in range(len(labels))]
        scans.append((f'{how.capitalize()}: {look.id}', markup.scan(look.id, slices, labels, look.hottest, caption)))
    return scans


def _side_by_side(look: Look, k: int) -> bytes:
    """Slice k as a JPEG file: the scan, and the scan with the heat over it."""
    from matplotlib import colormaps

    grey = np.repeat(look.image[k, :, :, None].astype(float), 3, 2)
    heat = look.heat[k, :, :, None] / 255
    opaque = gradcam.OPAQUE * heat
    coloured = (1 - opaque) * grey + opaque * 255 * colormaps['inferno'](heat[..., 0])[..., :3]
    both = Image.fromarray(np.rint(np.concatenate([grey, coloured], 1)).astype(np.uint8))
    if (ratio := TALL / min(look.image.shape[1:])) > 1:
        both = both.resize((round(both.width * ratio), round(both.height * ratio)), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    both.save(content, 'JPEG', quality=QUALITY)
    return content.getvalue()
