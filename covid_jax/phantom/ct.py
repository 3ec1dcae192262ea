"""Synthetic chest CTs in Hounsfield units: a data set that is always there, and that no histogram can classify.

Slice 0 is the apex of the lungs, row 0 the front of the chest, column 0 the patient's right. Lengths are mm.

Every body has ground glass and consolidation, as much of them under every label. The label decides their shape and
place: covid shows ground glass as patches under the pleura of both lungs, pneumonia shows consolidation as part of one
lobe. What a label does not show is laid out anew, the very same voxel values, as something harmless: ground glass as a
fine mottle of small vessels, consolidation as fluid and atelectasis in the dependent lung. Hence neither a histogram
nor a coarse map of the lungs tells the labels apart; shape does, to an eye or to a network with convolutions.
"""

from typing import NamedTuple

import numpy as np

from covid_jax import UserError
from covid_jax.phantom.anatomy import Size, anatomy, blend, field, lung_of
from covid_jax.phantom.scanner import AIR, check_site, in_view, scan

Phantom = tuple[np.ndarray, tuple[float, float, float], np.ndarray]  # voxels, spacing in mm, lesion
LABELS = ('normal', 'covid', 'pneumonia')
SIZE = (40, 96, 96)
VERSION = 1  # raised whenever the same address gives other voxels


class Body(NamedTuple):
    """A body under no label yet. Of ground glass and of consolidation it holds (weight, target HU), each [lung voxels].

    rng:     where the draws of the scanner go on
    spacing: (z, y, x) mm
    tissue:  HU of all but the lungs [depth, height, width]
    aerated: the lung's part of a voxel [depth, height, width]
    lung:    a dict of vectors over the lung voxels, see anatomy.lung_of
    glass:   as patches under the pleura
    dense:   as part of one lobe
    bed:     the values of `dense` as fluid in the dependent lung
    """

    rng: np.random.Generator
    spacing: tuple[float, float, float]
    tissue: np.ndarray
    aerated: np.ndarray
    lung: dict
    glass: tuple[np.ndarray, np.ndarray]
    dense: tuple[np.ndarray, np.ndarray]
    bed: tuple[np.ndarray, np.ndarray]


def phantom(seed: int, index: int, label: str, size: Size = SIZE, site: str = '') -> Phantom:
    """One scan: (hu int16 [depth, height, width], spacing (z, y, x) in mm, lesion bool [depth, height, width]).

    Two labels of one (seed, index) are the same body under the same scanner with the same noise: they differ in the
    lungs alone, by the lesions and by what stands in for them. Two sites are the same body under two scanners; '' is a
    scanner of the body's own. UserError for a label not in LABELS and a site not in scanner.SITES.
    """
    check_label(label)
    check_site(site)
    body = body_of(seed, index, size)
    hu, lesion = under(body, label)
    hu = scan(body.rng, in_view(hu, site, AIR), site)
    return hu, body.spacing, in_view(lesion, site, False)


def check_label(label: str) -> None:
    """UserError for a label that no body can be under."""
    if label not in LABELS:
        raise UserError(f'phantom label {label!r} is not one of {", ".join(LABELS)}')


def lungs(seed: int, index: int, size: Size = SIZE) -> np.ndarray:
    """The true lungs of phantom(seed, index, ...) under every label, bool [depth, height, width]: lesions included."""
    return anatomy(np.random.default_rng([seed, index, 0]), size)[3] > 0.5


def body_of(seed: int, index: int, size: Size = SIZE, table: bool = True) -> Body:
    """The Body of (seed, index), on the scanner's table or not."""
    rng = np.random.default_rng([seed, index, 0])
    sick = np.random.default_rng([seed, index, 1])
    spacing, tissue, depth, aerated, place = anatomy(rng, size, table)
    lung = lung_of(rng, size, spacing, depth, place)
    dense = _consolidation(sick, size, lung)
    bed = spread(*dense, lung['dependent'])
    glass = _patches(sick, size, lung, bed[0] == 0)
    return Body(rng, spacing, tissue, aerated, lung, glass, dense, bed)


