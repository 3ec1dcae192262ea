"""The table that a run leaves: one row for each evaluated exam, with what was answered. What compares, averages, plots or
ranks answers reads it."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from covid_jax import UserError
from covid_jax.runtime import files
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import Exam
from covid_jax.text import from_cell

FIELDS = ('id', 'patient', 'site', 'split', 'label')


class Predictions(NamedTuple):
    """names:    of the classes, in order
    exams:       with their splits
    label:       int32 [n], -1: unlabelled
    probability: float32 [n, classes], rows that sum to 1; None where the method does not classify
    features:    float32 [n, dim], what the classifier sees; None where they were not kept
    columns:     {name: [n]} what else is known of each answer, for example how many sites it is the mean of
    """

    names: tuple[str, ...]
    exams: list[Exam]
    label: np.ndarray
    probability: np.ndarray | None = None
    features: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = MappingProxyType({})

    def at(self, rows: Sequence[int] | np.ndarray) -> 'Predictions':
        """The rows at these positions, in this order."""
        rows = np.asarray(rows, int)
        return self._replace(exams=[self.exams[i] for i in rows], label=self.label[rows],
                             probability=None if self.probability is None else self.probability[rows],
                             features=None if self.features is None else self.features[rows],
                             columns={name: column[rows] for name, column in self.columns.items()})

    def of(self, split: str | None = None, site: str | None = None) -> 'Predictions':
        """The rows of a split, of a site, or of both."""
        return self.at([i for i, e in enumerate(self.exams) if split in (None, e.split) and site in (None, e.site)])

    def labelled(self) -> 'Predictions':
        """The rows whose label is known."""
        return self.at(np.flatnonzero(self.label >= 0))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits in order of their first row."""
        return tuple(dict.fromkeys(e.split for e in self.exams))

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites in order of their names."""
        return tuple(sorted({e.site for e in self.exams}))

    def by_patient(self) -> tuple['Predictions', list[str]]:
        """One row for each patient of a split: the means of their exams, under the patient's name and the site of the first.

        The second value names the patients that are left out because their exams have different labels (unlabelled exams
        aside).
        """
        rows_of: dict[tuple[str, str], list[int]] = {}  # (split, patient) -> rows
        for i, exam in enumerate(self.exams):
            rows_of.setdefault((exam.split, exam.patient), []).append(i)
        groups = []
        labels = []
        torn = []
        for (_, patient), rows in rows_of.items():
            known = set(self.label[rows].tolist()) - {-1}
            if len(known) > 1:
                torn.append(patient)
                continue
            groups.append(rows)
            labels.append(known.pop() if known else -1)

        def mean(values):
            return np.array([values[rows].mean(0) for rows in groups], np.float32).reshape(-1, *values.shape[1:])

        firsts = [self.exams[rows[0]] for rows in groups]
        patients = self._replace(
            exams=[exam._replace(id=exam.patient) for exam in firsts],
            label=np.array(labels, np.int32),
            probability=None if self.probability is None else mean(self.probability),
            features=None if self.features is None else mean(self.features),
            columns={name: mean(column) for name, column in self.columns.items()})
        return patients, torn


def header(names: tuple[str, ...]) -> list[str]:
    """The columns that every predictions.csv begins with, for classes of these names."""
    return [*FIELDS, *(f'p_{name}' for name in names)]


def write(path: str | Path, predictions: Predictions, without: tuple[str, ...] = ()) -> None:
    """Writes the table as a CSV file, without some of its columns. It has a probability."""
    p = predictions
    assert p.probability is not None
    columns = [*header(p.names), *p.columns]
    rows = [columns]
    for i, exam in enumerate(p.exams):
        label = p.names[p.label[i]] if p.label[i] >= 0 else ''
        probability = [str(np.float32(x)) for x in p.probability[i]]  # as many digits as tell it from all others
        further = [f'{column[i]:g}' for column in p.columns.values()]
        rows.append([exam.id, exam.patient, exam.site, exam.split, label, *probability, *further])
    wanted = [i for i, name in enumerate(columns) if name not in without]
    files.write_csv(path, ([row[i] for i in wanted] for row in rows))


def write_features(path: str | Path, predictions: Predictions) -> None:
    """Writes features.npz: id, split [n] as text, features float32 [n, dim], and the further columns."""
    arrays: dict[str, Any] = {
        'id': np.array([e.id for e in predictions.exams]), 'split': np.array([e.split for e in predictions.exams]),
        'features': predictions.features, **predictions.columns}
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write(path, content.getvalue())


def read(path: str | Path, names: tuple[str, ...] = ()) -> Predictions:
    """The table of a predictions.csv whose classes have these names, or those of its columns. UserError where it is another's,
    or damaged."""
    path = Path(path)
    with blame(path):
        text = path.read_text(encoding='utf-8')
        if text and not text.endswith('\n'):
            raise ValueError('it is cut off: run the run again, which rewrites it')
        columns, *rows = [list(map(from_cell, row)) for row in csv.reader(io.StringIO(text, newline=''))] or [[]]
    names = names or tuple(name.removeprefix('p_') for name in columns if name.startswith('p_'))
    if len(names) < 2:
        raise UserError(f'{path} has no columns p_CLASS of two or more classes: give the folder of a finished run')
    wanted = header(names)
    more = columns[len(wanted):]
    if columns[:len(wanted)] != wanted or any(name.startswith('p_') for name in more):
        raise UserError(f'{path} has the columns {",".join(columns) or "of nothing"}, and these classes {",".join(wanted)}')
    exams: list[Exam] = []
    numbers = []
    seen = set()
    for line, row in enumerate(rows, 2):
        try:
            values = np.array(row[len(FIELDS):], np.float32)
            name, patient, site, split, label = row[:len(FIELDS)]
            exam = Exam(name, patient, site, label, split, path='')
            p = values[:len(names)]
            if (len(row) != len(columns) or not ((p >= 0) & (p <= 1)).all() or abs(p.sum() - 1) > 1e-3
                    or exam.label not in ('', *names) or (exam.split, exam.id) in seen):
                raise ValueError
        except ValueError:
            raise UserError(f'{path} line {line} is damaged: run the run again, which rewrites it') from None
        seen.add((exam.split, exam.id))
        exams.append(exam)
        numbers.append(values)
    labels = np.array([names.index(exam.label) if exam.label else -1 for exam in exams], np.int32)
    table = np.array(numbers, np.float32).reshape(-1, len(names) + len(more))
    extra = {name: table[:, len(names) + i] for i, name in enumerate(more)}
    return Predictions(tuple(names), exams, labels, table[:, :len(names)], None, extra)


def of_run(folder: str | Path, names: tuple[str, ...] = ()) -> Predictions:
    """The predictions.csv of a finished run, as `read` gives it. UserError where the folder has none; it names one that has."""
    folder = Path(folder)
    path = folder / 'predictions.csv'
    if path.is_file():
        return read(path, names)
    below = [p.parent for pattern in ('*', '*/*') for p in sorted(folder.glob(f'{pattern}/predictions.csv'))]
    hint = f', as {below[-1]}' if below else ''
    raise UserError(f'{folder} holds no predictions.csv: give the folder of a finished run{hint}')


def marked(answers: Predictions, leaks: Mapping[str, str]) -> tuple[Predictions, str]:
    """The answers with a column 'seen', 1 for all exams of a patient of whom `leaks` names one, {exam id: folder of the run that
    learnt from the patient}, and the sentence that says so; as they are, and '', where it names none of them."""
    patients = {exam.patient for exam in answers.exams if exam.id in leaks}
    if not patients:
        return answers, ''
    seen = np.array([exam.patient in patients for exam in answers.exams], np.float32)
    run = next(leaks[exam.id] for exam in answers.exams if exam.id in leaks)
    note = f'{np.count_nonzero(seen)} exams are of patients that {run} learnt from'
    return answers._replace(columns={**answers.columns, 'seen': seen}), note


def means(tables: Sequence[Predictions]) -> Predictions:
    """Each exam of a split once, with the mean probability over the tables that have it, of folds its only one; 'seen' where one of them
    says so. The tables are of the same classes, and agree on what is known of an exam."""
    rows: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for t, table in enumerate(tables):
        for i, exam in enumerate(table.exams):
            rows.setdefault((exam.split, exam.id), []).append((t, i))
    first = [of[0] for of in rows.values()]
    seen = np.array([max(tables[t].columns['seen'][i] if 'seen' in tables[t].columns else 0 for t, i in of) for of in rows.values()], np.float32)
    return Predictions(tables[0].names, [tables[t].exams[i] for t, i in first], np.array([tables[t].label[i] for t, i in first], np.int32),
                       np.array([np.mean([tables[t].probability[i] for t, i in of], 0) for of in rows.values()]).reshape(-1, len(tables[0].names)),
                       None, {'seen': seen} if seen.any() else {})


def aligned(members: Sequence[Predictions], runs: Sequence[str | Path]) -> list[Predictions]:
    """The members with their rows in the order of the first. runs: what each is called. UserError where one has other exams, or
    other labels, patients or sites for them."""
    exams = members[0].exams
    ordered = []
    for run, member in zip(runs, members, strict=True):
        row_of = {(exam.split, exam.id): i for i, exam in enumerate(member.exams)}
        if odd := {(exam.split, exam.id) for exam in exams} ^ row_of.keys():
            raise UserError(f'{runs[0]} and {run} did not answer the same exams: {len(odd)} differ, one is {min(odd)[1]}; take '
                            'runs of the same data and splits')
        rows = [row_of[exam.split, exam.id] for exam in exams]
        for exam, row in zip(exams, rows, strict=True):
            other = member.exams[row]
            differ = [name for name in Exam._fields if getattr(exam, name) != getattr(other, name)]
            if differ:
                raise UserError(f'{exam.id} has another {" and ".join(differ)} in {run} than in {runs[0]}: take runs of the '
                                'same data')
        ordered.append(member.at(rows))
    return ordered
