"""Fig 4 of CMT-CNN: what each transformation, and each ordered pair, adds to the accuracy of the baseline.

    python -m covid_jax.main --config=configs/cmt.py:fig4_xray,size=small --workdir=runs/fig4
    python scripts/fig4_cmt.py runs/fig4

prints the matrix in percent points, a row for the transformation that comes first and a column for the second, on the diagonal
a transformation by itself; the last column is the mean of the row. Of several folds and seeds it is the mean over them. Stages
that have not finished are '-'.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from covid_jax import UserError
from covid_jax.augment.views import OPS


def accuracies(folder: Path, split: str) -> dict[str, list[float]]:
    """{stage: the accuracy of each of its parts}."""
    found: dict[str, list[float]] = {}
    for path in sorted(folder.rglob('results.json')):
        result = json.loads(path.read_text())
        found.setdefault(result['stage'], []).append(result['metrics'][split]['all']['accuracy']['value'])
    if 'baseline' not in found:
        raise UserError(f'{folder} holds no stage called baseline: give the folder of a run of fig4_ct or fig4_xray')
    return found


def matrix(found: dict[str, list[float]]) -> np.ndarray:
    """[first, second] of OPS: accuracy above the baseline's, nan where there is none."""
    baseline = np.mean(found['baseline'])
    names = [[first if first == second else f'{first}_{second}' for second in OPS] for first in OPS]
    return np.array([[np.mean(found[name]) - baseline if name in found else np.nan for name in row] for row in names])


def main(folder: Path, split: str) -> None:
    found = accuracies(folder, split)
    gain = 100 * matrix(found)
    columns = [*OPS, 'mean']
    print(f'accuracy of the baseline {100 * np.mean(found["baseline"]):.2f} %; above it, in percent points:')
    print(' ' * 12 + ''.join(f'{name:>12}' for name in columns))
    for name, row in zip(OPS, gain, strict=True):
        cells = [*row, np.nanmean(row) if not np.isnan(row).all() else np.nan]
        print(f'{name:>12}' + ''.join(f'{"-" if np.isnan(cell) else f"{cell:+.2f}":>12}' for cell in cells))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--split', default='test')
    args = parser.parse_args()
    main(args.folder, args.split)
