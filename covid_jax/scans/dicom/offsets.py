"""A slice of a DICOM series whose header lost its RescaleIntercept, or has that of another: its neighbours say so."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from covid_jax.scans.values import LEAP, QUANTILES


class Scaled(Protocol):
    """What is asked of a planes.Plane here."""

    @property
    def name(self) -> str: ...

    @property
    def rescale(self) -> np.ndarray | None: ...


def check_offsets(planes: Sequence[Scaled], voxels: np.ndarray) -> None:
    """ValueError for two neighbours of one slope and of intercepts 500 HU apart or more, whose values would be more alike under one
    intercept. Where a series was stored in two ways they are alike as they are, and a header that has a slope of its own lost nothing.

    planes: from the feet to the head; voxels: theirs, in Hounsfield units.
    """
    for k, (one, other) in enumerate(pairwise(planes)):
        if one.rescale is None or other.rescale is None:
            continue
        apart = other.rescale[1] - one.rescale[1]
        if abs(apart) < LEAP or one.rescale[0] != other.rescale[0]:
            continue
        before, after = (np.percentile(voxels[i], QUANTILES) for i in (k, k + 1))
        if np.median(np.abs(after - apart - before)) < np.median(np.abs(after - before)):
            raise ValueError(f'slices {one.name} and {other.name} have a RescaleIntercept of {one.rescale[1]:g} and of {other.rescale[1]:g}, and '
                             'would be alike under one: one of the two is wrong, export the original')
