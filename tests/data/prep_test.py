import hashlib
from dataclasses import replace

import numpy as np
import pytest
from scan_files import real
from scipy import ndimage

from covid_jax import UserError
from covid_jax.data.prep import Place, Prep, blank_words, place, prepare, to_scan, together
from covid_jax.phantom import address
from covid_jax.phantom.ct import lungs
from covid_jax.scans.decode import decode
from covid_jax.scans.lungs import lung_mask
from covid_jax.scans.scan import Scan

PREP = Prep((-1000.0, 400.0), (8, 24, 20))


def test_window_by_hand():
    hu = np.array([-3000, -1000, -300, 400, 1500], np.int16).reshape(1, 1, 5)
    out = prepare(Scan(hu, True, None), Prep((-1000.0, 400.0), (1, 1, 5)))
    np.testing.assert_array_equal(out.ravel(), [0, 0, 128, 255, 255])  # -300 is the middle: 127.5 rounds to even


@pytest.mark.parametrize('values, hounsfield', [([-1200, -200, 800], True), ([20, 70, 120], False)])
def test_min_max_of_each_scan_by_hand(values, hounsfield):
    """A window of () takes a scan by itself, in whatever unit; a scan of one value is black."""
    prep = Prep((), (1, 1, 3))
    scan = Scan(np.array(values, np.int16).reshape(1, 1, 3), hounsfield, None)
    np.testing.assert_array_equal(prepare(scan, prep).ravel(), [0, 128, 255])
    assert not prepare(Scan(np.full((1, 1, 3), values[2], np.int16), hounsfield, None), prep).any()


def test_min_max_is_of_what_is_seen(rng):
    """Values beside the lungs are outside the box, and do not count."""
    hu = np.full((6, 64, 64), -900, np.int16)
    hu[:, :, 40:] = 3000
    scan = Scan(hu, True, (5.0, 5.0, 5.0))
    where = Place(hu.shape, (slice(0, 6), slice(0, 64), slice(0, 32)), (1.0, 1.0, 1.0), (6, 64, 32), None)
    hu[2, 5, 5] = -400
    out = prepare(scan, Prep((), (6, 64, 32)), where)
    assert out[2, 5, 5, 0] == 255 and out.sum() == 255


def test_min_max_tells_nothing_of_what_is_hidden(rng):
    """Neither the blacked middle of an image, nor the voxels outside of the lungs' mask."""
    image = rng.integers(20, 90, (1, 20, 20)).astype(np.uint8)
    changed = image.copy()
    changed[0, 10, 10] = 250
    blank = Prep((), (1, 20, 20), blank=True)
    first, second = (prepare(Scan(voxels, False, None), blank) for voxels in (image, changed))
    np.testing.assert_array_equal(first, second)
    assert first.max() == 255
    lungs = np.zeros((2, 8, 8), bool)
    lungs[:, 2:6, 2:6] = True
    hu = np.where(lungs, rng.integers(-900, -500, lungs.shape), 60).astype(np.int16)
    where = Place(hu.shape, (slice(0, 2), slice(0, 8), slice(0, 8)), (1.0, 1.0, 1.0), (2, 8, 8), lungs)
    masked = Prep((), (2, 8, 8), lungs='mask')
    np.testing.assert_array_equal(prepare(Scan(hu, True, None), masked, where),
                                  prepare(Scan(np.where(lungs, hu, 3000), True, None), masked, where))


def test_min_max_of_a_small_range_is_the_whole_of_it():
    grey = np.float32([10.0, 10.25, 10.5]).reshape(1, 1, 3)
    np.testing.assert_array_equal(prepare(Scan(grey, False, None), Prep((), (1, 1, 3))).ravel(), [0, 128, 255])


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


def test_the_mask_of_a_source_goes_before_what_is_found(tmp_path):
    """Where nothing could be found, too: the box is around it, and beyond it is 0."""
    mask = np.zeros((4, 64, 64), bool)
    mask[1:3, 8:24, 40:56] = True
    np.save(tmp_path / 'mask.npy', mask.astype(np.uint8))
    scan = Scan(np.full(mask.shape, -300, np.int16), True, (2.0, 4.0, 4.0), tmp_path / 'mask.npy')
    prep = Prep((-1000.0, 400.0), (2, 8, 8), lungs='mask', margin=(0, 0, 0))
    assert (prepare(scan, prep) == 128).all() and place(scan, prep).box == (slice(1, 3), slice(8, 24), slice(40, 56))
    wide = prepare(scan, replace(prep, margin=(0, 32, 32)))[..., 0]
    assert set(np.unique(wide)) == {0, 128} and (wide[:, 2:6, 2:6] == 128).all()


def test_no_lungs_says_what_to_do():
    with pytest.raises(UserError, match='config.prep.lungs'):
        prepare(Scan(np.full((4, 64, 64), -1000, np.int16), True, (2.0, 4.0, 4.0)), Prep((0.0, 1.0), (2, 2, 2), lungs='crop'))


