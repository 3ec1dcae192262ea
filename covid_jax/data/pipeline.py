"""From exams to batches: a data set with its splits, and the same rows in the same order on any number of hosts.

A batch is a dict of arrays: image uint8 [batch, depth, height, width, 1], label int32 [batch] (-1: unlabelled),
site int32 [batch], draw uint32 [batch] (the running number of the draw, of which every random number of the row is
made), mask bool [batch] (False on the padding of a last evaluation batch).
"""

import hashlib
import json
from collections import Counter
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
    """exams: those that could be prepared, splits filled; label, site: int32 [n] beside them, the sites that are trained on
    numbered from 0, in order of their names, and the others after them; row: of each in `images`; broken: exam id ->
    reason; digest: tells this data set (scans, labels, splits, preparation) from another."""

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


def load(config, root, fold=0, say=print, known=lambda digest, exams: None):
    """Reads, checks, prepares and splits the config's data; the store is made below `root`. UserError for bad input.

    say: is called with each line that a user should know about the data. known: is called with the data set's digest and
    exams before anything is prepared.
    """
    data = config.data
    classes = tuple(data.classes)
    if len(set(class_names(classes))) < max(2, len(classes)):
        raise UserError(f'--config.data.classes={classes} must be two or more classes of different names, covid the second')
    if any('covid' in names.lower().split('|') for i, names in enumerate(classes) if i != 1):
        raise UserError(f'--config.data.classes={classes}: covid must be the second class, the one that is positive')
    exams = _placed(sources.parts_of(data, say), classes, config, fold)
    exams = [e._replace(split='') if e.split == 'train' and not e.label else e for e in exams]  # nothing to learn from
    splits.check_training(exams)
    hashes = store.content_hashes(exams, root)
    splits.check_duplicates(exams, hashes)
    prep = Prep(**{name: value if isinstance(value, str) else tuple(value) for name, value in config.prep.items()})
    digest = _digest(exams, hashes, prep)
    known(digest, exams)
    if prep.spacing:
        extent = [round(n * mm) for n, mm in zip(prep.size, prep.spacing, strict=True)]
        say(f'of each scan the middle {" x ".join(map(str, extent))} mm (z, y, x) are kept' + (
            ': a chest is about 300 x 250 x 350 mm' if min(extent) < 200 else ''))
    prepared = store.build(exams, hashes, prep, Path(root), data.workers)
    splits.check_duplicates([e for e in exams if e.id in prepared.row],
                            [prepared.digest[e.id] for e in exams if e.id in prepared.row])
    _tell(exams, prepared.broken, classes, say)
    kept = [e for e in exams if e.id in prepared.row]
    trained = {e.site for e in kept if e.split == 'train'}
    names = [*sorted(trained), *sorted({e.site for e in kept} - trained)]
    dataset = Dataset(kept, np.array([class_index(e.label, classes) for e in kept], np.int32),
                      np.array([names.index(e.site) for e in kept], np.int32),
                      np.array([prepared.row[e.id] for e in kept]), prepared.images, prepared.broken,
                      digest)
    if not len(dataset.of_split('train')):
        reason = next(iter(prepared.broken.values()), 'no exam is in it')
        raise UserError(f'nothing is left to train on: {reason}')
    return dataset


def _placed(parts, classes, config, fold):
    """All exams with their splits, which are drawn within each source: one may name its own, and another none."""
    data, exams = config.data, []
    held_out = set(data.held_out)
    unknown = held_out - {exam.patient for part in parts for exam in part}
    drawable = [any(exam.label and not exam.split for exam in part) for part in parts]
    for part, some in zip(parts, drawable, strict=True):
        for exam in part:
            try:
                class_index(exam.label, classes)
            except UserError as e:
                raise UserError(f'{exam.id}: {e}') from None
        mine = unknown | held_out & {exam.patient for exam in part}
        folds = (config.folds, fold) if some or not any(drawable) else (1, 0)
        exams += splits.assign(part, classes, val=data.val, test=0 if held_out else data.test, folds=folds[0],
                               fold=folds[1], seed=data.split_seed, held_out=tuple(sorted(mine)))
    return exams


def _tell(exams, broken, classes, say):
    """How many scans of each class are in each split, how many of them could not be prepared, and what that means."""
    names = class_names(classes)

    def counted(some):
        count = Counter('without a label' if not e.label else names[class_index(e.label, classes)] for e in some)
        return ', '.join(f'{count[name]} {name}' for name in (*names, 'without a label') if count[name])

    good = [e for e in exams if e.id not in broken]
    sites = sorted({e.site for e in good})
    for split in ('train', 'val', 'test', ''):
        some = [e for e in good if e.split == split]
        if some:
            told = '; '.join(f'{site}: {counted([e for e in some if e.site == site])}' for site in sites
                             if any(e.site == site for e in some)) if len(sites) > 1 else counted(some)
            say(f'{split or "not used"}: {told}')
    absent = [name for i, name in enumerate(names)
              if not any(e.split == 'train' and class_index(e.label, classes) == i for e in good)]
    if absent and any(e.split == 'train' for e in good):
        say(f'no {" and no ".join(absent)} scan to train on: what is learned cannot tell the classes apart')
    if broken:
        say(f'{len(broken)} could not be prepared, see quarantine.csv: {counted([e for e in exams if e.id in broken])}')


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
