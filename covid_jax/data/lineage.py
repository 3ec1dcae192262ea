"""What a run learnt from, and what the runs that it started from did: exams.csv, and whether a test is still one.

An exam is known again by its content or its patient, whatever the data set that it comes from.
"""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from covid_jax import UserError
from covid_jax.runtime.files import write_csv
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import Exam
from covid_jax.sources.files import Facts
from covid_jax.sources.names import whole
from covid_jax.text import from_cell

COLUMNS = ('id', 'patient', 'site', 'split', 'label', 'hash', 'run')
OF_FILE = Facts._fields  # columns after these, which the runs of older versions lack
NAMELESS = 'default'  # the site of exams whose source names none
PARTED = 'parted'  # in a key: the name of a group that the earlier run had in parts
LEARNT = {'train': ('val', 'test'), 'val': ('test',)}  # a split of an earlier run -> ours that must not share its patients


class Row(NamedTuple):
    """One exam of a run. run: '' for its own, else the folder of the run before it that had the exam in `split`; facts: of its
    file."""

    exam: Exam
    hash: str
    run: str
    facts: Facts = Facts()


def own(exams: list[Exam], hashes: list[str], facts: Sequence[Facts] = ()) -> list[Row]:
    """The rows of a run's own exams. facts: of their files, where they are known."""
    of_files = facts or [Facts()] * len(exams)
    return [Row(exam, digest, '', known) for exam, digest, known in zip(exams, hashes, of_files, strict=True)]


def inherited(table: list[Row], source: str) -> list[Row]:
    """What a run takes over from the run `source` that it starts from and whose table this is: all exams that `source`, or a
    run before it, learnt from or chose its checkpoint on."""
    return [row._replace(run=row.run or str(source)) for row in table if row.exam.split in LEARNT]


def inherited_from(runs: Sequence[str]) -> list[Row]:
    """The same of several finished runs that are made one; those without a table are passed over."""
    return [row for run in runs if Path(run, 'exams.csv').exists() for row in inherited(read(run), run)]


def leaks(exams: list[Exam], hashes: list[str], before: list[Row]) -> dict[str, str]:
    """{exam id: folder of the run} of the exams in val and test that an earlier run learnt from, or, for those in test, chose
    its checkpoint on. before: as from `inherited`.

    Scans of equal content are one scan. Patients are one person where they have one name at one site; a site without a name
    of its own, or with another name, is the same one where both runs have a scan of it.
    """
    sites_of: dict[str, set[str]] = {}  # hash -> our sites of such scans
    for exam, digest in zip(exams, hashes, strict=True):
        sites_of.setdefault(digest, set()).add(exam.site)
    same = {(row.exam.site, site) for row in before for site in sites_of.get(row.hash, ())}
    same |= {(row.exam.site, row.exam.site) for row in before if row.exam.site != NAMELESS}

    # A group that the source's own splits tear is a patient in each of them (names.part): it is known again where one run has
    # it whole, and kept apart where both have it so.
    # A source's name may stand before a patient's in their run, in ours, in both or in neither: each is compared with it
    # and, where it stands in one run alone, without it.
    run_of: dict[tuple[str, ...], str] = {}  # (split, hash), or (split, site, whole name, '') or (split, site, '', bare name)
    for row in before:
        patient = row.exam.patient
        for split in LEARNT[row.exam.split]:
            run_of.setdefault((split, row.hash), row.run)
            for site in (ours for theirs, ours in same if theirs == row.exam.site):
                run_of.setdefault((split, site, patient, ''), row.run)
                run_of.setdefault((split, site, '', _bare(patient)), row.run)
                if _group(row.exam) != patient:
                    run_of.setdefault((split, site, _group(row.exam), PARTED), row.run)
    found = {}
    for exam, digest in zip(exams, hashes, strict=True):
        names = (exam.patient, ''), ('', exam.patient), (_bare(exam.patient), '')
        of_group = (_group(exam), PARTED if _group(exam) == exam.patient else '')
        keys = [(exam.split, digest), *((exam.split, exam.site, *pair) for pair in (*names, of_group))]
        runs = [run_of[key] for key in keys if key in run_of]
        if runs:
            found[exam.id] = runs[0]
    return found


def refuse(found: dict[str, str], exams: list[Exam]) -> None:
    """UserError that says what leaks from where, if anything does."""
    if not found:
        return
    counts = {split: sum(exam.split == split and exam.id in found for exam in exams) for split in ('val', 'test')}
    leaking = ' and '.join(f'{count} {split}' for split, count in counts.items() if count)
    name, run = next(iter(found.items()))
    raise UserError(f'{leaking} exams are of patients that {run} learnt from or chose its checkpoint on, one is {name}: '
                    'give both the same splits, or set --config.allow_leak=True, and the results will say so')


def write(folder: str | Path, table: list[Row]) -> None:
    """Writes folder/exams.csv, runs relative to the folder."""
    rows: list[Sequence[str | int]] = [[*COLUMNS, *OF_FILE]]
    for exam, digest, run, facts in table:
        run = os.path.relpath(run, folder) if run else ''
        rows.append([exam.id, exam.patient, exam.site, exam.split, exam.label, digest, run, *facts])
    write_csv(Path(folder) / 'exams.csv', rows)


def read(folder: str | Path) -> list[Row]:
    """The rows of folder/exams.csv. UserError where there is none, or another table."""
    path = Path(folder) / 'exams.csv'
    if not path.is_file():
        raise UserError(f'{folder} holds no exams.csv, which says what it learnt from: give the folder of a finished run')
    with blame(path), path.open(newline='', encoding='utf-8') as f:
        header, *table = [list(map(from_cell, row)) for row in csv.reader(f)] or [[]]
        if tuple(header) not in (COLUMNS, (*COLUMNS, *OF_FILE)) or any(len(row) != len(header) for row in table):
            raise ValueError(f'expected the columns {", ".join(COLUMNS)}')
        facts = [_facts(*row[len(COLUMNS):]) for row in table]
    found = []
    for row, known in zip(table, facts, strict=True):
        name, patient, site, split, label, digest, run = row[:len(COLUMNS)]
        run = os.path.normpath(os.path.join(folder, run)) if run else ''
        found.append(Row(Exam(name, patient, site, label, split, ''), digest, run, known))
    return found


def _facts(kind='', mode='', *numbers):
    return Facts(kind, mode, *map(int, numbers))


def _group(exam):
    """The group of an exam, as `names.part` found it."""
    return whole(exam).patient


def _bare(patient):
    """A patient's name without that of the source, which in a mix of sources stands before it."""
    return patient.partition('/')[2] or patient
