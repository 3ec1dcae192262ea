"""Does momentum contrast cheat where a key is normalised beside its own query? The pretext with and without shuffled groups.

    python scripts/shuffled_groups.py --source=luna16 --root=LUNA16-slices --workdir=runs/shuffled

Two trainings from the same weights, in the same order, with the same views: one draws the groups of the keys anew in each
step, the other leaves each key in the group of its query. Printed is how often the key of its own scan is the nearest of all keys, and the
loss, means of the last steps. A network that reads the statistics of its group is right more often without shuffling, and has learnt less.
"""

import argparse
import json
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from covid_jax import UserError, experiment
from covid_jax.config import base
from covid_jax.methods import moco

BATCH = 32
LAST = 20  # steps that are averaged


def in_order(key: jax.Array, groups: jax.Array) -> jax.Array:
    """In place of moco.shuffled: each key in the group of its query."""
    return groups


def main(sources: str, roots: str, epochs: float, seeds: int, workdir: Path) -> None:
    c = base()
    c.method = 'moco'
    c.moco = {**moco.DEFAULTS, 'queue': 4 * BATCH}
    c.model.update(name='ResNet14Small', mean=0.4527, std=0.3317)
    c.prep.size = (1, 72, 72)
    c.views.update(name='moco', plane=64)
    c.data.update(source=sources, root=roots, split='drawn', val=0.0, test=0.0, use='all', store=str(workdir / 'store'))
    c.train.update(batch=BATCH, optimizer='sgd', momentum=0.9, lr=0.015, weight_decay=1e-4, schedule='constant', epochs=epochs)
    c.eval.select = 'last'
    c.seeds = seeds
    for name, groups in (('shuffled', moco.shuffled), ('in order', in_order)):
        folder = workdir / name.replace(' ', '_')
        with mock.patch.object(moco, 'shuffled', groups):
            experiment.run(c, folder)
        rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.rglob('metrics.jsonl'))]
        nearest, loss = (np.array([[row[field] for row in of_seed[-LAST:]] for of_seed in rows]).mean(1) for field in ('nearest', 'loss'))
        print(f'{name}, {rows[0][-1]["step"] + 1} steps: the own key is the nearest in {np.mean(nearest):.3f} (s.d. {np.std(nearest):.3f} over {seeds} seeds), loss '
              f'{np.mean(loss):.3f}')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--source', required=True, help='of data, several with commas between them')
    parser.add_argument('--root', required=True)
    parser.add_argument('--epochs', type=float, default=32.0, help='32 of 200 images are 200 steps')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--workdir', type=Path, required=True)
    args = parser.parse_args()
    try:
        main(args.source, args.root, args.epochs, args.seeds, args.workdir)
    except UserError as error:
        sys.exit(str(error))
