"""What a header lost, the values tell: of every format alike, and of scans that are sound nothing is refused."""

import nibabel
import nrrd
import numpy as np
import pytest
import tifffile
from dicoms import ct, no_name_is_told, xray  # noqa: F401
from PIL import Image
from scan_files import refused
from scipy.ndimage import gaussian_filter, zoom
from volumes import meta

from covid_jax import UserError
from covid_jax.scans.decode import decode, lungs_beside

AIR = 'where air and lungs are'


def anatomy():
    """[6, 32, 32] HU: air around a body with one lung, without noise."""
    y, x = np.mgrid[:32, :32] - 15.5
    hu = np.where(np.hypot(y, x) < 14, 40, -1000)
    hu[np.hypot(y, x + 6) < 4] = -850
    return np.repeat(hu[None], 6, 0)


def chest(corners=None):
    """anatomy() with some noise, and outside of the scanner's circle what it fills the corners with."""
    y, x = np.mgrid[:32, :32] - 15.5
    hu = anatomy() + np.random.default_rng(7).integers(-2, 3, (6, 32, 32))
    if corners is not None:
        hu[:, np.hypot(y, x) > 16] = corners
    return hu


def dicom(folder, stored, **tags):
    """The stored values as a series of CT slices."""
    folder.mkdir()
    for k, plane in enumerate(stored):
        ct(folder / f'IM{k}', plane, 5. * k, k + 1, **tags)
    return folder


def written(folder, name, values):
    """The path of values in a format, of which no header says what they are but DICOM's, which says Hounsfield units."""
    values = values.astype('<i4') if values.max() >= 2**15 else values.astype('<i2')
    path = folder / f'scan.{name}'
    if name == 'dcm':
        return dicom(path, values.astype('<u2') if values.max() >= 2**15 else values, RescaleIntercept=0)
    if name == 'npy':
        np.save(path, values)
    elif name == 'npz':
        np.savez(path, hu=values)
    elif name == 'nii':
        nibabel.save(nibabel.Nifti1Image(values.T, np.diag([-1, -1, 5, 1])), path)
    elif name == 'mha':
        meta(path, values.T, ElementType='MET_INT' if values.itemsize == 4 else 'MET_SHORT')
    else:
        nrrd.write(str(path), values.T, {'space': 'LPS', 'space directions': np.diag([1, 1, 5.])})
    return path


FORMATS = ('dcm', 'npy', 'nii', 'mha', 'nrrd')


@pytest.mark.parametrize('name', [*FORMATS, 'npz'])
def test_a_sound_chest_is_read_whatever_fills_the_corners(tmp_path, name):
    for number, corners in enumerate((None, -1024, -2000, -3024)):
        hu = chest(corners)
        hu[:, 20, 20:24] = 3071  # metal
        (tmp_path / f'{number}').mkdir()
        scan = decode(written(tmp_path / f'{number}', name, hu))
        assert scan.hounsfield and scan.voxels.dtype == np.int16
        np.testing.assert_array_equal(scan.voxels, hu)


@pytest.mark.parametrize('name', FORMATS)
@pytest.mark.parametrize('values, words', [
    (chest() + 1024, 'from 22 to 1066'),  # an offset was lost
    (np.where(chest(9999) == 9999, -2000, chest() + 1024), AIR),  # and only the corners lie low
    (chest() % 2**12, 'from 38 to 3248'),  # a sign
    (chest(31743), 'above 2000'), (chest(4095), 'above 2000'),  # padding that nothing marks
    (chest() % 2**16, 'from 38 to 64688'), (chest(62512), 'do not fit 16 bits'),
])
def test_what_lost_its_offset_its_sign_or_the_mark_of_its_padding_is_no_scan(tmp_path, name, values, words):
    refused(written(tmp_path, name, values), words)


def test_a_few_low_values_are_no_air(tmp_path):
    """Noise below what an offset that was lost would have made of air."""
    noisy = chest() + 1024
    noisy[:, 16, 16:21] = -300
    refused(dicom(tmp_path / 'a', noisy.astype('<i2'), RescaleIntercept=0), 'from -300 to 1066', AIR)


@pytest.mark.parametrize('bits', [12, 16])
def test_signed_pixels_that_are_said_to_be_unsigned_are_refused(tmp_path, bits):
    stored = (chest() % 2**bits).astype('<u2')
    words = AIR if bits == 12 else 'do not fit 16 bits'
    refused(dicom(tmp_path / 'a', stored, BitsStored=bits, RescaleIntercept=0), words)
    signed = stored.view('<i2') if bits == 16 else (chest().astype('<i2') & 0xFFF)
    scan = decode(dicom(tmp_path / 'b', signed, BitsStored=bits, RescaleIntercept=0, PixelRepresentation=1))
    np.testing.assert_array_equal(scan.voxels, chest())


