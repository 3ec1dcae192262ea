"""From exams to batches: a data set with its splits, and the same rows in the same order on any number of hosts.

A batch is a dict of arrays: image uint8 [batch, depth, height, width, 1], label int32 [batch] (-1: unlabelled),
site int32 [batch], draw uint32 [batch] (the running number of the draw, of which every random number of the row is
made); with Prep.keep_aspect extent int32 [batch, 2], the height and width of the scan at the top left of its image.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import grain
import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, sources
from covid_jax.data import copies, duplicates, looked, negatives, remarks, splits, store
from covid_jax.data.order import Order
from covid_jax.data.parts import Seen
from covid_jax.data.prep import Prep, together
from covid_jax.scans.lungs import is_odd
from covid_jax.sources.exams import Exam, check_classes, class_index
from covid_jax.sources.files import Facts
from covid_jax.sources.listing import find_listed
from covid_jax.sources.names import whole
from covid_jax.sources.unread import Unread
from covid_jax.text import some

SHORT_EXTENT = 200  # mm: an extent below it cuts into most chests
THREADS = 2  # that read batches: enough to keep ahead of a step, few enough to leave the cores to it
AHEAD = 4  # batches that wait

Batches = AbstractContextManager[Iterator[dict[str, np.ndarray]]]


class Survey(NamedTuple):
    """What is known of a config's data before a scan is prepared. exams: splits filled, '' for those of train that are
    not learnt from; hashes: of their contents, beside them; digest: tells this data set (scans, labels, splits,
    preparation) from another; classes: as declared; labelled: whether labels are learnt from; facts: of their files,
    beside them; unread: what lies in class folders and is no exam -> reason."""

    exams: list[Exam]
    hashes: list[str]
    prep: Prep
    digest: str
    classes: tuple[str, ...]
    labelled: bool
    facts: Sequence[Facts] = ()
    unread: Mapping[str, str] = MappingProxyType({})


class Dataset(NamedTuple):
    """exams: those that could be prepared, splits filled; label, site: int32 [n] beside them; row: of each in
    `images`; broken: exam id -> reason; unread: as in Survey; digest: as in Survey; hashes: beside the exams; sites:
    the names of the sites, those that are learnt from first, each part in the order of the alphabet; facts: of the
    exams' files, beside them; canvas: Prep.canvas; seen: exam id -> what its scan was before it was prepared, empty of
    an old store."""

    exams: list[Exam]
    label: np.ndarray
    site: np.ndarray
    row: np.ndarray
    images: Any
    broken: dict[str, str]
    digest: str
    hashes: list[str]
    sites: tuple[str, ...]
    facts: Sequence[Facts] = ()
    canvas: int = 0
    unread: Mapping[str, str] = MappingProxyType({})
    seen: Mapping[str, Seen] = MappingProxyType({})

    @property
    def quarantine(self) -> dict[str, str]:
        """What is not answered, and why: exams that could not be prepared, and what is no exam."""
        return {**self.broken, **self.unread}

    def of_split(self, split: str) -> np.ndarray:
        """Positions of the split's exams, in order."""
        return np.array([i for i, e in enumerate(self.exams) if e.split == split], int)


def check(config: ConfigDict) -> None:
    """UserError for what is wrong with the config's data and prep and can be known before anything is listed."""
    check_classes(tuple(config.data.classes))
    prep_of(config)
    splits.check(config.data)
    negatives.check(config.data)
    sources.check(config.data)


def survey(config: ConfigDict, root: Path | str, labelled: bool = True, say: Callable[[str], None] = print) -> Survey:
    """Lists the exams of the config's data, splits them and chooses what is learnt from. Nothing is prepared but, where
    clusters of near duplicates are asked for, thumbnails.

    root: where the store is, which keeps the hashes of files and thumbnails. labelled: whether the method learns from
    labels. say: is called with each line that a user should know about the data. UserError for bad input.
    """
    check(config)
    data = config.data
    parts, left = gathered(data, root, config.folds, say)
    exams = splits.assign_sources(parts, data, config.folds, config.get('fold', 0), say)
    splits.check_folds(exams, data.classes, config.folds, labelled, say)
    exams = _of_sites(exams, data.sites)  # after the splits, which are then the same whatever sites are taken
    included = _included(exams, data.include, say) if data.include else None
    exams = splits.choose(exams, data, labelled, included)
    prep = prep_of(config)
    known = looked.look_at(exams, root)
    copies.check(exams, known.hashes, data.classes)
    _say_remarks(exams, known, left, say)
    digest = _digest(exams, known.hashes, prep)
    return Survey(exams, known.hashes, prep, digest, tuple(data.classes), labelled, known.facts, _reasons(left))


