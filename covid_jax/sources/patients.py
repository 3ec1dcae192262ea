"""Which scans are of one person, as far as DICOM tells: exams of one person are never in two splits."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

from covid_jax import UserError
from covid_jax.scans import decode


def one_patient(exams, root, say):
    """The exams with DICOM scans of one PatientID under one patient: the one that the source names for any of them, else
    the first of their ids in the alphabet; the PatientID stays unsaid. UserError where that cannot be told."""
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda exam: decode.patient_digest(exam.path), exams))
    groups = defaultdict(list)
    for exam, digest in zip(exams, digests, strict=True):
        if digest:
            groups[digest].append(exam)
    placed, unnamed, people, doubtful = {}, 0, set(), 0
    for group in groups.values():
        own = [exam for exam in group if exam.patient == exam.id]
        named = {exam.patient for exam in group} - {exam.id for exam in own}
        if own and len(named) > 1:
            raise UserError(f'{root}: {own[0].id} has no patient, and DICOM scans of its PatientID have several '
                            f'({", ".join(sorted(named)[:3])}): name the patient of each')
        doubtful += len(named) > 1
        patient = next(iter(named), min(exam.id for exam in group))
        placed |= dict.fromkeys((exam.id for exam in own), patient)
        unnamed += len(own)
        people |= {patient} if own else set()
    if unnamed > 2 and len(groups) == 1:
        raise UserError(f'{root}: all {unnamed} DICOM scans carry one PatientID: name the patients in a manifest '
                        '(column patient)')
    if unnamed > len(people):
        say(f'{root}: {unnamed} DICOM scans of {len(people)} patients, by their PatientID')
    if doubtful:
        say(f'{root}: {doubtful} PatientIDs have scans of several patients, as the table names them: look at it again')
    return [exam._replace(patient=placed.get(exam.id, exam.patient)) for exam in exams]
