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
from covid_jax.phantom.anatomy import Size, anatomy, field
from covid_jax.phantom.lung import Lung, blend, lung_of
from covid_jax.phantom.scanner import AIR, check_site, in_view, scan

Phantom = tuple[np.ndarray, tuple[float, float, float], np.ndarray]  # voxels, spacing in mm, lesion
LABELS = ('normal', 'covid', 'pneumonia')
SIZE = (40, 96, 96)
VERSION = 1  # raised whenever the same address gives other voxels

VESSEL = 40.0  # HU
BRONCHUS = -950.0  # HU
EDGE_OF_LUNG = -850.0  # HU of the lung in a voxel whose middle lies outside
GROUND_GLASS = -500.0  # HU, also at the edge of a consolidation
LUNG = -900  # HU
TAKEN = 1e3  # more than any potential: no mottle where there is consolidation


class Density(NamedTuple):
    """Ground glass or consolidation, over the lung voxels: `weight` [voxels] of each becomes `target` [voxels] HU."""

    weight: np.ndarray
    target: np.ndarray


class Body(NamedTuple):
    """A body under no label yet.

    rng:     where the draws of the scanner go on
    spacing: (z, y, x) mm
    tissue:  HU of all but the lungs [depth, height, width]
    aerated: the lung's part of a voxel [depth, height, width]
    lung:    what the lungs are made of
    glass:   ground glass as patches under the pleura
    dense:   consolidation as part of one lobe
    bed:     the values of `dense` as fluid in the dependent lung
    """

    rng: np.random.Generator
    spacing: tuple[float, float, float]
    tissue: np.ndarray
    aerated: np.ndarray
    lung: Lung
    glass: Density
    dense: Density
    bed: Density


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
    return anatomy(np.random.default_rng([seed, index, 0]), size).aerated > 0.5


def body_of(seed: int, index: int, size: Size = SIZE, table: bool = True) -> Body:
    """The Body of (seed, index), on the scanner's table or not."""
    rng = np.random.default_rng([seed, index, 0])
    sick = np.random.default_rng([seed, index, 1])
    well = anatomy(rng, size, table)
    lung = lung_of(rng, size, well)
    dense = _consolidation(sick, size, lung)
    bed = spread(dense, lung.dependent)
    glass = _patches(sick, size, lung, bed.weight == 0)
    return Body(rng, well.chest.spacing, well.tissue, well.aerated, lung, glass, dense, bed)


def under(body: Body, label: str) -> tuple[np.ndarray, np.ndarray]:
    """A body under a label: (hu float [depth, height, width] without noise, lesion bool, the same shape)."""
    lung = body.lung
    dense = body.dense if label == 'pneumonia' else body.bed
    glass = body.glass if label == 'covid' else spread(body.glass, lung.mottle - TAKEN * (dense.weight > 0))
    inside = blend(blend(lung.air, *glass), *dense)
    inside = blend(blend(inside, lung.vessel, VESSEL), lung.bronchus, BRONCHUS)
    filled = np.full(body.tissue.shape, EDGE_OF_LUNG)
    filled.flat[lung.where] = inside
    lesion = np.zeros(body.tissue.shape, bool)
    if label != 'normal':
        shown = body.glass if label == 'covid' else body.dense
        lesion.flat[lung.where] = shown.weight > 0.5
    return body.tissue + body.aerated * (filled - body.tissue), lesion


def _patches(rng, size, lung, free):
    """Ground glass as 6 to 9 patches under the pleura, at least two in each lung, where it is `free`."""
    count = int(rng.integers(6, 10))
    left = int(rng.integers(2, count - 1))
    rough = field(rng, size, (10, 14, 14)).ravel()[lung.where]
    grain = 50 * np.tanh(2 * field(rng, size, (16, 38, 38)).ravel()[lung.where])  # HU
    weight = np.zeros(rough.size)
    target = np.full(rough.size, GROUND_GLASS)
    for k in range(count):
        allowed = free & (lung.side == (1 if k < left else -1))
        rim = np.flatnonzero(allowed & (lung.pleura < 0.15 * lung.depth[allowed].max()))
        middle = rng.choice(rim)
        # Half as wide as the lung is deep, each axis by itself, and flat: they follow the pleura.
        radius = rng.uniform(0.42, 0.66) * lung.deep * rng.uniform(0.75, 1.3, 3)
        away = _away(lung, middle, radius)
        away += ((lung.pleura - lung.pleura[middle]) / (0.45 * lung.deep))**2
        patch = np.clip((1.0 - np.sqrt(away) - 0.2 * rough) / 0.15, 0, 1) * allowed  # 0.15 of the radius is its soft edge
        target = np.where(patch > weight, rng.uniform(-560, -430), target)
        weight = np.maximum(weight, patch)
    return Density(weight, target + grain)


def _consolidation(rng, size, lung):
    """One dense lobe, sharp at the fissure, ground glass at its free edge."""
    side = rng.choice((-1.0, 1.0))
    rough = field(rng, size, (6, 8, 8)).ravel()[lung.where]
    # The oblique fissure goes down from back to front; the lobe below it is the likelier to be ill.
    down = rng.uniform(1.0, 1.6)
    back = rng.uniform(0.4, 1.2)
    fissure = down * (lung.z / lung.length - 0.5) + back * lung.y / lung.deep
    lobe = (fissure > 0) == (rng.uniform() < 0.6)
    allowed = np.flatnonzero((lung.side == side) & lobe)
    middle = rng.choice(allowed)
    away = (np.sqrt(_away(lung, middle, (lung.deep,) * 3)) + 0.06 * rough)[allowed]
    # It grows from its middle until it has 3 to 8 % of both lungs, or almost all of the lobe.
    share = int(rng.uniform(0.03, 0.08) * rough.size)
    edge = np.sort(away)[min(share, int(0.95 * allowed.size))]
    weight = np.zeros(rough.size)
    target = np.full(rough.size, GROUND_GLASS)
    weight[allowed] = np.clip((edge - away) / 0.06 + 1, 0, 1)
    solid = np.clip((edge - away) / 0.04 + 0.5, 0, 1)
    target[allowed] = blend(GROUND_GLASS, solid, rng.uniform(-25, 15) + 8 * np.clip(rough[allowed], -3, 3))
    return Density(weight, target)


def _away(lung, middle, radius):
    """The squared distance [voxels] of each lung voxel from one of them, in units of `radius`, mm by axis."""
    return sum(((place - place[middle]) / r)**2 for place, r in zip((lung.z, lung.y, lung.x), radius, strict=True))


def spread(density: Density, potential: np.ndarray) -> Density:
    """The same voxel values laid out anew: the densest where the potential [voxels] is highest."""
    weight, target = density
    old = np.flatnonzero(weight)
    old = old[np.argsort(-weight[old] * (target[old] - LUNG), kind='stable')]
    new = np.argpartition(-potential, old.size)[:old.size]
    new = new[np.argsort(-potential[new], kind='stable')]
    moved = Density(np.zeros_like(weight), np.full_like(target, GROUND_GLASS))
    moved.weight[new] = weight[old]
    moved.target[new] = target[old]
    return moved
