"""What the same metric comes to over folds and seeds."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Spread(NamedTuple):
    """mean: of all; over_folds: standard deviation over the folds of their means over seeds; over_seeds: standard deviation over
    the seeds of their means over folds. None where there is one fold, or one seed."""

    mean: float
    over_folds: float | None
    over_seeds: float | None


def spread(values: ArrayLike) -> Spread:
    """The Spread of values [folds, seeds].

    The standard deviations divide by n - 1. Over folds the patients and the training sets differ; over seeds initial weights,
    order and augmentation alone.
    """
    v = np.asarray(values, float)
    return Spread(float(v.mean()), _deviation(v.mean(1)), _deviation(v.mean(0)))


def _deviation(means):
    return float(means.std(ddof=1)) if len(means) > 1 else None
