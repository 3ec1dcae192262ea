"""What is known of exams from their files before a voxel is read: their hashes, their facts, the slices that they lack."""

from pathlib import Path
from typing import NamedTuple

from covid_jax.data import store
from covid_jax.sources.exams import Exam
from covid_jax.sources.files import Facts, facts, missing_slices


class Looked(NamedTuple):
    """What is known of exams from their files, before a voxel is read. hashes, facts: beside the exams; missing: exam id -> the numbers that
    its slices lack, of those that lack some."""

    hashes: list[str]
    facts: list[Facts]
    missing: dict[str, list[int]]


def look_at(exams: list[Exam], root: Path | str) -> Looked:
    """What is known of the files of exams. root: keeps the hashes."""
    seen: dict[str, tuple[Facts, list[int]]] = {}

    def see(exam, files):
        seen[exam.id] = facts(exam.path, files), missing_slices(files)

    hashes = store.content_hashes(exams, root, see)
    return Looked(hashes, [seen[exam.id][0] for exam in exams], {exam.id: numbers for exam in exams if (numbers := seen[exam.id][1])})
