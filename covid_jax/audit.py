"""What is to be known of a data set before anyone trains on it: what there is of each class, what is there twice, what is not read, and
how far the label can be told from what has nothing to do with disease. Nothing is trained but linear probes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from covid_jax import UserError, shortcuts
from covid_jax.data import copies, duplicates, looked, pipeline, remarks, splits, store
from covid_jax.data.parts import Seen
from covid_jax.report import evidence
from covid_jax.report.audit import Audit, Row
from covid_jax.sources.exams import SPLITS, Exam, class_index, class_names
from covid_jax.sources.files import Facts
from covid_jax.sources.unread import BESIDE, LOST, MASK, of_kind
from covid_jax.text import some

LEVEL = 0.95  # of the intervals of the probes
LISTED = 3  # examples that a finding names
PICTURES = 12  # thumbnails of a class, and of what is alike
SIDE = 128  # pixels of the longer side of a thumbnail
LONGEST = 4  # to one: what is longer is shown so
FORMATS = 5  # kinds of files that a class is described by
UNEVEN = 0.05  # by which the shares of two classes that are not read differ where they tell the label
NO_LABEL = 'without a label'
PAIR = ('one', '', 'the other', '')  # the header of a list of pairs, each with a word

Say = Callable[[str], None]


def audit(config: ConfigDict, root: Path | str, say: Say = print) -> Audit:
    """The Audit of the data that a config's data section names.

    root: where hashes and thumbnails are kept, as prepared scans are. say: is called with what the sources say. UserError for data that
    cannot be listed, for a label that no class declares, and where not one scan can be read.
    """
    pipeline.check(config)
    data = config.data
    found = Audit({}, [], [], [], {}, {}, {})

    def told(line):
        found.said.append(line)
        say(line)

    listed, left = pipeline.listed(data, told)
    grouped = pipeline.grouped(listed, data, root, told) if data.group != 'source' else listed
    exams = _placed(grouped, data, found, told)
    known = looked.look_at(exams, root)
    made = store.build(exams, known.hashes, duplicates.THUMBNAIL, root, data.workers)
    if made.row.keys() - made.seen.keys():
        raise UserError(f'{made.path} was made by an older version, which did not keep what scans are: delete that folder')
    dataset = _dataset(config, exams, known, made)
    thumbnails = [dataset.images[int(i)]['image'] for i in dataset.row]
    _copies(dataset, _contents(dataset, thumbnails, made), data.classes, found)
    found.pictures.update(_samples(dataset, thumbnails, made.seen, class_names(data.classes)))
    _near(dataset, thumbnails, made.seen, data.classes, found)
    _unread(exams, made.broken, left, found)
    _units(dataset.exams, made.seen, data.classes, found)
    remarks.shared_patients(exams, found.looks.append)
    remarks.alike_names(exams, found.looks.append)
    remarks.missing_slices(known.missing, exams, found.looks.append)
    facts = {exam.id: of for exam, of in zip(dataset.exams, dataset.facts, strict=True)}
    found.tables['exams (patients) by class and site'] = counted(exams, data.classes)
    found.tables['scans by class: least .. median .. greatest'] = described(dataset.exams, made.seen, facts, data.classes)
    found.tables[f'what tells the label without a network: AUC [{100 * LEVEL:g} % interval]'] = _probes(dataset, class_names(data.classes), found.looks)
    found.unread.update({**made.broken, **{one.id: one.reason for kind in (LOST, MASK, BESIDE) for one in of_kind(left, kind)}})
    return found


def _placed(parts, data, found, say):
    """The exams with their splits; where a patient is in two of them, with those of the source alone."""
    exams = list(chain.from_iterable(parts))
    at = defaultdict(set)
    for exam in exams:
        at[exam.patient].add(exam.split)
    torn = sorted(patient for patient, of in at.items() if len(of - {''}) > 1)
    if torn and data.split != 'drawn':
        found.spoils.append(f'{len(torn)} patients are in more than one split: {some(torn, LISTED)}; give each patient one split')
        found.lists['patients in more than one split'] = [('patient', 'splits'), *((patient, ' and '.join(sorted(at[patient] - {''}))) for patient in torn)]
        return exams
    return splits.assign_sources(splits.own_splits(parts, data, say=say), data, say=say)


def _dataset(config, exams, known, made):
    """A Dataset of those that can be read."""
    good = [i for i, exam in enumerate(exams) if exam.id in made.row]
    kept = [exams[i] for i in good]
    sites = tuple(sorted({exam.site for exam in kept}))
    return pipeline.Dataset(
        exams=kept, label=np.array([class_index(exam.label, config.data.classes) for exam in kept], np.int32),
        site=np.array([sites.index(exam.site) for exam in kept], np.int32), row=np.array([made.row[exam.id] for exam in kept]),
        images=made.images, broken=made.broken, digest='', hashes=[known.hashes[i] for i in good], sites=sites,
        facts=[known.facts[i] for i in good])


def _contents(dataset, thumbnails, made):
    """What tells a scan from another, whatever file it is in: its thumbnail, as it was prepared, and its shape; of one whose thumbnail is
    of one value the hash of its file."""
    return [file if image.min() == image.max() else f'{made.digest[exam.id]} {made.seen[exam.id].shape}'
            for exam, file, image in zip(dataset.exams, dataset.hashes, thumbnails, strict=True)]


def _copies(dataset, contents, classes, found):
    """Scans that are there twice."""
    exams = dataset.exams
    for pairs, findings, what, way_out in (
            (copies.of_two_splits(exams, contents), found.spoils, 'in two splits', 'remove one of each, or give both the same patient'),
            (copies.of_two_classes(exams, contents, classes), found.spoils, 'of two classes', 'mend the label of one, or remove both'),
            (copies.of_two_patients(exams, contents), found.looks, 'of two patients', 'remove one of each, or give both the same patient')):
        if pairs:
            findings.append(f'{len(pairs)} pairs of equal scans are {what}: {some(pairs, LISTED)}; {way_out}')
            found.lists[f'equal scans {what}'] = [PAIR, *((pair.a, pair.words[0], pair.b, pair.words[1]) for pair in pairs)]


def _samples(dataset, thumbnails, seen, names):
    """Thumbnails of some exams of each class, evenly taken from all of them."""
    found = {}
    for label, name in enumerate((*names, NO_LABEL)):
        of = np.flatnonzero(dataset.label == (label if label < len(names) else -1))
        some_of = of[np.linspace(0, len(of) - 1, min(len(of), PICTURES)).astype(int)]
        if len(of):
            found[f'{name}: {len(some_of)} of {len(of)}'] = [_picture(dataset, thumbnails, seen, i) for i in some_of]
    return found


def _picture(dataset, thumbnails, seen, i, word=''):
    """The caption and the thumbnail of an exam, of the height and width that the scan has in mm, or else in pixels."""
    exam = dataset.exams[i]
    _, height, width = seen[exam.id].shape
    _, down, across = seen[exam.id].spacing or (1, 1, 1)
    sides = np.array([width * across, height * down])
    sides = np.maximum(sides, sides.max() / LONGEST)
    size = np.rint(SIDE * sides / sides.max()).astype(int)
    image = Image.fromarray(thumbnails[i][0, :, :, 0]).resize(size.tolist(), Image.Resampling.BILINEAR)
    return f'{exam.id} ({word})' if word else exam.id, np.asarray(image)


def _near(dataset, thumbnails, seen, classes, found):
    """Says which scans look alike, in two splits and of two classes, and shows them, pair by pair."""
    number = duplicates.clusters(np.array([duplicates.signature(image) for image in thumbnails]))
    members: dict[int, list[int]] = defaultdict(list)
    for i, cluster in enumerate(number):
        members[cluster].append(i)
    for what, of, findings, way_out in (
            ('in two splits', [exam.split for exam in dataset.exams], found.spoils, 'take --split=drawn --group=clusters here, in training '
             '--config.data.split=drawn --config.data.group=clusters; X-rays of two people may look so, too'),
            ('of two classes', [('', *class_names(classes))[label + 1] for label in dataset.label], found.looks, 'look at them')):
        torn = [pair for cluster in members.values() if (pair := _first_two(cluster, of))]
        if torn:
            rows = [(dataset.exams[i].id, of[i], dataset.exams[k].id, of[k]) for i, k in torn]
            named = [f'{a} ({word}) = {b} ({other})' for a, word, b, other in rows]
            findings.append(f'{len(torn)} clusters of near duplicates are {what}: {some(named, LISTED)}; {way_out}')
            found.lists[f'near duplicates {what}, the first two of each cluster'] = [PAIR, *rows]
            found.pictures[f'near duplicates {what}, pair by pair'] = [
                _picture(dataset, thumbnails, seen, i, of[i]) for pair in torn[:PICTURES // 2] for i in pair]


def _first_two(cluster, words):
    """The first two members of a cluster that are of different words, neither of them ''."""
    known = [i for i in cluster if words[i]]
    other = next((i for i in known if words[i] != words[known[0]]), None)
    return None if other is None else (known[0], other)


def _unread(exams, broken, left, found):
    """What is not read, and whether it goes with the label: masks, and what speaks of scans, do not."""
    lost = of_kind(left, LOST)
    total = Counter(one.label or NO_LABEL for one in [*exams, *lost])
    gone = Counter(one.label or NO_LABEL for one in [*[exam for exam in exams if exam.id in broken], *lost])
    if gone:
        shares = [gone[label] / total[label] for label in total]
        said = ', '.join(f'{label} {gone[label]} of {total[label]}' for label in sorted(total))
        findings = found.spoils if max(shares) - min(shares) > UNEVEN else found.looks
        findings.append(f'{gone.total()} files or scans are not read ({said}): what is left out may tell the label; convert them, or move them away')
    if masks := of_kind(left, MASK):
        found.looks.append(f'{len(masks)} are by their names masks of scans beside them, and no exams ({remarks.by_label(masks)})')


def _units(exams, seen, classes, found):
    """Hounsfield units beside grey values: where they go with the class, each of these is of one kind."""
    kinds = defaultdict(set)
    for exam in exams:
        if exam.label:
            kinds[class_index(exam.label, classes)].add(seen[exam.id].hounsfield)
    tells = len(kinds) > 1 and all(len(of) == 1 for of in kinds.values())
    remarks.two_kinds(exams, seen, classes, found.spoils.append if tells else found.looks.append)


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


def described(exams: Sequence[Exam], seen: Mapping[str, Seen], facts: Mapping[str, Facts], classes: Sequence[str]) -> list[Row]:
    """What the scans of each class are: files, units, sizes, spacings, values; a column for each class, and the header first. seen, facts:
    exam id -> what its scan and its file are."""
    groups = defaultdict(list)
    for exam in exams:
        groups[class_index(exam.label, classes)].append(exam.id)
    names = (*class_names(classes), NO_LABEL)
    columns = [_column(names[label], [seen[name] for name in groups[label]], [facts[name] for name in groups[label]]) for label in sorted(groups)]
    heads = ('', 'scans', 'files', 'in Hounsfield units', 'in grey values', 'slices', 'height', 'width', 'mm between slices', 'mm in plane',
             'without spacing', 'least value', 'greatest value')
    return [tuple(row) for row in zip(heads, *columns, strict=True)]


def _column(name, of, facts):
    spaced = [scan.spacing for scan in of if scan.spacing]
    hounsfield = sum(scan.hounsfield for scan in of)
    kinds = Counter(f'{fact.format} {fact.mode}'.strip() or 'not known' for fact in facts)
    files = some((f'{count} {kind}' for kind, count in kinds.most_common()), FORMATS)
    return (name, str(len(of)), files, str(hounsfield), str(len(of) - hounsfield), *(_range([scan.shape[axis] for scan in of]) for axis in range(3)),
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
