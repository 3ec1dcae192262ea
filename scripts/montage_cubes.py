"""A scan -> one picture of the moves of Rubik's cube Pro, to look at before a network learns from them.

    python scripts/montage_cubes.py SCAN --out montage.png [--size 24,48,48] [--gap 1,3,3] [--seed 0]

A row for each stage: the eight cubes as they are cut, in another order, turned, masked; of each its middle slice. Titles say where a
cube was (z, y, x), and how it is turned.
"""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import argparse

import jax
import numpy as np
from matplotlib.figure import Figure

from covid_jax.augment import cubes
from covid_jax.data.prep import Prep, prepare
from covid_jax.scans.decode import decode

TURNS = {(False, False): '', (True, False): 'about z', (False, True): 'about y', (True, True): 'about x'}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('scan', help='any path that is decoded, or a phantom, as phantom:7:3:covid')
    parser.add_argument('--out', required=True)
    parser.add_argument('--size', default='24,48,48')
    parser.add_argument('--gap', default='1,3,3')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    size, gap = (tuple(map(int, text.split(','))) for text in (args.size, args.gap))
    volume = np.float32(prepare(decode(args.scan), Prep((-1350.0, 150.0), size))) / 255
    k_cut, k_permutation, k_turn, k_mask = jax.random.split(jax.random.key(args.seed), 4)
    number = int(jax.random.randint(k_permutation, (), 0, cubes.PERMUTATIONS))
    turned = jax.random.bernoulli(k_turn, shape=(cubes.CUBES, 2))
    cut = cubes.cut(k_cut, volume, gap)
    moved = cubes.permute(number, cut)
    flipped = cubes.turn(turned, moved)
    places = [f'{i // 4}{i // 2 % 2}{i % 2}' for i in range(cubes.CUBES)]
    order = [places[i] for i in cubes.permutations()[number]]
    turns = [f'{place} {TURNS[tuple(map(bool, of))]}' for place, of in zip(order, np.asarray(turned), strict=True)]
    rows = {'cut': (cut, places), f'order {number}': (moved, order), 'turned': (flipped, turns), 'masked': (cubes.mask(k_mask, flipped), turns)}
    figure = Figure(figsize=(1.9 * cubes.CUBES, 2.2 * len(rows)), layout='constrained')
    for cells, (name, (shown, titles)) in zip(figure.subplots(len(rows), cubes.CUBES), rows.items(), strict=True):
        for axes, cube, title in zip(cells, np.asarray(shown), titles, strict=True):
            axes.imshow(cube[len(cube) // 2, :, :, 0], cmap='gray', vmin=0, vmax=1)
            axes.set_title(f'{name}: {title}', fontsize=7)
            axes.axis('off')
    figure.savefig(args.out, dpi=90)


if __name__ == '__main__':
    main()