def narrowed(survey: Survey, data: ConfigDict, say: Callable[[str], None] = print) -> Survey:
    """The survey whose train is what data.negatives chooses. UserError as negatives.choose."""
    if not data.negatives.count:
        return survey
    exams = negatives.choose(survey.exams, data, say)
    return survey._replace(exams=exams, digest=_digest(exams, survey.hashes, survey.prep))


def survey_test(config: ConfigDict, root: Path | str, say: Callable[[str], None] = print) -> Survey:
    """The same of data that are all test, whatever splits their source names. UserError if none has a label, too."""
    check(config)
    data = config.data
    found, left = _listed(data, say)
    parts = _grouped([[whole(exam) for exam in part] for part in found], data, root, say)
    exams = _of_sites([exam._replace(split='test') for exam in chain.from_iterable(parts)], data.sites)
    if not any(exam.label for exam in exams):
        raise UserError(f'data source {data.source!r} at {data.root}: none of {len(exams)} exams has a label, so that '
                        'no answer can be scored: give labelled data')
    prep = prep_of(config)
    known = looked.look_at(exams, root)
    copies.check(exams, known.hashes, data.classes)
    _say_remarks(exams, known, left, say, listed=False)
    digest = _digest(exams, known.hashes, prep)
    return Survey(exams, known.hashes, prep, digest, tuple(data.classes), False, known.facts, _reasons(left))


def prepare(survey: Survey, root: Path | str, workers: int = 0, say: Callable[[str], None] = print) -> Dataset:
    """The data set of the survey, its scans prepared by so many processes (0: one a core) and stored below `root`;
    those that cannot be are set aside, and how many of each class are in each split is said. UserError if none is left.
    """
    prep = survey.prep
    if prep.spacing:
        extent = [round(n * mm) for n, mm in zip(prep.size, prep.spacing, strict=True)]
        warning = ': a chest is about 300 x 250 x 350 mm' if min(extent) < SHORT_EXTENT else ''
        say(f'of each scan the middle {" x ".join(map(str, extent))} mm (z, y, x) are kept{warning}')
    made = store.build(survey.exams, survey.hashes, prep, Path(root), workers)
    kept = [i for i, e in enumerate(survey.exams) if e.id in made.row]
    exams = [survey.exams[i] for i in kept]
    hashes = [survey.hashes[i] for i in kept]
    if not prep.blank:  # two scans may well be the same without their lungs
        digests = [made.digest[e.id] for e in exams]
        copies.check(exams, digests, survey.classes)
        copies.tell(exams, digests, say, hashes)
    remarks.counts(survey.exams, made.broken, survey.classes, survey.labelled, say)
    remarks.two_kinds(exams, made.seen, survey.classes, say)
    remarks.tissue_padding(exams, made.seen, say)
    if odd := sorted(name for name, of in made.lungs.items() if is_odd(of)):
        say(f'{len(odd)} of {len(made.lungs)} masks of lungs are less than a twentieth of the body, or on one side of '
            f'it alone ({some(odd, 3)}): look at them, and at {made.path / "table.json"}')
    learnt_sites = {e.site for e in exams if e.split == 'train'}
    learns = any(exam.split == 'train' for exam in survey.exams)  # of `survey_test` none is
    needed, purpose = ('train', 'learn from') if learns else ('test', 'test on')
    if needed not in {e.split for e in exams}:
        raise UserError(f'nothing is left to {purpose}: {next(iter(made.broken.values()), "there are no exams")}')
    sites = (*sorted(learnt_sites), *sorted({e.site for e in exams} - learnt_sites))
    return Dataset(
        exams=exams,
        label=np.array([class_index(e.label, survey.classes) for e in exams], np.int32),
        site=np.array([sites.index(e.site) for e in exams], np.int32),
        row=np.array([made.row[e.id] for e in exams]),
        images=made.images,
        broken=made.broken,
        digest=survey.digest,
        hashes=hashes,
        sites=sites,
        facts=[survey.facts[i] for i in kept] if survey.facts else (),
        canvas=prep.canvas,
        unread=survey.unread,
        seen=made.seen)


