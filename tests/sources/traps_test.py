"""The traps of the real data sets: they are there, and what a model gets to see does not hold them."""

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image
from scan_files import real
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from covid_jax.data.prep import Prep, prepare
from covid_jax.scans.decode import decode
from covid_jax.sources import published, published_images


def silent(line):
    pass


def pixels(exams):
    """Grey 32 x 32 pixels [n, 1024] as preparation gives them."""
    return np.array([prepare(decode(exam.path), Prep((-1000.0, 400.0), (1, 32, 32))).ravel() for exam in exams]) / 255


def auc(train, label, test, truth):
    scale = StandardScaler().fit(train)
    model = LogisticRegression(C=0.01, max_iter=500).fit(scale.transform(train), label)
    return roc_auc_score(truth, model.decision_function(scale.transform(test)))


def test_the_format_tells_the_label_of_covid_ct_and_decoding_takes_it_away():
    exams = published_images.covid_ct(real('COVID-CT'), silent)
    seen = defaultdict(set)
    for exam in exams:
        with Image.open(exam.path) as image:
            seen['jpg' if exam.path.lower().endswith('.jpg') else image.mode].add(exam.label)
    assert seen['jpg'] == {'NonCOVID'} and seen['RGBA'] == {'COVID'}
    scans = [decode(exam.path) for exam in exams]
    assert {(scan.voxels.dtype.str, scan.voxels.shape[0], scan.hounsfield, scan.spacing) for scan in scans} == {
        ('|u1', 1, False, None)}
    prepared = {prepare(scan, Prep((-1000.0, 400.0), (1, 32, 32))).shape for scan in scans}
    assert prepared == {(1, 32, 32, 1)}


def test_a_linear_model_of_32_pixels_is_high_on_covid_ct_and_higher_on_leaky_slices():
    """The official split of patients, and a random split of slices whose patients nobody knows."""
    exams = published_images.covid_ct(real('COVID-CT'), silent)
    x, y = pixels(exams), np.array([exam.label == 'COVID' for exam in exams])
    train = np.array([exam.split == 'train' for exam in exams])
    official = auc(x[train], y[train], x[~train], y[~train])
    exams = published_images.sars_cov_2_ct(real('SARS-CoV-2-CT'), silent)
    x, y = pixels(exams), np.array([exam.label == 'COVID' for exam in exams])
    scores = []
    for seed in range(3):
        train = np.random.default_rng(seed).permutation(len(y)) < 0.75 * len(y)
        scores.append(auc(x[train], y[train], x[~train], y[~train]))
    print(f'official {official:.3f}, leaky {np.mean(scores):.3f}')
    assert 0.6 < official < np.mean(scores) and np.mean(scores) > 0.8


def test_the_collection_tells_covid_in_the_xrays():
    exams = published_images.chest_xray(real('chest-xray'), silent)
    people = defaultdict(set)
    for exam in exams:
        people[exam.patient].add(exam.label)
    assert sum(len(labels) > 1 for labels in people.values()) == 13
    x, y = pixels(exams), np.array([exam.label == 'COVID-19' for exam in exams])
    names = sorted(people)
    chosen = set(np.random.default_rng(0).permutation(names)[:3 * len(names) // 4])
    train = np.array([exam.patient in chosen for exam in exams])
    score = auc(x[train], y[train], x[~train], y[~train])
    print(f'X-ray {score:.3f}')
    assert score > 0.9


def test_dicom_names_are_not_in_slice_order():
    (exam,) = published.covid_ct_md(real('COVID-CT-MD/dicom'), silent)
    by_hand = decode(real('COVID-CT-MD/volumes/cap002.npz')).voxels
    scan = decode(exam.path)
    first = decode(sorted(real('COVID-CT-MD/dicom/cap002').glob('*.dcm'))[0])
    assert np.corrcoef(scan.voxels[0, ::4, ::4].ravel(), by_hand[0].ravel())[0, 1] > 0.9
    np.testing.assert_array_equal(first.voxels[0], scan.voxels[-1])


@pytest.mark.parametrize('name', ['COVID-CT', 'SARS-CoV-2-CT', 'LUNA16-slices', 'chest-xray'])
def test_every_real_image_decodes_to_grey(name):
    paths = [path for path in real(name).rglob('*') if path.suffix.lower() in ('.png', '.jpg')]
    for path in paths[::3]:
        scan = decode(path)
        assert scan.voxels.dtype == np.uint8 and not scan.hounsfield and scan.voxels.max() > 50
