"""Which files make a scan, what is refused, and nobody's name; one real series."""

import errno
import hashlib
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pydicom
import pytest
from dicoms import SECRETS, SHARED, SR, ct, no_name_is_told, refused, series, xray  # noqa: F401
from pydicom import uid
from pydicom.encaps import encapsulate

from covid_jax import UserError
from covid_jax.scans import dicom, scan
from covid_jax.scans.dicom import header as dicom_header
from covid_jax.scans.dicom.series import decode_dicom, find, is_dicom, patient_digest


def test_an_xray_of_a_secondary_capture_is_read_and_two_in_a_series_are_not(tmp_path):
    stored = np.array([[0, 255]], np.uint8)
    a = xray(tmp_path / 'a.dcm', stored, SOPClassUID=uid.SecondaryCaptureImageStorage, Modality='CR')
    assert decode_dicom([a]).voxels.tolist() == [[[0, 255]]]
    b = xray(tmp_path / 'b.dcm', stored)
    refused([b, xray(tmp_path / 'c.dcm', stored)], '2 X-rays', 'b.dcm', 'one file')


def test_slices_are_sorted_by_position_whatever_their_names(tmp_path):
    folder = tmp_path / 'a'
    paths = series(folder, zs=(6, 0, 4, 2))
    got = decode_dicom(sorted(paths))
    np.testing.assert_array_equal(got.voxels[:, 0, 0], np.array([200, 400, 300, 100]) - 1024)
    assert got.spacing == (2.0, 0.7, 0.5)


def test_of_several_series_one_must_be_chosen(tmp_path):
    thin = series(tmp_path / 'thin', SeriesInstanceUID='1.2.thin', SliceThickness=1)
    thick = series(tmp_path / 'thick', zs=(0, 5), SeriesInstanceUID='1.2.thick', SliceThickness=5)
    refused(thin + thick, '1.2.thin (CT, 4 of 6 x 8, 1 mm)', '1.2.thick (CT, 2 of 6 x 8, 5 mm)', 'PATH::series=UID')
    assert decode_dicom(thin + thick, '1.2.thick').spacing == (5.0, 0.7, 0.5)
    assert len(decode_dicom(thin + thick, '1.2.thin').voxels) == 4
    refused(thin + thick, 'no series 9', '1.2.thin (CT', series='9')
    many = [ct(tmp_path / f'{n}.dcm', SeriesInstanceUID=f'1.{n}') for n in range(7)]
    assert refused(many, '7 series', '...').count(' mm)') == 5


