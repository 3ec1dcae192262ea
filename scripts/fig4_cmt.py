"""Fig 4 of CMT-CNN: what each transformation, and each ordered pair, adds to the accuracy of the baseline.

    python -m covid_jax.main --config=configs/cmt.py:fig4_xray,size=small --workdir=runs/fig4
    python scripts/fig4_cmt.py runs/fig4

prints the matrix in percent points, a row for the transformation that comes first and a column for the second, on the diagonal
a transformation by itself; the last column is the mean of the row. Of several folds and seeds it is the mean over them. Stages
that have not finished in all of these are '-'. A transformation by itself is always applied, to both views: with rotation no view is
upright, as in the paper's set of angles.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from covid_jax import UserError
from covid_jax.augment.views import OPS


def accuracies(folder: Path, split: str) -> dict[str, dict[tuple[int, int], float]]:
    """{stage: {(fold, seed): the accuracy of that part}}."""
    found: dict[str, dict[tuple[int, int], float]] = {}
    for path in sorted(folder.rglob('results.json')):
        result = json.loads(path.read_text())
        if split not in result['metrics']:
            raise UserError(f'{path.parent} answered no exam of {split}: name another --split')
        part = result['fold'], result['seed']
        found.setdefault(result['stage'], {})[part] = result['metrics'][split]['all']['accuracy']['value']
    if 'baseline' not in found:
        raise UserError(f'{folder} holds no stage called baseline: give the folder of a run of fig4_ct or fig4_xray')
    return found


def matrix(found: dict[str, dict[tuple[int, int], float]]) -> np.ndarray:
    """[first, second] of OPS: accuracy above that of the baseline, the mean over its parts; nan where one of these lacks."""
    baseline = found['baseline']
    gain = np.full((len(OPS), len(OPS)), np.nan)
    for i, first in enumerate(OPS):
        for j, second in enumerate(OPS):
            stage = found.get(first if i == j else f'{first}_{second}', {})
            if stage.keys() == baseline.keys():
                gain[i, j] = np.mean([stage[part] - baseline[part] for part in baseline])
    return gain


def main(folder: Path, split: str) -> None:
    found = accuracies(folder, split)
    gain = 100 * matrix(found)
    print(f'accuracy of the baseline {100 * np.mean([*found["baseline"].values()]):.2f} %; above it, in percent points:')
    print(' ' * 12 + ''.join(f'{name:>12}' for name in (*OPS, 'mean')))
    for name, row in zip(OPS, gain, strict=True):
        cells = [*row, row.mean()]
        print(f'{name:>12}' + ''.join(f'{"-" if np.isnan(cell) else f"{cell:+.2f}":>12}' for cell in cells))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--split', default='test')
    args = parser.parse_args()
    try:
        main(args.folder, args.split)
    except UserError as error:
        sys.exit(str(error))
