"""What is in the lungs of a body: their air, and the trees of vessels and bronchi. Lengths are mm, densities HU."""

from typing import NamedTuple

import numpy as np

from covid_jax.phantom.anatomy import Anatomy, Size, field

HILUM = (0.42, 0.1, 0.26)  # below the apex, as a part of the length; behind the middle and to either side, of half the cavity
VESSELS = 26  # branches that leave the hila
BRONCHI = 12  # fewer: a CT does not show the small ones
TWIGS = 4  # of each branch
STEPS = 30  # points of a branch
RIM = 12  # mm under the surface: where branches end
WANDER = 10  # mm: by which a branch leaves the straight way,
TWIG_WANDER = 5  # mm, and a twig
THINNEST = 0.6  # pixels: a tube of less is painted so wide, and the fainter


class Lung(NamedTuple):
    """Both lungs, as vectors [voxels] over the flat indices `where`; a body's length and depth to measure them by.

    z, y, x:   where a voxel lies, as in Chest
    side:      1 in the left lung, -1 in the right
    depth:     mm under the surface of the lung
    pleura:    mm under the ribs
    air:       HU of lung without vessels
    mottle:    the higher, the sooner ground glass that a label does not show becomes small vessels here
    dependent: the higher, the sooner consolidation that a label does not show becomes fluid here: low in who lies
    vessel, bronchus: their part of a voxel
    hila:      indices [right and left, 3] of the roots of the lungs
    length, deep: mm from apex to base, and half the depth of the cavity
    spacing:   (z, y, x) of a voxel, mm
    """

    where: np.ndarray
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    side: np.ndarray
    depth: np.ndarray
    pleura: np.ndarray
    air: np.ndarray
    mottle: np.ndarray
    dependent: np.ndarray
    vessel: np.ndarray
    bronchus: np.ndarray
    hila: np.ndarray
    length: float
    deep: float
    spacing: tuple[float, float, float]


