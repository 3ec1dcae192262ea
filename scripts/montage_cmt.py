"""Scans -> one picture of the transformations of CMT-CNN, to look at before a network learns from them.

    python scripts/montage_cmt.py IMAGE [IMAGE ...] --out montage.png [--size 224] [--seed 0]

draws a row for each scan (any path that covid_jax.scans.decode reads): the prepared image, of a volume its middle slice, then
each operation of the views called cmt, then two draws of their law.
"""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import argparse
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from covid_jax.augment import views
from covid_jax.data.prep import Prep, prepare
from covid_jax.scans.decode import decode


def plane(path, size):
    """float32 [1, size, size, 1]: of a scan its middle slice."""
    scan = decode(path)
    middle = len(scan.voxels) // 2
    scan = scan._replace(voxels=scan.voxels[middle:middle + 1])
    return np.float32(prepare(scan, Prep(window=(), size=(1, size, size)))) / 255


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('images', nargs='+')
    parser.add_argument('--out', required=True)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    law = views.train_view('cmt')
    columns = {'image': lambda key, volume: volume, **views.OPS, 'a view': law, 'another': law}
    columns = {name: jax.jit(op) for name, op in columns.items()}
    figure = Figure(figsize=(2.4 * len(columns), 2.7 * len(args.images)))
    grid = figure.subplots(len(args.images), len(columns), squeeze=False)
    for row, (path, cells) in enumerate(zip(args.images, grid, strict=True)):
        image = plane(path, args.size)
        key = jax.random.fold_in(jax.random.key(args.seed), row)
        for column, (axes, (name, op)) in enumerate(zip(cells, columns.items(), strict=True)):
            axes.imshow(op(jax.random.fold_in(key, column), image)[0, :, :, 0], cmap='gray', vmin=0, vmax=1)
            axes.set_title(Path(path).name[-24:] if column == 0 else name, fontsize=8)
            axes.axis('off')
    figure.tight_layout(pad=0.3)
    figure.savefig(args.out, dpi=90)


if __name__ == '__main__':
    main()