def under(body: Body, label: str) -> tuple[np.ndarray, np.ndarray]:
    """A body under a label: (hu float [depth, height, width] without noise, lesion bool, the same shape)."""
    lung = body.lung
    dense = body.dense if label == 'pneumonia' else body.bed
    glass = body.glass if label == 'covid' else spread(*body.glass, lung['mottle'] - 1e3 * (dense[0] > 0))
    inside = blend(blend(lung['air'], *glass), *dense)
    inside = blend(blend(inside, lung['vessel'], 40.0), lung['bronchus'], -950.0)
    filled = np.full(body.tissue.shape, -850.0)
    filled.flat[lung['where']] = inside
    lesion = np.zeros(body.tissue.shape, bool)
    if label != 'normal':
        shown = body.glass if label == 'covid' else body.dense
        lesion.flat[lung['where']] = shown[0] > 0.5
    return body.tissue + body.aerated * (filled - body.tissue), lesion


def _patches(rng, size, lung, free):
    """Ground glass: weight and target HU [voxels] of 6 to 9 patches under the pleura, where the lung is `free`."""
    count = int(rng.integers(6, 10))
    left = int(rng.integers(2, count - 1))
    rough = field(rng, size, (10, 14, 14)).ravel()[lung['where']]
    grain = 50 * np.tanh(2 * field(rng, size, (16, 38, 38)).ravel()[lung['where']])
    weight = np.zeros(rough.size)
    target = np.full(rough.size, -500.0)
    for k in range(count):
        own = free & (lung['side'] == (1 if k < left else -1))
        rim = np.flatnonzero(own & (lung['pleura'] < 0.15 * lung['depth'][own].max()))
        at = rng.choice(rim)
        radius = rng.uniform(0.42, 0.66) * lung['deep'] * rng.uniform(0.75, 1.3, 3)
        away = sum(((lung[a] - lung[a][at]) / r)**2 for a, r in zip('zyx', radius, strict=True))
        away += ((lung['pleura'] - lung['pleura'][at]) / (0.45 * lung['deep']))**2
        patch = np.clip((1.0 - np.sqrt(away) - 0.2 * rough) / 0.15, 0, 1) * own
        target = np.where(patch > weight, rng.uniform(-560, -430), target)
        weight = np.maximum(weight, patch)
    return weight, target + grain


def _consolidation(rng, size, lung):
    """One dense lobe: weight and target HU [voxels], sharp at the fissure, ground glass at its free edge."""
    side = rng.choice((-1.0, 1.0))
    rough = field(rng, size, (6, 8, 8)).ravel()[lung['where']]
    steep = rng.uniform(1.0, 1.6), rng.uniform(0.4, 1.2)
    fissure = steep[0] * (lung['z'] / lung['length'] - 0.5) + steep[1] * lung['y'] / lung['deep']
    lobe = (fissure > 0) == (rng.uniform() < 0.6)
    own = np.flatnonzero((lung['side'] == side) & lobe)
    at = rng.choice(own)
    away = sum(((lung[a] - lung[a][at]) / lung['deep'])**2 for a in 'zyx')
    away = (np.sqrt(away) + 0.06 * rough)[own]
    share = int(rng.uniform(0.03, 0.08) * rough.size)
    edge = np.sort(away)[min(share, int(0.95 * own.size))]
    weight = np.zeros(rough.size)
    target = np.full(rough.size, -500.0)
    weight[own] = np.clip((edge - away) / 0.06 + 1, 0, 1)
    dense = np.clip((edge - away) / 0.04 + 0.5, 0, 1)
    target[own] = blend(-500.0, dense, rng.uniform(-25, 15) + 8 * np.clip(rough[own], -3, 3))
    return weight, target


def spread(weight: np.ndarray, target: np.ndarray, potential: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same voxel values [voxels] laid out anew: the densest where the potential [voxels] is highest."""
    old = np.flatnonzero(weight)
    old = old[np.argsort(-weight[old] * (target[old] + 900), kind='stable')]
    new = np.argpartition(-potential, old.size)[:old.size]
    new = new[np.argsort(-potential[new], kind='stable')]
    spread = np.zeros_like(weight)
    spread[new] = weight[old]
    moved = np.full_like(target, -500.0)
    moved[new] = target[old]
    return spread, moved
