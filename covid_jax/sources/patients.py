"""Which scans are of one person, as far as DICOM tells: exams of one person are never in two splits."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from covid_jax import UserError
from covid_jax.scans import decode
from covid_jax.sources.exams import Exam
from covid_jax.text import count, some

READERS = 8  # threads that read headers: they wait for the disk


def one_patient(exams: list[Exam], root: Path | str, say: Callable[[str], None]) -> list[Exam]:
    """The exams with DICOM scans of one PatientID under one patient: the one that the source names for any of them,
    else the first of their ids in the alphabet; the PatientID stays unsaid. UserError where that cannot be told."""
    groups = _by_patient_id(exams)
    patient_of: dict[str, str] = {}  # id of an exam whose patient the source does not name -> its patient
    doubtful = 0
    for group in groups:
        unnamed = [exam.id for exam in group if exam.patient == exam.id]
        names = {exam.patient for exam in group}.difference(unnamed)
        if len(names) > 1 and unnamed:
            raise UserError(f'{root}: {unnamed[0]} has no patient, and DICOM scans of its PatientID have several '
                            f'({some(sorted(names), 3)}): name the patient of each')
        if len(names) > 1:
            doubtful += 1
        patient = names.pop() if names else min(exam.id for exam in group)
        patient_of |= dict.fromkeys(unnamed, patient)

    # Anonymised data often carries one PatientID in every scan: then it tells nothing.
    if len(groups) == 1 and len(patient_of) > 2:
        if _are_one_scan(groups[0]):
            raise UserError(f'{root}: {some((exam.id for exam in groups[0]), 3).replace(", ", " = ")}: all {len(groups[0])} DICOM scans are one and '
                            'the same: keep one of them; each exam must be a scan of its own')
        raise UserError(f'{root}: all {len(patient_of)} DICOM scans carry one PatientID: name the patients in a manifest '
                        '(column patient)')
    people = set(patient_of.values())
    if len(patient_of) > len(people):
        say(f'{root}: {len(patient_of)} DICOM scans of {count(len(people), "patient")}, by their PatientID')
    if doubtful:
        say(f'{root}: {count(doubtful, "PatientID has", "PatientIDs have")} scans of several patients, as the table names them: look at it '
            'again')
    return [exam._replace(patient=patient_of.get(exam.id, exam.patient)) for exam in exams]


def _are_one_scan(exams):
    """Whether the files of all of them are the same, byte for byte; nothing is read where there are not as many, or not
    as large. What cannot be read, as a link whose content is not here, is the same as nothing."""
    files = [decode.files_of(exam.path) for exam in exams]
    try:
        if len({tuple(sorted(file.stat().st_size for file in of)) for of in files}) > 1:
            return False
        return len({tuple(sorted(hashlib.sha256(file.read_bytes()).digest() for file in of)) for of in files}) == 1
    except OSError:  # decoding says what is wrong
        return False


def _by_patient_id(exams):
    """The exams that carry a PatientID, a list for each of them."""
    with ThreadPoolExecutor(READERS) as pool:
        digests = list(pool.map(lambda exam: decode.patient_digest(exam.path), exams))
    groups = defaultdict(list)
    for exam, digest in zip(exams, digests, strict=True):
        if digest:
            groups[digest].append(exam)
    return list(groups.values())
