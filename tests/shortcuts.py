"""What a classifier without eyes sees of an image, and how well it tells two classes apart."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def histogram(voxels, low=-1024, high=400, bins=64):
    """The share of the voxels [bins] in each of equal bins; what lies outside counts in the first and the last."""
    return np.histogram(np.clip(voxels, low, high), bins, (low, high))[0] / voxels.size


def best_auc(train, train_label, test, test_label):
    """The AUC on unseen rows of a logistic regression, over three strengths of regularisation the best."""
    models = [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000)) for c in (0.001, 0.03, 1.0)]
    return max(roc_auc_score(test_label, m.fit(train, train_label).decision_function(test)) for m in models)


def histogram_auc(phantom, size, site, low=-1024, high=400, count=60):
    """The AUC of covid against the rest that histograms reach, learnt from `count` phantoms and tested on as many others."""
    mix = ('covid', 'normal', 'covid', 'pneumonia')
    draws = [(seed, i, mix[i % 4]) for seed in (11, 12) for i in range(count)]
    seen = np.array([histogram(phantom(*draw, size, site)[0], low, high) for draw in draws])
    sick = np.array([label == 'covid' for *_, label in draws])
    return best_auc(seen[:count], sick[:count], seen[count:], sick[count:])
