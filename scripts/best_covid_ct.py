"""Which recipe is best on COVID-CT without outside weights? Many are tried, and the three best are compared with CRNet by the paper's.

    python scripts/best_covid_ct.py --covid_ct=COVID-CT --sars=SARS-CoV-2-CT --luna=LUNA16-slices --workdir=runs/best --minutes=60
    python scripts/best_covid_ct.py ... --workdir=runs/best --final

The first trains every recipe with two seeds on one drawn split (near duplicates are one patient) and ranks them by their AUC on its
val, the mean of both seeds: test has no part in a choice. A folder with the lists of the official test split is refused, for nothing may be
chosen on it; without them its images are in no list and left out. It stops after so many minutes, and the same command goes on. The
second trains the three best and CRNet at the paper's size with five seeds, and prints what `covid-jax compare` tells of each on test.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from covid_jax import UserError
from covid_jax.sources.published_images import covid_ct


class Recipe(NamedTuple):
    """row: of configs/self_trans.py, small; plane: height and width of what the network sees; flags: further fields."""

    row: str
    network: str
    plane: int
    flags: tuple[str, ...] = ()


AVERAGE = '--config.train.average=0.99'
VIEWS = '--config.eval.tta=8'
DECAY = '--config.train.weight_decay=1e-3'
SARS_UNLABELLED = '--config.luna.data.source=sars_cov_2_ct', '--config.luna.data.root={sars}'
LUNA = '--config.luna.data.source=luna16', '--config.luna.data.root={luna}'
SARS_LABELS = '--config.lnm.data.source=sars_cov_2_ct', '--config.lnm.data.root={sars}', '--config.lnm.data.split=drawn'
RECIPES = {
    'small_64': Recipe('rand_r18', 'ResNet14Small', 64),
    'small_96': Recipe('rand_r18', 'ResNet14Small', 96),
    'small_128': Recipe('rand_r18', 'ResNet14Small', 128),
    'resnet18_96': Recipe('rand_r18', 'ResNet18', 96),
    'effb0_96': Recipe('rand_r18', 'EfficientNetB0', 96),
    'small_96_moco': Recipe('method1_r18', 'ResNet14Small', 96),
    'small_96_moco_luna': Recipe('self_trans_r18', 'ResNet14Small', 96, LUNA),
    'small_96_moco_sars': Recipe('self_trans_r18', 'ResNet14Small', 96, SARS_UNLABELLED),
    'small_96_labels': Recipe('lnm_r18', 'ResNet14Small', 96, SARS_LABELS),
    'small_96_average': Recipe('rand_r18', 'ResNet14Small', 96, (AVERAGE,)),
    'small_96_views': Recipe('rand_r18', 'ResNet14Small', 96, (VIEWS,)),
    'small_96_decay': Recipe('rand_r18', 'ResNet14Small', 96, (DECAY,)),
    'small_128_labels_average_views': Recipe('lnm_r18', 'ResNet14Small', 128, (*SARS_LABELS, AVERAGE, VIEWS)),
    'resnet18_96_labels_average_views': Recipe('lnm_r18', 'ResNet18', 96, (*SARS_LABELS, AVERAGE, VIEWS)),
}
DATA = '--config.data.source=covid_ct', '--config.data.root={covid_ct}', '--config.data.split=drawn', '--config.data.group=clusters'
STAGED = {'rand': '', 'method1': 'finetune', 'self_trans': 'finetune', 'lnm': 'finetune'}  # the stage that answers
TRIED, FINAL = 2, 5  # seeds
BEST = 3
PAPER = 'crnet_paper'


def command(recipe: Recipe, seeds: int, folder: Path, roots: dict[str, str]) -> list[str]:
    """The training of a recipe in a folder."""
    prepared = recipe.plane * 9 // 8  # of which a view is cut, as 256 of 224
    flags = [f'--config.model.name={recipe.network}', f'--config.prep.size=(1,{prepared},{prepared})',
             f'--config.views.plane={recipe.plane}', *recipe.flags]
    return whole(f'configs/self_trans.py:{recipe.row},size=small', flags, seeds, folder, roots)


def whole(row: str, flags: list[str], seeds: int, folder: Path, roots: dict[str, str]) -> list[str]:
    """`python -m covid_jax.main` with the data, the seeds and the shared store."""
    given = [flag.format(**roots) for flag in (*DATA, *flags)]
    return [sys.executable, '-m', 'covid_jax.main', f'--config={row}', *given, f'--config.seeds={seeds}',
            f'--config.data.store={folder.parent / "store"}', f'--workdir={folder}']


def answered(folder: Path, row: str) -> Path:
    """Where the seeds of the stage that answers lie."""
    return folder / STAGED[row.rpartition('_')[0]]


def val_auc(folder: Path, seeds: int) -> float | None:
    """The mean over seeds of the AUC on val; None while one has not finished."""
    found = []
    for seed in range(seeds):
        path = folder / 'fold0' / f'seed{seed}' / 'metrics.json'
        if not path.exists():
            return None
        found.append(json.loads(path.read_text())['val']['all']['auc']['value'])
    return float(np.mean(found))


def ranked(workdir: Path) -> list[tuple[str, float]]:
    """(recipe, AUC on val) of those that have finished, the best first."""
    found = {name: val_auc(answered(workdir / name, recipe.row), TRIED) for name, recipe in RECIPES.items()}
    return sorted(((name, auc) for name, auc in found.items() if auc is not None), key=lambda pair: -pair[1])


def check(root: str) -> None:
    """UserError for a folder of COVID-CT that holds the official test split."""
    if any(exam.split == 'test' for exam in covid_ct(root, lambda line: None)):
        raise UserError(f'{root} names the official test split, on which nothing may be chosen: give a copy without Data-split/*/testCT_*.txt')


def train(line: list[str]) -> None:
    """Runs a command: a training, which goes on where it was, or a comparison. UserError where it fails."""
    print(' '.join(line[1:]), flush=True)
    if code := subprocess.run(line, check=False).returncode:
        raise UserError(f'it ended with {code}')


def tried(workdir: Path, roots: dict[str, str], minutes: float) -> None:
    """Every recipe that has not finished, until the minutes are over."""
    end = time.monotonic() + 60 * minutes
    for name, recipe in RECIPES.items():
        if time.monotonic() > end:
            break
        if val_auc(answered(workdir / name, recipe.row), TRIED) is None:
            train(command(recipe, TRIED, workdir / name, roots))
    for name, auc in ranked(workdir):
        print(f'{name:>34}  val AUC {auc:.3f}')


def compared(workdir: Path, roots: dict[str, str]) -> None:
    """The best with five seeds, each against CRNet by the paper's recipe. UserError while a recipe has not been tried."""
    order = ranked(workdir)
    if len(order) < len(RECIPES):
        raise UserError(f'{len(RECIPES) - len(order)} recipes have not been tried: run it without --final first')
    folder = workdir / 'final'
    best = [name for name, _ in order[:BEST]]
    for name in best:
        train(command(RECIPES[name], FINAL, folder / name, roots))
    train(whole('configs/self_trans.py:rand_crnet', [], FINAL, folder / PAPER, roots))
    for name in best:
        train([sys.executable, '-m', 'covid_jax.cli', 'compare', str(answered(folder / name, RECIPES[name].row)), str(folder / PAPER)])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--covid_ct', required=True)
    parser.add_argument('--sars', required=True)
    parser.add_argument('--luna', required=True)
    parser.add_argument('--workdir', type=Path, required=True)
    parser.add_argument('--minutes', type=float, default=float('inf'), help='after which no further recipe is begun')
    parser.add_argument('--final', action='store_true')
    args = parser.parse_args()
    roots = {'covid_ct': args.covid_ct, 'sars': args.sars, 'luna': args.luna}
    try:
        check(args.covid_ct)
        if args.final:
            compared(args.workdir, roots)
        else:
            tried(args.workdir, roots, args.minutes)
    except UserError as error:
        sys.exit(str(error))
