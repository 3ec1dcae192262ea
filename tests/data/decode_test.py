"""A path in, voxels out: which decoder reads what, folders, archives, parts of a scan; any bytes, one line at most."""

import tempfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scans import refused, slices

from covid_jax import UserError
from covid_jax.data import decode as module
from covid_jax.data.decode import decode, files_of, is_scan, split_address
from covid_jax.data.scan import natural


@pytest.fixture
def hu(rng):
    return rng.integers(-1000, 400, (3, 4, 5), np.int16)


@pytest.fixture
def temporary(tmp_path_factory, monkeypatch):
    """An empty folder that archives are unpacked into; it is empty again at the end."""
    folder = tmp_path_factory.mktemp('temporary')
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    yield folder
    assert not list(folder.iterdir())


def nifti(path, hu):
    """[z, y, x] as a NIfTI whose indices grow to the right, the front and the head."""
    nibabel.save(nibabel.Nifti1Image(hu[:, ::-1, ::-1].transpose(2, 1, 0), np.diag([.7, .8, 2.5, 1])), path)
    return path


# paths


def test_every_format_is_read_by_its_name(tmp_path, hu):
    grey = (hu // 8 + 128).astype(np.uint8)
    np.save(tmp_path / 'a.npy', hu)
    (tmp_path / 'a.npy').rename(tmp_path / 'a.NPY')
    np.savez(tmp_path / 'a.npz', hu=hu)
    nifti(tmp_path / 'a.nii', hu)
    nifti(tmp_path / 'a.nii.gz', hu)
    for name in ('a.NPY', 'a.npz', 'a.nii', 'a.nii.gz'):
        np.testing.assert_array_equal(decode(tmp_path / name).voxels, hu)
        assert decode(tmp_path / name).hounsfield
    for name in ('b.png', 'b.tif', 'b.TIFF'):
        Image.fromarray(grey[0]).save(tmp_path / name)
        np.testing.assert_array_equal(decode(str(tmp_path / name)).voxels, grey[:1])
        assert not decode(tmp_path / name).hounsfield


@pytest.mark.parametrize('name, yes', [('a.dcm', True), ('a.nii.gz', True), ('A.MHD', True), ('b.zip', True),
                                       ('c.raw', False), ('c.gz', False), ('folder', True), ('a.csv', False)])
def test_is_scan_goes_by_the_name(tmp_path, name, yes):
    (tmp_path / 'folder').mkdir()
    assert is_scan(tmp_path / name) == yes


@pytest.mark.parametrize('name', ['a.npz', 'b.npy', 'c.jpg', 'd.nii', 'e.nii.gz', 'f.zip', 'g.tif'])
def test_half_a_file_and_a_text_of_that_name_are_refused(tmp_path, hu, name):
    path = tmp_path / name
    save = {'a': np.savez, 'b': np.save, 'd': nifti, 'e': nifti, 'f': lambda path, hu: zipped(path, {'a.txt': b'x'})}
    save.get(name[0], lambda path, hu: Image.effect_noise((64, 64), 50).save(path))(path, hu)
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


# parts


def test_one_slice_of_a_volume(tmp_path, hu):
    np.save(tmp_path / 'a.npy', hu)
    np.testing.assert_array_equal(decode(f'{tmp_path}/a.npy::slice=2').voxels, hu[2:])
    folder = slices(tmp_path / 'scan', 12)
    assert decode(f'{folder}::slice=11').voxels.tolist() == [[[11] * 8] * 6]
    for wrong in ('3', '-1', '1.5', 'x', '9' * 5000):
        with pytest.raises(UserError, match='there are 0 to 2|digits') as caught:
            decode(f'{tmp_path}/a.npy::slice={wrong}')
        assert str(caught.value).startswith(f'{tmp_path}/a.npy: ')


def test_an_address_is_a_path_and_a_part():
    assert split_address('scans/a::series=1.2.3') == (Path('scans/a'), {'series': '1.2.3'})
    assert split_address('a::b/c::slice=7') == (Path('a::b/c'), {'slice': '7'})
    for plain in ('scans/a', 'a::b', 'a::slice=', 'C:/a=b'):
        assert split_address(plain) == (Path(plain), {})
    with pytest.raises(UserError, match="unknown part 'page'"):
        split_address('a::page=3')


def test_files_of_an_address_are_all_that_is_read(tmp_path, hu):
    folder = slices(tmp_path / 'scan', 2)
    (folder / 'more').mkdir()
    (folder / 'more' / 'x.dcm').write_bytes(b'x')
    assert [path.name for path in files_of(folder)] == ['ct 0.png', 'ct 1.png', 'x.dcm']
    assert files_of(f'{folder}/ct 1.png::slice=0') == [folder / 'ct 1.png']
    (tmp_path / 'a.raw').write_bytes(hu.tobytes())
    (tmp_path / 'a.mhd').write_text('ElementDataFile = a.raw\n')
    assert files_of(tmp_path / 'a.mhd') == [tmp_path / 'a.mhd', tmp_path / 'a.raw']


# folders


def test_numbers_sort_as_numbers(tmp_path):
    folder = slices(tmp_path / 'scan', 12)
    assert decode(folder).voxels[:, 0, 0].tolist() == list(range(12))
    assert decode(folder).voxels.shape == (12, 6, 8)


def test_whole_stem_decides_from_the_left():
    names = '2.jpg 2.png 7.png 10.png A2.png a2_9.png a2_10.png a10_1.png b1.png'.split()
    assert sorted(map(Path, names[::-1]), key=natural) == list(map(Path, names))


def test_modes_and_formats_mix_and_other_files_are_ignored(tmp_path):
    folder = slices(tmp_path / 'scan', 1)
    Image.new('RGBA', (8, 6), (9, 9, 9, 0)).save(folder / 'ct 1.png')
    Image.new('RGB', (8, 6), (80, 80, 80)).save(folder / 'ct 2.JPEG')
    for name in ('notes.txt', '.DS_Store', '._ct 1.png'):
        (folder / name).write_text('x')
    (folder / 'thumbs.png').mkdir()
    np.testing.assert_allclose(decode(folder).voxels[:, 2, 2], [0, 9, 80], atol=1)


def test_odd_or_broken_slice_is_named(tmp_path):
    folder = slices(tmp_path / 'scan', 3)
    (folder / 'ct 1.png').write_bytes((folder / 'ct 1.png').read_bytes()[:50])
    refused(folder, 'ct 1.png')
    Image.new('L', (5, 6)).save(folder / 'ct 0.png')
    refused(folder, 'ct 0.png', '5 x 6', '8 x 6')


def test_folder_without_slices_says_what_it_holds(tmp_path):
    assert refused(tmp_path).endswith('(found: nothing)')
    for name in ('b.txt', 'a.txt'):
        (tmp_path / name).write_text('x')
    assert refused(tmp_path) == (
        f'no slices (PNG, JPG, TIFF or DICOM) and no single volume in {tmp_path} (found: a.txt, b.txt)')


def test_a_folder_may_hold_one_volume(tmp_path, hu):
    nifti(tmp_path / 'a.nii.gz', hu)
    (tmp_path / 'notes.txt').write_text('x')
    (tmp_path / '._a.nii.gz').write_text('x')
    np.testing.assert_array_equal(decode(tmp_path).voxels, hu)
    np.save(tmp_path / 'b.npy', hu)
    refused(tmp_path, 'no single volume', 'a.nii.gz, b.npy')


# archives


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    """members: {name: bytes, or the path of a file}."""
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data.read_bytes() if isinstance(data, Path) else data)
    return path


