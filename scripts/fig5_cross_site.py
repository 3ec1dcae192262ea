"""Fig 5 of contrastive cross-site learning: the most confident mistakes of a finished run at each site, with Grad-CAM.

    python scripts/fig5_cross_site.py runs/ours/fold0/seed0 --out=fig5.png

Any run that classifies has such a sheet. For each site the exams of a split that are decided wrongly, the surest first: the scan, of a
volume its slice of most heat, and below it Grad-CAM for the class that was predicted. A hot spot says what spoke for that class,
not why the answer is wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from covid_jax import UserError, predictions, sources, start
from covid_jax.metrics.classification import decide
from covid_jax.report.gradcam import draw, explain, hottest
from covid_jax.sources.exams import POSITIVE, Exam
from covid_jax.text import printable


class Mistake(NamedTuple):
    """exam: with its true label; predicted: the class; probability: of it, as the run left it."""

    exam: Exam
    predicted: int
    probability: float


def mistakes(answers: predictions.Predictions, most: int) -> dict[str, list[Mistake]]:
    """{site: its wrong answers, the most probable first, so many at most} of the sites that have any. answers: labelled rows."""
    predicted = decide(answers.probability, positive=POSITIVE)
    found: dict[str, list[Mistake]] = {site: [] for site in answers.sites}
    for exam, truth, k, p in zip(answers.exams, answers.label, predicted, answers.probability, strict=True):
        if k != truth:
            found[exam.site].append(Mistake(exam, int(k), float(p[k])))
    surest = {site: sorted(of_site, key=lambda mistake: -mistake.probability)[:most] for site, of_site in found.items()}
    return {site: of_site for site, of_site in surest.items() if of_site}


def sheet(finished: tuple, found: dict[str, list[Mistake]], address_of: dict[str, str], names: Sequence[str]) -> Figure:
    """Two rows for each site: scans, and Grad-CAM over them."""
    columns = max(map(len, found.values()))
    figure = Figure(figsize=(2.6 * columns, 5.8 * len(found)), layout='constrained')
    grid = figure.subplots(2 * len(found), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for i, (site, of_site) in enumerate(found.items()):
        for j, (exam, predicted, probability) in enumerate(of_site):
            seen = explain(*finished, address_of[exam.id], predicted, site=site)
            (z,) = hottest(seen.heat, 1)
            scan, over = grid[2 * i:2 * i + 2, j]
            draw(scan, seen._replace(heat=0 * seen.heat), z)
            draw(over, seen, z)
            scan.set_title(printable(f'{site}: truly {exam.label}'), fontsize=8, parse_math=False)
            over.set_title(printable(f'predicted {names[predicted]} {probability:.2f}'), fontsize=8, parse_math=False)
    return figure


def main(folder: Path, split: str, most: int, out: str) -> None:
    if most < 1:
        raise UserError(f'--most={most} must be at least 1')
    finished = start.load(folder)
    config = finished[0].config
    answers = predictions.of_run(folder, finished[0].classes).of(split).labelled()
    if not answers.exams:
        raise UserError(f'{folder} answered no labelled exam of {split}: choose another --split')
    found = mistakes(answers, most)
    if not found:
        raise UserError(f'{folder} has no exam of {split} wrong: there is nothing to show')
    address_of = {exam.id: exam.path for part in sources.parts_of(config.data) for exam in part}
    for site, of_site in found.items():
        for exam, predicted, probability in of_site:
            if exam.id not in address_of:
                raise UserError(f'{exam.id} of {folder} is not in its data any more: put it back at {config.data.root}')
            print(printable(f'{site}: {exam.id} is {exam.label}, predicted {answers.names[predicted]} {probability:.3f}'))
    sheet(finished, found, address_of, answers.names).savefig(out, dpi=120)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='of a finished run, of folds and seeds one of its parts')
    parser.add_argument('--split', default='test')
    parser.add_argument('--most', type=int, default=4, help='mistakes of a site')
    parser.add_argument('--out', default='fig5.png')
    args = parser.parse_args()
    try:
        main(args.folder, args.split, args.most, args.out)
    except UserError as error:
        sys.exit(str(error))