def prep_of(config: ConfigDict) -> Prep:
    """The preparation that the config asks for. UserError for one that cannot be."""
    fields: dict[str, Any] = {name: value if isinstance(value, str | bool) else tuple(value)
                              for name, value in config.prep.items()}
    return Prep(**fields)


def _reasons(left):
    return {one.id: one.reason for one in left}


def gathered(data: ConfigDict, root: Path | str, folds: int,
             say: Callable[[str], None]) -> tuple[list[list[Exam]], list[Unread]]:
    """A list of exams for each source, of the patients and with the splits of the source that the config asks for, and
    what is no exam: what a training and an audit begin with. root: as of `survey`. UserError for a label that no class
    declares."""
    found, left = _listed(data, say)
    parts = splits.own_splits(splits.thin(found, data, say), data, folds, say)
    return _grouped(parts, data, root, say), left


def _listed(data, say):
    """(a list of exams for each source, what is none). UserError for a label that no class declares."""
    parts, left = sources.listed(data, say)
    for exam in chain.from_iterable(parts):
        try:
            class_index(exam.label, data.classes)
        except UserError as e:
            raise UserError(f'{exam.id}: {e}') from None
    return parts, left


def _of_sites(exams, asked):
    """The exams of these sites alone; of all, where none is asked for."""
    return [exam for exam in exams if not asked or exam.site in asked]


def _grouped(parts, data, root, say):
    """The same exams, of the patients that data.group asks for."""
    if data.group != 'clusters':
        return parts
    return [duplicates.join(part, data, root, name, say)
            for part, name in zip(parts, splits.source_names(parts, data), strict=True)]


def _included(exams, path, say):
    """The ids that the file names, and what they come to."""
    named, remark = find_listed(exams, path)
    train = [e.id for e in exams if e.split == 'train']
    chosen = len(named.intersection(train))
    elsewhere = f', {len(named) - chosen} are in val or test and stay there' if len(named) > chosen else ''
    say(f'{path}: of {len(train)} exams in train {chosen} are named; {remark}{elsewhere}')
    return named


def _say_remarks(exams, known, left, say, listed=True):
    """listed: whether what is not read is going to stand in quarantine.csv."""
    remarks.shared_patients(exams, say)
    remarks.alike_names(exams, say)
    copies.tell(exams, known.hashes, say)
    remarks.missing_slices(known.missing, exams, say)
    remarks.unread(left, exams, say, listed)


def _digest(exams, hashes, prep):
    hashes = store.prepared_hashes(exams, hashes, prep)
    rows = sorted((e.id, e.patient, e.site, e.label, e.split, h) for e, h in zip(exams, hashes, strict=True))
    return hashlib.sha256(json.dumps([prep.hash, rows]).encode()).hexdigest()[:16]


def train_batches(dataset: Dataset, order: Order, batch: int, start: int = 0, host: int = 0, hosts: int = 1) -> Batches:
    """Endless batches in the order from step `start` on: this host's batch / hosts rows of each.

    The global batch is drawn as indices, cut, and only then read, so that hosts, threads and restarts change nothing.
    Use as a context: `with train_batches(...) as batches`.
    """
    share = batch // hosts
    rows = slice(host * share, (host + 1) * share)

    def local(step, positions):
        draw = step * batch + np.arange(batch)
        return _read(dataset, positions[rows], draw[rows])

    return _reading(order.positions.map_with_index(local)[start:])


def eval_batches(dataset: Dataset, split: str, batch: int, host: int = 0, hosts: int = 1) -> Batches:
    """Every exam of the split once, in order; the last batch is filled up with repeats of the last exam."""
    members = dataset.of_split(split)
    share = batch // hosts

    def local(i):
        first = i * batch + host * share
        draw = np.arange(first, first + share)
        return _read(dataset, members[np.minimum(draw, len(members) - 1)], draw)

    batches = math.ceil(len(members) / batch)
    return _reading(grain.MapDataset.source(range(batches)).map(local))


def _reading(batches):
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    return closing(iter(batches.to_iter_dataset(options)))


def _read(dataset, members, draw):
    images = [dataset.images[int(i)]['image'] for i in dataset.row[members]]
    return {**together(images, dataset.canvas), 'label': dataset.label[members], 'site': dataset.site[members],
            'draw': draw.astype(np.uint32)}
