"""Where the voxels of a scan lie in the patient, and the way from a Scan back to the order of axes that its file has."""

from collections.abc import Sequence

import nibabel
import numpy as np
from nibabel.orientations import inv_ornt_aff

FLIPPED = np.diag([-1.0, -1.0, 1.0, 1.0])  # between left, back, head (DICOM, and a Scan) and right, front, head (NIfTI)


def affine_of(axes: np.ndarray, origin: Sequence[float] | np.ndarray) -> np.ndarray:
    """[4, 4], the affine of a Scan, from what is known towards the left, the back and the head.

    axes: [3, 3] of which column i is the step of index i in mm; origin: mm of the middle of voxel 0, 0, 0. ValueError where that is
    no three finite numbers.
    """
    origin = np.asarray(origin, float)
    if origin.shape != (3,) or not np.isfinite(origin).all():
        raise ValueError('the place of its first voxel must be three finite numbers')
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = origin
    return FLIPPED @ affine


def as_stored(values: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
    """Values on the grid of a Scan, [depth, height, width], -> [i, j, k] in the order and direction of the axes of its file.

    affine: of the Scan; None: its columns, rows and slices are i, j and k.
    """
    values = values.T
    if affine is None:
        return values
    turn = _turn(affine)
    for index, sign in turn:
        if sign < 0:
            values = np.flip(values, int(index))
    return values.transpose(turn[:, 0].astype(int))


def of_voxels(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """[4, 4]: column, row and slice of a Scan of this shape [depth, height, width] -> mm to the right, the front and the head."""
    turn = _turn(affine)
    across = np.array(shape)[::-1]
    stored = across[turn[:, 0].astype(int)]
    return affine @ inv_ornt_aff(turn, stored)


def of_slice(affine: np.ndarray | None, shape: Sequence[int], at: int) -> np.ndarray | None:
    """The affine of a Scan of which only slice `at` is left; shape: [depth, height, width] of the whole."""
    if affine is None:
        return None
    index, sign = next((i, sign) for i, (axis, sign) in enumerate(_turn(affine)) if axis == 2)
    moved = np.eye(4)
    moved[index, 3] = at if sign > 0 else shape[0] - 1 - at
    return affine @ moved


def _turn(affine):
    """nibabel's orientation [3, 2] of the indices i, j, k: the axis of a Scan (0 column, 1 row, 2 slice) and its direction."""
    return nibabel.io_orientation(FLIPPED @ affine)
