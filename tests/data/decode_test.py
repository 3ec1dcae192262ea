import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covid_jax import UserError
from covid_jax.data import decode as module
from covid_jax.data.decode import Scan, decode

SHARED = Path(__file__).parents[2] / '../shared/data'


def real(name):
    if not (SHARED / name).exists():
        pytest.skip(f'needs the real data in {SHARED / name}')
    return SHARED / name


def refused(path, *words):
    """The one line with which decode refuses a path; it holds the words."""
    with pytest.raises(UserError) as caught:
        decode(path)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    for word in (str(path), *words):
        assert word in line, line
    return line


@pytest.fixture
def hu():
    return np.random.default_rng(0).integers(-1000, 400, (3, 4, 5), np.int16)


def slices(folder, count):
    """A folder of grey PNG slices [6, 8], 'ct <i>.png' of the constant value i."""
    folder.mkdir()
    for i in range(count):
        Image.new('L', (8, 6), i).save(folder / f'ct {i}.png')
    return folder


def png_header(path, side):
    """A PNG that claims a size it does not have, with the checksum that goes with the claim."""
    Image.new('L', (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack('>II', side, side)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


def npy_header(stream, shape, descr='<i2'):
    """A .npy that claims a shape and holds no values."""
    np.lib.format.write_array_header_1_0(stream, {'descr': descr, 'fortran_order': False, 'shape': shape})


class TestArrays:
    def test_npz_of_hounsfield_units_comes_back_with_its_spacing(self, tmp_path, hu):
        np.savez_compressed(tmp_path / 'a.npz', hu=hu, spacing_mm=np.float32([2, .5, .5]), label='COVID-19')
        scan = decode(tmp_path / 'a.npz')
        np.testing.assert_array_equal(scan.voxels, hu)
        assert scan.voxels.dtype == np.int16 and scan.hounsfield and scan.spacing == (2, .5, .5)

    @pytest.mark.parametrize('key, other', [('volume', 'mask'), ('image', 'mask'), ('whatever', 'spacing_mm')])
    def test_named_or_only_array_is_chosen(self, tmp_path, hu, key, other):
        np.savez(tmp_path / 'a.npz', **{other: np.ones(3), key: hu})
        scan = decode(str(tmp_path / 'a.npz'))
        np.testing.assert_array_equal(scan.voxels, hu)
        assert scan.hounsfield

    def test_several_arrays_and_no_name_is_refused(self, tmp_path, hu):
        np.savez(tmp_path / 'a.npz', one=hu, two=hu)
        refused(tmp_path / 'a.npz', 'one, two')

    @pytest.mark.parametrize('dtype', ['>i2', '<i4', '<i8'])
    def test_any_integers_and_either_order_of_bytes(self, tmp_path, hu, dtype):
        np.save(tmp_path / 'a.npy', np.asfortranarray(hu.astype(dtype)))
        scan = decode(tmp_path / 'a.npy')
        np.testing.assert_array_equal(scan.voxels, hu)
        assert scan.voxels.dtype == np.int16 and scan.voxels.dtype.isnative and scan.hounsfield

    @pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
    def test_float_hounsfield_units_stay_float32(self, tmp_path, dtype):
        np.savez(tmp_path / 'a.npz', hu=np.array([[-100.5, 40.25]], dtype))
        scan = decode(tmp_path / 'a.npz')
        np.testing.assert_array_equal(scan.voxels, [[[-100.5, 40.25]]])
        assert scan.voxels.dtype == np.float32 and scan.hounsfield

    @pytest.mark.parametrize('array', [np.uint8([[0, 51], [102, 255]]), np.float64([[0, .2], [.4, 1]])])
    def test_bytes_or_the_unit_range_are_grey_and_a_plane_is_one_slice(self, tmp_path, array):
        np.save(tmp_path / 'a.npy', array)
        scan = decode(tmp_path / 'a.npy')
        np.testing.assert_allclose(scan.voxels, [[[0, 51], [102, 255]]], rtol=1e-6)
        assert scan.voxels.dtype == np.float32 and not scan.hounsfield

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
    def test_what_is_not_a_scan_is_refused(self, tmp_path, array, words):
        np.save(tmp_path / 'a.npy', array)
        refused(tmp_path / 'a.npy', *words)

    def test_python_objects_are_never_unpickled(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return Path.touch, (tmp_path / 'sprung',)
        np.save(tmp_path / 'a.npy', np.array([[Trap()]], object), allow_pickle=True)
        np.savez(tmp_path / 'a.npz', hu=np.array([[Trap()]], object))
        refused(tmp_path / 'a.npy', 'never unpickled')
        refused(tmp_path / 'a.npz', 'never unpickled')
        assert not (tmp_path / 'sprung').exists()

    @pytest.mark.parametrize('spacing', [[1., 1.], [[1., 1., 1.]], [1., 0., 1.], [1., np.nan, 1.], ['a', 'b', 'c']])
    def test_spacing_that_cannot_be_is_refused(self, tmp_path, hu, spacing):
        np.savez(tmp_path / 'a.npz', hu=hu, spacing_mm=spacing)
        refused(tmp_path / 'a.npz')

    def test_promise_of_a_header_takes_no_memory(self, tmp_path):
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


class TestImages:
    @pytest.mark.parametrize('mode', ['L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'])
    def test_every_mode_gives_the_same_grey(self, tmp_path, mode):
        grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
        image = Image.fromarray(grey)
        if mode == 'I;16':
            image = Image.fromarray(grey.astype(np.uint16) * 257)
        elif mode == 'P':
            image = image.point(lambda v: 255 - v)
            image.putpalette([255 - i for i in range(256) for _ in 'rgb'])
        else:
            image = image.convert(mode)
        if mode in ('LA', 'RGBA'):
            image.putalpha(Image.new('L', image.size, 3))
        assert image.mode == mode
        image.save(tmp_path / 'a.png', **({'transparency': b'\x00\x80'} if mode == 'P' else {}))
        scan = decode(tmp_path / 'a.png')
        np.testing.assert_array_equal(scan.voxels, grey[None])
        assert scan.voxels.dtype == np.float32 and not scan.hounsfield and scan.spacing is None

    @pytest.mark.parametrize('mode, colour, grey', [('RGB', (255, 0, 0), 76), ('1', 1, 255)])  # 0.299 * 255 = 76.2
    def test_colour_is_its_luma_and_a_bit_is_black_or_white(self, tmp_path, mode, colour, grey):
        Image.new(mode, (2, 2), colour).save(tmp_path / 'a.png')
        assert (decode(tmp_path / 'a.png').voxels == grey).all()

    @pytest.mark.parametrize('inside', ['PNG', 'JPEG', 'BMP', 'GIF'])
    def test_bytes_decide_and_not_the_name(self, tmp_path, inside):
        Image.new('L', (4, 3), 90).save(tmp_path / 'a.jpg', inside)
        assert decode(tmp_path / 'a.jpg').voxels.shape == (1, 3, 4)
        np.testing.assert_allclose(decode(tmp_path / 'a.jpg').voxels, 90, atol=1)

    @pytest.mark.parametrize('side', [9000, 12000, 40000])
    def test_side_that_a_header_claims_is_judged_first(self, tmp_path, side):
        refused(png_header(tmp_path / 'a.png', side), 'pixels')


class TestFolders:
    def test_numbers_sort_as_numbers(self, tmp_path):
        folder = slices(tmp_path / 'scan', 12)
        assert decode(folder).voxels[:, 0, 0].tolist() == list(range(12))
        assert decode(folder).voxels.shape == (12, 6, 8)

    def test_whole_stem_decides_from_the_left(self):
        names = '2.jpg 2.png 7.png 10.png A2.png a2_9.png a2_10.png a10_1.png b1.png'.split()
        assert sorted(map(Path, names[::-1]), key=module.natural) == list(map(Path, names))

    def test_modes_and_formats_mix_and_other_files_are_ignored(self, tmp_path):
        folder = slices(tmp_path / 'scan', 1)
        Image.new('RGBA', (8, 6), (9, 9, 9, 0)).save(folder / 'ct 1.png')
        Image.new('RGB', (8, 6), (80, 80, 80)).save(folder / 'ct 2.JPEG')
        for name in ('notes.txt', '.DS_Store', '._ct 1.png'):
            (folder / name).write_text('x')
        (folder / 'thumbs.png').mkdir()
        np.testing.assert_allclose(decode(folder).voxels[:, 2, 2], [0, 9, 80], atol=1)

    def test_odd_or_broken_slice_is_named(self, tmp_path):
        folder = slices(tmp_path / 'scan', 3)
        (folder / 'ct 1.png').write_bytes((folder / 'ct 1.png').read_bytes()[:50])
        refused(folder, 'ct 1.png')
        Image.new('L', (5, 6)).save(folder / 'ct 0.png')
        refused(folder, 'ct 0.png', '5 x 6', '8 x 6')

    def test_folder_without_slices_says_what_it_holds(self, tmp_path):
        assert refused(tmp_path).endswith('(found: nothing)')
        for name in ('b.txt', 'a.txt'):
            (tmp_path / name).write_text('x')
        assert refused(tmp_path) == f'no PNG or JPG slices in {tmp_path} (found: a.txt, b.txt)'

    def test_more_slices_or_voxels_than_the_limits_are_refused(self, tmp_path, monkeypatch):
        folder = slices(tmp_path / 'scan', 4)
        monkeypatch.setattr(module, 'VOXELS', 4 * 6 * 8 - 1)
        refused(folder, '191 voxels')
        monkeypatch.setattr(module, 'SLICES', 3)
        refused(folder, '4 slices')


@pytest.mark.parametrize('name', ['a.npz', 'b.npy', 'c.jpg'])
def test_half_a_file_and_a_text_of_that_name_are_refused(tmp_path, hu, name):
    path = tmp_path / name
    save = {'a': np.savez, 'b': np.save, 'c': lambda path, hu: Image.effect_noise((64, 64), 50).save(path)}[name[0]]
    save(path, hu)
    path.write_bytes(path.read_bytes()[:-60])
    refused(path)
    path.write_text('patient,label\n1,covid\n')
    refused(path)


@pytest.mark.parametrize('name', ['gone.npz', 'gone', 'notes.txt', 'no\nsuch.png'])
def test_what_is_not_there_or_no_scan_is_refused(tmp_path, name):
    (tmp_path / 'notes.txt').write_text('x')
    with pytest.raises(UserError, match='no such file or folder|not a scan') as caught:
        decode(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


def test_phantom_has_an_address():
    scan = decode('phantom:3:1:covid')
    assert scan.voxels.dtype == np.int16 and scan.voxels.ndim == 3 and scan.hounsfield and len(scan.spacing) == 3
    with pytest.raises(UserError, match='phantom'):
        decode('phantom:3')


def mutate(rng, data):
    """The bytes cut short, or with a few bits flipped (half of the time near the start), or with a piece repeated."""
    data = bytearray(data)
    kind = rng.integers(3)
    if kind == 0:
        return data[:rng.integers(len(data))]
    if kind == 1:
        reach = len(data) if rng.integers(2) else min(200, len(data))
        for at in rng.integers(reach, size=rng.integers(1, 9)):
            data[at] ^= 1 << rng.integers(8)
        return data
    start, end = sorted(rng.integers(len(data), size=2))
    return data[:end] + data[start:]


def test_300_mutated_files_end_in_a_scan_or_in_one_line(tmp_path):
    rng = np.random.default_rng(20)
    volume = rng.integers(-1000, 400, (6, 16, 16), np.int16)
    folder = slices(tmp_path / 'scan', 3)
    np.save(tmp_path / 'a.npy', volume)
    np.savez(tmp_path / 'b.npz', hu=volume, spacing_mm=[2., 1., 1.])
    np.savez_compressed(tmp_path / 'c.npz', hu=volume, spacing_mm=[2., 1., 1.])
    Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / 'd.jpg')
    Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(folder / 'ct 1.png')
    Image.new('L', (16, 16)).save(folder / 'ct 0.png')
    Image.new('P', (16, 16)).save(folder / 'ct 2.png')
    originals = [*sorted(tmp_path.glob('?.*')), folder / 'ct 1.png', folder / 'ct 2.png']
    endings = {'scan': 0, 'refused': 0}
    for i in range(300):
        victim = originals[i % len(originals)]
        whole = victim.read_bytes()
        victim.write_bytes(mutate(rng, whole))
        try:
            scan = decode(folder if victim.parent == folder else victim)
            assert isinstance(scan, Scan) and scan.voxels.ndim == 3 and np.isfinite(scan.voxels).all()
            endings['scan'] += 1
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and victim.name in str(error)
            endings['refused'] += 1
        victim.write_bytes(whole)
    assert endings['scan'] > 10 and endings['refused'] > 100


class TestRealFiles:
    def test_png_of_covid_ct_that_hold_jpeg_decode(self):
        folder = real('COVID-CT/Images-processed/CT_COVID')
        jpegs = [path for path in folder.glob('*.png') if path.read_bytes()[:2] == b'\xff\xd8']
        scans = [decode(path) for path in folder.glob('*.png')]
        assert len(jpegs) == 32  # of the 251 that are here
        for scan in scans:
            assert scan.voxels.shape[0] == 1 and scan.voxels.dtype == np.float32 and not scan.hounsfield
            assert 0 <= scan.voxels.min() and 100 < scan.voxels.max() <= 255

    @pytest.mark.parametrize('name, depth', [('P001', 148), ('cap001', 168), ('cap002', 131), ('normal001', 154)])
    def test_volumes_of_covid_ct_md(self, name, depth):
        scan = decode(real('COVID-CT-MD/volumes') / f'{name}.npz')
        assert scan.voxels.shape == (depth, 128, 128) and scan.voxels.dtype == np.int16 and scan.hounsfield
        assert scan.voxels.min() == -1024 and scan.spacing[0] == 2 and 2 < scan.spacing[1] == scan.spacing[2] < 3

    def test_exported_slices_come_back_in_order(self, tmp_path):
        hu = decode(real('COVID-CT-MD/volumes') / 'P001.npz').voxels
        grey = np.clip((hu + 1000.) / 1400 * 255, 0, 255).astype(np.uint8)
        for i, plane in enumerate(grey):
            Image.fromarray(plane).save(tmp_path / f'P001 [{i}].png')
        np.testing.assert_array_equal(decode(tmp_path).voxels, grey)