def test_scouts_reports_and_secondary_captures_are_left_out(tmp_path):
    paths = series(tmp_path / 'a')
    scout = ct(tmp_path / 'scout', SeriesInstanceUID='1.9', ImageType=['ORIGINAL', 'PRIMARY', 'LOCALIZER'],
               ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    inside = ct(tmp_path / 'inside', ImageType=['original', 'primary', 'scout'], z=1)
    report = ct(tmp_path / 'report', SOPClassUID=SR, Modality='SR', SeriesInstanceUID='1.8', Rows=None, Columns=None,
                PixelData=None)
    dose = ct(tmp_path / 'dose', SOPClassUID=uid.SecondaryCaptureImageStorage, SeriesInstanceUID='1.7')
    mask = ct(tmp_path / 'mask', np.zeros((6, 8), np.uint8), SOPClassUID=uid.SegmentationStorage, Modality='SEG')
    assert len(decode_dicom([scout, report, dose, mask, inside, *paths]).voxels) == 4
    refused([scout, report], '1 x localizer', '1 x Basic Text SR Storage')


@pytest.mark.parametrize('modality', ['MR', 'PT', 'US'])
def test_other_modalities_are_named(tmp_path, modality):
    refused([ct(tmp_path / 'a', Modality=modality)], f'modality {modality}', 'CT')
    assert 'DOE' not in refused([ct(tmp_path / 'b', Modality='DOE^JANE')], 'modality ?')


def test_find_goes_by_content_and_by_name_and_skips_what_is_hidden(tmp_path):
    inner = tmp_path / 'a' / 'b'
    inner.mkdir(parents=True)
    wanted = [ct(inner / 'IM1'), ct(inner / 'bare.DCM', preamble=False), ct(tmp_path / 'z.ima')]
    for name in ('.hidden', 'DICOMDIR'):
        ct(tmp_path / name)
    (tmp_path / '__MACOSX').mkdir()
    ct(tmp_path / '__MACOSX' / 'IM1.dcm')
    (tmp_path / 'notes').write_text('no DICOM')
    (tmp_path / 'a.png').write_bytes(bytes(200))
    for name in ('IM7.txt', 'log7.xml', 'LICENSE'):
        (tmp_path / name).write_bytes(bytes(200))
    assert find(tmp_path) == sorted(wanted)
    assert all(map(is_dicom, wanted))
    assert not any(map(is_dicom, (tmp_path, tmp_path / 'notes')))


@pytest.mark.parametrize('name', ['IM0007', '1.2.840.7', '00000007'])
@pytest.mark.parametrize('content', [b'', bytes(300), b'DOE^JANE ' * 99])
def test_a_broken_slice_without_suffix_is_refused_by_name(tmp_path, name, content):
    ct(tmp_path / 'IM1')
    (tmp_path / 'notes').mkdir()
    for folder in (tmp_path, tmp_path / 'notes'):  # the second holds no DICOM
        (folder / name).write_bytes(content)
    assert find(tmp_path) == sorted([tmp_path / 'IM1', tmp_path / name])
    assert find(tmp_path / 'notes') == []
    refused(find(tmp_path), f'{tmp_path / name}: ', 'copy it again')


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path, monkeypatch):
    ct(tmp_path / 'a.dcm')
    (tmp_path / 'inner').mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith('inner'):
            raise PermissionError(errno.EACCES, 'no', str(path))
        return real(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    with pytest.raises(UserError, match='inner: the folder cannot be read'):
        find(tmp_path)


def test_find_opens_nothing_that_is_called_dcm(tmp_path, monkeypatch):
    paths = series(tmp_path)
    monkeypatch.setattr(dicom, 'is_dicom', None)
    assert find(tmp_path) == paths


@pytest.mark.parametrize('at', [0, 3])
def test_a_slice_that_is_cut_off_anywhere_is_refused_by_name(tmp_path, at):
    paths = series(tmp_path)
    whole = paths[at].read_bytes()
    for n in range(0, len(whole), 5):
        paths[at].write_bytes(whole[:n])
        refused(paths, f'{paths[at]}: ', 'copy it again')
    paths[at].write_bytes(whole[:whole.index(b'1.2.840.10008.5.1.4.1.1.2', 300)])  # its class is said before its data
    refused(paths, f'{paths[at]}: cut off before its pixels')


@pytest.mark.parametrize('tags', [
    {'SOPClassUID': SR}, {'SOPClassUID': SR, 'Modality': 'SR'}, {'SOPClassUID': uid.EncapsulatedPDFStorage},
    {'SOPClassUID': uid.UID('1.3.12.2.1107.5.9.1')}, {'SOPClassUID': uid.RTStructureSetStorage, 'Modality': 'RTSTRUCT'},
    {'SOPClassUID': uid.MediaStorageDirectoryStorage, 'Modality': None}, {'Modality': 'PR'}])
def test_objects_without_image_are_left_out(tmp_path, tags):
    paths = series(tmp_path)
    paths.append(ct(tmp_path / 'x.dcm', **{'Modality': 'OT', 'Rows': None, 'Columns': None, 'PixelData': None, **tags}))
    assert len(decode_dicom(paths).voxels) == 4


@pytest.mark.parametrize('error', [MemoryError(), OSError(errno.EMFILE, 'full'), OSError(errno.EIO, 'broken')])
def test_what_is_the_fault_of_the_machine_stays_what_it_is(tmp_path, monkeypatch, error):
    path = ct(tmp_path / 'a.dcm')

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(dicom_header, 'read_dataset', fail)
    for call in (lambda: decode_dicom([path]), lambda: patient_digest([path])):
        with pytest.raises(type(error)) as caught:
            call()
        assert caught.value is error


def test_a_file_without_preamble_is_read(tmp_path):
    bare, whole = ct(tmp_path / 'a.dcm', preamble=False), ct(tmp_path / 'b.dcm')
    np.testing.assert_array_equal(decode_dicom([bare]).voxels, decode_dicom([whole]).voxels)


@pytest.mark.parametrize('tags', [
    {'Rows': 65535, 'Columns': 65535}, {'Rows': 65535, 'Columns': 65535, 'syntax': uid.JPEGLosslessSV1},
    {'NumberOfFrames': 2**31 - 1}, {'NumberOfFrames': 2**31 - 1, 'syntax': uid.RLELossless}])
def test_a_claim_takes_no_memory(tmp_path, tags):
    pixels = encapsulate([bytes(96)]) if 'syntax' in tags else bytes(96)
    path = ct(tmp_path / 'a.dcm', PixelData=pixels, **tags)
    tracemalloc.start()
    try:
        refused([path], 'a.dcm')
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_series_as_large_as_no_scan_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, 'VOXELS', 4 * 48 - 1)
    refused(series(tmp_path), '4 x 6 x 8')
    monkeypatch.setattr(scan, 'FILES', 3)
    refused(find(tmp_path), '4 DICOM files')


