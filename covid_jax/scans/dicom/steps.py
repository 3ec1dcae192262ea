"""How far apart the slices of a DICOM series are, and whether one of them is missing."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from covid_jax.text import some

OFF = 0.05  # of the distance of slices that each may lie beside an even grid: then steps differ by a tenth
ROUNDED = 0.2  # of the distance, where the positions are written no finer; a missing slice puts others off by more
WANDER = 0.15  # of the usual step that each may differ where steps vary by chance: five times the 3 % of scanners that do
COARSE = 0.15  # and that rounding may add; of three slices with one missing, a step is a third off the median


class Placed(Protocol):
    """What is asked of a planes.Plane here."""

    @property
    def name(self) -> str: ...

    @property
    def position(self) -> np.ndarray | None: ...

    @property
    def between(self) -> float | None: ...

    @property
    def thick(self) -> float | None: ...


def even_step(planes: Sequence[Placed], along: np.ndarray) -> float:
    """The distance of neighbours in mm: that of the even grid which fits the positions best. ValueError that names slices at
    one place or unevenly apart.

    Either of two laws is enough. Rounding leaves each position near its point of the grid, however far a step is off. Steps that vary by
    chance add up, and take positions off any grid, but each of them is near the usual one, and it changes for good nowhere.
    """
    order = np.argsort(along, kind='stable')
    steps = np.diff(along[order])
    real = steps[steps >= 0.01]
    usual = float(np.median(real)) if real.size else 0.0

    def pairs(where, told):
        texts = [f'slices {planes[order[i]].name} and {planes[order[i + 1]].name} {told(i)}'
                 for i in np.flatnonzero(where)]
        return some(texts)

    double = steps < max(0.01, 0.01 * usual)
    if double.any():
        z = [plane.position[2] for plane in planes]
        told = pairs(double, lambda i: f'are at the same position (z = {z[order[i]]:.1f} mm)')
        raise ValueError(f'{told}: remove one of each, or give each series a folder of its own')
    apart, off = _grid(along[order])
    unit = _unit(planes)
    if off.max() <= max(OFF * apart, min(unit, ROUNDED * apart)):
        told = [mm for mm in (planes[0].between, planes[0].thick) if mm and abs(mm - apart) * len(steps) <= unit]
        return told[0] if told and off.max() > 1e-3 else apart  # rounded positions leave open what a header may tell
    uneven = np.abs(steps - usual) > WANDER * usual + min(unit, COARSE * usual)
    if uneven.any():
        digits = 1 if (np.abs(steps - usual)[uneven] >= 0.1).all() else 3
        raise ValueError(f'{pairs(uneven, lambda i: f"are {steps[i]:.{digits}f} mm apart")}, the others '
                         f'{usual:.{digits}f} mm: a slice is missing or does not belong here')
    if off.max() > steps.std() * math.sqrt(len(steps)) and not _by_chance(steps):
        worst = planes[order[int(off.argmax())]].name
        raise ValueError(f'slice {worst} lies {off.max():.2g} mm beside an even grid of {apart:.3g} mm: slices are missing, or '
                         'their distance changes')
    return apart


def _by_chance(steps):
    """Whether neighbouring steps differ as steps of any two places do, in which case their mean square is twice the variance. Where the
    distance changes once, or slowly, it is far below."""
    return np.square(np.diff(steps)).mean() > steps.var()


def _grid(along):
    """-> (mm between the points of the even grid that is nearest to sorted positions, mm of each position off its point)."""
    index = np.arange(len(along)) - (len(along) - 1) / 2
    apart = float(index @ along / (index @ index))
    return round(apart, 6), np.abs(along - along.mean() - apart * index)  # the rest is rounding of the computer


def _unit(planes):
    """The mm that all heights are multiples of as they are written: 0.1 where they have one decimal."""
    heights = np.array([plane.position[2] for plane in planes])
    digits = next((n for n in range(6) if np.abs(heights - heights.round(n)).max() < 1e-6), 6)
    return 10.0**-digits
