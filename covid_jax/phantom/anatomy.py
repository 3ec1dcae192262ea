"""Bodies: the shapes of chest, bones, heart, diaphragm and lungs.

Slice 0 is the apex of the lungs, row 0 the front of the chest, column 0 the patient's right. Lengths are mm, densities HU.
Numbers are those of an adult, where anatomy gives one, else what looks like a chest.
"""

from typing import NamedTuple

import numpy as np

from covid_jax.phantom.scanner import AIR

Size = tuple[int, int, int]  # depth, height, width

FAT = -100.0  # HU
MUSCLE = 45.0  # HU
STERNUM = 180.0  # HU
PLATES = 220.0  # HU: shoulder blades and spinous processes
AIRWAY = -990.0  # HU
FOAM = -350.0  # HU: of which a table is made

INSIDE_BACK = 14  # mm: the spine's axis lies so far before the back of the cavity
VERTEBRA = 18  # mm: radius of a vertebra
SPINE_COVER = 25  # mm: what lies this near the spine's axis is no lung
VERTEBRAE = 26  # mm from one vertebra to the next,
DISC = 5  # mm: of which the disc between them takes so much
RIBS = 8  # pairs within the length of the lungs
RIB_SHARE = 0.16  # half of a rib's height, as a part of the way to the next
RIB_DEPTH = (-11, -2)  # mm inside the cavity: ribs lie in its wall,
STERNUM_DEPTH = (-13, -2)  # mm, and so does the sternum, which is thicker
CARINA = 0.33  # of the length of the lungs: there the windpipe parts
TABLE = 9  # mm thick


class Chest(NamedTuple):
    """The shape of a chest. Arrays broadcast to [depth, height, width].

    spacing: (z, y, x) of a voxel
    z, y, x: where a voxel lies: below the apex of the lungs, behind and to the left of the middle of the chest
    half:    half of its width
    aspect:  its depth as a part of its width
    length:  of the lungs, from apex to base
    fat:     thickness of what lies under the skin
    skin:    how far a voxel lies under the skin; below 0 outside
    cavity:  how far inside the ribs; below 0 outside
    across, deep: half of the cavity's width and depth, slice by slice
    spine:   how far from its axis
    """

    spacing: tuple[float, float, float]
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    half: float
    aspect: float
    length: float
    fat: float
    skin: np.ndarray
    cavity: np.ndarray
    across: np.ndarray
    deep: np.ndarray
    spine: np.ndarray


class Anatomy(NamedTuple):
    """A body without what is in its lungs. Arrays are [depth, height, width].

    tissue:  HU of all but the lungs
    depth:   how far under the surface of the lung, mm; below 0 outside
    aerated: the lung's part of a voxel
    """

    chest: Chest
    tissue: np.ndarray
    depth: np.ndarray
    aerated: np.ndarray


def field(rng: np.random.Generator, size: Size, knots: tuple[int, ...]) -> np.ndarray:
    """A smooth random field [depth, height, width] of unit variance, about `knots` bumps along each axis."""
    values = rng.standard_normal([k + 2 for k in knots])
    for n, k in zip(size, knots, strict=True):
        at = np.linspace(0.5, k + 0.5, n)[:, None] - np.arange(k + 2)
        weights = np.exp(-at**2)
        weights /= np.sqrt((weights**2).sum(1, keepdims=True))
        values = np.tensordot(values, weights, (0, 1))
    return values


def anatomy(rng: np.random.Generator, size: Size, table: bool = True) -> Anatomy:
    """The next body of a generator; table: whether the patient lies on one."""
    chest = _chest(rng, size)
    depth = np.minimum(chest.cavity, _beside_the_heart(rng, chest))
    depth = np.minimum(depth, chest.spine - SPINE_COVER)
    tissue = _tissue(rng, size, chest, table)
    aerated = np.clip(depth / chest.spacing[1] + 0.5, 0, 1)  # the surface of the lung is one pixel wide
    return Anatomy(chest, tissue, depth, aerated)


def _chest(rng, size):
    half = rng.uniform(140, 190)
    length = half * rng.uniform(1.15, 1.45)
    aspect = rng.uniform(0.62, 0.78)
    # The scan is somewhat longer than the lungs; its field of view is as wide as the chest and some of the arms.
    view = half * rng.uniform(2.15, 2.65)
    spacing = (length * rng.uniform(1.05, 1.25) / size[0], view / size[1], view / size[2])
    z, y, x = np.ogrid[tuple(slice(n) for n in size)]
    # Nobody lies in the very middle of the scanner, and nobody is an ellipse: outlines are bent by 5 mm.
    z = z * spacing[0] - length * rng.uniform(0.0, 0.1)
    y = (y - size[1] / 2) * spacing[1] - view * rng.uniform(-0.05, 0.05) + 5 * field(rng, size, (3, 3, 3))
    x = (x - size[2] / 2) * spacing[2] - view * rng.uniform(-0.05, 0.05) + 5 * field(rng, size, (3, 3, 3))
    fat = rng.uniform(8, 24)
    muscle = rng.uniform(12, 20)
    wide = half * (1 - 0.12 * np.exp(-np.maximum(z, 0) / (0.25 * length)))  # the chest is narrower at the shoulders
    skin = (1 - _oval(x / wide, y / (aspect * wide))) * half * aspect
    # The cavity closes towards the apex as an ellipse does, and there lies 10 mm further back.
    taper = np.sqrt(1 - (1 - np.clip(z / (0.5 * length), 0.02, 1))**2)
    across = (wide - fat - muscle) * taper
    deep = (aspect * wide - fat - muscle) * taper
    cavity = (1 - _oval(x / across, (y - 10 * (1 - taper)) / deep)) * deep
    spine = np.sqrt(x**2 + (y - (deep - INSIDE_BACK) * (0.9 + 0.1 * taper))**2)
    return Chest(spacing, z, y, x, half, aspect, length, fat, skin, cavity, across, deep, spine)


