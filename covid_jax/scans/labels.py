"""Whether whole values are the labels of a segmentation: in regions of one value, whose edges leap over the values between them.

A picture may have as few levels, but from one level it goes to the next: where its levels are flat its edges are small, and where
its edges are large, noise leaves nothing flat. How much of it is background counts for nothing.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

FEW = 4  # values, or fewer, are a segmentation
LABELS = 128  # values, or fewer, are a segmentation, too, where they are flat and their edges leap
FLAT = 0.78  # of the neighbours that most of the values have are of the same value: they are regions, about 5 voxels wide or more
LEAP = 1 / 3  # of the neighbours of two values are at least further apart than one level


class Distinct(NamedTuple):
    """The whole values of a slice: which, in order, none where it is of one; and how often values[i] is left of, or above, values[j], [n, n],
    None where they are more than LABELS."""

    values: np.ndarray
    pairs: np.ndarray | None


def distinct(near: np.ndarray, counts: np.ndarray, least: int) -> Distinct:
    """The Distinct of whole values near, [height, width] or [n] in their order, of which counts[i] are i + least."""
    found = np.flatnonzero(counts)
    values = found + least
    n = len(values)
    if n == 1:
        return Distinct(values[:0], None)
    if n > LABELS:
        return Distinct(values, None)
    rank = np.zeros(len(counts), np.uint16)
    rank[found] = np.arange(n)
    ranks = rank[near.astype(np.int32) - least]
    across = ranks[..., :-1] * np.uint16(n) + ranks[..., 1:]
    down = ranks[:-1] * np.uint16(n) + ranks[1:] if ranks.ndim > 1 else across[:0]
    return Distinct(values, np.bincount(np.concatenate([across.ravel(), down.ravel()]), minlength=n * n).reshape(n, n))


def check_labels(slices: Iterable[Distinct]) -> None:
    """ValueError for slices of at most 4 values; and of at most 128, where most values have 78 % of their neighbours in
    common with themselves, and a third of the edges leap over a level. Slices of one value are passed over."""
    found = [each for each in slices if len(each.values)]
    if not found:
        return
    values = np.unique(np.concatenate([each.values for each in found]))
    if len(values) <= FEW or len(values) <= LABELS and _are_regions(values, found):
        shown = ', '.join(map(str, values[:4])) + ', ...' * (len(values) > 4)
        raise ValueError(f'{len(values)} different values alone ({shown}): a segmentation, a mask or an empty picture, no scan: keep it apart from '
                         'the scans')


def _are_regions(values: np.ndarray, slices: Sequence[Distinct]) -> bool:
    pairs = np.zeros((len(values), len(values)), np.int64)
    for each in slices:
        if each.pairs is not None:
            at = np.searchsorted(values, each.values)
            pairs[np.ix_(at, at)] += each.pairs
    alike = pairs.diagonal()
    flat = 2 * alike / np.maximum(pairs.sum(0) + pairs.sum(1), 1)
    apart = np.abs(np.subtract.outer(np.arange(len(values)), np.arange(len(values))))
    return bool(np.median(flat) >= FLAT and pairs[apart > 1].sum() >= LEAP * pairs[apart > 0].sum())
