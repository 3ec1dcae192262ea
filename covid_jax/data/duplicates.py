"""Near duplicates: scans that look so alike that they are of one patient, whatever the names say.

Scans are compared by their signatures, small thumbnails of which only the edges are kept. Two copies of an image correlate by
0.95 and more after another size, JPEG quality, window or gamma; mirrored, or cropped by a few percent, they do not.
ALIKE was chosen by eye, from pairs of slices of SARS-CoV-2-CT (500) and COVID-CT (543): of those looked at, nearly all above
it were neighbouring slices or copies, and from 0.81 to 0.84 several were of two patients. Of 562 X-rays 20 pairs are above it, and 18 of
these are of two patients, up to 0.899; above SURE is one pair, of one patient. Of the slices 31 pairs are above SURE, nearly all of
neighbours in the numbering.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array, csr_array, vstack
from scipy.sparse.csgraph import connected_components

from covid_jax import UserError
from covid_jax.data import store
from covid_jax.data.prep import Prep
from covid_jax.sources.exams import Exam, class_index
from covid_jax.text import count, some

THUMBNAIL = Prep(window=(-1000.0, 400.0), size=(1, 64, 64))  # of a volume its middle slice
SIDE = 32  # pixels of a signature
BLUR = 4.0  # pixels of it: the standard deviation of what is coarser than an edge
ALIKE = 0.85  # the correlation of two signatures above which they are near duplicates
SURE = 0.9  # above which they are no two people's, even as X-rays
BLOCK = 1024  # signatures that are compared with all others at once
LISTED = 3  # clusters that a line names


def signature(image: np.ndarray) -> np.ndarray:
    """A thumbnail, uint8 [1, 64, 64, 1] -> float32 [1024] of mean 0 and length 1, so that the product of two signatures is
    their correlation; all 0 for an image of one value."""
    ratio = image.shape[1] // SIDE
    plane = image[0, :, :, 0].astype(np.float32).reshape(SIDE, ratio, SIDE, ratio).mean((1, 3))
    edges = plane - gaussian_filter(plane, BLUR)  # of mean 0, for a blur keeps the mean
    length = np.linalg.norm(edges)
    return (edges / length if length > 1e-3 else np.zeros_like(edges)).ravel()


def clusters(signatures: np.ndarray, threshold: float = ALIKE) -> np.ndarray:
    """float32 [n, 1024] -> int [n], the number of each one's cluster, 0 first: whatever a chain of pairs leads to that
    correlate by more than the threshold."""
    near = [csr_array(signatures[at:at + BLOCK] @ signatures.T > threshold) for at in range(0, len(signatures), BLOCK)]
    return connected_components(vstack(near), directed=False)[1]


def join(exams: list[Exam], data: ConfigDict, root: Path | str, name: str, say: Callable[[str], None]) -> list[Exam]:
    """The exams of a source in their order, with one patient for all those that near duplicates lead to from each other.

    Whole patients are joined, and called after the first of them in the alphabet. A scan that cannot be read is joined with
    none. root: where the thumbnails are stored, as prepared scans are; data: the config's section; name: what the source is
    called. UserError for clusters in two splits, as the source names them.
    """
    made = store.build(exams, store.content_hashes(exams, root), THUMBNAIL, root, data.workers)
    good = [exam for exam in exams if exam.id in made.row]
    found = clusters(np.array([signature(made.images[made.row[exam.id]]['image']) for exam in good]))
    members = defaultdict(list)
    for number, exam in zip(found, good, strict=True):
        members[number].append(exam)
    joined = _joined_patients(exams, members.values())
    after = [exam._replace(patient=joined[exam.patient]) for exam in exams]
    torn = [cluster for cluster in members.values() if len({exam.split for exam in cluster} - {''}) > 1]
    if torn:
        raise UserError(f'{name}: {count(len(torn), "cluster")} of near duplicates in two splits of the source '
                        f'({_examples(torn)}): take --config.data.split=drawn, or --config.data.group=source')
    sizes = Counter(exam.patient for exam in after)
    unread = f'; {len(exams) - len(good)} cannot be read' if len(good) < len(exams) else ''
    say(f'{name}: by near duplicates {len(exams)} exams of {len(joined)} patients are {len(sizes)} groups, the largest of '
        f'{max(sizes.values())} exams{unread}')
    classes = [{class_index(exam.label, data.classes) for exam in cluster} - {-1} for cluster in members.values()]
    mixed = [cluster for cluster, found in zip(members.values(), classes, strict=True) if len(found) > 1]
    if mixed:
        say(f'{name}: {count(len(mixed), "cluster")} of near duplicates in two classes, look at them ({_examples(mixed)})')
    return after


def _joined_patients(exams: Sequence[Exam], members) -> dict[str, str]:
    """{patient: the first in the alphabet of those that clusters join it with}."""
    patients = sorted({exam.patient for exam in exams})
    place = {patient: i for i, patient in enumerate(patients)}
    pairs = [(place[cluster[0].patient], place[exam.patient]) for cluster in members for exam in cluster]
    rows, columns = zip(*pairs, strict=True)
    links = coo_array((np.ones(len(pairs), bool), (rows, columns)), (len(patients), len(patients)))
    first: dict[int, str] = {}
    return {patient: first.setdefault(group, patient)
            for patient, group in zip(patients, connected_components(links, directed=False)[1], strict=True)}


def _examples(found):
    return some((' = '.join(exam.id for exam in cluster[:2]) for cluster in found), LISTED)
