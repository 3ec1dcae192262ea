"""What the values of a scan can be: Hounsfield units of a chest, grey that is no segmentation, 16 bits that are used.

A header may have lost what it should say. These rules ask the values themselves, and are the same for every format.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

NO_GREY = -200  # HU: whatever reaches lower is no grey value; air is at -1000, fat at -100
THIN = -1500  # HU: below is no air, however noisy, but what scanners fill the outside of their circle with
DENSE = 2000  # HU: above is metal alone; the hardest bone stays below
AIR_SHARE = 0.01  # of the voxels at least are air or lung: of a chest it is a tenth or more
DENSE_SHARE = 0.05  # of the voxels at most are metal: what is outside of a scanner's circle is a fifth
LOW_SHARE = 0.05  # of the voxels at most lie below THIN and are no fill: the edge of a filled circle, resampled, is 3 %
FILL = 50  # HU around their median in which the fill of a circle lies; lungs are 150 above the air
TISSUE_SHARE = 0.03  # of air and tissue at least is tissue, or what is less dense is lung: bone alone, which an offset leaves there, is less
LUNG = -950  # HU: the median of lungs lies above, that of air, and of tissue off by an offset, below
LEAP = 500  # HU that not all values of a slice lie above or below those of its neighbour; a lost offset is 1000 or more
QUANTILES = (5, 25, 50, 75, 95)  # % of a slice: what all its values are told by
SAMPLE = 2**14  # values of a slice by which its quantiles are found
JUDGED = 1000  # voxels: what has fewer is not judged by how its values are spread
FEW = 4  # values, or fewer, are a segmentation
LABELS = 128  # values, or fewer, are a segmentation, too, where nearly all neighbours are alike
ALIKE = 0.95  # of the neighbours that are not both background; noise keeps those of a scan apart
BINS = 16  # from the least grey to the TOP: how often each comes
DARK = 64  # that whole numbers reach, unless they are uptake
TOP = 99  # % of the values, beyond which a hot spot lies
RISE = 1.5  # times as many in the next bin are no mode: noise makes so many
FALL = 16  # times as many at the least values as at the greatest are in a map; of decay it is 70, in X-rays at most 4
EMPTY = 0.995  # of the voxels of one value are an empty picture, or a mask of little
NEAR = 8  # grey values beside a level that resampling, or JPEG, makes of it
SPAN = 64  # grey values that a mask's levels are apart at least; a scan of low contrast may have fewer
BETWEEN = 0.1  # of the voxels at most lie between the levels of a mask; in a scan with black air and white tissue it is a quarter
DEEP = 2**14  # that 16 bits of grey reach and span; Hounsfield units and scanner values of 12 to 14 bits do not
LEVELS = 32  # of 256 in which more than one voxel of RARE lies; Hounsfield units lie in 16, whatever is added to them
RARE = 10000


class Tally(NamedTuple):
    """Values of one slice that were measured: how many; how many of them are air or lung, of those how many are above LUNG and how many of
    one value; how many are tissue, dense, below what air can be (thin), and that without the fill of a circle (stray); the least and the
    greatest; their QUANTILES, None where few or all one; what they are where few (distinct)."""

    total: int
    air: int
    lung: int
    clipped: int
    tissue: int
    dense: int
    thin: int
    stray: int
    low: float
    high: float
    quantiles: np.ndarray | None
    distinct: 'Distinct'


class Distinct(NamedTuple):
    """The whole values that a slice comes near to: which, none where it is of one; of its neighbours that are not both of the commonest value,
    how many are alike, and how many there are."""

    values: np.ndarray
    alike: int
    pairs: int


def tally(values: np.ndarray) -> Tally:
    """The values of a slice in what may be Hounsfield units, of any shape but not none, without padding -> Tally."""
    near = np.rint(np.clip(values, -2**15, 2**15 - 1)).astype(np.int16)
    counts = np.bincount((near.ravel() + np.int32(2**15)), minlength=2**16)
    thin = values[values <= THIN]
    stray = int(np.count_nonzero(np.abs(thin - np.median(thin)) > FILL)) if thin.size else 0
    tissue = int(np.count_nonzero(values >= NO_GREY))
    lung = int(np.count_nonzero((values > LUNG) & (values < NO_GREY)))
    clipped = int(counts[THIN + 1 + 2**15:NO_GREY + 2**15].max())
    quantiles = None
    if values.size >= JUDGED:
        found = np.percentile(values.ravel()[::max(1, values.size // SAMPLE)], QUANTILES)
        quantiles = found if found[-1] > found[0] else None
    return Tally(values.size, values.size - tissue - thin.size, lung, clipped, tissue, int(np.count_nonzero(values > DENSE)), thin.size,
                 stray, float(values.min()), float(values.max()), quantiles, _distinct(near, counts, -2**15))


def _distinct(near, counts, least):
    """The Distinct of whole values near [..., width], of which counts[i] are i + least."""
    values = np.flatnonzero(counts) + least
    if len(values) == 1:
        return Distinct(values[:0], 0, 0)
    if len(values) > LABELS:
        return Distinct(values, 0, 0)
    background = counts.argmax() + least
    left = near[..., :-1]
    same = left == near[..., 1:]
    behind = int(np.count_nonzero(same & (left == background)))
    return Distinct(values, int(np.count_nonzero(same)) - behind, same.size - behind)


def _check_labels(found):
    """ValueError for slices, each a Distinct, of at most 4 values, or of at most 128 where 95 % of neighbours are alike."""
    found = list(found)
    values = np.unique(np.concatenate([each.values for each in found]))
    alike = sum(each.alike for each in found)
    pairs = sum(each.pairs for each in found)
    if 0 < len(values) <= FEW or len(values) <= LABELS and alike > ALIKE * pairs:
        shown = ', '.join(map(str, values[:4])) + ', ...' * (len(values) > 4)
        raise ValueError(f'{len(values)} different values alone ({shown}): a segmentation, a mask or an empty picture, no scan: keep it apart from '
                         'the scans')


def check_hounsfield(tallies: Iterable[Tally], said: bool = False, names: Sequence[str] | None = None) -> None:
    """ValueError unless the values of all slices, from the feet to the head, can be Hounsfield units of a chest: within 16 bits; of 1000
    or more at least 1 % air or lung (-1500 to -200), at most 5 % above 2000, at most 5 % below -1500 but for a fill, and at least 3 % tissue
    or lungs of which half lies above -950; no segmentation; and no slice 500 HU off its neighbour in all its values. said: a person says
    that they are, then air may be missing.
    names: of the slices, their numbers from 0 where there are none."""
    tallies = list(tallies)
    _check_leaps(tallies, names or list(map(str, range(len(tallies)))))
    total = sum(each.total for each in tallies)
    air = sum(each.air for each in tallies)
    dense = sum(each.dense for each in tallies)
    low = min(each.low for each in tallies)
    high = max(each.high for each in tallies)
    why = ''
    if low < -2**15 or high >= 2**15:
        why = 'they do not fit 16 bits: a sign was lost, or what fills the outside of the circle is not marked'
    elif total >= JUDGED and air < AIR_SHARE * total and not said:
        why = (f'hardly any lies between {THIN} and {NO_GREY}, where air and lungs are: an offset (of DICOM, the '
               'RescaleIntercept) or a sign was lost, export the original; where the scan is cut to the heart and the values are '
               "right, save them in an .npz under the key 'hu'")
    elif total >= JUDGED and dense > DENSE_SHARE * total:
        why = (f'{dense / total:.0%} of them are above {DENSE}, where only metal is: what fills the outside of the circle '
               'is not marked, or an offset was lost')
    elif total >= JUDGED:
        _check_labels(each.distinct for each in tallies)
        why = _off_twice(tallies)
    if why:
        raise ValueError(f'values from {low:g} to {high:g} are not Hounsfield units of a chest, {why}')


def _off_twice(tallies):
    """Why values are what an offset makes of a chest when it is applied twice, '' where they are not."""
    total = sum(each.total for each in tallies)
    thin = sum(each.thin for each in tallies)
    air = sum(each.air for each in tallies)
    tissue = sum(each.tissue for each in tallies)
    measured = air - sum(each.clipped for each in tallies)  # without what was cut off at one value, or fills
    if sum(each.stray for each in tallies) > LOW_SHARE * total:
        where = f'{thin / total:.0%} of them are below {THIN}, where nothing is that was measured'
    elif tissue < TISSUE_SHARE * (air + tissue) and 2 * sum(each.lung for each in tallies) < measured:
        where = f'hardly any lies above {LUNG}, where lungs and tissue are'
    else:
        return ''
    return f'{where}: an offset (of DICOM, the RescaleIntercept) was applied twice, export the original'


def _check_leaps(tallies, names):
    """ValueError for a slice all of whose values lie above, or below, those of the one before: whatever changes from slice to slice, air
    stays air and tissue stays tissue."""
    spread = [(name, each.quantiles) for name, each in zip(names, tallies, strict=True) if each.quantiles is not None]
    for (one, before), (other, after) in pairwise(spread):
        leaps = after - before
        leap = leaps[np.abs(leaps).argmin()]
        at_an_end = one == names[0] or other == names[-1]  # where a resampled slice is in part what lies outside of the scan
        if at_an_end and np.ptp(leaps) > LEAP / 2:
            continue
        if abs(leap) > LEAP and (np.sign(leaps) == np.sign(leap)).all():
            raise ValueError(f'all values of slice {other} lie {abs(leap):.0f} HU {"above" if leap > 0 else "below"} those of slice {one}: '
                             'the offset (of DICOM, the RescaleIntercept) of one is wrong, export the original')


def check_grey(voxels: np.ndarray) -> None:
    """ValueError for grey [depth, height, width] in [0, 255] that is a segmentation, a mask or a map of uptake: of at most 4
    whole values, of at most 128 where 95 % of neighbours are alike, of one value nearly alone, of a few levels with little between (a mask
    that was resampled), or whose grey has no mode but its least value. Of 1000 voxels or more."""
    if voxels.size < JUDGED:
        return
    counts = np.zeros(256, np.int64)
    found = []
    whole = True
    for plane in voxels:
        near = np.rint(plane).astype(np.uint8)
        whole = whole and bool(np.abs(plane - near).max() < 1e-3)
        here = np.bincount(near.ravel(), minlength=256)
        counts += here
        found.append(_distinct(near, here, 0))
    values = np.flatnonzero(counts)
    if whole or len(values) <= FEW:
        _check_labels([*found, Distinct(values, 0, 0)])
    background = counts.max()
    if background > EMPTY * voxels.size:
        raise ValueError(f'{background / voxels.size:.1%} of it are {counts.argmax()}: a mask or an empty picture, no scan: keep it apart '
                         'from the scans')
    levels = _levels(counts)
    between = voxels.size - sum(levels)
    if between <= min(BETWEEN * voxels.size, levels[1] / 2) and values[-1] - values[0] > SPAN:
        raise ValueError(f'few levels, and only {between / voxels.size:.1%} of it between them: a mask or a segmentation that was '
                         'resampled, no scan: keep it apart from the scans')
    if _is_map(voxels, whole):
        raise ValueError(f'most of it near {voxels.min():g}, and fewer the further from there, as of no tissue: a map of uptake, no '
                         'scan: keep it apart from the scans')


def _is_map(voxels, whole):
    """Whether the grey that is no background is the rarer the brighter it is, all the way: of uptake it is, but what is measured of a body
    has a grey of its own, and so a mode."""
    sample = voxels.ravel()[::max(1, voxels.size // 2**16) | 1].astype(np.float64)
    found, times = np.unique(sample, return_counts=True)
    front = sample[sample > found[0]] if times.argmax() == 0 else sample
    if front.size < JUDGED or whole and found[-1] > DARK:
        return False
    low = front.min()
    top = np.percentile(front, TOP)
    bins = BINS
    step = (top - low) / BINS
    if whole:
        step = max(1, math.ceil(step))
        bins = int(top - low + 1) // step
    counts = np.bincount(((front[front <= top] - low) // max(step, 1e-12)).astype(int))
    return FEW < bins <= len(counts) and bool((counts[1:] <= RISE * counts[:-1]).all() and counts[0] > FALL * counts[bins - 1])


def _levels(counts):
    """Of the voxels of each grey value, how many lie at each of at most 4 levels, most first. Levels are the least and the greatest values,
    and between them those that most voxels around them have: in a scan neighbouring values are about as many."""
    values = np.flatnonzero(counts)
    low = values[0] + NEAR
    high = max(values[-1] - NEAR, low + 1)
    around = np.convolve(counts, np.ones(2 * NEAR + 1, np.int64), 'same')
    inside = np.arange(256)
    spikes = counts[(inside > low) & (inside < high) & (2 * counts > around)]
    return sorted([counts[:low + 1].sum(), counts[high:].sum(), *spikes], reverse=True)[:FEW]


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
