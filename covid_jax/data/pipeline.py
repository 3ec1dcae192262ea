"""From exams to batches: a data set with its splits, and the same rows in the same order on any number of hosts.

A batch is a dict of arrays: image uint8 [batch, depth, height, width, 1], label int32 [batch] (-1: unlabelled),
site int32 [batch], draw uint32 [batch] (the running number of the draw, of which every random number of the row is
made).
"""

import hashlib
import json
from collections import Counter
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np

from covid_jax import UserError, sources
from covid_jax.data import splits, store
from covid_jax.data.prep import Prep
from covid_jax.sources.exams import SPLITS, Exam, check_classes, class_index, class_names
from covid_jax.sources.listing import find_listed


class Survey(NamedTuple):
    """What is known of a config's data before a scan is prepared. exams: splits filled, '' for those of train that are not
    learnt from; hashes: of their contents, beside them; digest: tells this data set (scans, labels, splits, preparation)
    from another; classes: as declared; labelled: whether labels are learnt from."""

    exams: list[Exam]
    hashes: list[str]
    prep: Prep
    digest: str
    classes: tuple[str, ...]
    labelled: bool


class Dataset(NamedTuple):
    """exams: those that could be prepared, splits filled; label, site: int32 [n] beside them; row: of each in `images`;
    broken: exam id -> reason; digest: as in Survey; hashes: beside the exams; sites: the names of the sites, those that are
    learnt from first, each part in the order of the alphabet."""

    exams: list[Exam]
    label: np.ndarray
    site: np.ndarray
    row: np.ndarray
    images: object
    broken: dict[str, str]
    digest: str
    hashes: list[str]
    sites: tuple[str, ...]

    def of_split(self, split):
        """Positions of the split's exams, in order."""
        return np.array([i for i, e in enumerate(self.exams) if e.split == split], int)


def check(config):
    """UserError for what is wrong with the config's data and prep and can be known before anything is listed."""
    check_classes(tuple(config.data.classes))
    prep_of(config)
    splits.check(config.data)
    sources.check(config.data)


def survey(config, root, labelled=True, say=print):
    """Lists the exams of the config's data, splits them and chooses what is learnt from. Nothing is prepared.

    root: where the store is, which keeps the hashes of files. labelled: whether the method learns from labels. say: is
    called with each line that a user should know about the data. UserError for bad input.
    """
    check(config)
    data = config.data
    parts = sources.parts_of(data, say)
    for exam in chain.from_iterable(parts):
        try:
            class_index(exam.label, data.classes)
        except UserError as e:
            raise UserError(f'{exam.id}: {e}') from None
    exams = splits.place(parts, data, config.folds, config.get('fold', 0), say)
    exams = splits.choose(exams, data, labelled, _included(exams, data.include, say) if data.include else None)
    hashes = store.content_hashes(exams, root)
    splits.check_duplicates(exams, hashes)
    prep = prep_of(config)
    return Survey(exams, hashes, prep, _digest(exams, hashes, prep), tuple(data.classes), labelled)


def prepare(survey, root, workers=0, say=print):
    """The data set of the survey, its scans prepared by so many processes (0: one a core) and stored below `root`; those
    that cannot be are set aside, and how many of each class are in each split is said. UserError where none is left."""
    exams, prep = survey.exams, survey.prep
    if prep.spacing:
        extent = [round(n * mm) for n, mm in zip(prep.size, prep.spacing, strict=True)]
        say(f'of each scan the middle {" x ".join(map(str, extent))} mm (z, y, x) are kept' + (
            ': a chest is about 300 x 250 x 350 mm' if min(extent) < 200 else ''))
    made = store.build(exams, survey.hashes, prep, Path(root), workers)
    kept = [e for e in exams if e.id in made.row]
    splits.check_duplicates(kept, [made.digest[e.id] for e in kept])
    _tell(survey, made.broken, say)
    if not any(e.split == 'train' for e in kept):
        raise UserError(f'nothing is left to learn from: {next(iter(made.broken.values()), "no exam is in train")}')
    trained = {e.site for e in kept if e.split == 'train'}
    sites = (*sorted(trained), *sorted({e.site for e in kept} - trained))
    return Dataset(
        exams=kept,
        label=np.array([class_index(e.label, survey.classes) for e in kept], np.int32),
        site=np.array([sites.index(e.site) for e in kept], np.int32),
        row=np.array([made.row[e.id] for e in kept]),
        images=made.images,
        broken=made.broken,
        digest=survey.digest,
        hashes=[h for e, h in zip(exams, survey.hashes, strict=True) if e.id in made.row],
        sites=sites)