def test_padding_that_is_marked_is_no_air_that_was_measured(tmp_path):
    """It becomes -1024, and would hide that the offset was lost."""
    stored = (chest(-2000) + 1024).astype('<i2')
    stored[stored < -900] = -2000
    scan = decode(dicom(tmp_path / 'a', stored, PixelPaddingValue=-2000))
    np.testing.assert_array_equal(scan.voxels, chest(-1024))
    refused(dicom(tmp_path / 'b', stored, PixelPaddingValue=-2000, RescaleIntercept=0), AIR)


def test_who_says_that_an_array_is_in_hounsfield_units_may_have_cut_the_air_off(tmp_path):
    np.savez(tmp_path / 'a.npz', hu=chest().clip(-160, 240))
    assert decode(tmp_path / 'a.npz').hounsfield
    np.savez(tmp_path / 'b.npz', hu=chest(31743))
    refused(tmp_path / 'b.npz', 'above 2000')


TWICE = 'applied twice'


@pytest.mark.parametrize('name', [*FORMATS, 'npz'])
@pytest.mark.parametrize('noise', [0, 20])
def test_an_offset_that_was_applied_twice_is_found(tmp_path, rng, name, noise):
    """Then tissue lies where air is, and air where nothing is; in an array that is said to be in Hounsfield units, too."""
    hu = chest() + rng.normal(0, noise, chest().shape).round().astype(int)
    refused(written(tmp_path, name, hu - 1024), 'below -1500', TWICE)


def test_air_and_tissue_alone_are_found_to_be_off_and_lungs_alone_are_not(tmp_path, rng):
    """Of the first nothing but one value is too low, as in the corners of a sound scan; in lungs alone there are vessels."""
    np.save(tmp_path / 'a.npy', np.where(chest() > 0, -1024, -2048) + rng.integers(-2, 3, chest().shape))
    refused(tmp_path / 'a.npy', TWICE)
    lungs = np.where(anatomy() == -850, rng.normal(-850, 60, chest().shape).round().astype(int), -2048)
    lungs[:, 15, 8:10] = 20
    for name, outside in (('b', -2048), ('c', -1000)):
        np.savez(tmp_path / f'{name}.npz', hu=np.where(lungs == -2048, outside, lungs))
        assert decode(tmp_path / f'{name}.npz').hounsfield


def test_an_offset_applied_twice_is_found_where_bone_is_left_for_tissue(tmp_path, rng):
    hu = chest()
    hu[:, 8:20, 6:14] = rng.normal(-850, 60, (6, 12, 8))
    hu[:, 20, 10:22] = 1300
    np.save(tmp_path / 'a.npy', hu)
    assert decode(tmp_path / 'a.npy').hounsfield
    np.save(tmp_path / 'a.npy', hu - 1024)
    refused(tmp_path / 'a.npy', TWICE)


def test_a_fill_that_is_not_quite_one_value_is_read(tmp_path, rng):
    hu = np.where(chest(9999) == 9999, rng.normal(-2000, 10, chest().shape), chest())
    np.save(tmp_path / 'a.npy', hu)
    np.testing.assert_allclose(decode(tmp_path / 'a.npy').voxels, hu, rtol=1e-6)


@pytest.mark.parametrize('outside, border', [(-2048, -3024), (-3024, -2048), (-2000, -3000)])
def test_a_circle_and_a_border_may_have_fills_of_their_own(tmp_path, rng, outside, border):
    hu = np.pad(chest(outside), ((0, 0), (6, 6), (4, 4)), constant_values=border)
    np.save(tmp_path / 'a.npy', hu)
    np.testing.assert_array_equal(decode(tmp_path / 'a.npy').voxels, hu)
    hu[:, 14:26, 10:22] = rng.normal(-850, 60, (6, 12, 12))
    np.save(tmp_path / 'b.npy', hu - 1024)  # then air and lungs lie there, too, and are no second fill
    refused(tmp_path / 'b.npy', 'below -1500', TWICE)


