import hashlib
from dataclasses import replace

import numpy as np
import pytest
from scan_files import real
from scipy import ndimage

from covid_jax import UserError
from covid_jax.data.prep import Prep, prepare
from covid_jax.phantom import address
from covid_jax.phantom.ct import lungs
from covid_jax.scans.decode import decode
from covid_jax.scans.scan import Scan

PREP = Prep((-1000.0, 400.0), (8, 24, 20))


def test_window_by_hand():
    hu = np.array([-3000, -1000, -300, 400, 1500], np.int16).reshape(1, 1, 5)
    out = prepare(Scan(hu, True, None), Prep((-1000.0, 400.0), (1, 1, 5)))
    np.testing.assert_array_equal(out.ravel(), [0, 0, 128, 255, 255])  # -300 is the middle: 127.5 rounds to even


@pytest.mark.parametrize('shape', [(11, 48, 31), (3, 10, 50), (8, 24, 20), (1, 7, 7)])
def test_resize_equals_scipy_on_half_pixels(rng, shape):
    grey = rng.uniform(0, 255, shape).astype('f')
    at = [np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1) for n, m in zip(PREP.size, shape, strict=True)]
    expected = ndimage.map_coordinates(grey.astype(float), np.meshgrid(*at, indexing='ij'), order=1, mode='nearest')
    out = prepare(Scan(grey, False, None), PREP)
    assert out.dtype == np.uint8 and out.shape == (8, 24, 20, 1)
    assert np.abs(out[..., 0] - expected).max() < 0.501


def test_grey_is_taken_as_it_is(rng):
    grey = rng.integers(0, 256, (8, 24, 20), np.uint8)
    np.testing.assert_array_equal(prepare(Scan(grey, False, None), PREP)[..., 0], grey)


@pytest.mark.parametrize('values', [(-5.0, 100.0), (0.0, 3000.0)])
def test_values_of_no_known_scale_are_refused(values):
    with pytest.raises(UserError, match='neither Hounsfield'):
        prepare(Scan(np.full((1, 2, 2), values, 'f'), False, None), PREP)


def test_spacing_keeps_the_middle_and_pads_with_zero():
    """5 voxels of 2 mm at 1 mm: the middle voxel stays, its neighbours are halves; beyond half a voxel there is nothing."""
    scan = Scan(np.float32([50, 100, 200, 80, 40]).reshape(1, 1, 5), False, (1.0, 1.0, 2.0))
    out = prepare(scan, Prep((0.0, 1.0), (1, 1, 5), (1.0, 1.0, 1.0)))
    np.testing.assert_array_equal(out.ravel(), [100, 150, 200, 140, 80])
    out = prepare(scan, Prep((0.0, 1.0), (1, 3, 13), (1.0, 1.0, 1.0)))
    np.testing.assert_array_equal(out[0, :, :, 0], [[0] * 13, [0, 50, 50, 75, 100, 150, 200, 140, 80, 60, 40, 40, 0], [0] * 13])


@pytest.mark.parametrize('spacing', [(5.0, 1.0, 1.0), (2.0, 3.0, 0.7)])
def test_resampling_to_a_spacing_equals_scipy(rng, spacing):
    grey, old = rng.uniform(0, 255, (12, 31, 40)).astype('f'), (2.5, 0.8, 0.9)
    at = [(np.arange(n) - (n - 1) / 2) * new / was + (m - 1) / 2
          for n, m, new, was in zip(PREP.size, grey.shape, spacing, old, strict=True)]
    expected = ndimage.map_coordinates(grey.astype(float), np.meshgrid(*at, indexing='ij'), order=1, mode='nearest')
    outside = [(a < -0.5) | (a > m - 0.5) for a, m in zip(at, grey.shape, strict=True)]
    for axis, out in enumerate(outside):
        np.moveaxis(expected, axis, 0)[out] = 0
    out = prepare(Scan(grey, False, old), Prep(PREP.window, PREP.size, spacing))
    assert any(o.any() for o in outside) and np.abs(out[..., 0] - expected).max() < 0.501


def test_a_spacing_needs_scans_that_know_theirs():
    with pytest.raises(UserError, match='know their spacing'):
        prepare(Scan(np.zeros((2, 2, 2), np.uint8), False, None), Prep((0.0, 1.0), (2, 2, 2), (1.0, 1.0, 1.0)))


