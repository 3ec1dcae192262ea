"""Where dense lung hides between the aerated lung and the chest wall, found along rays. A part of lungs.py, on its grid.

On each slice, RAYS rays leave a point between the lungs; ray i and ray RAYS - 1 - i are mirror images, of the one lung and
of the other. An array [depth, RAYS] holds one number for each ray of each slice: a distance in mm from that point, 0 where
the ray meets no aerated lung.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

RAYS = 72  # directions in plane, 5 degrees each
SOFT = -200  # HU: water, blood and muscle are above, aerated lung and fat at its edge below
BONE = 130  # HU: above soft tissue, and low enough for ribs that are blurred on the grid
MOST = 0.6  # of the way to the wall: where so much of a ray is aerated, the rest of it is lung rather than heart or liver
HALF = 0.5  # the same before a rib: fluid and consolidation may fill the back half of a lung
LEAST = 6  # mm: a thinner gap is the pleura and the wall themselves, and closing the mask fills it
BEYOND = 10  # mm that the other lung must reach further than this one, more than two sides of one chest differ
POOL = 12  # mm between aerated lung and rib, more than the muscle and fat there
PLEURA = 4  # mm from the bright middle of a rib to the lung
RIB_NEAR = 8  # mm along z within which a rib bounds every ray
RIB_APART = 15  # mm along z within which each ray finds a rib: ribs lie about 25 mm apart, spaces included
MIDLINE = 0.3  # sine of the angle, 17 degrees, within which a ray runs along the spine or the sternum


class Rays(NamedTuple):
    """Where the aerated lung lies on the rays [depth, RAYS], and on their mirror images."""

    near: np.ndarray        # where it begins
    far: np.ndarray         # where it ends
    other_near: np.ndarray  # where that of the other lung begins
    other_far: np.ndarray   # where it ends, scaled to this side of the chest
    wall: np.ndarray        # where it ends on the neighbouring rays and slices
    behind: np.ndarray      # [RAYS] bool: towards the back, where neither heart nor liver lies
    sure: np.ndarray        # bool: no heart and no liver can be beyond far


def hidden_lung(lungs: np.ndarray, hu: np.ndarray, middle: float, mm: list[float]) -> np.ndarray:
    """What dense lung hides: the gap between aerated lung and the chest wall, bool [depth, height, width].

    lungs: aerated lung, bool; hu: Hounsfield units; middle: the column between the lungs; mm: the grid's (z, y, x). Lung is
    taken to begin where it is aerated or, where it is not, as on the ray beside or in the other lung. The chest wall is
    where the lung ends on neighbouring rays and slices, or where the other lung ends, or, in the back, at the ribs.
    """
    row, column = np.indices(lungs.shape[1:])
    y = (row - np.nonzero(lungs)[1].mean()) * mm[1]
    x = (column - middle) * mm[2]
    radius = np.hypot(y, x).astype(np.float32)
    ray = np.minimum((np.arctan2(x, y) / np.pi + 1) * RAYS / 2, RAYS - 1).astype(int)
    angle = (np.arange(RAYS) + 0.5) * 2 * np.pi / RAYS - np.pi  # 0 runs down the image
    bones = _smooth(hu, (0, 0.7, 0.7)) > BONE
    back = np.sign((bones.sum((0, 2)) * y[:, 0]).sum())  # 1 where the spine, most of the bone, is down the image, else -1
    rays = _aerated(lungs, radius, ray, np.cos(angle) * back > 0.1, mm)
    start = _where_lung_starts(rays, mm)
    bone = _extreme(np.minimum, bones, radius, ray, np.inf, start)
    end = np.maximum(_where_the_wall_is(rays, bone, mm), _what_pools_behind(rays, bone, mm))
    end[(end < rays.far + LEAST) | (np.abs(np.sin(angle)) < MIDLINE)] = 0
    return (radius >= start[:, ray]) & (radius <= end[:, ray]) & (hu > SOFT)


def _aerated(lungs, radius, ray, behind, mm):
    """Rays of the aerated lung; radius and ray [height, width] say where on which ray a voxel lies."""
    thick = ndimage.binary_opening(lungs, np.ones((1, 2, 2)))  # no single voxels
    far = _extreme(np.maximum, thick, radius, ray, 0)
    near = np.where(far > 0, _extreme(np.minimum, thick, radius, ray, np.inf), 0)
    other_near = near[:, ::-1]
    other_far = _mirrored(far, mm)
    level = _same_level(far, near, other_far, other_near, behind)
    return Rays(near, far, other_near, other_far, _bridged(far, mm), behind, behind | level)


def _where_lung_starts(rays, mm):
    """Where hidden lung begins [depth, RAYS]: behind the aerated lung of the ray, else where lung would begin.

    That is as in the other lung, and in front, where the heart lies, not before it does on the rays around.
    """
    around = 15 / mm[0], 3  # 15 mm along z, 3 rays
    usual = _smooth(rays.near, around) / (_smooth(rays.far > 0, around) + 1e-6)
    mirror = np.where(rays.far[:, ::-1] > 0, rays.other_near, usual)
    start = np.where(rays.behind, mirror, np.maximum(mirror, usual))
    return np.where((rays.far > 0) & ((rays.far > MOST * rays.wall) | rays.sure), rays.far, start)


def _where_the_wall_is(rays, bone, mm):
    """Where hidden lung ends at most [depth, RAYS]: as around it or as the other lung does, and never beyond a bone."""
    further = (rays.other_far > rays.wall + BEYOND) & ((rays.far > MOST * rays.other_far) | rays.sure)
    wall = np.where(_large(further, mm), rays.other_far, rays.wall)
    return np.minimum(wall, _nearest(bone, RIB_NEAR, mm))


def _what_pools_behind(rays, bone, mm):
    """Where fluid and consolidation in the back end [depth, RAYS]: at the pleura inside the ribs; 0 where there is none."""
    ribs = _nearest(bone, RIB_APART, mm)
    pool = np.isfinite(ribs) & rays.sure & (rays.far > HALF * ribs) & (ribs > rays.far + POOL)
    return np.where(_large(pool, mm), ribs - PLEURA, 0)


def _nearest(bone, reach, mm):
    """The nearest bone [depth, RAYS] of a ray, of the two beside it, and of slices within reach mm."""
    return ndimage.minimum_filter(bone, (2 * round(reach / mm[0]) + 1, 3))


def _extreme(function, mask, radius, ray, empty, above=None):
    """The largest or smallest radius of mask on each ray of each slice, [depth, RAYS], of those that lie above."""
    z, *at = np.nonzero(mask)
    r = radius[tuple(at)]
    b = ray[tuple(at)]
    keep = slice(None) if above is None else r > above[z, b]
    out = np.full((len(mask), RAYS), empty, np.float32)
    function.at(out, (z[keep], b[keep]), r[keep])
    return out


def _bridged(far, mm):
    """far [depth, RAYS] across dents narrower than 60 mm along z and 35 degrees; along z alone where there is no lung."""
    tall = 2 * round(30 / mm[0]) + 1

    def closed(a, window):
        padded = ndimage.grey_closing(np.pad(a, [(n, n) for n in window]), window)
        return padded[tuple(slice(n, -n) for n in window)]

    wall = np.concatenate([closed(half, (tall, 7)) for half in np.split(far, 2, 1)], 1)  # each lung by itself
    return np.where(far > MOST * wall, wall, closed(far, (tall, 1)))


def _mirrored(far, mm):
    """Where the other lung ends [depth, RAYS], scaled to this side of the chest where the two are much alike."""
    other = far[:, ::-1]
    scale = np.ones_like(far)
    around = 30 / mm[0], 4  # 30 mm along z, 4 rays
    for slack in (0.2, 0.12, 0.08):  # the better the scale, the more alike the two must be to count
        alike = (far > 0) & (other > 0) & (np.abs(far - other * scale) < slack * far)
        scale = (_smooth(far * alike, around) + 1) / (_smooth(other * alike, around) + 1)
    return other * scale


def _same_level(far, near, other, other_near, behind):
    """Slices and sides [depth, RAYS] where what is aerated in the back is as thick as in the other lung: no liver there."""
    both = behind & (far > 0.9 * other) & (other > 0)
    depth = np.where(both, far - near, 0)
    other_depth = np.where(both, other - other_near, 0)
    shared, whole, count = (np.stack([half.sum(1) for half in np.split(a, 2, 1)], 1)
                            for a in (np.minimum(depth, other_depth), other_depth, both))
    return np.repeat((shared > 0.95 * whole) & (count >= 6), RAYS // 2, 1)  # of 6 rays, 30 degrees


def _large(mask, mm):
    """mask [depth, RAYS] without what is shorter than 25 mm along z or narrower than 15 degrees."""
    return ndimage.binary_opening(mask, np.ones((min(max(1, round(25 / mm[0])), len(mask)), 3)))


def _smooth(a, sigma):
    return ndimage.gaussian_filter(a.astype(np.float32), sigma, mode='nearest')
