"""What is to be known of a data set before anyone trains on it: what there is of each class, what is there twice, what
is not read, and how far the label can be told from what has nothing to do with disease. Only linear probes are
trained."""

from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, shortcuts
from covid_jax.data import copies, duplicates, looked, pipeline, remarks, splits, store, telling
from covid_jax.report import evidence
from covid_jax.report.audit import PAIRS, Audit
from covid_jax.report.described import counted, described
from covid_jax.report.thumbnails import PICTURES, picture, samples
from covid_jax.sources.exams import class_index, class_names
from covid_jax.sources.names import whole
from covid_jax.sources.unread import BESIDE, LOST, MASK, of_kind
from covid_jax.text import count, some

LEVEL = 0.95  # of the intervals of the probes
LISTED = 3  # examples that a finding names
PROBES = f'what tells the label without a network: AUC [{100 * LEVEL:g} % interval]'
PAIR = ('one', '', 'the other', '')  # the header of a list of pairs, each with a word

Say = Callable[[str], None]


def audit(config: ConfigDict, root: Path | str, say: Say = print) -> Audit:
    """The Audit of the data that a config's data section names.

    root: where hashes and thumbnails are kept, as prepared scans are. say: is called with what the sources say.
    UserError for data that cannot be listed, for a label that no class declares, and where not one scan can be read.
    """
    pipeline.check(config)
    data = config.data
    found = Audit({}, [], [], [], {}, {}, {})

    def told(line):
        found.said.append(line)
        say(line)

    parts, left = pipeline.gathered(data, root, 1, told)
    exams = _placed(parts, data, found, told)
    known = looked.look_at(exams, root)
    made = store.build(exams, known.hashes, duplicates.THUMBNAIL, root, data.workers)
    if made.row.keys() - made.seen.keys():
        raise UserError(f'{made.path} was made by an older version, which did not keep what scans are: delete that '
                        'folder')
    dataset = _dataset(config, exams, known, made)
    thumbnails = [dataset.images[int(i)]['image'] for i in dataset.row]
    contents = _contents(dataset, thumbnails, made)
    _copies(dataset, contents, data.classes, found)
    names = (*class_names(data.classes), telling.NO_LABEL)
    words = [names[label] for label in dataset.label]
    found.pictures.update(samples(dataset.exams, words, names, thumbnails, made.seen))
    _near(dataset, words, thumbnails, contents, made.seen, found)
    spoils = found.spoils.append
    looks = found.looks.append
    telling.unread(exams, made.broken, left, spoils, looks)
    if masks := of_kind(left, MASK):
        looks(remarks.called_masks(masks))
    telling.units(dataset.exams, made.seen, data.classes, spoils, looks)
    telling.kinds_of_files(dataset.exams, dataset.facts, data.classes, looks)
    _patients_of_classes(exams, data.classes, found)
    remarks.shared_patients(exams, looks)
    remarks.alike_names(exams, looks)
    remarks.missing_slices(known.missing, exams, looks)
    remarks.tissue_padding(dataset.exams, made.seen, looks)
    facts = {exam.id: of for exam, of in zip(dataset.exams, dataset.facts, strict=True)}
    found.tables['exams (patients) by class and site'] = counted(exams, data.classes)
    scans = described(dataset.exams, made.seen, facts, data.classes)
    found.tables['scans by class: least .. median .. greatest'] = scans
    found.tables[PROBES] = _probes(dataset, class_names(data.classes), looks)
    ordered = [one for kind in (LOST, MASK, BESIDE) for one in of_kind(left, kind)]
    found.unread.update({**made.broken, **{one.id: one.reason for one in ordered}})
    return found


def _placed(parts, data, found, say):
    """The exams with their splits; where a patient is in two of them, with those of the source alone. A group that a
    source puts into two, and that training keeps so, is one patient here."""
    exams = list(chain.from_iterable(parts))
    torn = _several((whole(exam).patient, exam.split) for exam in exams)
    if torn:
        how_many = count(len(torn), 'patient or article is', 'patients or articles are')
        found.spoils.append(f'{how_many} in more than one split: {some(torn, LISTED)}; give each one split, or take '
                            '--split=drawn here, in training --config.data.split=drawn')
        rows = [(patient, ' and '.join(of)) for patient, of in torn.items()]
        found.lists['patients in more than one split'] = [('patient', 'splits'), *rows]
    if _several((exam.patient, exam.split) for exam in exams):
        return exams
    return splits.assign_sources(parts, data, say=say)


