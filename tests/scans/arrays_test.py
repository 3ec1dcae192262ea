"""numpy's own files, and what may be in them that is no scan."""

import tracemalloc
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scan_files import real, refused

from covid_jax.scans.decode import decode


@pytest.fixture
def hu(rng):
    return rng.integers(-1000, 400, (3, 4, 5), np.int16)


def npy_header(stream, shape, descr='<i2'):
    """A .npy that claims a shape and holds no values."""
    np.lib.format.write_array_header_1_0(stream, {'descr': descr, 'fortran_order': False, 'shape': shape})


def test_npz_of_hounsfield_units_comes_back_with_its_spacing(tmp_path, hu):
    np.savez_compressed(tmp_path / 'a.npz', hu=hu, spacing_mm=np.float32([2, .5, .5]), label='COVID-19')
    scan = decode(tmp_path / 'a.npz')
    np.testing.assert_array_equal(scan.voxels, hu)
    assert scan.voxels.dtype == np.int16 and scan.hounsfield and scan.spacing == (2, .5, .5)


@pytest.mark.parametrize('key, other', [('volume', 'mask'), ('image', 'mask'), ('whatever', 'spacing_mm')])
def test_named_or_only_array_is_chosen(tmp_path, hu, key, other):
    np.savez(tmp_path / 'a.npz', **{other: np.ones(3), key: hu})
    scan = decode(str(tmp_path / 'a.npz'))
    np.testing.assert_array_equal(scan.voxels, hu)
    assert scan.hounsfield


def test_several_arrays_and_no_name_is_refused(tmp_path, hu):
    np.savez(tmp_path / 'a.npz', one=hu, two=hu)
    refused(tmp_path / 'a.npz', 'one, two')


@pytest.mark.parametrize('dtype', ['>i2', '<i4', '<i8'])
def test_any_integers_and_either_order_of_bytes(tmp_path, hu, dtype):
    np.save(tmp_path / 'a.npy', np.asfortranarray(hu.astype(dtype)))
    scan = decode(tmp_path / 'a.npy')
    np.testing.assert_array_equal(scan.voxels, hu)
    assert scan.voxels.dtype == np.int16 and scan.voxels.dtype.isnative and scan.hounsfield


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_float_hounsfield_units_stay_float32(tmp_path, dtype):
    np.savez(tmp_path / 'a.npz', hu=np.array([[-100.5, 40.25]], dtype))
    scan = decode(tmp_path / 'a.npz')
    np.testing.assert_array_equal(scan.voxels, [[[-100.5, 40.25]]])
    assert scan.voxels.dtype == np.float32 and scan.hounsfield


@pytest.mark.parametrize('array', [np.uint8([[0, 51], [102, 255]]), np.float64([[0, .2], [.4, 1]])])
def test_bytes_or_the_unit_range_are_grey_and_a_plane_is_one_slice(tmp_path, array):
    np.save(tmp_path / 'a.npy', array)
    scan = decode(tmp_path / 'a.npy')
    np.testing.assert_allclose(scan.voxels, [[[0, 51], [102, 255]]], rtol=1e-6)
    assert scan.voxels.dtype == (np.uint8 if array.dtype == np.uint8 else np.float32) and not scan.hounsfield


@pytest.mark.parametrize('array, words', [
    (np.zeros((1, 2, 3, 4), np.int16), ['[1, 2, 3, 4]']),
    (np.zeros((5,), np.int16), ['[5]']),
    (np.zeros((0, 4, 4), np.int16), ['[0, 4, 4]']),
    (np.ones((2, 2, 2), bool), ['bool']),
    (np.ones((2, 2, 2), complex), ['complex128']),
    (np.full((2, 2), 'x'), ['<U1']),
    (np.zeros((2, 2), [('a', 'i2')]), ['i2']),
    (np.array([[0, np.nan]]), ['not finite']),
    (np.array([[-np.inf, 0]]), ['not finite']),
    (np.array([[0, 4095]]), ['0 to 4095', "'hu'"]),
    (np.array([[-1, 200]]), ['-1 to 200']),
    (np.array([[-10**9, 200]]), ['-1e+09', 'not Hounsfield units']),
])
def test_what_is_not_a_scan_is_refused(tmp_path, array, words):
    np.save(tmp_path / 'a.npy', array)
    refused(tmp_path / 'a.npy', *words)


@pytest.mark.parametrize('channels', [3, 4])
def test_a_picture_in_colours_is_one_slice_of_its_luma(tmp_path, rng, channels):
    picture = rng.integers(0, 256, (20, 24, channels)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / 'a.png')
    np.save(tmp_path / 'a.npy', picture)
    np.savez(tmp_path / 'a.npz', image=picture)
    for name in ('a.npy', 'a.npz'):
        np.testing.assert_array_equal(decode(tmp_path / name).voxels, decode(tmp_path / 'a.png').voxels)
    np.save(tmp_path / 'b.npy', picture / np.float32(255))
    refused(tmp_path / 'b.npy', f'[20, 24, {channels}] of float32: a picture in colours', 'uint8')


