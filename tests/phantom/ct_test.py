"""The phantoms: the same bodies whatever the label, lesions where the disease puts them, and nothing for a shortcut."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from covid_jax.phantom.anatomy import anatomy
from covid_jax.phantom.ct import LABELS, phantom


@pytest.fixture(scope='module')
def triples():
    """The first 5 bodies of seed 5, each under every label: a list of {label: (hu, spacing, lesion)}."""
    return [{label: phantom(5, i, label) for label in LABELS} for i in range(5)]


def lungs(index):
    """The true lungs of the fixture's bodies, bool [depth, height, width]: consolidation cannot be thresholded."""
    return anatomy(np.random.default_rng([5, index, 0]), (40, 96, 96)).depth > 0


def body(hu):
    """The filled body without the table, bool [depth, height, width]."""
    firm = ndimage.binary_opening(hu > -500, np.ones((1, 5, 5)))
    return np.stack([ndimage.binary_fill_holes(s) for s in firm])


def test_same_call_same_scan_and_the_digest_is_pinned():
    hu, spacing, lesion = phantom(0, 1, 'covid')
    again = phantom(0, 1, 'covid')
    assert np.array_equal(hu, again[0]) and spacing == again[1] and np.array_equal(lesion, again[2])
    assert hu.dtype == np.int16 and lesion.dtype == bool and hu.shape == lesion.shape == (40, 96, 96)
    digest = hashlib.sha256(hu.tobytes() + lesion.tobytes()).hexdigest()
    assert digest == '30a96295c95ede81f48b5776730a01ada52ba49dfd9b437717f8f2c789cee61f'


def test_seeds_and_indices_are_different_bodies():
    scans = [phantom(*at, 'normal', (8, 32, 32))[0] for at in ((0, 1), (0, 2), (1, 1), (2, 0))]
    assert len({s.tobytes() for s in scans}) == 4


@pytest.mark.parametrize('size', [(8, 32, 32), (16, 64, 48), (64, 40, 40)])
def test_every_size_has_every_class(size):
    for i in range(3):
        for label in LABELS:
            hu, spacing, lesion = phantom(i, i, label, size)
            assert hu.shape == lesion.shape == size and min(spacing) > 0
            assert lesion.any() == (label != 'normal')


def test_labels_differ_in_the_lungs_alone(triples):
    for index, triple in enumerate(triples):
        near = ndimage.binary_dilation(lungs(index), np.ones((3, 3, 3)), iterations=2)
        hu, spacing, _ = triple['normal']
        for label in ('covid', 'pneumonia'):
            assert triple[label][1] == spacing
            changed = triple[label][0] != hu
            assert changed.any() and not (changed & ~near).any()


def test_lesions_lie_in_the_lungs_and_normal_scans_have_none(triples):
    for index, triple in enumerate(triples):
        lung = lungs(index)
        assert not triple['normal'][2].any()
        for label in ('covid', 'pneumonia'):
            assert triple[label][2].any() and not (triple[label][2] & ~lung).any()


def test_covid_is_on_both_sides_under_the_pleura_and_pneumonia_on_one_side(triples):
    for index, triple in enumerate(triples):
        lung = lungs(index)
        spacing = triple['normal'][1]
        middle = np.median(np.nonzero(body(triple['normal'][0]))[2])
        right = np.arange(lung.shape[2]) < middle
        share = {k: (triple[k][2] & right).sum() / triple[k][2].sum() for k in ('covid', 'pneumonia')}
        assert 0.05 < share['covid'] < 0.95
        assert share['pneumonia'] < 0.02 or share['pneumonia'] > 0.98
        depth = ndimage.distance_transform_edt(lung, sampling=spacing)
        assert np.median(depth[triple['covid'][2]]) < 0.3 * depth.max() < np.percentile(depth[lung], 80)


