"""DICOM is known by its content: with a preamble, without one, and under any name."""

import numpy as np
import pydicom
import pytest
from dicoms import ct, no_name_is_told, refused  # noqa: F401
from scan_files import zipped

from covid_jax.scans.decode import decode, is_scan, patient_digest
from covid_jax.scans.dicom.series import begins_dicom, find


def bare(path, implicit=True, **kwargs):
    """A CT slice without preamble and without the elements that say how it is written."""
    data = pydicom.dcmread(ct(path, **kwargs))
    del data.file_meta
    data.preamble = None
    pydicom.dcmwrite(path, data, implicit_vr=implicit, little_endian=True)
    assert path.read_bytes()[:2] == b'\x08\x00' and path.read_bytes()[128:132] != b'DICM'
    return path


@pytest.mark.parametrize('implicit', [True, False])
@pytest.mark.parametrize('name', ['IM{}', 'IM{}.ima', '1.2.840.{}', 'slice {}.dat', '{}'])
def test_files_without_preamble_are_a_scan_under_any_name(tmp_path, implicit, name):
    folder = tmp_path / 'scan'
    folder.mkdir()
    planes = [np.full((6, 8), 100 * k, '<u2') for k in range(4)]
    paths = [bare(folder / name.format(k), implicit, stored=plane, z=5. * k, number=k) for k, plane in enumerate(planes)]
    (folder / 'DICOMDIR').write_bytes(bytes(128) + b'DICM' + bytes(64))
    (folder / 'AUTORUN.INF').write_text('[autorun]')
    scan = decode(folder)
    assert scan.voxels[:, 3, 3].tolist() == [-1024, -924, -824, -724] and scan.spacing == (5, .7, .5)
    assert find(folder) == sorted(paths) and all(map(is_scan, paths))
    with_preamble = ct(tmp_path / 'a', stored=np.full((6, 8), 300, '<u2'))
    np.testing.assert_array_equal(decode(paths[3]).voxels, decode(with_preamble).voxels)
    archive = zipped(tmp_path / 'a.zip', {path.name: path for path in paths})
    assert patient_digest(archive) == patient_digest(folder) == patient_digest(with_preamble) != ''
    np.testing.assert_array_equal(decode(archive).voxels, scan.voxels)


def test_a_file_without_preamble_that_still_says_how_it_is_written(tmp_path):
    whole = ct(tmp_path / 'a').read_bytes()
    (tmp_path / 'b').write_bytes(whole[132:])
    assert is_scan(tmp_path / 'b')
    np.testing.assert_array_equal(decode(tmp_path / 'b').voxels, decode(tmp_path / 'a').voxels)


@pytest.mark.parametrize('head', [
    b'', bytes(512), b'NRRD0005\n' * 60, b'\x08\x00', b'\x08\x00' * 256, b'\x08\x00\x05\x00\xff\xff\xff\xff' * 64,
    b'\x02\x00\x00\x00UL\x04\x00' + bytes(500), b'\x08\x00\x08\x00CS\x04\x00ABCD\x08\x00\x05\x00CS\x04\x00ABCD' * 20,
    b'\x10\x00\x10\x00PN\x04\x00DOE ' * 40, bytes(128) + b'DCIM' + bytes(300),
])
def test_what_only_resembles_dicom_is_none(head):
    assert not begins_dicom(head)


def test_a_broken_file_without_preamble_is_refused_by_name(tmp_path):
    for k in range(3):
        bare(tmp_path / f'IM{k}', z=5. * k, number=k)
    (tmp_path / 'IM1').write_bytes((tmp_path / 'IM1').read_bytes()[:-40])
    refused(find(tmp_path), 'IM1', 'cut off')
