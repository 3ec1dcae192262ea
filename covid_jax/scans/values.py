"""Whether the values of a scan can be Hounsfield units of a chest.

A header may have lost what it should say. These rules ask the values themselves, and are the same for every format.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from covid_jax.scans.labels import Distinct, check_labels, distinct

NO_GREY = -200  # HU: whatever reaches lower is no grey value; air is at -1000, fat at -100
THIN = -1500  # HU: below is no air, however noisy, but what scanners fill the outside of their circle with
DENSE = 2000  # HU: above is metal alone; the hardest bone stays below
AIR_SHARE = 0.01  # of the voxels at least are air or lung: of a chest it is a tenth or more
DENSE_SHARE = 0.05  # of the voxels at most are metal: what is outside of a scanner's circle is a fifth
LOW_SHARE = 0.05  # of the voxels at most lie below THIN and are no fill: the edge of a filled circle, resampled, is 3 %
FILL = 50  # HU around a median in which the fill of a circle lies; lungs are 150 above the air
TISSUE_SHARE = 0.03  # of air and tissue at least is tissue, or what is less dense is lung: bone alone, which an offset leaves there, is less
LUNG = -950  # HU: the median of lungs lies above, that of air, and of tissue off by an offset, below
LEAP = 500  # HU that not all values of a slice lie above or below those of its neighbour, and that two fills are apart; an offset is 1000 or more
QUANTILES = (5, 25, 50, 75, 95)  # % of a slice: what all its values are told by
SAMPLE = 2**14  # values of a slice by which its quantiles are found
JUDGED = 1000  # voxels: what has fewer is not judged by how its values are spread



class Tally(NamedTuple):
    """Values of one slice that were measured: how many; how many of them are air or lung, of those how many are above LUNG and how many of
    one value; how many are tissue, dense, below what air can be (thin), and that without what fills the outside of a circle and of a border (stray); the least and the
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
    distinct: Distinct


def tally(values: np.ndarray) -> Tally:
    """The values of a slice in what may be Hounsfield units, of any shape but not none, without padding -> Tally."""
    near = np.rint(np.clip(values, -2**15, 2**15 - 1)).astype(np.int16)
    counts = np.bincount((near.ravel() + np.int32(2**15)), minlength=2**16)
    thin = values[values <= THIN]
    stray = len(_stray(thin))
    tissue = int(np.count_nonzero(values >= NO_GREY))
    lung = int(np.count_nonzero((values > LUNG) & (values < NO_GREY)))
    clipped = int(counts[THIN + 1 + 2**15:NO_GREY + 2**15].max())
    quantiles = None
    if values.size >= JUDGED:
        found = np.percentile(values.ravel()[::max(1, values.size // SAMPLE)], QUANTILES)
        quantiles = found if found[-1] > found[0] else None
    return Tally(values.size, values.size - tissue - thin.size, lung, clipped, tissue, int(np.count_nonzero(values > DENSE)), thin.size,
                 stray, float(values.min()), float(values.max()), quantiles, distinct(near, counts, -2**15))


def _stray(thin):
    """Of values below THIN those of no fill. A second fill, as of a border around the circle, lies LEAP from the first: air and lungs, which an
    offset brought there, do not."""
    if not thin.size:
        return thin
    fill = np.quantile(thin, .5, method='lower')
    thin = thin[np.abs(thin - fill) > FILL]
    others = thin[np.abs(thin - fill) > LEAP]
    return thin[np.abs(thin - np.median(others)) > FILL] if others.size else thin


def check_hounsfield(tallies: Iterable[Tally], said: bool = False, names: Sequence[str] | None = None) -> None:
    """ValueError unless the values of all slices, from the feet to the head, can be Hounsfield units of a chest: within 16 bits; of 1000
    or more at least 1 % air or lung (-1500 to -200), at most 5 % above 2000, at most 5 % below -1500 but for two fills, and at least 3 % tissue
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
        check_labels(each.distinct for each in tallies)
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
