"""A path in, voxels out: which decoder reads what, folders, parts of a scan; any bytes, one line at most."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicoms import ct, no_name_is_told, series  # noqa: F401
from PIL import Image
from scan_files import nifti, refused, slices, zipped
from volumes import image

from covid_jax import UserError
from covid_jax.scans.decode import decode, files_of, is_scan, lungs_beside, patient_digest, split_address
from covid_jax.scans.names import natural


@pytest.fixture
def hu(rng):
    return rng.integers(-1000, 400, (3, 4, 5), np.int16)


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


def test_dicom_without_suffix_is_a_scan_and_a_directory_of_them_is_not(tmp_path):
    for name in ('IM0001', 'DICOMDIR'):
        ct(tmp_path / name)
        assert is_scan(tmp_path / name) == (name == 'IM0001')
    (tmp_path / 'IM0002').write_bytes(bytes(200))
    assert not is_scan(tmp_path / 'IM0002') and not is_scan(tmp_path / 'gone')


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


def test_a_mask_of_lungs_lies_beside_its_scan(tmp_path, hu):
    """Of the same person however either is stored, in a folder of its own too; what marks nothing, is of another scan or is not there
    names the file, and only where lungs are asked for."""
    nibabel.save(image(hu), tmp_path / 'a.nii.gz')
    (tmp_path / 'masks').mkdir()
    turned = image((hu > -870).astype(np.uint8)).as_reoriented(np.array([[0, -1], [1, 1], [2, -1]]))
    nibabel.save(turned, tmp_path / 'masks' / 'a.nii.gz')
    scan = decode(f'{tmp_path}/a.nii.gz::lungs=masks/a.nii.gz')
    np.testing.assert_array_equal(scan.voxels, hu)
    np.testing.assert_array_equal(lungs_beside(scan), hu > -870)
    assert decode(tmp_path / 'a.nii.gz').mask is None
    assert files_of(f'{tmp_path}/a.nii.gz::lungs=masks/a.nii.gz') == [tmp_path / 'a.nii.gz']
    np.save(tmp_path / 'other.npy', hu[1:])
    np.save(tmp_path / 'none.npy', np.zeros(hu.shape, np.uint8))
    nibabel.save(image(hu, (-.7, -.8, 5, 1)), tmp_path / 'far.nii')
    for name, why in (('other.npy', 'a mask of 2 x 4 x 5 voxels is of no scan of 3 x 4 x 5'), ('none.npy', 'marks none'),
                      ('far.nii', 'voxels are .* mm apart is of no scan'), ('gone.npy', 'no such file')):
        scan = decode(f'{tmp_path}/a.nii.gz::lungs={name}')
        with pytest.raises(UserError, match=why) as caught:
            lungs_beside(scan)
        assert str(caught.value).startswith(f'{tmp_path / name}: ')


@pytest.mark.parametrize('name', ['a.npy', 'a.nii', 'ct 0.png', '', 'a.zip'])
def test_series_are_of_dicom_files_alone(tmp_path, hu, name):
    folder = slices(tmp_path / 'scan', 2)
    zipped(folder / 'a.zip', {'a.png': folder / 'ct 0.png'})
    np.save(folder / 'a.npy' if name else tmp_path / 'a.npy', hu)
    nifti(folder / 'a.nii' if name else tmp_path / 'a.nii', hu)
    with pytest.raises(UserError, match='::series=1.2 chooses among DICOM files') as caught:
        decode(f'{folder / name}::series=1.2')
    assert str(caught.value).startswith(f'{folder / name}: ')


def test_an_address_is_a_path_and_a_part():
    assert split_address('scans/a::series=1.2.3') == (Path('scans/a'), {'series': '1.2.3'})
    assert split_address('a::b/c::slice=7') == (Path('a::b/c'), {'slice': '7'})
    for plain in ('scans/a', 'a::b', 'a::slice=', 'C:/a=b'):
        assert split_address(plain) == (Path(plain), {})
    with pytest.raises(UserError, match="unknown part 'page'"):
        split_address('a::page=3')
    for two in ('a::lungs=m.nii::slice=3', 'a::slice=3::lungs=m.nii'):
        with pytest.raises(UserError, match='has one part, and this has two'):
            split_address(two)


def test_files_of_an_address_are_all_that_is_read(tmp_path, hu):
    folder = slices(tmp_path / 'scan', 2)
    (folder / 'more').mkdir()
    (folder / 'more' / 'x.dcm').write_bytes(b'x')
    (folder / 'more' / 'x.txt').write_bytes(b'x')
    (folder / '.hidden').mkdir()
    for name in ('.DS_Store', 'notes.txt', '._ct 0.png', '.hidden/ct 0.dcm', 'a.raw'):
        (folder / name).write_bytes(b'x')
    assert [path.name for path in files_of(folder)] == ['ct 0.png', 'ct 1.png', 'x.dcm']
    assert files_of(f'{folder}/ct 1.png::slice=0') == [folder / 'ct 1.png']
    assert files_of(tmp_path / 'gone') == [tmp_path / 'gone']
    for place in (tmp_path / 'volume', tmp_path):
        place.mkdir(exist_ok=True)
        (place / '.notes').write_text('x')
        (place / 'a.raw').write_bytes(hu.tobytes())
        (place / 'a.mhd').write_text('ElementDataFile = a.raw\n')
    assert files_of(tmp_path / 'a.mhd') == [tmp_path / 'a.mhd', tmp_path / 'a.raw']
    assert files_of(tmp_path / 'volume') == [tmp_path / 'volume/a.mhd', tmp_path / 'volume/a.raw']


def test_the_digest_of_a_patient_is_that_of_any_form_of_the_scan(tmp_path):
    one, blank = series(tmp_path / 'one'), series(tmp_path / 'blank', PatientID='')
    other = ct(tmp_path / 'other', PatientID='ID777', SeriesInstanceUID='1.9')
    names = dict(zip(('a/1', 'a/2.dcm', 'a/3', 'a/4'), one, strict=True))
    digest = patient_digest(one[0])
    assert len(digest) == 64 and 'ID12345' not in digest and digest != patient_digest(other) != ''
    assert digest == patient_digest(tmp_path / 'one') == patient_digest(zipped(tmp_path / 'a.zip', names))
    others = {'DICOMDIR': other, '.x': other, '0': blank[0]}
    assert digest == patient_digest(zipped(tmp_path / 'b.zip', others | names))
    both = zipped(tmp_path / 'c.zip', {'0': other, **names})
    assert patient_digest(f'{both}::series=1.9') == patient_digest(other)
    assert patient_digest(f'{both}::series=7afb0d48-ec01') == digest
    assert patient_digest(f'{both}::series=5') == patient_digest(tmp_path / 'blank') == ''


def test_what_is_no_dicom_has_no_patient_and_no_error(tmp_path, hu, monkeypatch):
    np.save(tmp_path / 'a.npy', hu)
    (tmp_path / 'b.dcm').write_bytes(b'x')
    (tmp_path / 'b.zip').write_bytes(b'x')
    zipped(tmp_path / 'c.zip', {'../a.dcm': ct(tmp_path / 'a.dcm')})
    for address in ('a.npy', 'b.dcm', 'b.zip', 'c.zip', 'gone', 'a.npy::slice=0', 'a.dcm::page=3'):
        assert patient_digest(tmp_path / address) == ''
    assert patient_digest('phantom:0:1:covid') == ''

    def broken(*args):
        raise RuntimeError('ID12345')
    monkeypatch.setattr('covid_jax.scans.dicom.patient_digest', broken)
    assert patient_digest(tmp_path / 'a.dcm') == ''


# folders


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


@pytest.mark.parametrize('one, two', [('1.png', '1.jpg'), ('CT 2.png', 'ct 2.tif')])
def test_two_files_of_one_stem_are_not_two_slices(tmp_path, one, two):
    Image.new('L', (8, 6)).save(tmp_path / 'ct 0.png')
    for name in (one, two):
        Image.new('L', (8, 6)).save(tmp_path / name)
    refused(tmp_path, one, two, 'keep one')


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
    refused(tmp_path, '2 volumes (a.nii.gz, b.npy)', 'keep one')


def test_a_folder_holds_slices_or_dicom_files_or_a_volume(tmp_path, hu):
    folder = slices(tmp_path / 'scan', 1)
    np.savez(folder / 'scan.npz', hu=hu)
    refused(folder, '1 image (ct 0.png) and 1 volume (scan.npz)', 'keep one')
    (folder / 'ct 0.png').unlink()
    np.testing.assert_array_equal(decode(folder).voxels, hu)
    series(folder / 'deep')
    refused(folder, '4 DICOM files (s1.dcm, s2.dcm, s3.dcm, s4.dcm) and 1 volume (scan.npz)')
    Image.new('L', (8, 6)).save(folder / 'preview.png')
    refused(folder, '1 image (preview.png) and 4 DICOM files', 'and 1 volume')
    (folder / 'scan.npz').unlink()
    refused(folder, '1 image (preview.png) and 4 DICOM files')


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