def test_hounsfield_units(triples):
    for index, triple in enumerate(triples):
        hu = triple['normal'][0]
        assert hu.min() >= -1024 and hu.max() <= 1500
        corner = hu[:, :4, :4]
        assert -1024 <= np.median(corner) < -970
        lung = lungs(index)
        assert -900 < np.median(hu[lung]) < -600
        assert lung[hu.shape[0] // 2].sum() > lung[2].sum()
        assert -650 <= np.median(triple['covid'][0][triple['covid'][2]]) <= -400
        assert -50 <= np.median(triple['pneumonia'][0][triple['pneumonia'][2]]) <= 40


def test_both_scanners_occur_under_every_label(triples):
    noise = {k: np.array([t[k][0][:, :6, :6].astype(float).clip(-1023).std() for t in triples]) for k in LABELS}
    assert np.array_equal(noise['normal'], noise['covid']) and np.array_equal(noise['normal'], noise['pneumonia'])
    assert noise['normal'].min() < 12 and noise['normal'].max() > 16


def features(hu):
    """What a shortcut may look at: voxels averaged over 8 x 32 x 32 blocks, and the histograms of body and lungs."""
    block = [n // k for n, k in zip(hu.shape, (8, 32, 32), strict=True)]
    voxels = hu.reshape(8, block[0], 32, block[1], 32, block[2]).mean((1, 3, 5)).ravel()
    inside = body(hu)
    parts = [np.clip(hu[m], -1024, 399) for m in (inside, inside & (hu < -300))]
    counts = [np.histogram(v, 64, (-1024, 400))[0] / v.size for v in parts]
    return voxels, np.concatenate(counts), np.concatenate([voxels, *counts])


def shortcut_aucs(seed, size, count=120):
    """The best AUC on `count` unseen scans of a logistic regression on each features(), trained on twice as many, over three
    C."""
    mix = ('covid', 'normal', 'covid', 'pneumonia')
    draws = [(s, i, mix[i % 4]) for s, n in ((seed, 2 * count), (seed + 1000, count)) for i in range(n)]
    sick = np.array([label == 'covid' for *_, label in draws])
    aucs = []
    for kind in zip(*(features(phantom(*draw, size)[0]) for draw in draws), strict=True):
        x = np.stack(kind)
        seen = slice(2 * count)
        unseen = slice(2 * count, None)
        x = make_pipeline(StandardScaler(), PCA()).fit(x[seen]).transform(x)  # PCA only rotates: the same fit, faster
        models = [LogisticRegression(C=c, max_iter=5000).fit(x[seen], sick[seen]) for c in (0.001, 0.03, 1.0)]
        aucs.append(max(roc_auc_score(sick[unseen], m.decision_function(x[unseen])) for m in models))
    return aucs


def test_no_shortcut_tells_covid_from_the_rest():
    """Small bodies and one seed: the slow test looks at five of more scans."""
    assert max(shortcut_aucs(0, (8, 32, 32), 60)) <= 0.80


@pytest.mark.slow
@pytest.mark.parametrize('size', [(16, 64, 64), (40, 96, 96)])
def test_no_shortcut_for_any_of_five_seeds(size):
    aucs = np.array([shortcut_aucs(seed, size) for seed in range(5)])
    print('AUC by seed (voxels, histograms, both):', aucs.round(3).tolist())
    assert aucs.max() <= 0.80 and np.median(aucs, 0).max() <= 0.75


def test_two_sites_are_the_same_body_under_two_scanners():
    """Bones and air lie at the same places; the air outside is as noisy as the scanner, and the field of view its own."""
    own = phantom(5, 0, 'covid', (16, 64, 64))
    sharp = phantom(5, 0, 'covid', (16, 64, 64), 'site0')
    wide = phantom(5, 0, 'covid', (16, 64, 64), 'site1')
    assert sharp[0].shape == (16, 64, 64) and wide[0].shape == (16, 80, 80)
    assert own[1] == sharp[1] == wide[1]
    middle = wide[0][:, 8:-8, 8:-8]
    assert np.array_equal(own[2], sharp[2]) and np.array_equal(own[2], wide[2][:, 8:-8, 8:-8])
    assert not wide[2][:, :8].any()
    for other in (sharp[0], middle):
        assert np.corrcoef(own[0].ravel(), other.ravel())[0, 1] > 0.95
    assert (wide[0][:, 0, 0] == -1024).all()  # outside the circle nothing is reconstructed
    firm = ndimage.binary_erosion(np.abs(own[0] - 45) < 150, np.ones((3, 3, 3)))
    rough = [np.std(np.diff(hu, axis=2)[firm[:, :, 1:]]) for hu in (sharp[0].astype(float), middle.astype(float))]
    assert rough[0] > 1.5 * rough[1]