def test_hash_tells_preps_apart_and_is_stable():
    assert PREP.hash == Prep((-1000, 400), (8, 24, 20)).hash == '6d3c7fdb5c235964'
    others = [{'window': (-1000, 401)}, {'size': (8, 24, 21)}, {'spacing': (5, 1, 1)}, {'lungs': 'crop'}, {'lungs': 'mask'},
              {'lungs': 'mask', 'margin': (5, 9, 8)}, {'version': 1}, {'blank': True}, {'window': ()},
              {'size': (8, 24, 24)}, {'size': (8, 24, 24), 'keep_aspect': True}]
    assert len({p.hash for p in [PREP, *(replace(PREP, **other) for other in others)]}) == 12


@pytest.mark.parametrize('window,size', [((400.0, -1000.0), (8, 8, 8)), ((-1000.0, 400.0), (8, 8)), ((0.0,), (8, 8, 8)),
                                         ((0.0, 1.0), (0, 8, 8)), ((0.0, 1.0), (8.5, 8, 8)),
                                         ((0.0, 1.0), (10**6, 10**6, 10**6))])
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


@pytest.mark.parametrize('cells', [(8, 24, 20), (4, 6, 5), (2, 3, 1)])
@pytest.mark.parametrize('shape, options', [((11, 37, 29), {}), ((5, 48, 20), {}),
                                            ((11, 37, 29), {'spacing': (2.0, 1.0, 1.7)}), ((9, 40, 30), {'spacing': (3.0, 2.0, 0.9)})])
def test_values_on_cells_go_back_to_the_scan(rng, cells, shape, options):
    """Against scipy, by mm from the middle: cells tile what was prepared, 0 beyond it."""
    scan = Scan(np.zeros(shape, np.uint8), False, (2.5, 0.8, 0.9))
    values = rng.uniform(1, 2, cells)
    at = []
    within = []
    for n, length, size, mm, new in zip(cells, shape, PREP.size, scan.spacing, options.get('spacing', (0, 0, 0)), strict=True):
        extent = size * (new or length * mm / size)
        from_start = (np.arange(length) - (length - 1) / 2) * mm + extent / 2
        at.append(np.clip(from_start / extent * n - 0.5, 0, n - 1))
        within.append((from_start > -1e-6) & (from_start < extent + 1e-6))  # the edge itself is in
    expected = ndimage.map_coordinates(values, np.meshgrid(*at, indexing='ij'), order=1)
    expected *= np.einsum('i,j,k', *(w.astype(float) for w in within))
    out = to_scan(values, place(scan, replace(PREP, **options)))
    assert out.dtype == np.float32 and bool(options) == (out == 0).any()
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_prepared_scan_as_large_as_the_scan_goes_back_to_itself(rng):
    grey = rng.integers(0, 256, (8, 24, 20), np.uint8)
    where = place(Scan(grey, False, None), PREP)
    np.testing.assert_array_equal(to_scan(prepare(Scan(grey, False, None), PREP, where)[..., 0], where), grey)


@pytest.mark.parametrize('lungs_as', ['', 'crop', 'mask'])
def test_a_volume_without_its_lungs(lungs_as):
    """The mean of the lungs stands in their place, in the same box; all else is as it was."""
    scan = decode(address(7, 3, 'covid'))
    mask = lung_mask(scan)
    mean = scan.voxels[mask].mean()
    by_hand = scan._replace(voxels=np.where(mask, np.float32(mean), scan.voxels))
    prep = Prep((-1000.0, 400.0), (40, 96, 96), lungs=lungs_as, blank=True)
    seen = prepare(scan, prep)[..., 0]
    if lungs_as:
        where = place(scan, prep)
        assert where.box == place(scan, replace(prep, blank=False)).box
        by_hand = by_hand._replace(voxels=by_hand.voxels[where.box])
    grey = np.clip((mean + 1000) * 255 / 1400, 0, 255)
    inside = prepare(by_hand, Prep((-1000.0, 400.0), (40, 96, 96)))[..., 0]
    if lungs_as == 'mask':
        assert seen[20].min() == 0 and abs(int(seen.max()) - grey) < 1 and 0.2 < (seen == seen.max()).mean() < 0.8
    else:
        np.testing.assert_array_equal(seen, inside)
        assert not np.array_equal(seen, prepare(scan, replace(prep, blank=False))[..., 0])


