"""What a run's data are, from the tables in its folder: the sections 'data', 'reference' and 'splits' of report.json."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from covid_jax.data.lineage import Row
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import SPLITS, Exam, class_index, class_names
from covid_jax.sources.names import whole
from covid_jax.text import count, from_cell

PHANTOM = 'phantom'
UNLABELLED = 'without a label'
REASONS = 10  # of what was not read
USES = {'auto': 'all that the method can read', 'all': 'exams with and without a label', 'labelled': 'exams with a label'}
Kept = Mapping[str, Any]  # the fields of config.json, flat


def is_made_up(kept: Kept) -> bool:
    """Whether all scans are phantoms."""
    return kept.get('data.source') == PHANTOM


def data(folder: Path, kept: Kept, rows: Sequence[Row]) -> dict[str, Any]:
    """The section 'data'. kept: of workdir.read; rows: the run's own exams, of lineage.read."""
    exams = [row.exam for row in rows]
    classes = kept.get('data.classes') or []
    source = kept.get('data.source') or ''
    left = quarantine(folder)
    made_up = is_made_up(kept)
    return {
        'source': source,
        'sites': kept.get('sites') or sorted({exam.site for exam in exams}),
        'classes': {name: each.split('|')[1:] for name, each in zip(class_names(classes), classes, strict=True)},
        'counts': counts(exams, classes),
        'patients': {split: len({exam.patient for exam in exams if exam.split == split}) for split in _splits(exams)},
        'formats': dict(sorted(Counter(row.facts.format or 'not known' for row in rows).items())),
        'units': units(folder, kept, exams),
        'eligibility': _eligibility(source, kept, exams),
        'preparation': _preparation(kept),
        'subsets': _subsets(kept),
        'deidentification': 'nobody is in made-up scans' if made_up else '',
        'missing': _missing(exams, left),
        'acquisition': f'made up by the {kept.get("data.phantom.kind", "")} phantom of this package: no scanner' if made_up else '',
        'flow': _flow(exams, left)}