def test_lungs_crop_and_mask():
    """The crop is the box around the true lungs and the margin; the mask is 0 outside them and changes nothing inside."""
    scan, true = decode(address(7, 3, 'normal')), lungs(7, 3)
    crop, mask = (prepare(scan, Prep((-1000.0, 400.0), (20, 48, 48), lungs=kind))[..., 0] for kind in ('crop', 'mask'))
    ends = [np.flatnonzero(true.any(axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))]
    wide = [np.ceil(mm / space) for mm, space in zip((5, 9, 9), scan.spacing, strict=True)]
    around = tuple(slice(max(0, int(lo - w)), int(hi + w) + 1) for (lo, hi), w in zip(ends, wide, strict=True))
    by_hand = prepare(scan._replace(voxels=scan.voxels[around]), Prep((-1000.0, 400.0), (20, 48, 48)))[..., 0]
    assert np.corrcoef(crop.ravel(), by_hand.ravel())[0, 1] > 0.95
    inside = ndimage.binary_erosion(ndimage.binary_closing(mask > 0), iterations=2)
    assert inside.mean() > 0.15 and (np.abs(mask[inside].astype(int) - crop[inside]) > 1).mean() < 0.01
    assert mask[:, :, 0].max() == mask[:, 0].max() == 0 and crop[:, 0].mean() > 50


def test_no_lungs_says_what_to_do():
    with pytest.raises(UserError, match='config.prep.lungs'):
        prepare(Scan(np.full((4, 64, 64), -1000, np.int16), True, (2.0, 4.0, 4.0)), Prep((0.0, 1.0), (2, 2, 2), lungs='crop'))


def test_hash_tells_preps_apart_and_is_stable():
    assert PREP.hash == Prep((-1000, 400), (8, 24, 20)).hash == '6d3c7fdb5c235964'
    others = [{'window': (-1000, 401)}, {'size': (8, 24, 21)}, {'spacing': (5, 1, 1)}, {'lungs': 'crop'}, {'lungs': 'mask'},
              {'lungs': 'mask', 'margin': (5, 9, 8)}, {'version': 1}]
    assert len({p.hash for p in [PREP, *(replace(PREP, **other) for other in others)]}) == 8


@pytest.mark.parametrize('window,size', [((400.0, -1000.0), (8, 8, 8)), ((-1000.0, 400.0), (8, 8)), ((0.0,), (8, 8, 8)),
                                         ((0.0, 1.0), (0, 8, 8))])
def test_a_prep_that_cannot_be_is_refused(window, size):
    with pytest.raises(UserError, match='config.prep'):
        Prep(window, size)


@pytest.mark.parametrize('options, digest', [
    ({}, '6be449173783aa9b'),
    ({'spacing': (9.0, 6.0, 6.0)}, '75821ed41a673e41'),
    ({'lungs': 'crop'}, '5968ab07d0c0a016'),
    ({'lungs': 'mask', 'spacing': (9.0, 6.0, 6.0)}, 'bde8da8d48507d3c')])
def test_digest_of_a_prepared_phantom(options, digest):
    """Changes only with Prep.version (or the phantom's own)."""
    out = prepare(decode(address(7, 3, 'covid')), Prep((-1000.0, 400.0), (32, 64, 64), **options))
    assert hashlib.sha256(out.tobytes()).hexdigest()[:16] == digest


def test_a_real_series_and_its_pooled_twin_prepare_alike():
    """cap002 as DICOM, pooled 4 x 4 as its .npz twin was made, against that twin."""
    dicom, twin = decode(real('COVID-CT-MD/dicom/cap002')), decode(real('COVID-CT-MD/volumes/cap002.npz'))
    pooled = dicom.voxels.reshape(131, 128, 4, 128, 4).mean((2, 4), dtype=np.float32)
    scan = Scan(pooled, True, (dicom.spacing[0], 4 * dicom.spacing[1], 4 * dicom.spacing[2]))
    np.testing.assert_allclose(scan.spacing, twin.spacing, rtol=1e-6)
    for prep in (Prep((-1000.0, 400.0), (64, 128, 128)), Prep((-1350.0, 150.0), (56, 100, 96), (5.0, 3.0, 3.0))):
        a, b = prepare(scan, prep).astype(int), prepare(twin, prep)
        assert np.abs(a - b).max() <= 2 and b.std() > 30