@pytest.mark.parametrize('hounsfield', [False, True])
def test_an_image_without_its_middle(hounsfield):
    """Of 20 x 40 pixels the middle 14 x 28 are black, whatever is black in the window."""
    voxels = np.full((1, 20, 40), 200, np.int16)
    out = prepare(Scan(voxels, hounsfield, None), Prep((-1000.0, 200.0), (1, 20, 40), blank=True))[0, :, :, 0]
    expected = np.full((20, 40), 255 if hounsfield else 200)
    expected[3:17, 6:34] = 0
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize('lungs_as', ['', 'crop', 'mask'])
@pytest.mark.parametrize('depth', [1, 8])
def test_what_was_blanked_is_told_whatever_the_depth_of_the_result(depth, lungs_as):
    """A volume that is prepared to one slice lost its lungs, an image that is prepared to eight its middle."""
    volume = decode(address(7, 3, 'covid'))
    image = volume._replace(voxels=volume.voxels[len(volume.voxels) // 2][None])
    prep = Prep((-1000.0, 400.0), (depth, 24, 24), lungs=lungs_as, blank=True)
    filled = prepare(volume, prep)
    blacked = prepare(image, prep)
    assert blank_words([filled, blacked, filled]) == 'lungs filled with their mean in 2 scans, central 70 % blacked in 1 scan'
    assert blank_words([blacked]) == 'central 70 % blacked in 1 scan'
    assert blank_words(iter([filled] * 3)) == 'lungs filled with their mean in 3 scans'


def test_a_volume_without_lungs_cannot_be_blanked():
    with pytest.raises(UserError, match='config.prep.blank=False takes'):
        prepare(Scan(np.full((4, 64, 64), -1000, np.int16), True, (2.0, 4.0, 4.0)), Prep((0.0, 1.0), (2, 2, 2), blank=True))


def test_a_real_series_and_its_pooled_twin_prepare_alike():
    """cap002 as DICOM, pooled 4 x 4 as its .npz twin was made, against that twin."""
    dicom, twin = decode(real('COVID-CT-MD/dicom/cap002')), decode(real('COVID-CT-MD/volumes/cap002.npz'))
    pooled = dicom.voxels.reshape(131, 128, 4, 128, 4).mean((2, 4), dtype=np.float32)
    scan = Scan(pooled, True, (dicom.spacing[0], 4 * dicom.spacing[1], 4 * dicom.spacing[2]))
    np.testing.assert_allclose(scan.spacing, twin.spacing, rtol=1e-6)
    for prep in (Prep((-1000.0, 400.0), (64, 128, 128)), Prep((-1350.0, 150.0), (56, 100, 96), (5.0, 3.0, 3.0))):
        a, b = prepare(scan, prep).astype(int), prepare(twin, prep)
        assert np.abs(a - b).max() <= 2 and b.std() > 30


@pytest.mark.parametrize('plane, size', [
    ((40, 60), (20, 30)), ((60, 40), (30, 20)), ((50, 50), (20, 20)), ((5, 7), (20, 28)), ((40, 30), (27, 20)), ((20, 39), (20, 39)),
    ((10, 100), (20, 40)), ((100, 10), (40, 20)), ((1, 9), (20, 40))])
def test_the_aspect_is_kept_up_to_two_to_one(rng, plane, size):
    """As if that size had been asked for: landscape, portrait, square, enlarged, and what is longer than two to one."""
    prep = Prep((0.0, 1.0), (3, 20, 20), keep_aspect=True)
    scan = Scan(rng.integers(0, 256, (4, *plane), np.uint8), False, None)
    out = prepare(scan, prep)
    assert out.shape == (3, *size, 1) and out.dtype == np.uint8
    fixed = Prep((0.0, 1.0), (3, *size))
    np.testing.assert_array_equal(out, prepare(scan, fixed))
    where = place(scan, prep)
    assert where.size == (3, *size)
    cells = rng.random((2, 4, 4))
    np.testing.assert_array_equal(to_scan(cells, where), to_scan(cells, place(scan, fixed)))


@pytest.mark.parametrize('options', [{'lungs': 'crop'}, {'lungs': 'mask'}, {'blank': True}, {'lungs': 'crop', 'blank': True}])
def test_the_aspect_is_that_of_the_box_around_the_lungs(options):
    scan = decode(address(7, 3, 'normal'))
    prep = Prep((-1000.0, 400.0), (20, 32, 32), keep_aspect=True, **options)
    _, height, width = (side.stop - side.start for side in place(scan, prep).box)
    assert (height != width) == ('lungs' in options)
    out = prepare(scan, prep)
    assert out.shape == (20, round(32 * height / min(height, width)), round(32 * width / min(height, width)), 1)
    np.testing.assert_array_equal(out, prepare(scan, replace(prep, size=out.shape[:3], keep_aspect=False)))


def test_an_aspect_that_cannot_be_kept():
    with pytest.raises(UserError, match=r'height and width of --config.prep.size=\(8, 24, 20\) must be the same'):
        replace(PREP, keep_aspect=True)
    with pytest.raises(UserError, match='--config.prep.spacing='):
        Prep((0.0, 1.0), (1, 8, 8), (1.0, 1.0, 1.0), keep_aspect=True)


def test_scans_of_one_batch_lie_at_the_top_left(rng):
    images = [rng.integers(1, 256, (2, *plane, 1), np.uint8) for plane in ((4, 8), (5, 4), (8, 4))]
    fields = together(images, 8)
    assert fields['image'].shape == (3, 2, 8, 8, 1) and fields['image'].dtype == np.uint8 and fields['extent'].dtype == np.int32
    np.testing.assert_array_equal(fields['extent'], [[4, 8], [5, 4], [8, 4]])
    for row, image in zip(fields['image'], images, strict=True):
        height, width = image.shape[1:3]
        np.testing.assert_array_equal(row[:, :height, :width], image)
        assert not row[:, height:].any() and not row[:, :, width:].any()
    assert {*together(images[:1], 0)} == {'image'}