def patched(path, at, data):
    """A .zip with bytes written over those at a place of every entry of its central directory."""
    whole, start = bytearray(path.read_bytes()), -1
    while (start := whole.find(b'PK\1\2', start + 1)) >= 0:
        whole[start + at:start + at + len(data)] = data
    path.write_bytes(whole)
    return path


def test_an_archive_of_slices_in_folders_of_one_entry(tmp_path, temporary):
    folder = slices(tmp_path / 'scan', 12)
    junk = {'__MACOSX/a/._ct 0.png': b'x', '.DS_Store': b'x', 'a/b/.hidden.png': b'x', 'a/b/notes.txt': b'x'}
    path = zipped(tmp_path / 'a.zip', junk | {f'a/b/{file.name}': file for file in folder.iterdir()})
    assert decode(path).voxels[:, 0, 0].tolist() == list(range(12))
    assert decode(f'{path}::slice=3').voxels.max() == 3


def test_an_archive_of_one_volume(tmp_path, temporary, hu):
    np.savez(tmp_path / 'a.npz', hu=hu)
    for file in (tmp_path / 'a.npz', nifti(tmp_path / 'a.nii.gz', hu), nifti(tmp_path / 'a.nii', hu)):
        path = zipped(tmp_path / 'A.ZIP', {f'deep/er/{file.name}': file, '__MACOSX/x': b''})
        np.testing.assert_array_equal(decode(path).voxels, hu)