def _several(pairs):
    """{key: sorted words} of the keys that have several words, '' not counted, in order."""
    words = defaultdict(set)
    for key, word in pairs:
        words[key].add(word)
    return {key: sorted(of - {''}) for key, of in sorted(words.items()) if len(of - {''}) > 1}


def _dataset(config, exams, known, made):
    """A Dataset of those that can be read."""
    good = [i for i, exam in enumerate(exams) if exam.id in made.row]
    kept = [exams[i] for i in good]
    sites = tuple(sorted({exam.site for exam in kept}))
    return pipeline.Dataset(
        exams=kept, label=np.array([class_index(exam.label, config.data.classes) for exam in kept], np.int32),
        site=np.array([sites.index(exam.site) for exam in kept], np.int32),
        row=np.array([made.row[exam.id] for exam in kept]),
        images=made.images, broken=made.broken, digest='', hashes=[known.hashes[i] for i in good], sites=sites,
        facts=[known.facts[i] for i in good])


def _contents(dataset, thumbnails, made):
    """What tells a scan from another, whatever file it is in: its thumbnail, as it was prepared, and its shape; of one
    whose thumbnail is of one value the hash of its file."""
    return [file if image.min() == image.max() else f'{made.digest[exam.id]} {made.seen[exam.id].shape}'
            for exam, file, image in zip(dataset.exams, dataset.hashes, thumbnails, strict=True)]


def _copies(dataset, contents, classes, found):
    """Scans that are there more than once. What spoils a result is not said again because of the patients."""
    exams = dataset.exams
    one_of = 'keep one of each, or give all the same patient'
    mend = 'mend the labels, or remove them all'
    of_splits = copies.of_two_splits(exams, contents)
    of_classes = copies.of_two_classes(exams, contents, classes)
    said = {several.exams for several in (*of_splits, *of_classes)}
    of_patients = [several for several in copies.of_two_patients(exams, contents) if several.exams not in said]
    for several, findings, what, way_out in ((of_splits, found.spoils, 'in several splits', one_of),
                                             (of_classes, found.spoils, 'of several classes', mend),
                                             (of_patients, found.looks, 'of several patients', one_of)):
        if several:
            findings.append(f'{count(len(several), "scan is", "scans are")} here more than once, {what}: '
                            f'{some(several, LISTED)}; {way_out}')
            rows = [(f'{i}', *row) for i, of in enumerate(several, 1) for row in zip(of.exams, of.words, strict=True)]
            found.lists[f'one scan {what}'] = [('scan', 'exam', ''), *rows]


