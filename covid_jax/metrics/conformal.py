"""Which classes an answer leaves open, so that the right one is among them as often as was promised."""

import numpy as np
from numpy.typing import ArrayLike

ROUNDING = 1e-9  # so that (9 + 1) (1 - 0.9) is 1


def bounds(label: ArrayLike, probability: ArrayLike, level: float) -> np.ndarray:
    """The least probability of each class at which it is still left open, to be frozen on validation: split conformal prediction,
    class by class (Vovk, "Conditional validity of inductive conformal predictors", 2012; the score is that of Sadinle, Lei and
    Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", 2019).

    Of exams that are exchangeable with these the true class is left open in at least `level` of each class.

    Args:
        label: int [n], in [0, classes).
        probability: float [n, classes], of exams that were not learnt from.
        level: in (0, 1).

    Returns:
        float [classes]. Of n exams of a class the k-th smallest probability of their own class, k = floor((n + 1) (1 - level)); -inf
        where k is 0: so few exams promise nothing, and the class is always left open (9 are needed for 0.9, 19 for 0.95).
    """
    truth = np.asarray(label, int)
    p = np.asarray(probability, float)
    found = np.full(p.shape[1], -np.inf)
    for index in range(p.shape[1]):
        own = np.sort(p[truth == index, index])
        k = int(np.floor((len(own) + 1) * (1 - level) + ROUNDING))
        if k:
            found[index] = own[k - 1]
    return found


def left_open(probability: ArrayLike, bounds: ArrayLike) -> np.ndarray:
    """Which classes are left open: bool [n, classes], of probability, float [n, classes], and bounds, float [classes]. None of
    them, or more than one: the exam is to be left to a person."""
    return np.asarray(probability, float) >= np.asarray(bounds, float)

