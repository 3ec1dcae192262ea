"""X-rays of phantoms: absorption by hand, which side is which, and nothing for a histogram."""

import hashlib

import numpy as np
import pytest
from shortcuts import best_auc, histogram, histogram_auc

from covid_jax.phantom import ct, xray
from covid_jax.phantom.xray import SITES, line_integral, phantom

SMALL = (24, 48, 48)


def test_the_digest_is_pinned():
    """Changes only with VERSION."""
    grey, spacing, lesion = phantom(0, 1, 'covid', site='site1')
    assert grey.dtype == np.uint8 and grey.shape == lesion.shape and grey.shape[2] == 96
    assert spacing[1] == spacing[2] and spacing[0] == 1.0
    assert hashlib.sha256(grey.tobytes() + lesion.tobytes()).hexdigest()[:16] == '36caad61f8b76e9f'


def test_absorption_by_hand():
    """20 mm of water, of air, of twice the density of water, and less than nothing: padding counts as air."""
    hu = np.zeros((1, 10, 4))
    hu[..., 1] = -1000
    hu[..., 2] = 1000
    hu[..., 3] = -1024
    np.testing.assert_allclose(line_integral(hu, 2.0), [[20 * 0.0206, 0, 40 * 0.0206, 0]])


def test_rays_run_from_back_to_front_rows_from_apex_to_base_and_the_right_is_on_the_left():
    hu = np.full((4, 6, 8), -1000.0)
    hu[0, 2, 1] = 0  # apex, patient's right
    hu[3, :, 6] = 0  # base, patient's left
    met = line_integral(hu, 1.0) / 0.0206
    expected = np.zeros((4, 8))
    expected[0, 1] = 1
    expected[3, 6] = 6
    np.testing.assert_allclose(met, expected)


def test_a_dense_block_at_the_patients_right_appears_left_and_white(monkeypatch):
    """In the picture itself, against that of the same body without it: in the upper right lung, 12 voxels deep."""
    plain = phantom(5, 1, 'normal', SMALL)[0][0].astype(int)
    made = ct.under

    def with_block(body, label):
        hu, lesion = made(body, label)
        hu[6:9, 18:30, 12:16] = 100.0
        return hu, lesion

    monkeypatch.setattr(ct, 'under', with_block)
    changed = phantom(5, 1, 'normal', SMALL)[0][0] - plain
    row, column = np.unravel_index(np.argmax(changed), changed.shape)
    assert changed.max() > 30
    assert 12 <= column < 16 and 6 / 24 <= row / len(changed) <= 9 / 24


def test_it_looks_like_a_radiograph():
    """The spine is white, the lungs are darker than the heart and the abdomen, the air beside the patient is black."""
    for index in range(3):
        grey = phantom(5, index, 'covid')[0][0].astype(float)
        rows = len(grey)
        middle = grey[rows // 3:2 * rows // 3]
        spine = middle[:, 38:58].max(1).mean()
        lung = np.percentile(middle[:, 15:80], 10)
        abdomen = np.median(grey[-3:, 30:66])
        assert spine > 200 and lung < 130 and abdomen > lung + 60
        assert np.median(grey[:, 0]) < 30


def test_no_table_is_in_it():
    standing = ct.body_of(5, 0, SMALL, table=False)
    lying = ct.body_of(5, 0, SMALL)
    below = (lying.tissue > -600) & (standing.tissue < -900)
    assert below.any() and below[:, 24:].sum() == below.sum()
    assert np.array_equal(lying.tissue[~below] > -300, standing.tissue[~below] > -300)


def test_labels_are_the_same_body_and_lesions_are_where_rays_meet_them():
    normal, covid = (phantom(5, 3, label, SMALL) for label in ('normal', 'covid'))
    assert normal[1] == covid[1] and not normal[2].any() and covid[2].any()
    outside = np.r_[0:4, 44:48]
    assert np.abs(normal[0][..., outside].astype(int) - covid[0][..., outside]).max() < 40
    assert (normal[0] != covid[0]).any()


def test_sites_are_told_apart_by_the_histogram_and_are_the_same_body():
    names = sorted(SITES)[:2]
    apart = np.array([histogram(phantom(7, i, ct.LABELS[i % 3], SMALL, site)[0], 0, 255) for i in range(12) for site in names])
    second = np.tile([False, True], 12)
    assert best_auc(apart[:12], second[:12], apart[12:], second[12:]) > 0.95
    first, other = (phantom(7, 0, 'covid', SMALL, site) for site in names)
    assert np.array_equal(first[2], other[2])
    inside = np.s_[:, 3:-3, 3:-3]
    assert np.corrcoef(first[0][inside].ravel(), other[0][inside].ravel())[0, 1] > 0.8


def test_the_collimator_of_a_site_leaves_a_black_frame():
    assert SITES['site1'].frame == 0.05
    grey = phantom(7, 0, 'covid', SMALL, 'site1')[0][0]
    rows = round(0.05 * len(grey))
    columns = 2
    assert not grey[:rows].any() and not grey[-rows:].any() and not grey[:, :columns].any() and not grey[:, -columns:].any()
    assert grey[rows].any()


def test_no_histogram_tells_covid_from_the_rest():
    assert histogram_auc(phantom, SMALL, '', 0, 255, count=32) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize('site', ['', *SITES])
def test_no_histogram_at_the_default_size(site):
    assert histogram_auc(phantom, xray.SIZE, site, 0, 255) < 0.8
