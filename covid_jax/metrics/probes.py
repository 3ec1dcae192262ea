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
NEIGHBOURS = 20
TEMPERATURE = 0.07  # of the votes (Wu et al. 2018)
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
    mean = x.mean(0)
    deviation = x.std(0)
    varies = deviation > 1e-9 * np.maximum(1, np.abs(mean))

    def seen(features):
        return (np.asarray(features, float)[:, varies] - mean[varies]) / deviation[varies]

    def predictor(strength):
        model = LogisticRegression(C=strength, max_iter=STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ConvergenceWarning)
            model.fit(_with_zero(seen(x)), truth)

        def predict(features):
            probability = np.zeros((len(features), classes))
            if len(features):
                probability[:, model.classes_] = model.predict_proba(_with_zero(seen(features)))
            return probability

        return predict

    if len(np.unique(truth)) < 2:
        raise ValueError('of the exams to learn from fewer than two classes are labelled')
    if len(np.unique(judged)) < 2:
        return predictor(UNCHOSEN)
    tried = [predictor(strength) for strength in STRENGTHS]
    losses = [log_loss(judged, predict(np.asarray(val)), labels=np.arange(classes)) for predict in tried]
    return tried[int(np.argmin(losses))]


def _with_zero(features):
    """The features and a column of zeros, so that there is one even where nothing varies."""
    return np.concatenate([features, np.zeros((len(features), 1))], 1)


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