def _near(dataset, classed, thumbnails, contents, seen, found):
    """Says which scans look alike and are no copies, in two splits and of two classes, and shows them, pair by pair. Those that
    look so alike that they are no two people's spoil a result; of others, as two X-rays, nobody knows. classed: the class of each;
    contents: as from `_contents`."""
    signatures = np.array([duplicates.signature(image) for image in thumbnails])
    place = [exam.split for exam in dataset.exams]
    classed = ['' if word == telling.NO_LABEL else word for word in classed]
    alike = duplicates.clusters(signatures)
    pairs = _torn(alike, signatures, place, contents)
    sure = [(i, k) for i, k in pairs if signatures[i] @ signatures[k] > duplicates.SURE]
    maybe = [pair for pair in pairs if pair not in sure]
    mixed = _torn(alike, signatures, classed, contents)
    drawn = ('take --split=drawn --group=clusters here, in training --config.data.split=drawn '
             '--config.data.group=clusters')
    doubt = f"two people's X-rays may look so; if these are slices of one, {drawn}"
    for torn, what, words, findings, way_out in (
            (sure, 'near duplicates in two splits', place, found.spoils, drawn),
            (maybe, 'scans that look alike, in two splits', place, found.looks, doubt),
            (mixed, 'near duplicates of two classes', classed, found.looks, 'look at them')):
        if torn:
            rows = [(dataset.exams[i].id, words[i], dataset.exams[k].id, words[k]) for i, k in torn]
            named = [f'{a} ({word}) = {b} ({other})' for a, word, b, other in rows]
            findings.append(f'{what}: {count(len(torn), "cluster")}, {some(named, LISTED)}; {way_out}')
            found.lists[f'{what}, the two of each cluster that are most alike'] = [PAIR, *rows]
            shown = chain.from_iterable(torn[:PICTURES // 2])
            found.pictures[f'{what}, {PAIRS}'] = [
                picture(dataset.exams[i], thumbnails[i], seen, words[i]) for i in shown]


def _torn(clusters, signatures, words, contents):
    """The two members of each cluster that are most alike of those of different words and contents; '' is no word. clusters: int [n],
    the cluster of each exam; signatures: float32 [n, 1024]; words, contents: of each exam."""
    members = defaultdict(list)
    for i, cluster in enumerate(clusters):
        if words[i]:
            members[cluster].append(i)
    pairs = [_most_alike(of, signatures, words, contents) for of in members.values()]
    return [pair for pair in pairs if pair]


def _most_alike(of, signatures, words, contents):
    """None where there are no two of different words and contents."""
    equal = np.zeros((len(of), len(of)), bool)
    for told in (words, contents):
        named = np.array([told[i] for i in of])
        equal |= named[:, None] == named
    if equal.all():
        return None
    near = np.where(equal, -np.inf, signatures[of] @ signatures[of].T)
    one, other = np.unravel_index(near.argmax(), near.shape)
    return of[one], of[other]


def _patients_of_classes(exams, classes, found):
    """Says which patients have scans of several classes: one PatientID in two folders, or a disease that changed."""
    names = class_names(classes)
    several = _several((exam.patient, names[class_index(exam.label, classes)] if exam.label else '') for exam in exams)
    if several:
        named = [f'{patient} ({" and ".join(of)})' for patient, of in several.items()]
        found.looks.append(f'{count(len(several), "patient has", "patients have")} scans of more than one class: '
                           f'{some(named, LISTED)}; all scans of one are in one split; look whether the labels, '
                           'and the patients, are right')
        rows = [(patient, ' and '.join(of)) for patient, of in several.items()]
        found.lists['patients of more than one class'] = [('patient', 'classes'), *rows]


def _probes(dataset, names, looks):
    """The AUC of each shortcut probe, with its interval, on val and test."""
    if not shortcuts.teaches(np.array([exam.split for exam in dataset.exams]), dataset.label):
        looks('no probe of shortcuts: train has labels of fewer than two classes')
        return []
    try:
        found = evidence.entries(shortcuts.answer(dataset, names), LEVEL)
    except UserError as e:
        looks(f'no probe of shortcuts: {e}')
        return []
    if not found:
        looks('no probe of shortcuts: no exam is in val or test, where it would be judged')
        return []
    rows = [('probe', *found)]
    for kind in next(iter(found.values())):
        cells = [of[kind]['auc'] for of in found.values()]
        rows.append((kind, *map(_auc, cells)))
        if kind != 'thumbnail' and any(map(_is_above_chance, cells)):
            looks(f'the {kind} alone tells the label (AUC {", ".join(map(_auc, cells))}): a network that sees it need '
                  'not see the disease')
    for split, of in found.items():
        cell = next(iter(of.values()))['auc']
        if reason := cell.get('reason') or cell.get('note'):
            looks(f'probes of shortcuts on {split}: {reason}')
    return rows


def _is_above_chance(entry):
    """Whether an AUC tells something: its whole interval is above chance, and is of as many patients as the simulations
    that say how often such intervals hold the truth."""
    return (entry.get('low') or 0) > evidence.CHANCE and 'note' not in entry


def _auc(entry):
    if entry['value'] is None:
        return '-'
    bounds = f' [{entry["low"]:.2f}, {entry["high"]:.2f}]' if entry.get('low') is not None else ''
    return f'{entry["value"]:.2f}{bounds}'
