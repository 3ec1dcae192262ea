"""Does Grad-CAM point at the lesions? 50 COVID phantoms that a run never saw, whose lesions are known.

    python scripts/gradcam_phantoms.py RUN --layer=layer2_0 --sheet=sheet.png

prints the share of phantoms in which the maximum of the map lies in a lesion that is dilated by one cell of the map, with its
interval (Clopper and Pearson); beside it what the dilated lesions take of the scans and of their lungs, which is what a
maximum anywhere, or anywhere in the lungs, would reach; and the same share for the same network with random weights. The sheet
shows eight of the phantoms, with their lesions outlined and the maximum marked. Choose a layer on the phantoms of one seed, and
believe it on those of another (--seed).
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from covid_jax import UserError, phantom, start
from covid_jax.methods.method import abstract_batch
from covid_jax.metrics.intervals import clopper_pearson
from covid_jax.phantom import ct
from covid_jax.report.gradcam import MAP, Explanation, draw, explain, hottest
from covid_jax.sources.exams import POSITIVE

SEED = 4711
COUNT = 50
SHOWN = 8
LEVEL = 0.95


def dilated(lesion: np.ndarray, cell: tuple[float, float, float]) -> np.ndarray:
    """Lesion bool [depth, height, width], wider by one cell on every side."""
    return ndimage.maximum_filter(lesion, [2 * round(n) + 1 for n in cell])


def top(explanation: Explanation) -> tuple[int, ...]:
    """The voxel of the maximum."""
    return tuple(int(i) for i in np.unravel_index(explanation.heat.argmax(), explanation.heat.shape))


def untrained(run: start.Run, state, seed: int):
    """The state of the run with weights as they start, drawn by a seed."""
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_batch(run.config, 1))
    params, collections = run.method.init(jax.random.key(seed), batch)
    return state.replace(params=params, state=collections)


def told(name, hits):
    low, high = clopper_pearson(sum(hits), len(hits), LEVEL)
    return f'{name}: {sum(hits)} of {len(hits)} ({np.mean(hits):.2f} [{low:.2f}, {high:.2f}])'


def sheet(path, shown):
    """Three slices of each (Explanation, lesion): the hottest of each third of the scan, and that of the maximum for its third's."""
    figure = Figure(figsize=(15, 2.6 * len(shown) / 2), layout='constrained')
    grid = figure.subplots(-(-len(shown) // 2), 6, squeeze=False)
    for (explanation, lesion), row in zip(shown, grid.reshape(-1, 3), strict=True):
        z_top, y_top, x_top = top(explanation)
        thirds = np.array_split(np.arange(len(explanation.heat)), 3)
        slices = [z_top if z_top in third else z for third, z in zip(thirds, hottest(explanation.heat, 3), strict=True)]
        for axes, z in zip(row, slices, strict=True):
            draw(axes, explanation, z)
            if lesion[z].any():
                axes.contour(lesion[z], [0.5], colors='cyan', linewidths=0.8)
            if z == z_top:
                axes.plot(x_top, y_top, 'x', color='lime')
            axes.set_title(f'slice {z}, covid {explanation.probability[POSITIVE]:.2f}', fontsize=7)
    figure.savefig(path, dpi=80)


def main(folder, layer, path, seed):
    run, state = start.load(folder)
    if f'phantom-{seed}-' in Path(folder, 'exams.csv').read_text():
        raise UserError(f'{folder} has seen the phantoms of seed {seed}')
    random = untrained(run, state, seed)
    hits = []
    by_chance = []
    of_scan = []
    of_lungs = []
    shown = []
    for index in range(COUNT):
        address = phantom.address(seed, index, 'covid')
        lesion = ct.phantom(seed, index, 'covid')[2]
        trained = explain(run, state, address, POSITIVE, layer)
        near = dilated(lesion, trained.cell)
        fresh = explain(run, random, address, POSITIVE, layer)
        hits.append(bool(near[top(trained)] and trained.heat.any()))
        by_chance.append(bool(near[top(fresh)] and fresh.heat.any()))
        of_scan.append(near.mean())
        of_lungs.append(near[ct.lungs(seed, index)].mean())
        if index < SHOWN:
            shown.append((trained, lesion))
    cell = ' x '.join(f'{n:.1f}' for n in trained.cell)
    print(f'{layer} of {run.config.model.name}; a cell of the last scan is {cell} voxels')
    print(told('maximum in a dilated lesion', hits))
    print(told('with random weights', by_chance))
    print(f'the dilated lesions take {np.mean(of_scan):.2f} of the scans, {np.mean(of_lungs):.2f} of their lungs')
    if path:
        sheet(path, shown)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run')
    parser.add_argument('--layer', default=MAP)
    parser.add_argument('--sheet', default='')
    parser.add_argument('--seed', type=int, default=SEED)
    args = parser.parse_args()
    main(args.run, args.layer, args.sheet, args.seed)