def _oval(x, y):
    """A radius whose level sets are between an ellipse and a rounded box."""
    x = x * x
    y = y * y
    return 0.6 * np.sqrt(x + y) + 0.4 * np.sqrt(np.sqrt(x * x + y * y))


def _beside_the_heart(rng, chest):
    """How far a point lies (mm) from mediastinum, heart and diaphragm, on the side of the lungs."""
    length = chest.length
    left = chest.x / chest.across  # of the middle, in units of the cavity
    back = chest.y / chest.deep
    # The mediastinum is 2 x 9 to 14 mm wide and 14 to 24 mm more on each side in its middle, where the great vessels are.
    mediastinum = np.abs(chest.x - 3) - rng.uniform(9, 14) - rng.uniform(14, 24) * np.exp(-(chest.y / (0.5 * chest.deep))**2)
    # The heart is an ellipsoid in the lower half, to the left and to the front.
    heart_level = rng.uniform(0.6, 0.7) * length
    heart_size = rng.uniform(0.85, 1.15)
    heart = ((left - 0.2) / 0.42)**2 + ((back + 0.25) / 0.48)**2 + ((chest.z - heart_level) / (0.3 * length))**2
    heart = (np.sqrt(heart) / heart_size - 1) * 50  # 50 mm: about its radius
    # Each half of the diaphragm is a dome, the right one 6 to 16 mm higher: the liver is under it.
    dome = 1 - ((np.abs(chest.x) / chest.across - 0.45) / 0.6)**2 - ((back + 0.2) / 1.0)**2
    floor = length - rng.uniform(0.14, 0.26) * length * np.maximum(dome, 0) + rng.uniform(6, 16) * (chest.x > 0)
    above_the_floor = 0.8 * (floor - chest.z)  # 0.8: the dome is steep, its surface nearer than straight below
    return np.minimum(np.minimum(mediastinum, heart), above_the_floor)


def _tissue(rng, size, chest, table):
    """HU of all but the lungs: the layers of the wall, then the bones, the airways and the air around."""
    _, z, y, x, half, aspect, length, fat, skin, cavity, _, deep, spine = chest
    hu = np.where(skin < fat, FAT, MUSCLE) + 6 * field(rng, size, (6, 10, 10))  # uneven by 6 HU
    # Ribs go down from back to front, and are bands of the wall.
    slope = rng.uniform(0.35, 0.6)
    rib = np.abs((z + slope * y) / (length / RIBS) % 1 - 0.5) < RIB_SHARE
    hu[rib & _between(cavity, RIB_DEPTH) & (skin > fat)] = rng.uniform(200, 380)
    hu[(spine < VERTEBRA) & (z % VERTEBRAE > DISC)] = rng.uniform(130, 240)
    hu[(np.abs(x) < 5) & (y > deep + 8) & (skin > 6)] = PLATES
    hu[(np.abs(x) < 20) & (y < 0) & _between(cavity, STERNUM_DEPTH) & _between(z, (0.15 * length, 0.75 * length))] = STERNUM
    # A shoulder blade is a plate of 2 x 4 mm, aslant behind the upper ribs, 64 mm wide.
    beside = np.abs(x) - 0.6 * half
    plate = np.abs(0.5 * beside + 0.85 * (y - 0.55 * half * aspect)) < 4
    hu[plate & (np.abs(beside) < 32) & (cavity < STERNUM_DEPTH[0]) & (skin > fat) & (z < 0.5 * length)] = PLATES
    hu[_airways(chest)] = AIRWAY
    top = rng.uniform(6, 20) + half * aspect
    bed = table & _between(y, (top, top + TABLE)) & (np.abs(x) < half)
    outside = np.clip(0.5 - skin / chest.spacing[1], 0, 1)  # the skin is one pixel wide
    hu += outside * (np.where(bed, FOAM, AIR) - hu)
    return hu


def _airways(chest):
    """Windpipe and main bronchi: tubes of 8.5 and 6 mm radius, 5 mm before the middle, which part at the carina."""
    carina = CARINA * chest.length
    parted = 1.1 * np.maximum(chest.z - carina, 0)  # almost at right angles to each other
    away = np.hypot(np.abs(chest.x) - parted, chest.y + 5)
    return (away < np.where(chest.z < carina, 8.5, 6)) & (chest.z < 0.42 * chest.length)


def _between(values, ends):
    low, high = ends
    return (values > low) & (values < high)
