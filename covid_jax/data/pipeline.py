"""From exams to batches: a data set with its splits, and the same rows in the same order on any number of hosts.

A batch is a dict of arrays: image uint8 [batch, depth, height, width, 1], label int32 [batch] (-1: unlabelled),
site int32 [batch], draw uint32 [batch] (the running number of the draw, of which every random number of the row is
made), mask bool [batch] (False on the padding of a last evaluation batch).
"""

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np

from covid_jax import UserError
from covid_jax.data import sources, splits, store
from covid_jax.data.exams import Exam, class_index, class_names
from covid_jax.data.prep import Prep


class Dataset(NamedTuple):
    """exams: those that could be prepared, splits filled; label, site: int32 [n] beside them; row: of each in `images`;
    broken: exam id -> reason; digest: tells this data set (scans, labels, splits, preparation) from another."""

    exams: list[Exam]
    label: np.ndarray
    site: np.ndarray
    row: np.ndarray
    images: object
    broken: dict[str, str]
    digest: str

    def of_split(self, split):
        """Positions of the split's exams, in order."""
        return np.array([i for i, e in enumerate(self.exams) if e.split == split], int)


def load(config, root, fold=0, say=print):
    """Reads, checks, prepares and splits the config's data; the store is made below `root`. UserError for bad input.

    say: is called with each line that a user should know about the data before it is prepared.
    """
    data = config.data
    classes = tuple(data.classes)
    if len(set(class_names(classes))) < max(2, len(classes)):
        raise UserError(f'--config.data.classes={classes} must be two or more classes of different names, covid the second')
    exams = _placed(sources.parts_of(data, say), classes, config, fold)
    exams = [e._replace(split='') if e.split == 'train' and not e.label else e for e in exams]  # nothing to learn from
    splits.check_training(exams)
    hashes = store.content_hashes(exams, root)
    splits.check_duplicates(exams, hashes)
    prep = Prep(**{name: value if isinstance(value, str) else tuple(value) for name, value in config.prep.items()})
    prepared = store.build(exams, hashes, prep, Path(root), data.workers)
    kept = [e for e in exams if e.id in prepared.row]
    names = sorted({e.site for e in kept})
    dataset = Dataset(kept, np.array([class_index(e.label, classes) for e in kept], np.int32),
                      np.array([names.index(e.site) for e in kept], np.int32),
                      np.array([prepared.row[e.id] for e in kept]), prepared.images, prepared.broken,
                      _digest(exams, hashes, prep))
    if not len(dataset.of_split('train')):
        reason = next(iter(prepared.broken.values()), 'no exam is in it')
        raise UserError(f'nothing is left to train on: {reason}')
    return dataset


def _placed(parts, classes, config, fold):
    """All exams with their splits, which are drawn within each source: one may name its own, and another none."""
    data, exams = config.data, []
    held_out = set(data.held_out)
    unknown = held_out - {exam.patient for part in parts for exam in part}
    for part in parts:
        for exam in part:
            try:
                class_index(exam.label, classes)
            except UserError as e:
                raise UserError(f'{exam.id}: {e}') from None
        mine = unknown | held_out & {exam.patient for exam in part}
        exams += splits.assign(part, classes, val=data.val, test=0 if held_out else data.test, folds=config.folds, fold=fold,
                               seed=data.split_seed, held_out=tuple(sorted(mine)))
    return exams


def _digest(exams, hashes, prep):
    rows = sorted((e.id, e.patient, e.site, e.label, e.split, h) for e, h in zip(exams, hashes, strict=True))
    return hashlib.sha256(json.dumps([prep.hash, rows]).encode()).hexdigest()[:16]


def train_batches(dataset, batch, seed, start=0, host=0, hosts=1):
    """Endless shuffled batches from step `start` on: rows [host * b, (host + 1) * b) of each, b = batch / hosts.

    The global batch is drawn as indices, cut, and only then read, so that hosts, threads and restarts change nothing.
    Use as a context: `with train_batches(...) as batches`.
    """
    members = dataset.of_split('train')
    b = batch // hosts
    order = grain.MapDataset.source(members).seed(seed).shuffle().repeat().batch(batch, drop_remainder=True)

    def local(step, indices):
        rows = slice(host * b, (host + 1) * b)
        return _read(dataset, indices[rows], (step * batch + np.arange(batch))[rows])

    return _reading(order.map_with_index(local)[start:])


def eval_batches(dataset, split, batch, host=0, hosts=1):
    """Every exam of the split once, in order; the last batch is padded with repeats whose mask is False."""
    members = dataset.of_split(split)
    b = batch // hosts

    def local(i):
        draw = np.arange(i * batch + host * b, i * batch + (host + 1) * b)
        return _read(dataset, members[np.minimum(draw, len(members) - 1)], draw, draw < len(members))

    batches = -(-len(members) // batch)
    return _reading(grain.MapDataset.source(range(batches)).map(local))


def _reading(batches):
    return closing(iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))))


def _read(dataset, members, draw, mask=None):
    images = [dataset.images[int(i)]['image'] for i in dataset.row[members]]
    return {'image': np.stack(images), 'label': dataset.label[members], 'site': dataset.site[members],
            'draw': draw.astype(np.uint32), 'mask': np.ones(len(draw), bool) if mask is None else mask}