def test_contrast_whose_offset_was_applied_twice_and_cut_off_looks_like_lungs_alone(tmp_path, rng):
    """What docs/data.md says cannot be told: vessels and organs lie where lungs do, all else at one value."""
    hu = np.where(anatomy() == 40, rng.normal(160, 60, anatomy().shape), anatomy())
    np.save(tmp_path / 'a.npy', (hu - 1024).clip(-1000).round().astype(np.int16))
    assert decode(tmp_path / 'a.npy').hounsfield


def test_a_filled_circle_that_was_resampled_has_an_edge_and_is_read(tmp_path):
    """The values of the edge lie between those of air and of the fill, and are none of either."""
    y, x = np.mgrid[:128, :128] - 63.5
    hu = np.kron(chest()[0], np.ones((4, 4)))
    hu = (hu + (-3024 - hu) * np.clip(np.hypot(y, x) - 62, 0, 1)).round().astype(np.int16)
    assert np.count_nonzero((hu < -1500) & (hu > -3000)) > 100
    np.save(tmp_path / 'a.npy', hu)
    np.testing.assert_array_equal(decode(tmp_path / 'a.npy').voxels, hu[None])


@pytest.mark.parametrize('name', [*FORMATS, 'npz'])
@pytest.mark.parametrize('off', [1024, -1024, 800])
@pytest.mark.parametrize('at', ([1, 3, 5], [0, 1, 2], [3], [5]))
def test_slices_whose_offset_is_not_that_of_the_others_are_found(tmp_path, name, off, at):
    """Every other one, one half, one: each lies off its neighbour in all that it holds."""
    hu = chest()
    hu[at] += off
    refused(written(tmp_path, name, hu), 'all values of slice', 'HU', 'the offset')


def test_alternating_intercepts_of_a_series_name_two_slices(tmp_path):
    folder = dicom(tmp_path / 'a', (chest() + 1024).astype('<u2'))
    for k in (1, 3, 5):
        ct(folder / f'IM{k}', (chest() + 1024).astype('<u2')[k], 5. * (5 - k), k + 11, RescaleIntercept=0)
    for k in (0, 2, 4):
        ct(folder / f'IM{k}', (chest() + 1024).astype('<u2')[k], 5. * (5 - k), k + 11)
    refused(folder, 'all values of slice 15 lie 102', 'HU below those of slice 16', 'RescaleIntercept')


def test_slices_that_are_filled_or_empty_are_no_leap(tmp_path, rng):
    """Padding at the ends, a slice of air alone, and one without any air between others."""
    hu = chest()
    hu[0] = -3024
    hu[1] = rng.normal(-1000, 10, (32, 32))
    hu[4] = rng.normal(40, 10, (32, 32))
    hu[5] = 0
    np.save(tmp_path / 'a.npy', hu)
    np.testing.assert_array_equal(decode(tmp_path / 'a.npy').voxels, hu)


# 16 bits


@pytest.mark.parametrize('name', ['png', 'tif'])
@pytest.mark.parametrize('values', [chest() + 32768, chest() + 1024, np.where(chest(9999) == 9999, 0, chest() + 32768),
                                    chest() % 2**16, (chest() + 1024) * 4])
def test_hounsfield_units_in_16_bits_are_no_grey(tmp_path, name, values):
    """With an offset, as DeepLesion has them; with black corners; as they are, their sign lost; as 14 bits."""
    for k, plane in enumerate(values.astype(np.uint16)):
        Image.fromarray(plane).save(tmp_path / f'{k}.{name}')
    refused(tmp_path, 'Hounsfield units, perhaps with an offset')


def test_a_few_bright_pixels_and_a_small_picture_do_not_make_hounsfield_units_grey(tmp_path):
    values = np.kron(chest()[0] + 32768, np.ones((8, 8))).astype(np.uint16)
    values[0, :256] = np.arange(256) * 257  # a pixel of every level
    Image.fromarray(values).save(tmp_path / 'a.png')
    refused(tmp_path / 'a.png', 'Hounsfield units, perhaps with an offset')
    Image.fromarray(np.array([[31768, 32808], [33468, 32768]], np.uint16)).save(tmp_path / 'b.png')
    refused(tmp_path / 'b.png', 'Hounsfield units, perhaps with an offset')


def test_16_bits_that_use_their_range_are_grey(tmp_path, rng):
    values = rng.integers(0, 2**16, (2, 32, 32)).astype(np.uint16)
    tifffile.imwrite(tmp_path / 'a.tif', values, photometric='minisblack')
    np.testing.assert_allclose(decode(tmp_path / 'a.tif').voxels, values / 257, rtol=1e-6)
    Image.fromarray(values[0]).save(tmp_path / 'a.png')
    np.testing.assert_allclose(decode(tmp_path / 'a.png').voxels[0], values[0] / 257, rtol=1e-6)


