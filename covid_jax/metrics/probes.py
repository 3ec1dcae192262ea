"""What simple classifiers read from features: a linear one, and the nearest neighbours."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn, the inverse of the penalty, of which validation takes one
UNCHOSEN = 1e-2  # without a validation split that could choose
STEPS = 1000  # of a fit: those that need more are separable, and rank alike
NARROW = 256  # columns for which Newton's steps are faster than many cheaper ones
NEIGHBOURS = 20
TEMPERATURE = 0.07  # of the votes (Wu et al. 2018)
ONE_CLASS = 'of the exams to learn from fewer than two classes are labelled'  # so that there is no probe
BLOCK = 1000  # rows whose neighbours are sought at once: what bounds memory

Probe = Callable[[np.ndarray], np.ndarray]  # features [n, dim] -> probability float64 [n, classes]


def linear(train: ArrayLike, label: ArrayLike, val: ArrayLike, val_label: ArrayLike, classes: int) -> Probe:
    """Logistic regression on features that are standardised by the mean and deviation of `train`, with an L2 penalty.

    Of STRENGTHS the one with the lowest log loss on `val` is taken, among equals the strongest penalty; where val has fewer
    than two classes, UNCHOSEN. Classes count by their rows: nothing is balanced. The same arrays give the same probe.

    Args:
        train: float [n, dim]; a column that is constant says nothing.
        label: int [n], in [0, classes), two classes or more.
        val: float [m, dim], m at least 0.
        val_label: int [m].
        classes: columns of the probabilities; a class that `label` lacks gets 0.

    Raises:
        ValueError: fewer than two classes to learn from.
    """
    x = np.asarray(train, float)
    truth = np.asarray(label)
    judged = np.asarray(val_label)
    if len(np.unique(truth)) < 2:
        raise ValueError(ONE_CLASS)
    seen = _standardised(x)
    tried = [_fitted(seen, x, truth, strength, classes) for strength in STRENGTHS]
    if len(np.unique(judged)) < 2:
        return tried[STRENGTHS.index(UNCHOSEN)]
    losses = [log_loss(judged, predict(np.asarray(val)), labels=np.arange(classes)) for predict in tried]
    return tried[int(np.argmin(losses))]


def _standardised(train):
    """features [n, dim] -> [n, at most as many as train has rows and columns]: by the mean and deviation of train, those that
    vary there, and of more columns than rows their parts along the rows of train, in whose span the penalised weights lie."""
    mean = train.mean(0)
    deviation = train.std(0)
    varies = deviation > 1e-9 * np.maximum(1, np.abs(mean))

    def scaled(features):
        z = (np.asarray(features, float)[:, varies] - mean[varies]) / deviation[varies]
        return np.concatenate([z, np.zeros((len(z), 1))], 1)  # a column even where nothing varies

    if varies.sum() < len(train):
        return scaled
    axes = np.linalg.svd(scaled(train), full_matrices=False)[2].T
    return lambda features: scaled(features) @ axes


def _fitted(seen, train, label, strength, classes):
    x = seen(train)
    solver = 'newton-cholesky' if x.shape[1] <= NARROW else 'lbfgs'
    model = LogisticRegression(C=strength, max_iter=STEPS, solver=solver)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        model.fit(x, label)

    def predict(features):
        probability = np.zeros((len(features), classes))
        if len(features):
            probability[:, model.classes_] = model.predict_proba(seen(features))
        return probability

    return predict


def knn(train: ArrayLike, label: ArrayLike, classes: int, k: int = NEIGHBOURS) -> Probe:
    """The votes of the k rows of `train` that are nearest by cosine (all, where they are fewer), as shares.

    A vote weighs exp(cosine / 0.07), as in Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination" (CVPR 2018, section 3.4).

    Args:
        train: float [n, dim], n at least 1.
        label: int [n], in [0, classes).
        classes: columns of the probabilities.
        k: how many vote, at least 1.
    """
    bank = _unit(train)
    votes = np.eye(classes)[np.asarray(label)]
    count = min(k, len(bank))

    def of_block(features):
        cosine = _unit(features) @ bank.T
        nearest = np.argsort(-cosine, 1, kind='stable')[:, :count]
        near = np.take_along_axis(cosine, nearest, 1)
        weight = np.exp((near - near[:, :1]) / TEMPERATURE)
        shares = (weight[:, :, None] * votes[nearest]).sum(1)
        return shares / shares.sum(1, keepdims=True)

    def predict(features):
        blocks = [of_block(features[i:i + BLOCK]) for i in range(0, len(features), BLOCK)]
        return np.concatenate([np.zeros((0, classes)), *blocks])

    return predict


def _unit(features):
    x = np.asarray(features, float)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)