def test_what_cannot_be_read_says_what_to_do(tmp_path):
    path = ct(tmp_path / 'a.dcm', syntax=uid.DeflatedExplicitVRLittleEndian)
    refused([path], 'a.dcm', 'deflated', 'uncompressed')
    path = ct(tmp_path / 'b.dcm', syntax=uid.HTJ2K, PixelData=encapsulate([b'x']))
    refused([path], 'b.dcm', 'High-Throughput JPEG 2000')
    refused([ct(tmp_path / 'c.dcm', SamplesPerPixel=3, PhotometricInterpretation='RGB')], 'c.dcm', 'colours')
    refused([ct(tmp_path / 'd.dcm', PhotometricInterpretation='PALETTE COLOR')], 'd.dcm', 'colours')
    refused([ct(tmp_path / 'd.dcm', PhotometricInterpretation=None)], 'd.dcm', 'PhotometricInterpretation')
    floats = pydicom.dcmread(ct(tmp_path / 'd.dcm', PixelData=None))
    floats.FloatPixelData = bytes(192)
    floats.save_as(tmp_path / 'd.dcm')
    refused([tmp_path / 'd.dcm'], 'd.dcm', 'float')
    refused([ct(tmp_path / 'e.dcm', np.zeros((6, 8), '<u4'))], 'e.dcm', 'of 32')
    refused([ct(tmp_path / 'f.dcm', BitsStored=17)], 'f.dcm', '17 bits')
    refused([ct(tmp_path / 'g.dcm', RescaleSlope=0)], 'g.dcm', 'header')
    (tmp_path / 'h.dcm').write_text('DOE^JANE ID12345 ' * 20)
    refused([tmp_path / 'h.dcm'], 'DICOM')
    (tmp_path / 'i.dcm').write_bytes(b'')
    refused([tmp_path / 'i.dcm'], 'i.dcm')
    refused([tmp_path / 'none.dcm'], 'none.dcm')


@pytest.mark.parametrize('key', ['InstanceNumber', 'PixelSpacing', 'RescaleSlope', 'ImagePositionPatient',
                                 'SliceThickness', 'NumberOfFrames', 'ImageOrientationPatient', 'WindowCenter',
                                 'Modality', 'RescaleType', 'SOPClassUID', 'ImageType',
                                 'PhotometricInterpretation', 'VOILUTFunction'])
def test_a_name_where_it_does_not_belong_is_not_told(tmp_path, key):
    paths = series(tmp_path)
    for secret in (b'DOE^JANE', b'ID12345 '):
        data = pydicom.dcmread(paths[1])
        data.SpecificCharacterSet = 'ISO_IR 100'
        data.add_new(pydicom.tag.Tag(key), 'OB', secret)  # any bytes, then the VR that belongs there
        data.save_as(paths[1])
        at = paths[1].read_bytes()
        tag = pydicom.tag.Tag(key)
        head = tag.group.to_bytes(2, 'little') + tag.element.to_bytes(2, 'little')
        vr = pydicom.datadict.dictionary_VR(tag).encode()
        long = head + b'OB\0\0' + len(secret).to_bytes(4, 'little') + secret
        assert at.count(long) == 1
        paths[1].write_bytes(at.replace(long, head + vr + len(secret).to_bytes(2, 'little') + secret))
        for group in (paths, paths[1:2]):
            try:
                decode_dicom(group)
            except (ValueError, UserError) as error:
                assert not any(secret in f'{error}{error.__cause__}' for secret in SECRETS)


