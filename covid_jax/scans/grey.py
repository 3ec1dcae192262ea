"""What grey values can be: a picture of a body, no segmentation, no mask that was resampled, no map of uptake; 16 bits that are used.

The values alone are asked, never what kind of file they came in: as bytes, as 16 bits or as fractions a picture is judged alike.
"""

import math

import numpy as np
from scipy import ndimage

from covid_jax.scans.labels import FEW, Distinct, check_labels, distinct
from covid_jax.scans.values import JUDGED

BINS = 16  # from the least grey to the TOP: how often each comes
TOP = 99  # % of the values, beyond which a hot spot lies
RISE = 1.5  # times as many in the next bin are no mode: noise makes so many
DARK = 0.225  # of the way from the least grey to the TOP the values of a map are at most, on average: decay at 0.2, pictures turned over at 0.24
EMPTY = 0.995  # of the voxels of one value are an empty picture, or a mask of little
NEAR = 8  # grey values beside a level that resampling, or JPEG, makes of it
SPAN = 64  # grey values that a mask's levels are apart at least; a scan of low contrast may have fewer
BETWEEN = 0.1  # of the voxels at most lie between the levels of a mask; in a scan with black air and white tissue it is a quarter
REGIONS = 24  # into which the levels of a mask break in a slice, at most: vessels, bones and noise break a picture of hard contrast into more
SPECK = 3  # voxels that a region has at least: JPEG leaves smaller ones
DEEP = 2**14  # that 16 bits of grey reach and span; Hounsfield units and scanner values of 12 to 14 bits do not
LEVELS = 32  # of 256 in which more than one voxel of RARE lies; Hounsfield units lie in 16, whatever is added to them
RARE = 10000


def check_grey(voxels: np.ndarray) -> None:
    """ValueError for grey [depth, height, width] in [0, 255] that is a segmentation (labels.py), of one value nearly alone, of a few levels
    in a few regions with little between (a mask that was resampled), or whose grey has no mode but its least value and is dark (a map
    of uptake). Of 1000 voxels or more."""
    if voxels.size < JUDGED:
        return
    counts = np.zeros(256, np.int64)
    found = []
    for plane in voxels:
        near = np.rint(plane).astype(np.uint8)
        here = np.bincount(near.ravel(), minlength=256)
        counts += here
        found.append(distinct(near, here, 0))
    check_labels([*found, Distinct(np.flatnonzero(counts), None)])
    background = counts.max()
    if background > EMPTY * voxels.size:
        raise ValueError(f'{background / voxels.size:.1%} of it are {counts.argmax()}: a mask or an empty picture, no scan: keep it apart '
                         'from the scans')
    _check_levels(voxels, counts)
    if _is_map(voxels):
        raise ValueError(f'most of it near {voxels.min():g}, and fewer the further from there, as of no tissue: a map of uptake, no '
                         'scan: keep it apart from the scans')


def _check_levels(voxels, counts):
    """ValueError for a mask that was resampled, or is a JPEG: nearly all lies at a few levels, and these in a few regions."""
    values = np.flatnonzero(counts)
    levels = _levels(counts)
    sizes = [int(counts[low:high + 1].sum()) for low, high in levels]
    between = voxels.size - sum(sizes)
    if between <= min(BETWEEN * voxels.size, sizes[1] / 2) and values[-1] - values[0] > SPAN and _regions(voxels, levels) <= REGIONS:
        raise ValueError(f'few levels in few regions, and only {between / voxels.size:.1%} of it between them: a mask or a segmentation that '
                         'was resampled, no scan: keep it apart from the scans')


def _levels(counts):
    """At most 4 levels, (the first grey value, the last), that of most voxels first. Levels are the least and the greatest values, and between
    them those that most voxels around them have: in a scan neighbouring values are about as many."""
    values = np.flatnonzero(counts)
    low = values[0] + NEAR
    high = max(values[-1] - NEAR, low + 1)
    around = np.convolve(counts, np.ones(2 * NEAR + 1, np.int64), 'same')
    inside = np.arange(256)
    spikes = inside[(inside > low) & (inside < high) & (2 * counts > around)]
    levels = [(0, low), (high, 255), *((spike, spike) for spike in spikes)]
    return sorted(levels, key=lambda level: counts[level[0]:level[1] + 1].sum(), reverse=True)[:FEW]


def _regions(voxels, levels):
    """How many regions of one level, of SPECK voxels or more, a slice has on average."""
    count = 0
    for plane in voxels:
        near = np.rint(plane).astype(np.uint8)
        for low, high in levels:
            regions, _ = ndimage.label((near >= low) & (near <= high))
            count += int(np.count_nonzero(np.bincount(regions.ravel())[1:] >= SPECK))
    return count / len(voxels)


def _is_map(voxels):
    """Whether the grey that is no background is the rarer the brighter it is, all the way, and dark on average: of uptake it is, but what is
    measured of a body has a grey of its own, and so a mode, and what has not, an X-ray turned over, is brighter."""
    sample = voxels.ravel()[::max(1, voxels.size // 2**16) | 1].astype(np.float64)
    found, times = np.unique(sample, return_counts=True)
    front = sample[sample > found[0]] if times.argmax() == 0 else sample
    if front.size < JUDGED:
        return False
    low = front.min()
    top = np.percentile(front, TOP)
    bins = BINS
    step = (top - low) / BINS
    if (found == np.rint(found)).all():
        step = max(1, math.ceil(step))
        bins = int(top - low + 1) // step
    counts = np.bincount(((front[front <= top] - low) // max(step, 1e-12)).astype(int))
    falls = FEW < bins <= len(counts) and bool((counts[1:] <= RISE * counts[:-1]).all())
    return falls and np.minimum(front, top).mean() - low <= DARK * (top - low)


def check_deep(voxels: np.ndarray) -> None:
    """ValueError for 16 bits of grey, here [depth, height, width] in [0, 255], that hold something else: they must reach and
    span 2**14 of 2**16, and of 1000 voxels or more they must lie in more than 32 of 256 levels. All black is grey."""
    low = round(float(voxels.min()) * 257)
    high = round(float(voxels.max()) * 257)
    levels = 256
    if voxels.size >= JUDGED:
        counts = sum(np.bincount(plane.astype(np.uint8).ravel(), minlength=256) for plane in voxels)
        levels = int(np.count_nonzero(counts * RARE > voxels.size))
    if high > 0 and (high < DEEP or high - low < DEEP or levels <= LEVELS):
        told = f'values from {low} to {high}' + f' in {levels} of 256 levels' * bool(levels <= LEVELS)
        raise ValueError(f'16 bits that do not use their range, {told}: Hounsfield units, perhaps with an offset, or scanner '
                         "values of 12 to 14 bits, not grey; save Hounsfield units in an .npz under the key 'hu', or rescale "
                         'to 0..65535')
