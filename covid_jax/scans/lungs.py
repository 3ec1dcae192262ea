"""Both lungs of a chest CT by threshold and morphology, consolidations included, and the box around them. No learning.

Everything is done on a coarse grid of about 3 mm in plane and 4 mm along z, in HU (grey values are first brought to
something like HU), and the mask is then interpolated to the voxels of the scan. Lengths are mm. Nothing depends on
which end of the scan is the head, nor on which side is left or front.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from covid_jax.scans.lung_walls import hidden_lung
from covid_jax.scans.scan import Scan

GRID = (4, 3, 3)  # mm (z, y, x) of the coarse grid: vessels and noise blur away, the wall of the chest does not
WIDE = 350  # mm of a chest CT from side to side, where it does not say
LONG = 300  # mm of it from end to end
EDGE = -350.0  # HU half way between inflated lung and its wall
OPEN = -940.0  # HU: air without tissue is below; the mean of inflated lung is above, even of one with emphysema
CLOTHES = 3  # mm: eroded by so much, the body hangs together no more with the table, clothes and cables
RING = 15  # mm around the eroded body in which tissue is still its own, such as an arm or a breast
SLIVER = 9  # mm: air outside that is narrower, such as a fold of skin, is no lung that the image cuts through
AIRWAY = 40  # mm2 of dark air in a slice; less is a bronchus within the lung, which stays in
AIRWAY_WALL = 3  # mm of wall around trachea, stomach and bowel, too thin for the grid to show it
AROUND = 6  # mm from dark air to where it is judged what lies around it
ENCLOSED = 0.3  # of what lies around gas may be air; of lung that is dark, as in emphysema, more of it is
SMALLEST = 0.02  # of all tissue that lungs are at least
SECOND = 0.1  # of the largest part that another one must have to be a lung too
BESIDE = 5  # mm from a lung to a part that a vessel or consolidation cut off
ODD = 0.05  # less of the body, or of the lungs on one side of it, is no chest's
CUT_OFF = 1000  # mm3 that such a part has at least
GAP = 6  # mm: narrower gaps in the mask are vessels and the pleura, and are closed
FLAT = np.zeros((3, 3, 3), bool)  # neighbours within a slice alone
FLAT[1] = True


def lung_mask(scan: Scan) -> np.ndarray:
    """The lungs of a Scan: bool [depth, height, width].

    Vessels, ground glass and consolidations are in, also consolidations at the pleura; trachea, main bronchi, bowel gas
    and air around the body are out. Without spacing the image is taken for 350 mm wide and the stack for 300 mm long.
    ValueError where there are no lungs.
    """
    hu, steps, mm = _on_the_grid(scan)
    air = _inner_air(hu, mm)
    lungs = _parts(air & ~_gas(hu, air, mm), mm)
    if lungs.sum() < SMALLEST * (hu > EDGE).sum() or not lungs.any():
        raise ValueError('no lungs found: prepare this scan without lung mask, or leave it out')
    middle = _middle(hu)
    lungs = _closed(lungs, middle, mm, GAP)
    lungs = _closed(lungs | hidden_lung(lungs, hu, middle, mm), middle, mm, GAP)
    return _fine(lungs, steps, scan.voxels.shape)


class Quality(NamedTuple):
    """What tells a mask of lungs that went wrong.

    share: of the body that is lung, 0 to 1: of a chest a third or so. sides: of the lungs what lies on the smaller side of the body, 0 to
    0.5. border: whether they reach an edge of a slice.
    """

    share: float
    sides: float
    border: bool


def quality(mask: np.ndarray, scan: Scan) -> Quality:
    """The Quality of a mask bool [depth, height, width] of the lungs of a scan. ValueError for an empty mask."""
    if not mask.any():
        raise ValueError('an empty mask has no quality')
    hu, steps, _ = _on_the_grid(scan)
    tissue = np.where(hu > EDGE, 1 - _coarse(mask, steps), 0).sum()
    lungs = mask.mean() * hu.size  # cells
    share = lungs / (lungs + tissue)
    right = mask[..., :round(_middle(hu) * steps[2]) + 1].sum() / mask.sum()
    border = any(mask.take(edge, axis).any() for axis in (1, 2) for edge in (0, -1))
    return Quality(float(share), float(min(right, 1 - right)), bool(border))


def is_odd(of: Quality) -> bool:
    """Whether a mask may have gone wrong: less than a twentieth of the body, or on one side of it alone."""
    return of.share < ODD or of.sides < ODD


def box(mask: np.ndarray, spacing: Sequence[float], margin: Sequence[float]) -> tuple[slice, slice, slice]:
    """The smallest box around the True voxels of mask [depth, height, width], as three slices.

    It is wider by margin (z, y, x) mm on every side, rounded up to whole voxels of spacing (z, y, x) mm, and ends where
    the array ends. ValueError for an empty mask.
    """
    if not mask.any():
        raise ValueError('an empty mask has no box')

    def side(axis):
        where = np.flatnonzero(mask.any(tuple(k for k in range(3) if k != axis)))
        more = math.ceil(margin[axis] / spacing[axis] - 1e-6)  # a margin of whole voxels, however it is rounded
        return slice(max(0, int(where[0]) - more), min(mask.shape[axis], int(where[-1]) + 1 + more))

    return side(0), side(1), side(2)


def guess_spacing(shape: tuple[int, ...]) -> tuple[float, float, float]:
    """A spacing (z, y, x) mm for a stack [depth, height, width] that has none: 350 mm wide and about 300 mm long."""
    pixel = WIDE / shape[2]
    return float(np.clip(LONG / shape[0], 1, 10)), pixel, pixel


def _on_the_grid(scan):
    """float32 [depth, height, width] in HU on the coarse grid, the voxels of the scan in each of its own, and its mm."""
    spacing = scan.spacing or guess_spacing(scan.voxels.shape)
    steps = [max(1, round(want / mm)) for want, mm in zip(GRID, spacing, strict=True)]
    mm = [step * mm for step, mm in zip(steps, spacing, strict=True)]
    steps = [min(step, length) for step, length in zip(steps, scan.voxels.shape, strict=True)]
    hu = _coarse(scan.voxels, steps)
    return (np.clip(hu, -1000, 400) if scan.hounsfield else _like_hu(hu)), steps, mm


def _coarse(voxels, steps):
    """Every steps[0]-th slice, averaged over blocks of steps[1] x steps[2] pixels; float32, the last ones repeated."""
    voxels = voxels[steps[0] // 2::steps[0]] if voxels.shape[0] > steps[0] else voxels[voxels.shape[0] // 2:][:1]
    pad = [(0, -n % step) for n, step in zip(voxels.shape[1:], steps[1:], strict=True)]
    voxels = np.pad(voxels, [(0, 0), *pad], mode='edge') if any(after for _, after in pad) else voxels
    rows = sum(np.maximum(voxels[:, i::steps[1]].astype(np.float32), -1024) for i in range(steps[1]))
    return sum(rows[:, :, i::steps[2]] for i in range(steps[2])) / np.float32(steps[1] * steps[2])


def _like_hu(grey):
    """Grey values of an unknown window, brought to air at -1000 and soft tissue at 40; between them linear."""
    if grey.min() == grey.max():
        return np.full_like(grey, -1000)
    counts, edges = np.histogram(grey, 256)
    value = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    low = np.cumsum(counts * value)
    with np.errstate(all='ignore'):
        between = (low * below[-1] - low[-1] * below)**2 / (below * (below[-1] - below))
    cut = value[np.nanargmax(between[:-1])]  # Otsu's threshold: the two classes lie furthest apart
    air = np.percentile(grey, 0.5)
    tissue = np.median(grey[grey > cut])
    return np.clip((grey - air) / max(tissue - air, 1e-6) * 1040 - 1000, -1000, 400)


def _inner_air(hu, mm):
    """Air and inflated lung inside the body, bool, also where the image or its circle cuts through a lung."""
    tissue = hu > EDGE
    label, count = ndimage.label(_eroded(tissue, mm, CLOTHES, 2))
    if not count:
        return np.zeros_like(tissue)
    body = label == 1 + np.argmax(np.bincount(label.ravel())[1:])
    hull = _hull(tissue & _dilated(body, mm, RING, 2))
    label, _ = ndimage.label(np.pad(~tissue, [(0, 0), (1, 1), (1, 1)], constant_values=True), FLAT)
    outer = (label == label[:, :1, :1])[:, 1:-1, 1:-1]  # in one piece with the frame around the slice
    # a lung that the image cuts through is outer too; it lies in the hull, is denser than open air, and is no sliver
    cut = outer & hull & (ndimage.uniform_filter(hu, (1, 3, 3)) > OPEN)
    cut = _dilated(_eroded(cut, mm, SLIVER, 2), mm, SLIVER, 2) & cut
    return ~tissue & hull & (~outer | cut)


def _gas(hu, air, mm):
    """Airways, stomach and bowel, bool: darker than lung, and with a wall around it rather than lung."""
    if not air.any():
        return air
    dark = min(-1000 + 0.45 * (np.median(hu[air]) + 1000), OPEN)  # nearer to air, at -1000, than to the lung of this scan
    label, count = ndimage.label(air & (hu < dark), FLAT)
    large = np.bincount(label.ravel()) * mm[1] * mm[2] > AIRWAY
    large[0] = False
    label *= large[label]
    reach = 2 * round(AROUND / mm[2]) + 1
    ring = ndimage.maximum_filter(label, (1, reach, reach)) * ~_dilated(label > 0, mm, AIRWAY_WALL, 2)
    around = np.bincount(ring.ravel(), minlength=count + 1)
    share = np.bincount(ring.ravel(), air.ravel(), count + 1) / np.maximum(around, 1)
    return _dilated((large & (share < ENCLOSED))[label], mm, AIRWAY_WALL, 2)


def _parts(air, mm):
    """The lungs among the connected parts of air: the largest, a like one, and small ones beside them."""
    label, count = ndimage.label(air)
    if not count:
        return air
    size = np.bincount(label.ravel())
    size[0] = 0
    big = size > SECOND * size.max()
    near = np.unique(label[_dilated(big[label], mm, BESIDE, 3)])
    big[near] |= size[near] * np.prod(mm) > CUT_OFF
    return big[label]


def _middle(hu):
    """The column (a float) about which the slices are most nearly their own mirror image."""
    rows = hu.reshape(-1, hu.shape[2]) - hu.mean()
    # a row convolved with itself is largest where it meets its mirror image: twice the column of its middle
    spectrum = np.fft.rfft(rows, 2 * hu.shape[2])
    return np.argmax(np.fft.irfft((spectrum**2).sum(0))[:2 * hu.shape[2] - 1]) / 2


def _hull(mask):
    """The convex hull of each slice of mask, as far as 24 straight edges can tell."""
    y, x = np.indices(mask.shape[1:])
    hull = np.broadcast_to(mask.any((1, 2), keepdims=True), mask.shape).copy()
    for angle in np.arange(24) * np.pi / 12:
        along = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
        hull &= along <= np.where(mask, along, -np.inf).max((1, 2), keepdims=True)
    return hull


def _dilated(mask, mm, radius, axes):
    """mask grown by a box of radius mm along its last axes."""
    out = mask.view(np.uint8)
    for axis in range(3 - axes, 3):
        out = ndimage.maximum_filter1d(out, 2 * round(radius / mm[axis]) + 1, axis, mode='constant')
    return out.view(bool)


def _eroded(mask, mm, radius, axes):
    return ~_dilated(~mask, mm, radius, axes)


def _closed(mask, middle, mm, radius):
    """mask without the gaps and holes of each side; what lies between the sides stays open."""
    sides = []
    for side in np.split(mask, [int(middle) + 1], 2):
        pad = round(radius / min(mm)) + 1
        closed = _eroded(_dilated(np.pad(side, pad), mm, radius, 3), mm, radius, 3)[3 * (slice(pad, -pad),)] | side
        sides.append(ndimage.binary_fill_holes(closed, FLAT if len(mask) == 1 else None))
    return np.concatenate(sides, 2)


def _fine(mask, steps, shape):
    """mask of the coarse grid on the voxels of the scan: linear between the blocks' centres, cut at one half."""
    first = steps[0] // 2, (steps[1] - 1) / 2, (steps[2] - 1) / 2
    low = []
    high = []
    part = []
    for axis in range(3):
        at = np.clip((np.arange(shape[axis]) - first[axis]) / steps[axis], 0, mask.shape[axis] - 1)
        low.append(at.astype(int))
        high.append(np.minimum(low[-1] + 1, mask.shape[axis] - 1))
        part.append((at - low[-1]).astype(np.float32))
    out = mask.astype(np.float32)
    out = out[:, low[1]] + (out[:, high[1]] - out[:, low[1]]) * part[1][:, None]
    out = out[..., low[2]] + (out[..., high[2]] - out[..., low[2]]) * part[2]
    fine = np.empty(shape, bool)
    for k in range(shape[0]):
        fine[k] = out[low[0][k]] * (1 - part[0][k]) + out[high[0][k]] * part[0][k] > 0.5
    return fine
