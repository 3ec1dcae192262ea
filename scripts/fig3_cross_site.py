"""Fig 3 of contrastive cross-site learning: the ROC curves of several finished runs, a panel for each site.

    python scripts/fig3_cross_site.py runs/single_a runs/single_b runs/joint runs/ours --out=fig3a.png
    python scripts/fig3_cross_site.py runs/joint runs/ours --name=Joint --name=Ours --out=fig3b.png

A run that has no exams of a site has no curve there. Of folds the answers of all are pooled, of seeds the first one is taken:
scores of different networks are ranked together. Runs of other exams than the first are named, since curves of other exams say
little of each other.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from covid_jax import UserError, runs, summary
from covid_jax.predictions import Predictions
from covid_jax.report import pictures, plots
from covid_jax.sources.exams import POSITIVE
from covid_jax.text import printable, some


def pooled(folder: Path, split: str) -> tuple[Predictions, int, int]:
    """What the first seed of a run answered of the labelled exams of a split, in how many folds, and which seed that is."""
    parts = runs.parts(folder, split)
    first = min(part.seed for part in parts)
    of_seed = {(part.fold, part.seed): part.predictions for part in parts if part.seed == first}
    whole = summary.pool(of_seed)
    if whole is None:
        raise UserError(f'the folds of {folder} answer the same exams of {split}, so that they cannot be pooled: give one of them')
    return whole, len(of_seed), first


def main(folders: Sequence[Path], names: Sequence[str], split: str, out: str) -> None:
    names = names or [folder.name for folder in folders]
    if len(names) != len(folders) or len(set(names)) < len(names):
        raise UserError(f'{len(folders)} runs are called {some(names)}: give --name once for each, all different')
    found = {name: pooled(folder, split) for name, folder in zip(names, folders, strict=True)}
    panels: dict[str, dict] = {}
    for site in sorted({site for whole, *_ in found.values() for site in whole.sites}):
        of_site = {name: whole.of(site=site) for name, (whole, *_) in found.items() if site in whole.sites}
        panels[site] = {name: pictures.curve(rows) for name, rows in of_site.items()}
        exams = {name: {exam.id.removeprefix(f'{site}/') for exam in rows.exams} for name, rows in of_site.items()}
        first = next(iter(exams))
        if others := [name for name, ids in exams.items() if ids != exams[first]]:
            print(printable(f'{site}: {some(others)} answered other exams than {first}'))
    folds = sorted({count for _, count, _ in found.values()})
    seeds = sorted({seed for *_, seed in found.values()})
    pool = f', the answers of {some(folds)} fold{"s" * (folds != [1])} pooled' if folds != [1] else ''
    positive = next(iter(found.values()))[0].names[POSITIVE]
    plots.roc_sites_png(out, panels, f'{split}{pool}, seed {some(seeds)}', positive=positive)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folders', nargs='+', type=Path, help='of finished runs')
    parser.add_argument('--name', action='append', default=[], help='of each run in the legend; by default that of its folder')
    parser.add_argument('--split', default='test')
    parser.add_argument('--out', default='fig3.png')
    args = parser.parse_args()
    try:
        main(args.folders, args.name, args.split, args.out)
    except UserError as error:
        sys.exit(str(error))