def prep_of(config):
    """The preparation that the config asks for. UserError for one that cannot be."""
    return Prep(**{name: value if isinstance(value, str) else tuple(value) for name, value in config.prep.items()})


def _included(exams, path, say):
    """The ids that the file names, and what they come to."""
    named, absent = find_listed(exams, path)
    train = [e.id for e in exams if e.split == 'train']
    chosen = len(named.intersection(train))
    apart = f', {len(named) - chosen} are in val or test and stay there' if len(named) > chosen else ''
    say(f'{path}: of {len(train)} exams in train {chosen} are named; {absent}{apart}')
    return named


def _tell(survey, broken, say):
    """How many scans of each class are in each split, how many of them could not be prepared, and what that means."""
    names = class_names(survey.classes)

    def counted(some):
        count = Counter('without a label' if not e.label else names[class_index(e.label, survey.classes)] for e in some)
        return ', '.join(f'{count[name]} {name}' for name in (*names, 'without a label') if count[name])

    good = [e for e in survey.exams if e.id not in broken]
    sites = sorted({e.site for e in good})
    for split in (*SPLITS, ''):
        of_site = {site: [e for e in good if e.site == site and e.split == split] for site in sites}
        told = {site: counted(some) for site, some in of_site.items() if some}
        if len(told) == 1:
            (site, line), = told.items()
            line = f'of {site} alone: {line}' if len(sites) > 1 else line
        else:
            line = '; '.join(f'{site}: {counts}' for site, counts in told.items())
        if told:
            say(f'{split or "not used"}: {line}')
    missing = [name for i, name in enumerate(names)
               if not any(e.split == 'train' and class_index(e.label, survey.classes) == i for e in good)]
    if missing and survey.labelled and any(e.split == 'train' for e in good):
        say(f'no {" and no ".join(missing)} scan to train on: what is learned cannot tell the classes apart')
    if broken:
        say(f'{len(broken)} could not be prepared, see quarantine.csv: {counted([e for e in survey.exams if e.id in broken])}')


def _digest(exams, hashes, prep):
    rows = sorted((e.id, e.patient, e.site, e.label, e.split, h) for e, h in zip(exams, hashes, strict=True))
    return hashlib.sha256(json.dumps([prep.hash, rows]).encode()).hexdigest()[:16]


def train_batches(dataset, order, batch, start=0, host=0, hosts=1):
    """Endless batches in the order from step `start` on: rows [host * b, (host + 1) * b) of each, b = batch / hosts.

    The global batch is drawn as indices, cut, and only then read, so that hosts, threads and restarts change nothing.
    Use as a context: `with train_batches(...) as batches`.
    """
    b = batch // hosts

    def local(step, positions):
        rows = slice(host * b, (host + 1) * b)
        return _read(dataset, positions[rows], (step * batch + np.arange(batch))[rows])

    return _reading(order.positions.map_with_index(local)[start:])


def eval_batches(dataset, split, batch, host=0, hosts=1):
    """Every exam of the split once, in order; the last batch is filled up with repeats of the last exam."""
    members = dataset.of_split(split)
    b = batch // hosts

    def local(i):
        draw = np.arange(i * batch + host * b, i * batch + (host + 1) * b)
        return _read(dataset, members[np.minimum(draw, len(members) - 1)], draw)

    batches = -(-len(members) // batch)
    return _reading(grain.MapDataset.source(range(batches)).map(local))


def _reading(batches):
    return closing(iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))))


def _read(dataset, members, draw):
    images = [dataset.images[int(i)]['image'] for i in dataset.row[members]]
    return {'image': np.stack(images), 'label': dataset.label[members], 'site': dataset.site[members],
            'draw': draw.astype(np.uint32)}
