"""What logistic regression on 32 x 32 grey pixels reaches on three public data sets: the numbers of docs/data.md.

    python scripts/traps.py DATA

where DATA holds COVID-CT, SARS-CoV-2-CT and chest-xray. High AUCs of such a model are a warning about the data: it knows
nothing of lungs.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from covid_jax.data import duplicates
from covid_jax.data.prep import Prep, prepare
from covid_jax.scans.decode import decode
from covid_jax.sources.names import whole
from covid_jax.sources.published_images import chest_xray, covid_ct, sars_cov_2_ct

PREP = Prep((-1000.0, 400.0), (1, 32, 32))
TRAIN = 0.75  # share of images, or of patients, where no official split is used
SEEDS = 5  # draws, of which the mean is given


def auc(exams, covid, train):
    """Of a model fitted on the exams of train (bool [n]), on the others; covid: the label that is positive."""
    x = np.array([prepare(decode(exam.path), PREP).ravel() for exam in exams]) / 255
    y = np.array([exam.label == covid for exam in exams])
    scale = StandardScaler().fit(x[train])
    model = LogisticRegression(C=0.01, max_iter=500).fit(scale.transform(x[train]), y[train])
    return roc_auc_score(y[~train], model.decision_function(scale.transform(x[~train])))


def auc_of_drawn(exams, covid, unit):
    """The mean over SEEDS draws, in which train has TRAIN of all units; unit(exam): what is drawn, as the patient."""
    units = np.array([unit(exam) for exam in exams])
    found = []
    for seed in range(SEEDS):
        shuffled = np.random.default_rng(seed).permutation(sorted(set(units)))
        found.append(auc(exams, covid, np.isin(units, shuffled[:int(TRAIN * len(shuffled))])))
    return np.mean(found)


def hundred(exam):
    """The class and the hundred of a slice's number: 'COVID/Covid (512).png' -> 'COVID 5'."""
    return f'{exam.label} {int(exam.id.partition("(")[2].partition(")")[0]) // 100}'


def main(data):
    exams = covid_ct(Path(data, 'COVID-CT'), print)
    official = np.array([exam.split == 'train' for exam in exams])
    print(f'COVID-CT, official train to val: {auc(exams, "COVID", official):.3f}')
    print(f'COVID-CT, images at random: {auc_of_drawn(exams, "COVID", lambda exam: exam.id):.3f}')
    exams = [whole(exam) for exam in exams]
    print(f'COVID-CT, articles at random: {auc_of_drawn(exams, "COVID", lambda exam: exam.patient):.3f}')

    exams = sars_cov_2_ct(Path(data, 'SARS-CoV-2-CT'), print)
    thumbnails = [prepare(decode(exam.path), duplicates.THUMBNAIL) for exam in exams]
    cluster = dict(zip(exams, duplicates.clusters(np.array(list(map(duplicates.signature, thumbnails)))), strict=True))
    print(f'SARS-CoV-2-CT, slices at random: {auc_of_drawn(exams, "COVID", lambda exam: exam.id):.3f}')
    print(f'SARS-CoV-2-CT, clusters at random: {auc_of_drawn(exams, "COVID", cluster.get):.3f}')
    print(f'SARS-CoV-2-CT, runs of 100 numbers at random: {auc_of_drawn(exams, "COVID", hundred):.3f}')

    exams = chest_xray(Path(data, 'chest-xray'), print)
    print(f'chest X-ray, patients at random: {auc_of_drawn(exams, "COVID-19", lambda exam: exam.patient):.3f}')


if __name__ == '__main__':
    main(*sys.argv[1:])