def lung_of(rng: np.random.Generator, size: Size, body: Anatomy) -> Lung:
    """What the next lungs of a generator are made of, in this body."""
    chest = body.chest
    length = chest.length
    deep = chest.deep.max()
    across = chest.across.max()
    where = np.flatnonzero(body.depth > 0)

    def inside(values):
        return np.broadcast_to(values, size).ravel()[where]

    z, y, x, pleura, depth = (inside(values) for values in (chest.z, chest.y, chest.x, chest.cavity, body.depth))
    side = np.where(x > 0, 1.0, -1.0)
    slow = [inside(field(rng, size, (3, 3, 3))) for _ in range(4)]
    hilum = np.array(HILUM) * (length, deep, across)
    central = -np.sqrt((z - hilum[0])**2 + (y - hilum[1])**2 + (np.abs(x) - hilum[2])**2) / 50  # in steps of 50 mm
    # Directions in which lungs differ: back, hila, base, left; each of about unit size.
    axes = np.stack([y / deep * 2, central, (z / length - 0.5) * 3, side])
    mottle = rng.uniform((-1, -0.4, -1, -1), (1, 1.2, 1, 1)) @ axes + slow[0]  # rather near the hila
    mottle += 2.5 * inside(field(rng, size, tuple(5 * n // 8 for n in size)))  # in grains of one or two voxels
    # A part of the lungs is hazy under every label, as in who has breathed out.
    hazy = rng.uniform(0, 0.5) * np.clip((rng.uniform(-2, 2, 4) @ axes + slow[1]) / 4, 0, 1)
    dependent = 3 * y / deep + rng.uniform(-1, 2) * z / length + rng.normal(0, 0.6) * side + 0.4 * slow[2]
    # Air is denser at the back, where blood is in who lies.
    air = rng.uniform(-880, -760) + rng.uniform(15, 70) * y / deep + rng.uniform(5, 35) * slow[3]
    air = blend(np.clip(air, -970, -650), hazy, rng.uniform(-600, -450))
    right = np.argmax(np.where(side < 0, central, -np.inf))
    left = np.argmax(np.where(side > 0, central, -np.inf))
    hila = np.stack(np.unravel_index(where[[right, left]], size), 1)
    none = np.zeros(where.size)
    lung = Lung(where, z, y, x, side, depth, pleura, air, mottle, dependent, none, none, hila, length, deep, chest.spacing)
    vessel = _tree(rng, size, lung, rng.uniform(3.5, 6.5), VESSELS)
    bronchus = _tree(rng, size, lung, rng.uniform(2.5, 3.5), BRONCHI)
    return lung._replace(vessel=vessel, bronchus=bronchus)


def blend(base: np.ndarray | float, weight: np.ndarray, target: np.ndarray | float) -> np.ndarray:
    """A part `weight` of a voxel has the HU `target`, the rest keeps its own."""
    return base + weight * (target - base)


def _tree(rng, size, lung, radius, count):
    """The part of each lung voxel [voxels] in tubes from the hila to the rim; `radius` is mm at the hilum.

    Points are [steps, branches, 3] in voxels. `scale` makes voxels of mm.
    """
    scale = np.array(lung.spacing)
    ends = rng.choice(np.flatnonzero(lung.depth < RIM), count)
    hila = lung.hila[(lung.side[ends] > 0).astype(int)]
    starts = hila + rng.normal(0, 6, (count, 3)) / scale  # a hilum is 6 mm wide
    ends = np.stack(np.unravel_index(lung.where[ends], size), 1).astype(float)
    part = np.linspace(0, 1, STEPS)[:, None, None]  # of the way from start to end
    bow = np.sin(np.pi * part)  # a branch is bent most in its middle
    branches = starts + (ends - starts) * part + rng.normal(0, WANDER, (count, 3)) / scale * bow
    # Twigs leave a branch anywhere but near its ends and go 0.8 of the way to where it ends, 22 mm beside.
    fork = rng.integers(STEPS // 8, STEPS * 3 // 4, (count, TWIGS))
    leaving = fork, np.arange(count)[:, None]
    roots = branches[leaving].reshape(-1, 3)
    tips = roots + (np.repeat(ends, TWIGS, 0) - roots) * 0.8 + rng.normal(0, 22, roots.shape) / scale
    twigs = roots + (tips - roots) * part + rng.normal(0, TWIG_WANDER, roots.shape) / scale * bow
    # A branch thins to 0.15 of its radius, a twig to a quarter of its own, which is 0.75 of the branch's at the fork.
    thick = radius * (1 - 0.85 * part[..., 0]) * np.ones(count)
    thin = 0.75 * thick[leaving].ravel() * (1 - 0.75 * part[..., 0])
    path = np.concatenate([branches.reshape(-1, 3), twigs.reshape(-1, 3)])
    pixels = np.concatenate([thick.ravel(), thin.ravel()]) / scale[1]
    return _paint(size, path, pixels).flat[lung.where]


def _paint(size, path, radius):
    """The part of each voxel [depth, height, width] within `radius` [points] pixels of `path` [points, 3]."""
    nearest = np.rint(path).astype(int)
    part = np.zeros(size)
    reach = np.maximum(radius, THINNEST)
    faint = np.minimum(1, (radius / THINNEST)**2)  # as much of the cross-section
    for step in np.subtract(list(np.ndindex(3, 5, 5)), (1, 2, 2)):  # a tube is at most 5 pixels wide, and 3 slices
        wide = np.flatnonzero(reach > np.abs(step).max() - 1)
        at = nearest[wide] + step
        away = np.sqrt(((at - path[wide])**2).sum(1))
        covered = np.clip(reach[wide] - away + 0.5, 0, 1) * faint[wide]
        painted = (covered > 0) & (at >= 0).all(1) & (at < size).all(1)
        np.maximum.at(part, tuple(at[painted].T), covered[painted])
    return part
