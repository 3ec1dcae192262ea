"""Fig 5 of Self-Trans: where networks of several finished runs look in the same scans, by Grad-CAM for COVID.

    python scripts/fig5_self_trans.py runs/rand runs/self_trans/finetune --out=fig5.png

Any runs that classify and have tested the same exams stand in such a sheet. A row is an exam with COVID that all of them have tested, of
a volume the slice of most heat of the first run; its columns are the scan, then of each run the map alone and the map over the scan.
A map that lies on a lesion is no proof, and one that lies on an edge is a warning: scripts/gradcam_phantoms.py measures it.
"""

import argparse
import sys
from pathlib import Path

from matplotlib.figure import Figure

from covid_jax import UserError, predictions, sources, start
from covid_jax.report.gradcam import draw, explain, hottest
from covid_jax.sources.exams import POSITIVE
from covid_jax.text import printable


def tested_by_all(folders: list[Path], runs: list[start.Run], split: str) -> list[str]:
    """Ids of the exams with COVID that all runs have answered in a split, in the order of the first."""
    ids = []
    for folder, run in zip(folders, runs, strict=True):
        answers = predictions.of_run(folder, run.classes).of(split)
        ids.append([exam.id for exam, label in zip(answers.exams, answers.label, strict=True) if label == POSITIVE])
    return [name for name in ids[0] if all(name in of_run for of_run in ids[1:])]


def main(folders: list[Path], split: str, most: int, out: str) -> None:
    if most < 1:
        raise UserError(f'--most={most} must be at least 1')
    finished = [start.load(folder) for folder in folders]
    shown = tested_by_all(folders, [run for run, _ in finished], split)[:most]
    if not shown:
        raise UserError(f'no exam with COVID is in {split} of all of them: name runs of the same data and folds, or another --split')
    data = finished[0][0].config.data
    exam_of = {exam.id: exam for part in sources.parts_of(data) for exam in part}
    if gone := [name for name in shown if name not in exam_of]:
        raise UserError(f'{gone[0]} of {folders[0]} is not in its data any more: put it back at {data.root}')
    columns = 1 + 2 * len(folders)
    figure = Figure(figsize=(2.4 * columns, 2.6 * len(shown)), layout='constrained')
    for name, row in zip(shown, figure.subplots(len(shown), columns, squeeze=False), strict=True):
        exam = exam_of[name]
        maps = [explain(*of, exam.path, POSITIVE, site=exam.site) for of in finished]
        (z,) = hottest(maps[0].heat, 1)
        draw(row[0], maps[0]._replace(heat=0 * maps[0].heat), z)
        row[0].set_title(printable(name), fontsize=7, parse_math=False)
        for i, (folder, seen) in enumerate(zip(folders, maps, strict=True)):
            alone, over = row[1 + 2 * i:3 + 2 * i]
            draw(over, seen, z)
            alone.imshow(seen.heat[z], cmap='inferno', vmin=0, vmax=1, aspect=over.get_aspect())
            alone.axis('off')
            alone.set_title(printable(str(folder)), fontsize=7, parse_math=False)
            over.set_title(f'{seen.names[POSITIVE]} {seen.probability[POSITIVE]:.2f}', fontsize=7)
    figure.savefig(out, dpi=120)
    print(f'{out}: {len(shown)} exams, {len(folders)} runs')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folders', type=Path, nargs='+', help='of finished runs, of folds and seeds one of their parts')
    parser.add_argument('--split', default='test')
    parser.add_argument('--most', type=int, default=4, help='exams')
    parser.add_argument('--out', default='fig5.png')
    args = parser.parse_args()
    try:
        main(args.folders, args.split, args.most, args.out)
    except UserError as error:
        sys.exit(str(error))
