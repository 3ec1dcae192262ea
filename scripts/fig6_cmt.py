"""Fig 6 of CMT-CNN: the contrastive loss of one COVID query with every other exam of a split, by class.

    python -m covid_jax.main --config=configs/cmt.py:xray_r50_cst_tern,size=small --config.eval.features=True --workdir=runs/cst
    python scripts/fig6_cmt.py runs/cst/contrastive --out=fig6.png

A value is Eq 1 with the query as one view and the other exam as the other: -log of the softmax, over all other exams, of their
cosine by the temperature. So all values grow with the logarithm of the number of exams, and only their differences say
anything. One query proves nothing: below its table stands how often, over all COVID queries, an exam with COVID is nearer than
one without.
"""

import argparse
import csv
import sys
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from covid_jax import UserError, start
from covid_jax.sources.exams import POSITIVE, class_index, class_names


def read(folder: Path, split: str) -> tuple[ConfigDict, list[str], np.ndarray, np.ndarray]:
    """The run's config; ids, labels int [n] and features of unit length [n, dim] of the labelled exams of a split."""
    if not (folder / 'features.npz').exists():
        raise UserError(f'{folder} holds no features.npz: run its command with --config.eval.features=True')
    run, _ = start.load(folder)
    with open(folder / 'exams.csv', newline='') as file:
        label_of = {row['id']: class_index(row['label'], run.config.data.classes) for row in csv.DictReader(file) if not row['run']}
    with np.load(folder / 'features.npz') as kept:
        rows = [i for i, (name, of) in enumerate(zip(kept['id'], kept['split'], strict=True))
                if of == split and label_of[str(name)] >= 0]
        ids = [str(kept['id'][i]) for i in rows]
        features = kept['features'][rows].astype(float)
    label = np.array([label_of[name] for name in ids])
    return run.config, ids, label, features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)


def losses(features: np.ndarray, query: int, temperature: float) -> np.ndarray:
    """Eq 1 of the query with every row; nan for itself."""
    similarity = features @ features[query] / temperature
    others = np.delete(similarity, query)
    loss = logsumexp(others) - similarity
    loss[query] = np.nan
    return loss


def main(folder: Path, split: str, query: str, out: str) -> None:
    config, ids, label, features = read(folder, split)
    names = class_names(config.data.classes)
    if config.method != 'cmt':
        raise UserError(f'{folder} was trained by {config.method}, without this loss: give a run of cmt')
    positive = np.flatnonzero(label == POSITIVE)
    if min(len(positive), *np.bincount(label, minlength=len(names))) < 2:
        raise UserError(f'{split} of {folder} has fewer than two labelled exams of a class: name another --split')
    if query and query not in ids:
        raise UserError(f'{query} is no labelled exam of {split}')
    index = ids.index(query) if query else positive[0]
    eq_1 = partial(losses, features, temperature=config.cmt.temperature)
    loss = eq_1(index)
    groups = [loss[(label == k) & ~np.isnan(loss)] for k in range(len(names))]
    print(f'{ids[index]} and {len(ids) - 1} other exams of {split}')
    for name, values in zip(names, groups, strict=True):
        print(f'{name:>12}: {len(values)} exams, mean {values.mean():.2f}, middle half {np.quantile(values, 0.25):.2f} to '
              f'{np.quantile(values, 0.75):.2f}')
    nearer = [roc_auc_score(np.delete(label, i) == POSITIVE, -np.delete(eq_1(i), i)) for i in positive]
    print(f'over {len(positive)} queries with {names[POSITIVE]}, one with it is nearer than one without in {np.mean(nearer):.2f} '
          'of all pairs')
    if out:
        figure = Figure(figsize=(5, 4), layout='constrained')
        axes = figure.subplots()
        axes.boxplot(groups, tick_labels=names)
        axes.set_ylabel('contrastive loss with the query (Eq 1)')
        axes.set_title(ids[index], fontsize=8)
        figure.savefig(out, dpi=120)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--split', default='test')
    parser.add_argument('--query', default='', help='the id of an exam; the first with COVID by default')
    parser.add_argument('--out', default='')
    args = parser.parse_args()
    try:
        main(args.folder, args.split, args.query, args.out)
    except UserError as error:
        sys.exit(str(error))
