"""Slices of phantoms: one body whatever the label, the same values, and lesions in every one of a sick body."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage
from shortcuts import best_auc, histogram, histogram_auc

from covid_jax.phantom import ct
from covid_jax.phantom.scanner import SITES
from covid_jax.phantom.slice import best, phantom, within

SMALL = (16, 64, 64)


def test_the_digest_is_pinned():
    """Changes only with VERSION."""
    hu, spacing, lesion = phantom(0, 1, 'covid', site='site1')
    assert hu.dtype == np.int16 and hu.shape == lesion.shape == (1, 144, 144) and min(spacing) > 0
    assert hashlib.sha256(hu.tobytes() + lesion.tobytes()).hexdigest()[:16] == '1d704c642fc3e42e'


def test_labels_differ_in_the_lungs_alone():
    for index in range(2):
        at = best(ct.body_of(5, index, SMALL))
        lung = ndimage.binary_dilation(ct.lungs(5, index, SMALL)[at], np.ones((3, 3)), iterations=2)
        hu, spacing, _ = phantom(5, index, 'normal', SMALL)
        for label in ('covid', 'pneumonia'):
            other = phantom(5, index, label, SMALL)
            assert other[1] == spacing
            changed = (other[0] != hu)[0]
            assert changed.any() and not (changed & ~lung).any()


def test_what_a_label_does_not_show_has_the_same_values_in_the_slice():
    """As much ground glass and consolidation in the slice under every label: only the place of the values is another."""
    body = ct.body_of(5, 2, SMALL)
    at = best(body)
    cut = within(body, at)
    here = body.lung.where // (64 * 64) == at
    mottle = ct.spread(cut.glass, cut.lung.mottle)
    for shown, hidden in ((cut.dense, cut.bed), (cut.glass, mottle)):
        assert shown.weight.any() and not shown.weight[~here].any() and not hidden.weight[~here].any()
        assert sorted(shown.weight) == sorted(hidden.weight)


def test_the_sick_have_lesions_and_the_healthy_none():
    for index in range(6):
        assert not phantom(6, index, 'normal', SMALL)[2].any()
        for label in ('covid', 'pneumonia'):
            assert phantom(6, index, label, SMALL)[2].sum() >= 5


def test_sites_are_told_apart_by_the_histogram_and_are_the_same_body():
    names = sorted(SITES)
    apart = np.array([histogram(phantom(7, i, ct.LABELS[i % 3], SMALL, site)[0]) for i in range(12) for site in names[:2]])
    site1 = np.tile([False, True], 12)
    assert best_auc(apart[:12], site1[:12], apart[12:], site1[12:]) > 0.95
    sharp, wide = (phantom(7, 0, 'covid', SMALL, site) for site in names[:2])
    assert np.corrcoef(sharp[0].ravel(), wide[0][:, 8:-8, 8:-8].ravel())[0, 1] > 0.95
    assert np.array_equal(sharp[2], wide[2][:, 8:-8, 8:-8])


def test_no_histogram_tells_covid_from_the_rest():
    assert histogram_auc(phantom, SMALL, '', count=32) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize('site', ['', *SITES])
def test_no_histogram_at_the_default_size(site):
    assert histogram_auc(phantom, (24, 128, 128), site) < 0.8
