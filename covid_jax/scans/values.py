"""What the values of a scan can be: Hounsfield units of a chest, grey that is no segmentation, 16 bits that are used.

A header may have lost what it should say. These rules ask the values themselves, and are the same for every format.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

NO_GREY = -200  # HU: whatever reaches lower is no grey value; air is at -1000, fat at -100
THIN = -1500  # HU: below is no air, however noisy, but what scanners fill the outside of their circle with
DENSE = 2000  # HU: above is metal alone; the hardest bone stays below
AIR_SHARE = 0.01  # of the voxels at least are air or lung: of a chest it is a tenth or more
DENSE_SHARE = 0.05  # of the voxels at most are metal: what is outside of a scanner's circle is a fifth
JUDGED = 1000  # voxels: what has fewer is not judged by how its values are spread
FEW = 4  # values, or fewer, are a segmentation
LABELS = 128  # values, or fewer, are a segmentation, too, where nearly all neighbours are alike
ALIKE = 0.95  # of the neighbours in slices of several values; noise keeps those of a scan apart
FRACTIONS = 64  # of 255, that values which are no whole numbers reach at least: uptake and densities stay below
DEEP = 2**14  # that 16 bits of grey reach and span; Hounsfield units and scanner values of 12 to 14 bits do not
LEVELS = 32  # of 256 in which more than one voxel of RARE lies; Hounsfield units lie in 16, whatever is added to them
RARE = 10000


class Tally(NamedTuple):
    """Some values that were measured, counted: how many, of them air or lung, of them dense, the least and the greatest."""

    total: int
    air: int
    dense: int
    low: float
    high: float


def tally(values: np.ndarray) -> Tally:
    """Values in what may be Hounsfield units, of any shape but not none, without padding -> Tally."""
    air = int(np.count_nonzero((values > THIN) & (values < NO_GREY)))
    return Tally(values.size, air, int(np.count_nonzero(values > DENSE)), float(values.min()), float(values.max()))


def check_hounsfield(tallies: Iterable[Tally], said: bool = False) -> None:
    """ValueError unless the values of all tallies can be Hounsfield units of a chest: within 16 bits, and of 1000 or more at
    least 1 % air or lung (-1500 to -200) and at most 5 % above 2000. said: a person says that they are, then air may be
    missing."""
    tallies = list(tallies)
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
    if why:
        raise ValueError(f'values from {low:g} to {high:g} are not Hounsfield units of a chest, {why}')


def check_grey(voxels: np.ndarray) -> None:
    """ValueError for grey [depth, height, width] in [0, 255] that is a segmentation, a mask or a map of uptake: of at most 4
    whole values, of at most 128 where 95 % of neighbours are alike, or of fractions below 64. Of 1000 voxels or more."""
    if voxels.size < JUDGED:
        return
    counts = np.zeros(256, np.int64)
    alike = 0
    pairs = 0
    whole = True
    for plane in voxels:
        near = np.rint(plane).astype(np.uint8)
        whole = whole and bool(np.abs(plane - near).max() < 1e-3)
        here = np.bincount(near.ravel(), minlength=256)
        counts += here
        if np.count_nonzero(here) > 1:
            alike += int(np.count_nonzero(near[:, 1:] == near[:, :-1]))
            pairs += near[:, 1:].size
    values = np.flatnonzero(counts)
    if whole and (len(values) <= FEW or len(values) <= LABELS and alike > ALIKE * pairs):
        shown = ', '.join(map(str, values[:4])) + ', ...' * (len(values) > 4)
        raise ValueError(f'{len(values)} different values alone ({shown}): a segmentation, a mask or an empty picture, no scan: keep it apart from '
                         'the scans')
    high = float(voxels.max())
    if not whole and high < FRACTIONS:
        raise ValueError(f'fractions up to {high:g} of 255: a mask or a map of uptake or probability, no scan; if it is one, '
                         'save it as 0 to 255 or 0 to 1')


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