# what is no scan


def labels(count):
    """[8, 32, 32]: so many boxes of a value of their own, one beside the other."""
    where = np.add.outer(np.arange(8) // 4, np.add.outer(np.arange(32) // 16 * 2, np.arange(32) // 16 * 4))
    return (where % count + 1).astype(np.uint8)


def uptake():
    return np.random.default_rng(0).gamma(1, 1.5, (8, 32, 32)).astype(np.float32).clip(0, 12)


@pytest.mark.parametrize('name', ['npy', 'nii', 'nrrd'])
@pytest.mark.parametrize('values, words', [
    ((labels(2) == 1).astype(np.uint8), '2 different values alone (0, 1)'), ((labels(2) == 1).astype(np.float32), '2 different values alone (0, 255)'),
    (np.uint8(255) * (labels(8) > 4), '2 different values alone (0, 255)'), (labels(8), '8 different values alone (1, 2, 3, 4, ...)'),
    (labels(4).astype(np.float64), '4 different values alone'), (uptake(), 'a map of uptake'), (uptake().round(), 'a map of uptake'), (uptake() / 12, 'a map of uptake'),
])
def test_a_segmentation_and_a_map_of_uptake_are_no_grey_scan(tmp_path, name, values, words):
    path = tmp_path / f'a.{name}'
    if name == 'npy':
        np.save(path, values)
    elif name == 'nii':
        nibabel.save(nibabel.Nifti1Image(values.T, np.diag([-1, -1, 5, 1])), path)
    else:
        nrrd.write(str(path), values.T, {'space': 'LPS', 'space directions': np.diag([1, 1, 5.])})
    refused(path, words)


def test_grey_scans_are_no_segmentations(tmp_path, rng):
    """Neither those of few levels, nor those of which all but the lungs is black, nor those in fractions."""
    noise = rng.integers(0, 256, (8, 32, 32)).astype(np.uint8)
    masked = np.where(labels(8) == 3, noise, 0)
    for number, grey in enumerate((noise, noise // 16 * 16, masked, noise / np.float32(255), masked * 1.01 / 1.01)):
        np.save(tmp_path / f'{number}.npy', grey)
        scan = decode(tmp_path / f'{number}.npy')
        np.testing.assert_allclose(scan.voxels, grey * (255 if number == 3 else 1), atol=1e-3)
        assert not scan.hounsfield


def blob(side=96, level=1.):
    """[4, side, side]: a mask of two lungs, by distance from two points, and a smaller one in them."""
    y, x = np.mgrid[:side, :side] / side
    lungs = np.minimum(np.hypot(y - .5, x - .3), np.hypot(y - .5, x - .7)) < .17
    return np.repeat(lungs[None] * level, 4, 0)


RESAMPLED = {
    'floats': zoom(blob(), (1, .45, .45), order=1), 'larger': zoom(blob(32), (2, 3.3, 3.3), order=1),
    'between slices': zoom(np.concatenate([0 * blob(48), blob(48)]), (5.3, 1, 1), order=1),
    'bytes': zoom(blob(level=255), (1, .45, .45), order=1).round().astype(np.uint8), 'floats of bytes': zoom(blob(level=255), (1, .45, .45), order=1),
    'cubic': zoom(blob(), (1, 1.4, 1.4), order=3).clip(0, 1),
    'labels': zoom((blob() + np.roll(blob(), 30, 1)) / 2, (1, .7, .7), order=1),
    'little': zoom(blob() * (np.arange(96) > 74), (1, 1.7, 1.7), order=1), 'grey as 200': zoom(blob(level=200), (1, .45, .45), order=1)}


@pytest.mark.parametrize('values', RESAMPLED.values(), ids=RESAMPLED)
def test_a_mask_that_was_resampled_is_no_scan(tmp_path, values):
    assert len(np.unique(values)) > 4
    np.save(tmp_path / 'a.npy', values)
    refused(tmp_path / 'a.npy', 'no scan')
    np.savez(tmp_path / 'b.npz', volume=values[:1])
    refused(tmp_path / 'b.npz', 'no scan')


@pytest.mark.parametrize('suffix', ['png', 'jpg'])
def test_pictures_of_masks_are_no_scan(tmp_path, suffix):
    """Whose edges were smoothed, or which JPEG has blurred."""
    for k, plane in enumerate(blob(level=255).astype(np.uint8)):
        Image.fromarray(plane).resize((60, 60), Image.Resampling.BILINEAR).save(tmp_path / f'{k}.{suffix}', quality=80)
    refused(tmp_path, 'no scan')


@pytest.mark.parametrize('hot', [40, 90, 250])
@pytest.mark.parametrize('name', ['npy', 'nii'])
def test_a_hot_spot_makes_no_grey_scan_of_a_map_of_uptake(tmp_path, name, hot):
    values = uptake()
    values[4, 10:13, 10:13] = hot
    if name == 'npy':
        np.save(tmp_path / 'a.npy', values)
    else:
        nibabel.save(nibabel.Nifti1Image(values.T, np.diag([-1, -1, 5, 1])), tmp_path / 'a.nii')
    refused(tmp_path / f'a.{name}', 'a map of uptake')


def decay(fall, rise=0., top=255, whole=False):
    """[4, 200, 50]: values up to top, in 16 bins each as many times rarer than the one before, in all so many times; of one there
    are `rise` times as many as of the one before, which is a mode."""
    counts = np.geomspace(fall, 1, 16)
    if rise:
        counts[11] = rise * counts[10]
    bins = np.repeat(np.arange(16), np.rint(counts / counts.sum() * 39000).astype(int))
    rng = np.random.default_rng(0)
    values = rng.choice(bins, (4, 200, 50)) + rng.random((4, 200, 50))
    return np.floor(values / 16 * (top + 1)) if whole else (values / 16 * top).astype(np.float32)


@pytest.mark.parametrize('values, read', [
    (decay(14), True), (decay(48), True), (decay(200), False), (decay(400, rise=1.3), False), (decay(400, rise=2), True),
    (decay(200, top=60, whole=True), False), (decay(200, whole=True), False), (decay(48, whole=True), True)])
def test_a_map_is_told_by_its_fall_without_a_mode_and_by_low_values(tmp_path, values, read):
    np.save(tmp_path / 'a.npy', values)
    if read:
        assert not decode(tmp_path / 'a.npy').hounsfield
    else:
        refused(tmp_path / 'a.npy', 'a map of uptake')


@pytest.mark.parametrize('kind', ['white tissue', 'lungs alone', 'padded', 'narrow', 'few levels'])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_scans_of_hard_windows_are_no_masks(tmp_path, rng, kind, dtype):
    """Of air in black, tissue in white and lungs between; of lungs alone; in a grey frame; of low contrast; of a few levels."""
    lungs = zoom(blob(), (1, 1, 1), order=0) > 0
    texture = rng.normal(70, 30, lungs.shape).clip(0, 255)
    grey = {'white tissue': np.where(lungs, texture, 255 * (np.hypot(*np.mgrid[-48:48, -48:48]) < 40)),
            'lungs alone': np.where(lungs, texture, 0), 'padded': np.pad(texture, ((0, 0), (60, 60), (60, 60)), constant_values=128),
            'narrow': rng.normal(100, 3, lungs.shape), 'few levels': rng.integers(0, 6, lungs.shape) * 50}[kind]
    np.save(tmp_path / 'a.npy', grey.astype(dtype))
    np.testing.assert_allclose(decode(tmp_path / 'a.npy').voxels, grey.astype(dtype))


def test_slices_of_black_and_white_are_masks(tmp_path):
    for k, plane in enumerate(labels(2) == 1):
        Image.fromarray(plane).save(tmp_path / f'{k}.png')
    refused(tmp_path, '2 different values alone (0, 255)')


def test_a_mask_of_lungs_is_read_as_one(tmp_path):
    hu = chest()
    nibabel.save(nibabel.Nifti1Image(hu.astype(np.int16).T, np.diag([-1, -1, 5, 1])), tmp_path / 'a.nii.gz')
    nibabel.save(nibabel.Nifti1Image((anatomy() == -850).astype(np.uint8).T, np.diag([-1, -1, 5, 1])), tmp_path / 'a_mask.nii.gz')
    np.testing.assert_array_equal(lungs_beside(decode(f'{tmp_path}/a.nii.gz::lungs=a_mask.nii.gz')), anatomy() == -850)
    with pytest.raises(UserError, match='by its name the mask of a.nii.gz'):
        decode(tmp_path / 'a_mask.nii.gz')
    (tmp_path / 'a_mask.nii.gz').rename(tmp_path / 'b.nii.gz')
    refused(tmp_path / 'b.nii.gz', '2 different values alone (0, 1)')


def test_a_scan_that_metal_squeezes_is_no_map_of_uptake(tmp_path, rng):
    """The least and the greatest value of the whole became 0 and 1: its air and tissue lie below a quarter."""
    hu = chest() + rng.normal(0, 15, chest().shape)
    hu[0, 0, 0] = 8191
    np.save(tmp_path / 'a.npy', ((hu - hu.min()) / (hu.max() - hu.min())).astype(np.float32))
    assert not decode(tmp_path / 'a.npy').hounsfield


def test_a_last_slice_that_lies_in_part_outside_is_no_lost_offset(tmp_path, rng):
    hu = np.round(chest() + rng.normal(0, 15, chest().shape))
    hu[-1] = (hu[-1] - 3024) / 2
    np.save(tmp_path / 'a.npy', hu.astype(np.int16))
    assert decode(tmp_path / 'a.npy').hounsfield
    hu[-1] = hu[-2] - 1024
    np.save(tmp_path / 'b.npy', hu.astype(np.int16))
    refused(tmp_path / 'b.npy', 'below those of slice')


@pytest.mark.parametrize('name', [*FORMATS, 'npz'])
def test_an_offset_that_was_applied_twice_and_clipped_is_found(tmp_path, rng, name):
    """Air and lungs are all at the clip, tissue is where air is, and of bone is left what is where lungs are."""
    hu = chest() + rng.normal(0, 20, chest().shape).round().astype(int)
    hu[:, 20, 10:22] = 1300
    refused(written(tmp_path, name, (hu - 1024).clip(-1024, 3071)), 'hardly any lies above -950', TWICE)


def test_lungs_alone_are_read_whatever_lies_around_them(tmp_path, rng):
    """In Hounsfield units of which nobody says so, and as fractions of the full range, of which they reach a tenth."""
    lungs = anatomy() == -850
    for number, fill in enumerate((-3024, -2048, -1024, -1000)):
        np.save(tmp_path / f'{number}.npy', np.where(lungs, rng.normal(-850, 60, lungs.shape).round().clip(-1020, -400), fill))
        assert decode(tmp_path / f'{number}.npy').hounsfield
    larger = np.kron(lungs, np.ones((1, 4, 4))) > 0
    grey = np.where(larger, (rng.normal(-850, 60, larger.shape) + 1024).clip(1, 640) / 4095, 0).astype(np.float32)
    np.save(tmp_path / 'f.npy', grey)
    np.testing.assert_allclose(decode(tmp_path / 'f.npy').voxels, grey * 255, rtol=1e-6)
    np.save(tmp_path / 'g.npy', grey.max() - grey[:, :, ::-1])  # upside down
    assert not decode(tmp_path / 'g.npy').hounsfield


@pytest.mark.parametrize('name', [*FORMATS, 'npz'])
@pytest.mark.parametrize('values', [np.where(anatomy() == -850, 1, -1024), np.where(anatomy() > -900, np.where(anatomy() > 0, 3, 1), -1000),
                                    (anatomy() == -850) * 1000 - 1024], ids=['mask', 'labels', 'bright'])
def test_a_mask_is_no_scan_in_hounsfield_units(tmp_path, name, values):
    refused(written(tmp_path, name, values), 'different values alone', 'a segmentation')


def test_many_labels_are_no_scan_in_hounsfield_units(tmp_path, rng):
    """Of which one box lies beside the other; those of noise are one."""
    boxes = np.kron(rng.integers(0, 60, (6, 4, 4)), np.ones((1, 32, 32))).astype(np.int16) - 1000
    np.save(tmp_path / 'a.npy', boxes)
    refused(tmp_path / 'a.npy', 'a segmentation')
    np.save(tmp_path / 'b.npy', rng.integers(-30, 30, boxes.shape) + np.where(boxes > -970, -1000, 40))
    assert decode(tmp_path / 'b.npy').hounsfield


def five_boxes():
    """[6, 128, 128]: five boxes of 25 x 30 voxels, 1 to 5, on 0."""
    labels = np.zeros((6, 128, 128), np.int16)
    for i in range(5):
        labels[:, 5 + i // 3 * 60:30 + i // 3 * 60, 5 + i % 3 * 40:35 + i % 3 * 40] = i + 1
    return labels


@pytest.mark.parametrize('make', [lambda labels: labels.astype(np.uint8), lambda labels: labels.astype(np.float32) / 5, lambda labels: (labels * 50).astype(np.uint8),
                                  lambda labels: labels[:1].astype(np.uint8), lambda labels: (labels * 20 - 1024).astype(np.int16)])
def test_small_labels_on_much_background_are_a_segmentation(tmp_path, make):
    np.save(tmp_path / 'a.npy', make(five_boxes()))
    refused(tmp_path / 'a.npy', '6 different values alone', 'a segmentation')


@pytest.mark.parametrize('side, read', [(3, True), (5, False)])
def test_labels_are_flat(tmp_path, rng, side, read):
    """In regions wider than 4 voxels; smaller ones are the texture of a picture."""
    boxes = np.kron(rng.integers(0, 20, (1, 40, 40)), np.ones((1, side, side)))
    np.save(tmp_path / 'a.npy', boxes.astype(np.uint8))
    if read:
        assert not decode(tmp_path / 'a.npy').hounsfield
    else:
        refused(tmp_path / 'a.npy', '20 different values alone')


@pytest.mark.parametrize('levels, read', [('012345432101', True), ('014523012345', True), ('012543014523', False), ('035142035142', False)])
def test_the_edges_of_labels_leap(tmp_path, levels, read):
    """Stripes: of 11 edges none, 3, 4 and all go to another level than the next."""
    np.save(tmp_path / 'a.npy', np.kron(np.array([*map(int, levels)]), np.ones((1, 64, 8))).astype(np.uint8))
    if read:
        assert not decode(tmp_path / 'a.npy').hounsfield
    else:
        refused(tmp_path / 'a.npy', '6 different values alone')


def smooth(size=256, sigma=6.):
    """[1, size, size] in [0, 255]: a picture without noise, of soft shapes."""
    values = gaussian_filter(np.random.default_rng(4).normal(size=(1, size, size)), (0, sigma, sigma))
    return (values - values.min()) / np.ptp(values) * 255


@pytest.mark.parametrize('levels', [8, 16, 32, 64])
@pytest.mark.parametrize('frame', [0, 100])
def test_a_picture_of_few_levels_is_read(tmp_path, levels, frame):
    """A screenshot of 4 bits, say, in a frame of its own grey: from one level it goes to the next, however wide they are."""
    grey = np.pad(np.floor(smooth() / 256 * levels) * (255 // (levels - 1)), ((0, 0), (frame, frame), (frame, frame)), constant_values=255 // (levels - 1))
    np.save(tmp_path / 'a.npy', grey.astype(np.uint8))
    np.testing.assert_array_equal(decode(tmp_path / 'a.npy').voxels, grey)


def test_a_picture_of_hard_contrast_is_read_where_it_breaks_into_regions(tmp_path):
    """Hardly anything lies between black and white in either; of a mask there are few regions."""
    for number, (sigma, read) in enumerate(((3, True), (40, False))):
        grey = ((smooth(sigma=sigma) - 110) * 40 + 128).clip(0, 255).astype(np.uint8)
        assert np.mean((grey > 8) & (grey < 247)) < .1
        np.save(tmp_path / f'{number}.npy', grey)
        if read:
            assert not decode(tmp_path / f'{number}.npy').hounsfield
        else:
            refused(tmp_path / f'{number}.npy', 'few levels in few regions')


def turned_over():
    """[200, 200] in [0, 1]: no mode, and bright on average, as a radiograph whose black and white were exchanged: the top of a broad hump."""
    return 1 - np.random.default_rng(0).random((200, 200)) ** (1 / 4)


def test_a_radiograph_turned_over_is_no_map_in_any_format(tmp_path):
    grey = turned_over()
    np.save(tmp_path / 'a.npy', grey.astype(np.float32))
    Image.fromarray((grey * 65535).astype(np.uint16)).save(tmp_path / 'b.png')
    Image.fromarray((grey * 65535).astype(np.uint16)).save(tmp_path / 'c.tif')
    Image.fromarray((grey * 255).astype(np.uint8)).save(tmp_path / 'd.png')
    for name in ('a.npy', 'b.png', 'c.tif', 'd.png'):
        assert not decode(tmp_path / name).hounsfield


def test_a_map_of_uptake_is_told_in_every_format(tmp_path):
    values = np.random.default_rng(0).gamma(1, 1.5, (96, 96)).clip(0, 12) / 12
    np.save(tmp_path / 'a.npy', values)
    Image.fromarray((values * 65535).astype(np.uint16)).save(tmp_path / 'b.png')
    Image.fromarray((values * 255).astype(np.uint8)).save(tmp_path / 'c.png')
    for name in ('a.npy', 'b.png', 'c.png'):
        refused(tmp_path / name, 'a map of uptake')


@pytest.mark.parametrize('border', [0, 200])
def test_a_picture_of_low_contrast_in_a_wide_border_is_no_segmentation(tmp_path, rng, border):
    """The border makes nearly all neighbours alike, and is left out."""
    picture = np.asarray(Image.fromarray(rng.normal(60, 15, (40, 40)).clip(20, 96).astype(np.uint8)).resize((120, 120), Image.Resampling.BICUBIC))
    np.save(tmp_path / 'a.npy', np.pad(picture, border)[None])
    assert decode(tmp_path / 'a.npy').voxels.max() < 128


# the thresholds, each from both sides


def uneven(share, low, high, size=20000):
    """[2, 100, 100]: so much of it noise around high, the rest around low."""
    rng = np.random.default_rng(3)
    return (np.where(np.arange(size) < share * size, high, low) + rng.normal(0, 12, size)).reshape(2, 100, 100).astype(np.float32)


@pytest.mark.parametrize('values, words', [
    (uneven(.05, -1000, 40), ''), (uneven(.02, -1000, 40), TWICE),  # TISSUE_SHARE
    (uneven(.7, -1000, -850), ''), (uneven(.3, -1000, -850), TWICE),  # half of air and lung above LUNG
    (uneven(.02, 40, -850), ''), (uneven(.005, 40, -850), AIR),  # AIR_SHARE
    (uneven(.04, -850, 2500), ''), (uneven(.06, -850, 2500), 'above 2000'),  # DENSE_SHARE
])
def test_shares_of_a_chest_are_judged_on_either_side(tmp_path, values, words):
    np.save(tmp_path / 'a.npy', values[:, ::-1])
    if words:
        refused(tmp_path / 'a.npy', words)
    else:
        assert decode(tmp_path / 'a.npy').hounsfield


@pytest.mark.parametrize('count, read', [(120, False), (140, True)])
def test_up_to_128_labels_are_a_segmentation(tmp_path, count, read):
    boxes = np.kron(np.arange(144).reshape(1, 12, 12) % count, np.ones((1, 30, 30))).astype(np.uint8)
    np.save(tmp_path / 'a.npy', boxes)
    if read:
        assert decode(tmp_path / 'a.npy').voxels.max() == 139
    else:
        refused(tmp_path / 'a.npy', '120 different values alone')


@pytest.mark.parametrize('side, read', [(31, True), (32, False)])
def test_less_than_a_thousand_voxels_are_not_judged(tmp_path, side, read):
    np.save(tmp_path / 'a.npy', np.eye(side, dtype=np.uint8))
    if read:
        assert decode(tmp_path / 'a.npy').voxels.shape == (1, 31, 31)
    else:
        refused(tmp_path / 'a.npy', 'a segmentation')


@pytest.mark.parametrize('apart, read', [(60, True), (70, False)])
def test_levels_of_a_mask_are_far_apart(tmp_path, rng, apart, read):
    """Of low contrast a scan may have few, too."""
    values = 100 + apart * (blob(64)[:2] > 0) + rng.integers(-2, 3, (2, 64, 64))
    np.save(tmp_path / 'a.npy', values.astype(np.uint8))
    if read:
        assert not decode(tmp_path / 'a.npy').hounsfield
    else:
        refused(tmp_path / 'a.npy', 'few levels')


def test_a_slice_whose_middle_leaps_and_whose_ends_do_not_is_no_lost_offset(tmp_path, rng):
    """Every one of the quantiles must leap: here the middle does not, though 5 % and 95 % rise."""
    one = np.concatenate([rng.normal(-1010, 5, 1000), rng.normal(-900, 5, 8000), rng.normal(-300, 5, 1000)])
    between = np.concatenate([rng.normal(-480, 5, 1000), rng.normal(-470, 5, 8000), rng.normal(300, 5, 1000)])
    volume = np.stack([one, one, between, between]).reshape(4, 100, 100)
    np.save(tmp_path / 'a.npy', volume.astype(np.float32))
    assert decode(tmp_path / 'a.npy').hounsfield


def test_x_rays_of_dicom_are_asked_what_all_grey_is(tmp_path, rng):
    """One law in every format: of a mask a header of DX makes no radiograph."""
    xray(tmp_path / 'a.dcm', (five_boxes()[0] * 500).astype('<u2'))
    refused(tmp_path / 'a.dcm', '6 different values alone')
    xray(tmp_path / 'b.dcm', rng.integers(0, 2500, (64, 64)).astype('<u2'))
    assert not decode(tmp_path / 'b.dcm').hounsfield
