"""The label from what has nothing to do with disease: a network that reaches no more than these was not needed for it.

Each probe is a linear one (metrics/probes.py), fitted on the labelled exams of train, its strength chosen on val. Where there are
several sites, another one knows the site alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from covid_jax.data.pipeline import Dataset
from covid_jax.metrics import probes
from covid_jax.predictions import Predictions
from covid_jax.report import evidence
from covid_jax.runtime import files
from covid_jax.sources.files import Facts

BLOCKS = 8  # along each axis of a thumbnail, along each side of the border, and along the depth of a volume
RING = 0.06  # of the height and of the width: how thick the border is
BINS = 10  # of a number that a file tells, equally many training exams in each
SPLITS = ('val', 'test')

Features = Mapping[str, np.ndarray]  # {probe: [n, dim]}


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Means of 8 x 8 blocks of a prepared scan, uint8 [depth, height, width, 1] -> float64 [64]; of a volume of 8 x 8 x 8,
    [512]. An axis with fewer voxels has as many blocks as voxels."""
    return _block_means(image[..., 0].astype(float), (BLOCKS, BLOCKS, BLOCKS)).ravel()


def border(image: np.ndarray) -> np.ndarray:
    """Means of blocks along the outermost 6 % of height and width of a prepared scan, at least a voxel, uint8 [depth, height,
    width, 1] -> float64 [32]: 8 blocks along the top, the bottom, the left and the right; of a volume for each eighth of its
    depth, [256]. Corners are in two blocks."""
    voxels = image[..., 0].astype(float)
    high, wide = (max(1, round(RING * n)) for n in voxels.shape[1:])
    sides = ((voxels[:, :high], (BLOCKS, 1, BLOCKS)), (voxels[:, -high:], (BLOCKS, 1, BLOCKS)),
             (voxels[:, :, :wide], (BLOCKS, BLOCKS, 1)), (voxels[:, :, -wide:], (BLOCKS, BLOCKS, 1)))
    return np.concatenate([_block_means(side, blocks).ravel() for side, blocks in sides])


def of_files(facts: Sequence[Facts], train: np.ndarray) -> np.ndarray:
    """Facts of n files, and which of them are trained on, bool [n] -> float64 [n, dim] of zeros and ones: which format and
    mode of those in train, and in which tenth of the training exams width, height and bytes lie (a linear model of bins
    finds thresholds). What no training exam has is zeros."""
    columns = []
    for name in ('format', 'mode'):
        values = np.array([getattr(fact, name) for fact in facts])
        columns += [values == known for known in np.unique(values[train])]
    for name in ('width', 'height', 'bytes'):
        numbers = np.array([getattr(fact, name) for fact in facts], float)
        edges = np.unique(np.quantile(numbers[train], np.arange(1, BINS) / BINS))
        bins = np.searchsorted(edges, numbers, side='right')
        columns += [bins == index for index in range(len(edges) + 1)]
    return np.stack(columns, 1).astype(float)


def features(dataset: Dataset) -> tuple[np.ndarray, Features]:
    """The positions of the exams of train, val and test, and what each probe sees of them, beside these."""
    rows = np.concatenate([dataset.of_split(split) for split in ('train', *SPLITS)])
    seen: dict[str, list[np.ndarray]] = {'thumbnail': [], 'border': []}
    for i in dataset.row[rows]:  # one after another: a prepared scan may be large
        image = dataset.images[int(i)]['image']
        seen['thumbnail'].append(thumbnail(image))
        seen['border'].append(border(image))
    found = {name: np.stack(each) for name, each in seen.items()}
    if dataset.facts:
        train = np.array([dataset.exams[i].split == 'train' for i in rows])
        found['file'] = of_files([dataset.facts[i] for i in rows], train)
    return rows, found


def teaches(split: np.ndarray, label: np.ndarray) -> bool:
    """Whether the labelled rows of train are of two classes or more, without which there is no probe. split: str [n]; label: int
    [n], -1: unlabelled."""
    return len(np.unique(label[(split == 'train') & (label >= 0)])) > 1


def linear(split: np.ndarray, label: np.ndarray, seen: np.ndarray, classes: int) -> np.ndarray:
    """The probability of each row, float64 [n, classes], by the linear probe on what is seen of the rows, float [n, dim].

    split: str [n]; label: int [n], -1: unlabelled, of which train `teaches`.
    """
    train = (split == 'train') & (label >= 0)
    val = (split == 'val') & (label >= 0)
    return probes.linear(seen[train], label[train], seen[val], label[val], classes)(seen)


def of_site(site: np.ndarray, split: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """The share of each class among the labelled training exams of a row's site, of a site without any among all of them: float64
    [n, classes]. site, split: str [n]; label: int [n], -1: unlabelled, of which train `teaches`."""
    train = (split == 'train') & (label >= 0)
    one_hot = np.eye(classes)[label]
    shares = np.tile(one_hot[train].mean(0), (len(label), 1))
    for name in np.unique(site[train]):
        shares[site == name] = one_hot[train & (site == name)].mean(0)
    return shares


def answer(dataset: Dataset, names: tuple[str, ...]) -> dict[str, Predictions]:
    """{probe: what it answers of val and test}, for classes of these names, of which train `teaches`."""
    rows, seen = features(dataset)
    split = np.array([dataset.exams[i].split for i in rows])
    label = dataset.label[rows]
    asked = np.flatnonzero(split != 'train')
    exams = [dataset.exams[i] for i in rows[asked]]
    told = {name: linear(split, label, of_probe, len(names)) for name, of_probe in seen.items()}
    site = np.array([dataset.exams[i].site for i in rows])
    if len(np.unique(site)) > 1:
        told[evidence.SITE] = of_site(site, split, label, len(names))
    return {name: Predictions(names, exams, label[asked], probability[asked]) for name, probability in told.items()}


def report(folder: str | Path, dataset: Dataset, names: tuple[str, ...], level: float) -> None:
    """What the probes answer, beside a training: each as a table of evidence.FOLDER, and folder/shortcuts.json, {split: {probe:
    {'auc': {value, low, high, n, ...}}}}; of a train split of one class the reason alone, {'reason': ...}, a note there, too."""
    place = Path(folder) / 'shortcuts.json'
    if not teaches(np.array([exam.split for exam in dataset.exams]), dataset.label):
        reason = f'no probe: {probes.ONE_CLASS}'
        evidence.leave(folder, {}, (reason,))
        files.write(place, json.dumps({'reason': reason}, indent=1))
        return
    answers = answer(dataset, names)
    evidence.leave(folder, answers)
    files.write(place, json.dumps(evidence.entries(answers, level), indent=1))


def _block_means(voxels, blocks):
    """Means of so many blocks, or as many as there are voxels, along each axis: float [depth, height, width] -> [blocks]."""
    for axis, count in enumerate(blocks):
        length = voxels.shape[axis]
        starts = np.arange(min(count, length)) * length // min(count, length)
        sizes = np.diff([*starts, length])
        shape = [-1 if i == axis else 1 for i in range(voxels.ndim)]
        voxels = np.add.reduceat(voxels, starts, axis) / sizes.reshape(shape)
    return voxels
