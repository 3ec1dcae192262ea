"""What is to be known of a data set before anyone trains on it: what there is of each class, what is there twice, what is not read, and
how far the label can be told from what has nothing to do with disease. Nothing is trained but linear probes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, shortcuts, sources
from covid_jax.data import copies, duplicates, pipeline, remarks, splits, store
from covid_jax.report import evidence
from covid_jax.sources.exams import SPLITS, Exam, class_index, class_names
from covid_jax.sources.files import missing_slices
from covid_jax.sources.unread import reason
from covid_jax.text import some

LEVEL = 0.95  # of the intervals of the probes
LISTED = 3  # examples that a finding names
PICTURES = 12  # thumbnails of a class, and of what is alike
UNEVEN = 0.05  # by which the shares of two classes that are not read differ where they tell the label
NO_LABEL = 'without a label'

Say = Callable[[str], None]
Row = tuple[str, ...]


class Audit(NamedTuple):
    """tables: {title: rows, the header first}; spoils: findings that would spoil a result, a line each; looks: those that want a look;
    unread: {id: why it is not read}; pictures: {title: [(caption, uint8 [64, 64])]}, of a volume its middle slice."""

    tables: dict[str, list[Row]]
    spoils: list[str]
    looks: list[str]
    unread: dict[str, str]
    pictures: dict[str, list[tuple[str, np.ndarray]]]


def audit(config: ConfigDict, root: Path | str, say: Say = print) -> Audit:
    """The Audit of the data that a config's data section names.

    root: where hashes and thumbnails are kept, as prepared scans are. say: is called with what the sources say. UserError for data that
    cannot be listed, for a label that no class declares, and where not one scan can be read.
    """
    pipeline.check(config)
    data = config.data
    looks: list[str] = []
    spoils: list[str] = []
    listed = pipeline.listed(data, say)
    left = sources.unread(data, listed)
    grouped = pipeline.grouped(listed, data, root, say) if data.group != 'source' else listed
    exams = _placed(grouped, data, spoils, say)
    hashes = store.content_hashes(exams, root)
    made = store.build(exams, hashes, duplicates.THUMBNAIL, root, data.workers)
    good = [i for i, exam in enumerate(exams) if exam.id in made.row]
    dataset = _dataset(config, [exams[i] for i in good], [hashes[i] for i in good], made)
    _copies(dataset, made, data.classes, spoils, looks)
    pictures = _samples(dataset, class_names(data.classes)) | _near(dataset, data.classes, spoils, looks)
    _unread(exams, made.broken, left, spoils, looks)
    _units(dataset.exams, made.seen, data.classes, spoils, looks)
    remarks.shared_patients(exams, looks.append)
    remarks.alike_names(exams, looks.append)
    remarks.missing_slices({exam.id: gone for exam in exams if (gone := missing_slices(exam.path))}, exams, looks.append)
    tables = {'exams (patients) by class and site': counted(exams, data.classes),
              'scans by class': described(dataset.exams, made.seen, data.classes),
              'what tells the label without a network, AUC': _probes(dataset, class_names(data.classes), looks)}
    return Audit(tables, spoils, looks, {**made.broken, **{exam.id: reason(exam) for exam in left}}, pictures)


def _placed(parts, data, spoils, say):
    """The exams with their splits; where a patient is in two of them, with those of the source alone."""
    exams = list(chain.from_iterable(parts))
    at = defaultdict(set)
    for exam in exams:
        at[exam.patient].add(exam.split)
    torn = sorted(patient for patient, of in at.items() if len(of - {''}) > 1)
    if torn and data.split != 'drawn':
        spoils.append(f'{len(torn)} patients are in more than one split: {some(torn, LISTED)}; give each patient one split')
        return exams
    return splits.assign_sources(splits.own_splits(parts, data, say=say), data, say=say)


def _dataset(config, exams, hashes, made):
    """A Dataset of those that can be read."""
    sites = tuple(sorted({exam.site for exam in exams}))
    return pipeline.Dataset(
        exams=exams, label=np.array([class_index(exam.label, config.data.classes) for exam in exams], np.int32),
        site=np.array([sites.index(exam.site) for exam in exams], np.int32), row=np.array([made.row[exam.id] for exam in exams]),
        images=made.images, broken=made.broken, digest='', hashes=hashes, sites=sites, facts=pipeline.facts_of(exams))


def _copies(dataset, made, classes, spoils, looks):
    """Scans that are there twice, as files or as thumbnails of all that they hold."""
    exams = dataset.exams
    for pairs, findings, what, way_out in (
            (copies.of_two_splits(exams, dataset.hashes), spoils, 'in two splits', 'remove one of each, or give both the same patient'),
            (copies.of_two_classes(exams, dataset.hashes, classes), spoils, 'of two classes', 'mend the label of one, or remove both'),
            (copies.of_two_patients(exams, dataset.hashes), looks, 'of two patients', 'remove one of each, or give both the same patient')):
        if pairs:
            findings.append(f'{len(pairs)} pairs of equal files are {what}: {some(pairs, LISTED)}; {way_out}')


def _samples(dataset, names):
    """Thumbnails of some exams of each class, evenly taken from all of them."""
    found = {}
    for label, name in enumerate((*names, NO_LABEL)):
        of = np.flatnonzero(dataset.label == (label if label < len(names) else -1))
        some_of = of[np.linspace(0, len(of) - 1, min(len(of), PICTURES)).astype(int)]
        if len(of):
            found[f'{name}: {len(some_of)} of {len(of)}'] = [_picture(dataset, i) for i in some_of]
    return found


def _picture(dataset, i):
    return dataset.exams[i].id, dataset.images[int(dataset.row[i])]['image'][0, :, :, 0]


def _near(dataset, classes, spoils, looks):
    """Says which scans look alike, in two splits and of two classes; -> their pictures, pair by pair."""
    pictures = {}
    images = [dataset.images[int(i)]['image'] for i in dataset.row]
    number = duplicates.clusters(np.array([duplicates.signature(image) for image in images]))
    members: dict[int, list[int]] = defaultdict(list)
    for i, cluster in enumerate(number):
        members[cluster].append(i)
    for what, of, findings, way_out in (
            ('in two splits', [exam.split for exam in dataset.exams], spoils, 'take --split=drawn --group=clusters; X-rays of two people may '
             'look so, too'),
            ('of two classes', [('', *class_names(classes))[label + 1] for label in dataset.label], looks, 'look at them')):
        torn = [pair for cluster in members.values() if (pair := _first_two(cluster, of))]
        if torn:
            named = [f'{dataset.exams[i].id} ({of[i]}) = {dataset.exams[k].id} ({of[k]})' for i, k in torn]
            findings.append(f'{len(torn)} clusters of near duplicates are {what}: {some(named, LISTED)}; {way_out}')
            pictures[f'near duplicates {what}, pair by pair'] = [_picture(dataset, i) for pair in torn[:PICTURES // 2] for i in pair]
    return pictures


def _first_two(cluster, words):
    """The first two members of a cluster that are of different words, neither of them ''."""
    known = [i for i in cluster if words[i]]
    other = next((i for i in known if words[i] != words[known[0]]), None)
    return None if other is None else (known[0], other)


def _unread(exams, broken, left, spoils, looks):
    """What is not read, and whether it goes with the label."""
    total = Counter(exam.label or NO_LABEL for exam in [*exams, *left])
    gone = Counter(exam.label or NO_LABEL for exam in [*[exam for exam in exams if exam.id in broken], *left])
    if gone:
        shares = [gone[label] / total[label] for label in total]
        said = ', '.join(f'{label} {gone[label]} of {total[label]}' for label in sorted(total))
        findings = spoils if max(shares) - min(shares) > UNEVEN else looks
        findings.append(f'{gone.total()} files or scans are not read ({said}): what is left out may tell the label; convert them, or move them away')


def _units(exams, seen, classes, spoils, looks):
    """Hounsfield units beside grey values: where they go with the class, each of these is of one kind."""
    kinds = defaultdict(set)
    for exam in exams:
        if exam.label:
            kinds[class_index(exam.label, classes)].add(seen[exam.id].hounsfield)
    tells = len(kinds) > 1 and all(len(of) == 1 for of in kinds.values())
    remarks.two_kinds(exams, seen, classes, spoils.append if tells else looks.append)


def counted(exams: Sequence[Exam], classes: Sequence[str]) -> list[Row]:
    """How many exams, and of how many patients, are in each split, a row for each class and site, the header first."""
    splits_here = [split for split in (*SPLITS, '') if any(exam.split == split for exam in exams)]
    groups = defaultdict(list)
    for exam in exams:
        groups[class_index(exam.label, classes), exam.site].append(exam)
    rows = [('class', 'site', *(split or 'no split' for split in splits_here))]
    for (label, site), of in sorted(groups.items()):
        cells = [[exam for exam in of if exam.split == split] for split in splits_here]
        rows.append(((*class_names(classes), NO_LABEL)[label], site, *(f'{len(cell)} ({len({exam.patient for exam in cell})})' for cell in cells)))
    return rows


def described(exams: Sequence[Exam], seen: dict, classes: Sequence[str]) -> list[Row]:
    """What the scans of each class are: units, sizes, spacings, values; a column for each class, and the header first."""
    groups = defaultdict(list)
    for exam in exams:
        groups[class_index(exam.label, classes)].append(seen[exam.id])
    names = (*class_names(classes), NO_LABEL)
    columns = [_column(names[label], groups[label]) for label in sorted(groups)]
    heads = ('', 'scans', 'in Hounsfield units', 'in grey values', 'slices', 'height', 'width', 'mm between slices', 'mm in plane',
             'without spacing', 'least value', 'greatest value')
    return [tuple(row) for row in zip(heads, *columns, strict=True)]


def _column(name, of):
    spaced = [scan.spacing for scan in of if scan.spacing]
    hounsfield = sum(scan.hounsfield for scan in of)
    return (name, str(len(of)), str(hounsfield), str(len(of) - hounsfield), *(_range([scan.shape[axis] for scan in of]) for axis in range(3)),
            _range([mm[0] for mm in spaced]), _range([mm[2] for mm in spaced]), str(len(of) - len(spaced)),
            _range([scan.low for scan in of]), _range([scan.high for scan in of]))


def _range(values):
    """'1 .. 3 .. 9': the least, the median, the greatest."""
    if not values:
        return '-'
    least, middle, most = np.quantile(values, (0, 0.5, 1))
    return f'{least:.4g}' if least == most else f'{least:.4g} .. {middle:.4g} .. {most:.4g}'


def _probes(dataset, names, looks):
    """The AUC of each shortcut probe, with its interval, on val and test."""
    if not shortcuts.teaches(np.array([exam.split for exam in dataset.exams]), dataset.label):
        looks.append('no probe of shortcuts: train has labels of fewer than two classes')
        return []
    try:
        found = evidence.entries(shortcuts.answer(dataset, names), LEVEL)
    except UserError as e:
        looks.append(f'no probe of shortcuts: {e}')
        return []
    rows = [('probe', *found)]
    for kind in next(iter(found.values()), {}):
        cells = [of[kind]['auc'] for of in found.values()]
        rows.append((kind, *map(_auc, cells)))
        if kind != 'thumbnail' and any((cell.get('low') or 0) > 0.5 for cell in cells):
            looks.append(f'the {kind} alone tells the label (AUC {", ".join(map(_auc, cells))}): a network that sees it need not see the disease')
    return rows


def _auc(entry):
    if entry['value'] is None:
        return '-'
    bounds = f' [{entry["low"]:.2f}, {entry["high"]:.2f}]' if entry.get('low') is not None else ''
    return f'{entry["value"]:.2f}{bounds}'
