"""Whether a scan looks like those that a run learnt from: told from its values as they were prepared, without a network.

A network's features are made to tell classes apart and may well not see another scanner, so what is compared is the input: how its
grey values, and the steps between neighbouring pixels, are spread. A scan is unlike where even the fifth nearest of the training exams
is farther from it than from nearly all exams of that kind (the principle of Sun et al., "Out-of-Distribution Detection with Deep
Nearest Neighbors", ICML 2022, on statistics of the input in place of features).
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from covid_jax.data.parts import Seen
from covid_jax.data.pipeline import Dataset
from covid_jax.runtime import files
from covid_jax.scans.scan import blame

FILE = 'familiar.npz'
GREYS = 32  # bins of grey values
STEPS = 16  # bins of the steps between neighbours, as wide as the step is high: two for each doubling
NEAREST = 5  # which neighbour's distance counts: an odd exam or two among the training exams make nothing familiar
SHARE = 0.96  # of the exams of the same kind lie within the limit
FEWEST = 30  # patients; of fewer the limit would be one exam's distance
MOST = 2000  # exams that are compared with: what a small file holds
SLACK = 300  # HU by which a scan's least value may be above that of every training exam: lungs are so far above the air
ROUNDING = 1e-6  # of float32; no limit is below
STEP_BIN = np.minimum(np.floor(2 * np.log2(1 + np.arange(256))), STEPS - 1).astype(int)


class Known(NamedTuple):
    """What a run learnt from. statistics: float32 [m, GREYS + STEPS], as `describe` gives them, of at most MOST exams; limit: the distance
    beyond which a scan is unlike them, NaN where they are too few; hounsfield: bool [n], depth: int [n], low: float [n]: the units, the
    number of slices and the least value of each training exam before it was prepared, n is 0 where nobody kept them."""

    statistics: np.ndarray
    limit: float
    hounsfield: np.ndarray
    depth: np.ndarray
    low: np.ndarray


def describe(image: np.ndarray) -> np.ndarray:
    """A prepared scan, uint8 [depth, height, width, 1] -> float32 [GREYS + STEPS]: the roots of the shares of its pixels with each grey
    value and, of pairs of neighbours in plane, with each step. So two scans are at most sqrt(2) apart in each (Hellinger's distance)."""
    greys = np.bincount(image.ravel(), minlength=256).reshape(GREYS, -1).sum(1)
    values = image[..., 0].astype(np.int16)
    steps = np.zeros(STEPS)
    for axis in (1, 2):
        steps += np.bincount(STEP_BIN[np.abs(np.diff(values, axis=axis)).ravel()], minlength=STEPS)
    return np.sqrt(np.concatenate([greys / image.size, steps / max(steps.sum(), 1)])).astype(np.float32)


def learn(dataset: Dataset) -> Known:
    """What a run that learns from the train split of a data set knows; reads these exams once, or every other one and so on where they
    are more than MOST."""
    train = dataset.of_split('train')
    chosen = train[np.unique(np.linspace(0, len(train) - 1, min(MOST, len(train))).round().astype(int))] if len(train) else train
    described = [describe(dataset.images[int(row)]['image']) for row in dataset.row[chosen]]
    statistics = np.array(described, np.float32).reshape(-1, GREYS + STEPS)
    seen = [dataset.seen[dataset.exams[i].id] for i in train if dataset.exams[i].id in dataset.seen]
    return Known(statistics, limit_of(statistics, [dataset.exams[i].patient for i in chosen]),
                 np.array([each.hounsfield for each in seen], bool), np.array([each.shape[0] for each in seen], int),
                 np.array([each.low for each in seen], float))


def limit_of(statistics: np.ndarray, patients: list[str]) -> float:
    """The distance within which SHARE of these exams, float [m, bins], are of the NEAREST-th one of other patients; NaN for less than
    FEWEST patients."""
    if len(set(patients)) < FEWEST:
        return float('nan')
    apart = _distances(statistics, statistics)
    _, of_patient = np.unique(patients, return_inverse=True)
    apart[of_patient[:, None] == of_patient] = np.inf
    return float(np.quantile(np.sort(apart, 1)[:, NEAREST - 1], SHARE))


def distance(known: Known, statistics: np.ndarray) -> float:
    """How far a scan, float [bins], is from what is known, in units of the limit: unlike above 1. NaN where they are too few."""
    if np.isnan(known.limit):
        return float('nan')
    return float(np.sort(_distances(statistics[None], known.statistics)[0])[NEAREST - 1] / max(known.limit, ROUNDING))


def refusal(known: Known | None, seen: Seen, image: np.ndarray) -> str:
    """Why a scan cannot be answered, whatever it looks like, else ''.

    known: None where the run does not say; seen: what the scan was before it was prepared; image: uint8 [depth, height, width, 1], how
    it was prepared.
    """
    if reason := other_kind(known, seen):
        return reason
    if image.min() == image.max():
        return f'nothing is seen of it: prepared as the run asks for, all of it is {image.min()}'
    return ''


def other_kind(known: Known | None, seen: Seen) -> str:
    """Why a scan cannot be of the kind that a run learnt from, else ''. known, seen: as for `refusal`."""
    if known is not None and len(known.depth):
        if seen.hounsfield not in known.hounsfield:
            own, theirs = ('Hounsfield units', 'grey values') if seen.hounsfield else ('grey values', 'Hounsfield units')
            return f'unlike the training data: its values are {own}, and the run learnt from {theirs}'
        if seen.shape[0] > 1 and known.depth.max() == 1:
            return f'unlike the training data: {seen.shape[0]} slices, and the run learnt from single images: give one, as PATH::slice=N'
        if seen.shape[0] == 1 and known.depth.min() > 1:
            return 'unlike the training data: a single image, and the run learnt from volumes: give the whole scan'
        if seen.hounsfield and seen.low > known.low.max() + SLACK:
            return (f'unlike the training data: its Hounsfield units are {seen.low:g} to {seen.high:g}, and those that the run learnt from '
                    f'begin at {known.low.max():g} or below: an offset was lost, or these are no Hounsfield units')
    return ''


def write(folder: Path | str, known: Known) -> None:
    """familiar.npz, in the folder of a run."""
    arrays: dict[str, Any] = known._asdict()
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write(Path(folder) / FILE, content.getvalue())


def read(folder: Path | str) -> Known | None:
    """What the run in a folder knows, None of a run of before it was kept. UserError for a damaged file."""
    path = Path(folder) / FILE
    if not path.exists():
        return None
    with blame(path), path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in Known._fields}
        if found['statistics'].ndim != 2 or found['statistics'].shape[1] != GREYS + STEPS:
            raise ValueError(f'statistics of the shape {list(found["statistics"].shape)}: run the command of the run again, which writes it anew')
    return Known(**{**found, 'limit': float(found['limit'])})


def _distances(a, b):
    """float64 [len(a), len(b)], of each row of one to each of the other."""
    a = a.astype(float)
    b = b.astype(float)
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))
