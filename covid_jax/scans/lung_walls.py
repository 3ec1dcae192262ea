"""Where dense lung hides between the aerated lung and the chest wall, found along rays. A part of lungs.py, on its grid."""

import numpy as np
from scipy import ndimage

RAYS = 72  # directions in plane, 5 degrees each


def hidden_lung(lungs, hu, middle, mm):
    """What dense lung hides: the gap up to the chest wall, bool, found along rays from between the lungs.

    On each ray of a slice (1 of RAYS, mirror images of each other from both ends) aerated lung begins at `near` and ends
    at `far`. The chest wall is where the lung ends on neighbouring rays and slices, or where the other lung ends, or, in
    the back, at the ribs. What lies between far and the wall is dense lung, unless it may be heart, liver or spine.
    """
    y, x = np.indices(lungs.shape[1:])
    y, x = (y - np.nonzero(lungs)[1].mean()) * mm[1], (x - middle) * mm[2]
    radius = np.hypot(y, x).astype(np.float32)
    ray = np.minimum((np.arctan2(x, y) / np.pi + 1) * RAYS / 2, RAYS - 1).astype(int)
    bones = _smooth(hu, (0, 0.7, 0.7)) > 130
    angle = (np.arange(RAYS) + 0.5) * 2 * np.pi / RAYS - np.pi
    behind = np.cos(angle) * np.sign((bones.sum((0, 2)) * y[:, 0]).sum()) > 0.1  # the spine is behind
    thick = ndimage.binary_opening(lungs, np.ones((1, 2, 2)))
    far = _extreme(np.maximum, thick, radius, ray, 0)
    near = np.where(far > 0, _extreme(np.minimum, thick, radius, ray, np.inf), 0)
    wall = _bridged(far, mm)
    other, other_near = _mirrored(far, mm), near[:, ::-1]
    level = _same_level(far, near, other, other_near, behind)
    sure = behind | level  # nothing but lung can be here
    begin = _smooth(near, (15 / mm[0], 3)) / (_smooth(far > 0, (15 / mm[0], 3)) + 1e-6)
    mirror = np.where(far[:, ::-1] > 0, other_near, begin)
    start = np.where(behind, mirror, np.maximum(mirror, begin))
    start = np.where((far > 0) & ((far > 0.6 * wall) | sure), far, start)
    bone = _extreme(np.minimum, bones, radius, ray, np.inf, start)
    ribs = ndimage.minimum_filter(bone, (2 * round(15 / mm[0]) + 1, 3))
    end = np.where(_large((other > wall + 10) & ((far > 0.6 * other) | sure), mm), other, wall)
    end = np.minimum(end, ndimage.minimum_filter(bone, (2 * round(8 / mm[0]) + 1, 3)))
    pool = _large(np.isfinite(ribs) & sure & (far > 0.5 * ribs) & (ribs > far + 12), mm)
    end = np.where(pool, np.maximum(end, ribs - 4), end)
    end[(end < far + 6) | (np.abs(np.sin(angle)) < 0.3)] = 0  # not along the spine and the sternum
    return (radius >= start[:, ray]) & (radius <= end[:, ray]) & (hu > -200)


def _extreme(function, mask, radius, ray, empty, above=None):
    """The largest or smallest radius of mask on each ray of each slice, [depth, RAYS], of those that lie above."""
    z, *at = np.nonzero(mask)
    r, b = radius[tuple(at)], ray[tuple(at)]
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

    wall = np.concatenate([closed(half, (tall, 7)) for half in np.split(far, 2, 1)], 1)
    return np.where(far > 0.6 * wall, wall, closed(far, (tall, 1)))


def _mirrored(far, mm):
    """Where the other lung ends [depth, RAYS], scaled to this side of the chest where the two are much alike."""
    other, scale = far[:, ::-1], np.ones_like(far)
    for slack in (0.2, 0.12, 0.08):
        alike = (far > 0) & (other > 0) & (np.abs(far - other * scale) < slack * far)
        scale = (_smooth(far * alike, (30 / mm[0], 4)) + 1) / (_smooth(other * alike, (30 / mm[0], 4)) + 1)
    return other * scale


def _same_level(far, near, other, other_near, behind):
    """Slices and sides [depth, RAYS] where what is aerated in the back is as thick as in the other lung: no liver there."""
    both = behind & (far > 0.9 * other) & (other > 0)
    depth, other_depth = np.where(both, far - near, 0), np.where(both, other - other_near, 0)
    sums = [np.stack([half.sum(1) for half in np.split(a, 2, 1)], 1)
            for a in (np.minimum(depth, other_depth), other_depth, both)]
    return np.repeat((sums[0] > 0.95 * sums[1]) & (sums[2] >= 6), RAYS // 2, 1)


def _large(mask, mm):
    """mask [depth, RAYS] without what is shorter than 25 mm along z or narrower than 15 degrees."""
    return ndimage.binary_opening(mask, np.ones((min(max(1, round(25 / mm[0])), len(mask)), 3)))


def _smooth(a, sigma):
    return ndimage.gaussian_filter(a.astype(np.float32), sigma, mode='nearest')