def test_a_broken_member_is_named_by_the_archives_name(tmp_path, temporary):
    files = {file.name: file for file in slices(tmp_path / 'scan', 3).iterdir()}
    path = zipped(tmp_path / 'a.zip', files | {'ct 1.png': files['ct 1.png'].read_bytes()[:50]})
    assert str(temporary) not in refused(path, f'{path}/ct 1.png: ')
    path = zipped(tmp_path / 'b.zip', files, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b'IDAT', b'IDAX', 1))
    refused(path, 'CRC', 'ct ')


def test_a_name_in_an_archive_cannot_steer_a_terminal(tmp_path, temporary):
    line = refused(zipped(tmp_path / 'a.zip', {'a\x1b[2J\nb\x9b.png': b'x', 'b.png': b'x'}), 'a.zip', '.png')
    assert line.isprintable()


def test_names_that_lead_out_of_an_archive_stay_in_it(tmp_path, temporary):
    (tmp_path / 'box').mkdir()
    png = slices(tmp_path / 'scan', 1) / 'ct 0.png'
    evil = [f'{dots}{tmp_path.name}-evil.png' for dots in ('../', '../' * 9 + 'tmp/', 'a/../../', '..\\', '/tmp/')]
    path = zipped(tmp_path / 'box' / 'a.zip', dict.fromkeys([*evil, str(tmp_path / 'evil.png')], png))
    before = sorted(tmp_path.rglob('*'))
    try:
        decode(path)
    except UserError as error:
        assert str(path) in str(error)
    assert sorted(tmp_path.rglob('*')) == before
    around = (temporary, temporary.parent, Path('/tmp'), Path())
    assert not [file for folder in around for file in folder.glob('*evil.png')]


def test_a_link_in_an_archive_is_text(tmp_path, temporary):
    secret = slices(tmp_path / 'secret', 1) / 'ct 0.png'
    link = zipfile.ZipInfo('a.png')
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr(link, str(secret))
    refused(tmp_path / 'a.zip', 'a.png', 'cannot identify')


def test_locked_archives_and_archives_in_archives_are_refused(tmp_path, temporary):
    path = patched(zipped(tmp_path / 'a.zip', {'a.png': b'x'}), 8, b'\1')
    refused(path, 'a.png', 'encrypted')
    refused(zipped(tmp_path / 'b.zip', {'x/a.zip': path}), 'a.zip', 'unpack')
    refused(zipped(tmp_path / 'c.zip', {}), 'found: nothing')


def test_what_an_archive_claims_is_judged_before_it_is_unpacked(tmp_path, temporary, monkeypatch):
    members = {f'{i}.png': b'x' for i in range(2)}
    refused(patched(zipped(tmp_path / 'a.zip', members), 24, b'\xf0\xff\xff\xff'), '8589934560 bytes')
    zeros = zipped(tmp_path / 'b.zip', {'a.npy': bytes(2**24)})
    refused(patched(zeros, 24, b'\x64\0\0\0'), 'CRC')  # 100 of 16 MiB are unpacked
    monkeypatch.setattr(module, 'FILES', 1)
    refused(zipped(tmp_path / 'c.zip', members), '2 files')


# any bytes


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='memory is measured as Linux tells it')
def test_300_damaged_files_of_all_kinds_end_in_a_scan_or_in_one_line(tmp_path, root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / 'scripts'))
    import fuzz_decode
    counts = fuzz_decode.fuzz(300, seed=20, keep=tmp_path)
    wrong = {kind: endings for kind, endings in counts.items() if any(endings[bad] for bad in fuzz_decode.BAD)}
    assert not wrong, f'{wrong}, see {tmp_path}'
    assert sum(endings['decoded'] for endings in counts.values()) > 50
    assert sum(endings['refused'] for endings in counts.values()) > 150