def counts(exams: Sequence[Exam], classes: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """{split: {site: {class: how many exams}}}, what is in no split under 'left out'."""
    order = (*class_names(classes), UNLABELLED)
    found_of = Counter((exam.split, exam.site, order[class_index(exam.label, classes)] if classes or not exam.label else exam.label)
                       for exam in exams)
    found: dict[str, dict[str, dict[str, int]]] = {}
    for split in _splits(exams):
        for (of, site, name), n in sorted(found_of.items(), key=lambda item: (item[0][1], order.index(item[0][2]) if classes else 0)):
            if of == split:
                found.setdefault(split or 'left out', {}).setdefault(site, {})[name] = n
    return found


def quarantine(folder: Path) -> dict[str, str]:
    """{what was not read: why}, of quarantine.csv."""
    path = folder / 'quarantine.csv'
    if not path.is_file():
        return {}
    with blame(path), path.open(newline='', encoding='utf-8') as file:
        header, *rows = list(csv.reader(file)) or [[]]
        if header != ['id', 'reason'] or any(len(row) != len(header) for row in rows):
            raise ValueError('it is damaged: give the command of its run again')
        return {from_cell(name): from_cell(why) for name, why in rows}


def units(folder: Path, kept: Kept, exams: Sequence[Exam]) -> dict[str, int]:
    """{'Hounsfield units', 'grey values': how many exams are in them}, as the store of prepared scans tells, if there is one."""
    wanted = {exam.id for exam in exams}
    for path in sorted(Path(kept.get('data.store') or folder / 'store').glob('*/table.json')):
        with blame(path):
            table = json.loads(path.read_text(encoding='utf-8'))
            is_hounsfield = {name: bool(seen[2]) for name, seen in zip(table.get('ids', ()), table.get('seen', ()), strict=False)}
        if wanted and wanted <= is_hounsfield.keys():
            hounsfield = sum(is_hounsfield[name] for name in wanted)
            return {'Hounsfield units': hounsfield, 'grey values': len(wanted) - hounsfield}
    return {}


def reference(kept: Kept) -> dict[str, str]:
    """The section 'reference': what the labels are. Of data that were not made up the program knows none of it."""
    if not is_made_up(kept):
        return dict.fromkeys(('definition', 'rationale', 'source', 'annotation', 'agreement'), '')
    return {'definition': 'the class that a phantom was drawn as', 'rationale': 'what was drawn is known without error',
            'source': 'the program that drew the scans, nobody else', 'annotation': 'as all others: nobody labelled by eye',
            'agreement': 'nobody labelled by eye, so that nobody could disagree'}


def splits(kept: Kept, rows: Sequence[Row], before: Sequence[Row]) -> dict[str, Any]:
    """The section 'splits': who is where, and what is looked for that would be in two of them. before: exams of earlier runs."""
    used = [row for row in rows if row.exam.split]
    n = Counter(row.exam.split for row in used)
    shares = ', '.join(f'{100 * n[split] / len(used):.0f} % {split}' for split in SPLITS if n[split])
    patients = _in_two((whole(row.exam).patient, row.exam.split) for row in used)
    alone = _alone(kept, used)
    copies = _in_two((row.hash, row.exam.split) for row in used if row.hash)
    unknown = sum(not row.hash for row in used)
    apart = ['patients'] * (patients == alone == 0) + ['scans of equal content'] * (copies == unknown == 0)
    return {'assignment': f'{_rule(kept)}: {shares}' if used else '',
            'disjoint': ', and '.join(apart) if used else '',
            'patients_in_two': patients,
            'without_patient': alone,
            'copies_in_two': copies,
            'without_hash': unknown,
            'earlier_runs': len({row.run for row in before}),
            'leak_allowed': bool(kept.get('allow_leak')),
            'balance': _balance(kept)}


def limits(kept: Kept, rows: Sequence[Row]) -> list[str]:
    """What the data cannot tell."""
    if is_made_up(kept):
        return ['the scans are made up: nothing here says how it does on patients']
    alone = _alone(kept, rows)
    told = f'{count(alone, "exam counts as a patient of its own", "exams count as patients of their own")}, as the source names them'
    return [f'{told}: other exams of the same people would not be seen'] if alone else []


def _alone(kept, rows):
    """How many exams are of a patient who is called as the exam is, and has no other: who it is, the source may well not know."""
    exams_of = Counter(whole(row.exam).patient for row in rows)
    return 0 if is_made_up(kept) else sum(exams_of[row.exam.id] == 1 for row in rows if row.exam.patient == row.exam.id)


def _splits(exams):
    return [split for split in (*SPLITS, '') if any(exam.split == split for exam in exams)]


def _in_two(pairs):
    """How many names are in more than one split, of (name, split)."""
    return sum(n > 1 for n in Counter(name for name, _ in set(pairs)).values())


def _rule(kept):
    if kept.get('folds', 1) > 1:
        return f'fold {kept.get("fold", 0)} of {kept["folds"]}, drawn over patients'
    if is_made_up(kept):
        return 'made for its split, each exam a patient of its own'
    asked = kept.get('data.split', 'auto')
    return {'source': 'as the source has it', 'drawn': 'drawn over patients'}.get(asked, 'as the source has it, else drawn over patients')


def _balance(kept):
    ratio = kept.get('data.imbalance')
    chosen = kept.get('data.negatives.count')
    left = [f'patients with the positive class are left out, to {ratio:g} exams of other classes for one'] if ratio else []
    share = f'{100 * chosen:g} %' if chosen and chosen < 1 else f'{chosen or 0:g}'
    left += [f'{share} of the exams of other classes are learnt from'] if chosen else []
    return f'{", ".join(left) or "nothing is left out for balance"}; order of training: {kept.get("train.order", "shuffle")}'


def _eligibility(source, kept, exams):
    if not exams:
        return ''
    labels = 'a label of the classes' if all(exam.label for exam in exams) else 'a label of the classes, or none'
    rules = [f'exams of {source or "the source"} that can be read, with {labels}']
    rules += [f'{name}: {kept[f"data.{name}"]}' for name in ('sites', 'held_out', 'held_out_sites') if kept.get(f'data.{name}')]
    rules += [f'a list of exams to {verb}' for name, verb in (('include', 'take'), ('exclude', 'leave out')) if kept.get(f'data.{name}')]
    return '; '.join(rules)


def _preparation(kept):
    if not kept.get('prep.size'):
        return ''
    depth, height, width = kept['prep.size']
    window = kept.get('prep.window')
    parts = [f'{depth} x {height} x {width} voxels' if depth > 1 else f'{height} x {width} pixels',
             f'of Hounsfield units {window[0]:g} to {window[1]:g}, or grey values as they are' if window else
             'from the least to the greatest value']
    if kept.get('prep.spacing'):
        parts.append(f'at {" x ".join(f"{mm:g}" for mm in kept["prep.spacing"])} mm')
    return ', '.join([*parts, *(['the aspect is kept'] if kept.get('prep.keep_aspect') else []), '8 bits'])


def _subsets(kept):
    if not kept.get('prep.size'):
        return ''
    lungs = kept.get('prep.lungs')
    use = kept.get('data.use', 'auto')
    where = f'around the lungs ({lungs})' if lungs else 'the whole scan'
    return f'{where}{", the lungs made blank" if kept.get("prep.blank") else ""}; learnt from: {USES.get(use, use)}'


def _missing(exams, left):
    if not exams:
        return {}
    return {'not_read': len(left), 'reasons': [f'{name}: {_shorter(why, name)}' for name, why in list(left.items())[:REASONS]],
            'without_label': sum(not exam.label for exam in exams),
            'rule': 'what cannot be read is left out and listed in quarantine.csv; nothing is imputed'}


def _shorter(why, name):
    """A reason without the path of the exam that it begins with: where the data lie is nobody's business."""
    path, _, rest = why.partition(': ')
    return rest if rest and path.endswith(name) else why


def _flow(exams, left):
    if not exams:
        return {}
    of_split = Counter(exam.split or 'left out' for exam in exams)
    return {'listed': len(exams) + len(left), 'not_read': len(left), **of_split,
            'patients': len({exam.patient for exam in exams})}
