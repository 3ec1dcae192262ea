"""Which exams without COVID are learnt from: a ranking of them as a file, and the choice from it (dual-track ranking, section IV.E)."""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.ranking import select
from covid_jax.runtime.files import write_csv
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import POSITIVE, Exam, class_index
from covid_jax.text import from_cell, some

FILE = 'ranking.csv'
FIELDS = 'id', 'patient', 'site', 'label', 'distance', 'diversity'
TRACKS = 'difficulty', 'diversity', 'joint'  # by which there are ranks
COLUMNS = (*FIELDS, *(f'rank_{track}' for track in TRACKS))


class Ranking(NamedTuple):
    """exams: [n], without COVID, all of train; distance: float [n], the mean to the positives, the least the hardest; diversity: float
    [n], the mean distance to each other; ranks: {track: int [n]}, 1 for the most valuable."""

    exams: list[Exam]
    distance: np.ndarray
    diversity: np.ndarray
    ranks: dict[str, np.ndarray]


def check(data: ConfigDict) -> None:
    """UserError for a choice that cannot be, whatever the data are. data: the config's section, which ranges.check passes."""
    asked = data.negatives
    if asked.count and not asked.ranking and asked.law != 'random':
        raise UserError(f'--config.data.negatives.law={asked.law} needs a ranking: set --config.data.negatives.ranking to the folder of '
                        'one, or --config.data.negatives.law=random')
    if asked.ranking and not asked.count:
        raise UserError('how many negatives are to be learnt from? set --config.data.negatives.count to their number, or below 1 to '
                        'their share')
    if not math.isfinite(asked.count) or asked.count > 1 and asked.count != int(asked.count):
        raise UserError(f'--config.data.negatives.count={asked.count} must be a whole number, or below 1 a share')


def write(folder: str | Path, ranking: Ranking) -> None:
    """Writes folder/ranking.csv, the most valuable of the joint ranks first."""
    rows: list[Sequence] = [COLUMNS]
    for i in np.argsort(ranking.ranks['joint']):
        exam = ranking.exams[i]
        distances = (f'{ranking.distance[i]:.9g}', f'{ranking.diversity[i]:.9g}')
        rows.append([exam.id, exam.patient, exam.site, exam.label, *distances, *(ranking.ranks[track][i] for track in TRACKS)])
    write_csv(Path(folder) / FILE, rows)


def read(folder: str | Path) -> Ranking:
    """What `write` wrote. UserError where the folder holds none, or a damaged one."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise UserError(f'{folder} holds no {FILE}: give the folder of a ranking (python -m covid_jax.main --config=configs/rank.py)')
    with blame(path), path.open(newline='', encoding='utf-8') as f:
        header, *rows = [list(map(from_cell, row)) for row in csv.reader(f)] or [[]]
        if tuple(header) != COLUMNS or not rows or any(len(row) != len(COLUMNS) for row in rows):
            raise ValueError(f'expected the columns {", ".join(COLUMNS)}, and rows of them')
        exams = [Exam(name, patient, site, label, 'train', '') for name, patient, site, label, *_ in rows]
        numbers = np.array([row[4:] for row in rows], float)
    ranks = {track: numbers[:, 2 + i].astype(int) for i, track in enumerate(TRACKS)}
    if any(sorted(of) != list(range(1, len(rows) + 1)) for of in ranks.values()):
        raise UserError(f'{path} is damaged: its ranks are not 1 to {len(rows)}; delete it and rank again')
    return Ranking(exams, numbers[:, 0], numbers[:, 1], ranks)


def choose(exams: list[Exam], data: ConfigDict, say: Callable[[str], None] = print) -> list[Exam]:
    """The exams in their order, '' in place of 'train' for those without COVID that data.negatives does not choose.

    exams: with their splits, as from splits.choose. The choice is the same whatever their order. UserError for a ranking that is none, or
    of exams that are not all in train here, and for more than there are.
    """
    asked = data.negatives
    if not asked.count:
        return exams
    train = sorted(exam.id for exam in exams if exam.split == 'train' and _is_negative(exam, data))
    ranked = _ranked(asked, train) if asked.ranking else train
    count = int(asked.count) if asked.count >= 1 else max(1, math.floor(asked.count * len(ranked) + 0.5))
    if count > len(ranked):
        raise UserError(f'--config.data.negatives.count={asked.count}: there are {len(ranked)} exams without COVID to choose from: take '
                        'fewer, or a share below 1')
    places = select.choose(np.arange(1, len(ranked) + 1), count, asked.law, asked.seed)
    by = f', by {asked.by}' if asked.law != 'random' else ''
    of = f' of {asked.ranking}' if asked.ranking else ''
    say(f'of {len(train)} exams of train without COVID {count} are learnt from: {asked.law}{by}{of}')
    out = set(train).difference(ranked[i] for i in places)
    return [exam._replace(split='') if exam.id in out else exam for exam in exams]


def _is_negative(exam, data):
    return exam.label != '' and class_index(exam.label, data.classes) != POSITIVE


def _ranked(asked, train):
    """The ids of a ranking, the most valuable first."""
    ranking = read(asked.ranking)
    ids = [ranking.exams[i].id for i in np.argsort(ranking.ranks[asked.by])]
    if others := sorted(set(ids) - set(train)):
        raise UserError(f'{len(others)} exams of the ranking {asked.ranking} are not in train here, or have COVID ({some(others, 3)}): '
                        'rank exams of the same data and splits, without those of val and test')
    return ids
