"""Scans -> one picture of slices with the outline of the lung mask, to look at before a mask is trusted.

    python scripts/montage_lungs.py OUT.png SCAN...

draws, for each scan (any path that covid_jax.scans.decode reads), 12 axial and 2 coronal slices, the coronal ones with
slice 0 at the bottom.
"""

import sys

import numpy as np
from matplotlib.figure import Figure

from covid_jax.scans.decode import decode
from covid_jax.scans.lungs import lung_mask


def draw(axes, plane, mask, title, aspect=1):
    low, high = (-1200, 300) if plane.min() < -200 else (0, 255)
    axes.imshow(plane, cmap='gray', vmin=low, vmax=high, aspect=aspect)
    if mask.any() and not mask.all():
        axes.contour(mask, [0.5], colors='red', linewidths=0.9)
    axes.set_title(title, fontsize=7)


def main(out, *paths):
    figure = Figure(figsize=(21, 6 * len(paths)))
    grid = figure.subplots(2 * len(paths), 7, squeeze=False)
    for path, grids in zip(paths, grid.reshape(len(paths), 14), strict=True):
        scan = decode(path)
        mask = lung_mask(scan)
        y = np.nonzero(mask)[1]
        places = np.linspace(0, len(mask) - 1, 14).astype(int)[1:-1]
        for axes, z in zip(grids, places, strict=False):
            draw(axes, scan.voxels[z], mask[z], f'{path[-30:]} z={z}')
        aspect = scan.spacing[0] / scan.spacing[2] if scan.spacing else mask.shape[2] / len(mask)
        for axes, row in zip(grids[12:], np.quantile(y, (0.4, 0.7)).astype(int), strict=True):
            draw(axes, scan.voxels[::-1, row], mask[::-1, row], f'{path[-30:]} y={row}', aspect)
    for axes in grid.flat:
        axes.axis('off')
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=60)


if __name__ == '__main__':
    main(*sys.argv[1:])