def test_a_last_axis_of_one_is_one_slice_and_a_small_volume_stays_one(tmp_path, rng):
    hu = rng.integers(-1000, 400, (20, 24, 1)).astype(np.int16)
    np.save(tmp_path / 'a.npy', hu)
    np.testing.assert_array_equal(decode(tmp_path / 'a.npy').voxels, hu[None, ..., 0])
    np.savez(tmp_path / 'a.npz', hu=hu)
    assert decode(tmp_path / 'a.npz').voxels.shape == (1, 20, 24)
    np.save(tmp_path / 'b.npy', hu.reshape(5, 24, 4))
    assert decode(tmp_path / 'b.npy').voxels.shape == (5, 24, 4)


def test_python_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / 'sprung',)
    np.save(tmp_path / 'a.npy', np.array([[Trap()]], object), allow_pickle=True)
    np.savez(tmp_path / 'a.npz', hu=np.array([[Trap()]], object))
    refused(tmp_path / 'a.npy', 'never unpickled')
    refused(tmp_path / 'a.npz', 'never unpickled')
    assert not (tmp_path / 'sprung').exists()


@pytest.mark.parametrize('spacing', [[1., 1.], [[1., 1., 1.]], [1., 0., 1.], [1., np.nan, 1.], ['a', 'b', 'c']])
def test_spacing_that_cannot_be_is_refused(tmp_path, hu, spacing):
    np.savez(tmp_path / 'a.npz', hu=hu, spacing_mm=spacing)
    refused(tmp_path / 'a.npz')


def test_promise_of_a_header_takes_no_memory(tmp_path):
    for name, shape, descr in (('many', (2**11, 2**10, 2**10), '|u1'), ('wide', (2**9, 2**10, 2**10), '<f16'),
                               ('huge', (2**40, 2**40), '<i2'), ('cut', (2**8, 2**10, 2**10), '<f8')):
        with (tmp_path / f'{name}.npy').open('wb') as stream:
            npy_header(stream, shape, descr)
        with zipfile.ZipFile(tmp_path / f'{name}.npz', 'w') as archive, archive.open('hu.npy', 'w') as stream:
            npy_header(stream, shape, descr)
        tracemalloc.start()
        refused(tmp_path / f'{name}.npy', 'cut off' if name == 'cut' else 'limit')
        refused(tmp_path / f'{name}.npz', 'cut off' if name == 'cut' else 'limit')
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


@pytest.mark.parametrize('name, depth', [('P001', 148), ('cap001', 168), ('cap002', 131), ('normal001', 154)])
def test_volumes_of_covid_ct_md(name, depth):
    scan = decode(real('COVID-CT-MD/volumes') / f'{name}.npz')
    assert scan.voxels.shape == (depth, 128, 128) and scan.voxels.dtype == np.int16 and scan.hounsfield
    assert scan.voxels.min() == -1024 and scan.spacing[0] == 2 and 2 < scan.spacing[1] == scan.spacing[2] < 3


@pytest.mark.parametrize('shape, read', [((40, 40, 20), False), ((40, 40, 9), False), ((20, 40, 40), True), ((40, 40, 40), True), ((40, 41, 20), True), ((8, 8, 5), True)])
def test_height_width_and_depth_in_a_wrong_order_are_refused(tmp_path, rng, shape, read):
    values = rng.integers(0, 256, shape).astype(np.uint8)
    np.save(tmp_path / 'a.npy', values)
    np.savez(tmp_path / 'b.npz', volume=values, spacing_mm=(5, .7, .7))
    for path in (tmp_path / 'a.npy', tmp_path / 'b.npz'):
        if read:
            assert decode(path).voxels.shape == shape
        else:
            refused(path, 'seems to be [height, width, depth]', 'as NIfTI')


@pytest.mark.parametrize('spacing, read', [((.7, .7, 5), False), ((5, .7, .7), True), ((1, 1, 1), True), ((5, .7, .8), True)])
def test_spacing_in_a_wrong_order_is_refused(tmp_path, rng, spacing, read):
    np.savez(tmp_path / 'a.npz', volume=rng.integers(0, 256, (4, 20, 20)).astype(np.uint8), spacing_mm=spacing)
    if read:
        assert decode(tmp_path / 'a.npz').spacing == spacing
    else:
        refused(tmp_path / 'a.npz', 'pixels are square', '(z, y, x)')


@pytest.mark.parametrize('count', [3, 4])
def test_colours_in_the_place_of_the_depth_are_no_volume(tmp_path, rng, count):
    """Grey that was saved as RGB, or with its opacity behind; as three slices that differ it may be a volume."""
    picture = rng.integers(0, 256, (20, 24)).astype(np.uint8)
    values = np.stack([picture, picture, picture, np.full_like(picture, 255)][:count])
    np.save(tmp_path / 'a.npy', values)
    nibabel.save(nibabel.Nifti1Image(values.T, np.diag([-1, -1, 5, 1])), tmp_path / 'b.nii')
    for name in ('a.npy', 'b.nii'):
        refused(tmp_path / name, 'the colours of one picture in the place of the depth')
    values[1, 0, 0] ^= 1
    np.save(tmp_path / 'a.npy', values)
    assert decode(tmp_path / 'a.npy').voxels.shape == values.shape


def test_a_header_that_pythons_parser_gives_up_on_is_broken(tmp_path):
    """It says so with a MemoryError, and the machine has memory enough."""
    header = b'-' * 9000 + b'1\n'
    (tmp_path / 'deep.npy').write_bytes(b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header)
    assert 'its header is broken' in refused(tmp_path / 'deep.npy')