def test_files_of_one_patient_have_one_digest_and_nobody_has_none(tmp_path):
    a, b = ct(tmp_path / 'a.dcm'), ct(tmp_path / 'b.dcm', PatientID='ID12345 ', SeriesInstanceUID='2')
    expected = hashlib.sha256(b'ID12345\0').hexdigest()
    assert {patient_digest([a]), patient_digest([str(b)]), patient_digest(find(tmp_path))} == {expected}
    other = ct(tmp_path / 'c.dcm', IssuerOfPatientID='another hospital')
    assert patient_digest([other]) not in ('', patient_digest([a]))
    for nobody in (None, '', ' ', 'Anonymous', 'ANONYMIZED', 'unknown', '0', '000', 'N/A', 'none', 'xxx', '-'):
        assert patient_digest([ct(tmp_path / 'd.dcm', PatientID=nobody)]) == ''
    (tmp_path / 'e.dcm').write_bytes(b'ID12345')
    assert [patient_digest([tmp_path / name]) for name in ('e.dcm', 'none', 'none.dcm')] == ['', '', '']
    assert patient_digest([]) == ''


def test_the_digest_is_of_the_first_image_of_the_series_that_names_somebody(tmp_path):
    report = ct(tmp_path / '0.dcm', PatientID='9', SOPClassUID=SR, Modality='SR', Rows=None, PixelData=None)
    (tmp_path / '1.dcm').write_bytes(b'')
    ct(tmp_path / '2.dcm', PatientID='anonymous')
    third = ct(tmp_path / '3.dcm', PatientID='3', SeriesInstanceUID='1.3')
    fourth = ct(tmp_path / '4.dcm', PatientID='4', SeriesInstanceUID='1.4')
    paths = find(tmp_path)
    assert paths[0] == report
    assert patient_digest(paths) == patient_digest(paths, '1.3') == patient_digest([third]) != ''
    assert patient_digest(paths, '1.4') == patient_digest([fourth]) != patient_digest([third])
    assert patient_digest(paths, '1.5') == patient_digest(paths, '7afb0d48-ec01') == ''


def test_slices_of_two_people_are_no_scan(tmp_path):
    paths = series(tmp_path)
    ct(paths[0], z=0, number=1, PatientID='')
    ct(paths[2], z=4, number=3, PatientID='ID12345 ')
    assert len(decode_dicom(paths).voxels) == 4
    ct(paths[3], z=6, number=4, PatientID='ID123456')
    refused(paths, 'files of 2 patients in one series: ', 's2.dcm', 's4.dcm', 'folder of its own')
    header = dicom_header.read_header(paths[3])
    assert not any(secret in f'{header!r}' for secret in SECRETS) and 'PatientID' not in header.tags


READ = """
import logging, sys
from concurrent.futures import ThreadPoolExecutor
from covid_jax.scans.dicom import decode_dicom, patient_digest
logging.basicConfig(level=logging.DEBUG)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(patient_digest, [sys.argv[1:]] * 20))
    print(sum(len(scan.voxels) for scan in pool.map(decode_dicom, [sys.argv[1:]] * 20)))
"""


def test_threads_are_quiet(tmp_path):
    """A value that pydicom warns of and logs is told nowhere, although threads leave while others read."""
    path = ct(tmp_path / 'a.dcm', SeriesInstanceUID='DOE^JANE', SpecificCharacterSet='JANE')  # neither is valid
    run = subprocess.run([sys.executable, '-W', 'default', '-c', READ, path], text=True, capture_output=True)
    assert (run.stdout, run.stderr) == ('20\n', '')


def test_the_elements_that_are_read_hold_no_patient(tmp_path):
    names = {pydicom.datadict.keyword_for_tag(tag) for tag in dicom_header.TAGS}
    assert len(names) == len(dicom_header.TAGS)
    assert not any(word in name for name in names for word in ('Patient', 'Name', 'Date', 'Description', 'Comment')
                   if name not in ('ImagePositionPatient', 'ImageOrientationPatient'))


def test_a_real_series_equals_its_twin():
    folder, twin = SHARED / 'dicom' / 'cap002', SHARED / 'volumes' / 'cap002.npz'
    if not folder.is_dir() or not twin.is_file():
        pytest.skip('no COVID-CT-MD in ../shared/data')
    paths = find(folder)
    got = decode_dicom(paths)
    heights = [float(pydicom.dcmread(path, specific_tags=['ImagePositionPatient']).ImagePositionPatient[2])
               for path in paths]
    assert heights != sorted(heights)  # by their names they run from the head to the feet
    with np.load(twin) as other:
        expected = other['hu'].astype(np.float32)
    pooled = np.maximum(got.voxels, -1024).reshape(len(expected), 128, 4, 128, 4).mean((2, 4))
    assert got.voxels.dtype == np.int16 and got.hounsfield and got.spacing == (2.0, 0.630859375, 0.630859375)
    assert np.abs(pooled - expected).max() <= 0.5
