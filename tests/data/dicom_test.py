"""DICOM files written here by hand, and one real series: what a radiologist would say is in them, and nobody's name."""

import hashlib
import io
import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames

from covid_jax import UserError
from covid_jax.data import dicom_header, scan
from covid_jax.data.dicom import decode_dicom, find, is_dicom, patient_digest

SHARED = Path(__file__).parents[2] / '../shared/data/COVID-CT-MD'
SECRETS = ('DOE', 'JANE', 'ID12345', '777888', '19510203')
XRAY = uid.DigitalXRayImageStorageForPresentation
SR = uid.BasicTextSRStorage


@pytest.fixture(autouse=True)
def no_name_is_told(capfd, caplog):
    """Whatever a test does, neither stdout nor stderr nor the log holds a patient's name."""
    caplog.set_level(logging.DEBUG)
    with pydicom.config.disable_value_validation():
        yield
    out, err = capfd.readouterr()
    assert out == err == ''
    assert not any(secret in caplog.text for secret in SECRETS)


def ct(path, stored=None, z=0.0, number=1, syntax=uid.ExplicitVRLittleEndian, preamble=True, **tags):
    """A CT slice [6, 8] of a person who lies on the back, head first; a tag of None is left out, others replace."""
    stored = np.arange(48, dtype='<u2').reshape(6, 8) if stored is None else stored
    data = Dataset()
    everything = {
        'SOPClassUID': uid.CTImageStorage, 'SOPInstanceUID': f'1.2.{number}.{abs(int(z * 1000))}', 'Modality': 'CT',
        'ImageType': ['ORIGINAL', 'PRIMARY', 'AXIAL'], 'SeriesInstanceUID': '7afb0d48-ec01', 'PatientName': 'DOE^JANE',
        'PatientID': 'ID12345', 'AccessionNumber': '777888', 'PatientBirthDate': '19510203',
        'SeriesDescription': 'chest of DOE^JANE', 'ImageComments': 'ID12345 born 19510203', 'InstanceNumber': number,
        'ImagePositionPatient': [-4, -3, z], 'ImageOrientationPatient': [1, 0, 0, 0, 1, 0], 'PixelSpacing': [0.7, 0.5],
        'SliceThickness': 3, 'RescaleSlope': 1, 'RescaleIntercept': -1024, 'SamplesPerPixel': 1,
        'PhotometricInterpretation': 'MONOCHROME2', 'Rows': stored.shape[-2], 'Columns': stored.shape[-1],
        'BitsAllocated': 8 * stored.itemsize, 'BitsStored': 8 * stored.itemsize,
        'PixelRepresentation': int(stored.dtype.kind == 'i'), **tags}
    everything.setdefault('HighBit', everything['BitsStored'] - 1)
    for key, value in everything.items():
        if value is not None and key != 'PixelData':
            setattr(data, key, value)
    order = '>' if syntax == uid.ExplicitVRBigEndian else '<'
    pixels = tags.get('PixelData', stored.astype(stored.dtype.newbyteorder(order)).tobytes())
    if pixels is not None:
        data.PixelData = pixels
        data['PixelData'].VR = 'OB' if syntax.is_compressed else 'OW'
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = everything['SOPClassUID']
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    if preamble:
        data.preamble = bytes(128)
        data.save_as(path, enforce_file_format=True)
    else:
        del data.file_meta
        pydicom.dcmwrite(path, data, implicit_vr=True, little_endian=True)
    return path


def series(folder, zs=(0, 2, 4, 6), **tags):
    """Slices at heights z, numbered from 1, whose values are 100 n + their place."""
    folder.mkdir(exist_ok=True)
    return [ct(folder / f's{n}.dcm', np.arange(48, dtype='<u2').reshape(6, 8) + 100 * n, z, n, **tags)
            for n, z in enumerate(zs, 1)]


def xray(path, stored, **tags):
    """A chest X-ray."""
    tags = {'SOPClassUID': XRAY, 'Modality': 'DX', 'RescaleSlope': None, 'RescaleIntercept': None,
            'ImagePositionPatient': None, 'ImageOrientationPatient': None, **tags}
    return ct(path, stored, **tags)


def refused(paths, *words, series=''):
    """The one line that says why files cannot be decoded; it holds the words and nobody's name."""
    with pytest.raises((ValueError, UserError)) as caught:
        decode_dicom(paths, series)
    text = str(caught.value)
    assert '\n' not in text and not any(secret in text for secret in SECRETS), text
    assert all(word in text for word in words), text
    return text


def table(values, first, bits):
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item['LUTDescriptor'].VR = 'US'
    item.LUTData = values
    item['LUTData'].VR = 'US'
    return [item]


# values


def test_hounsfield_units_are_slope_times_stored_plus_intercept(tmp_path):
    got = decode_dicom([ct(tmp_path / 'a', np.array([[0, 1024], [2048, 4095]], '<u2'))])
    assert got.hounsfield and got.voxels.dtype == np.int16
    np.testing.assert_array_equal(got.voxels, [[[-1024, 0], [1024, 3071]]])
    got = decode_dicom([ct(tmp_path / 'b', np.array([[0, 1], [2, 3]], '<u2'), RescaleSlope=0.5,
                           RescaleIntercept=-1000.25)])
    assert got.voxels.dtype == np.float32
    np.testing.assert_array_equal(got.voxels, [[[-1000.25, -999.75], [-999.25, -998.75]]])


def test_each_slice_has_its_own_slope_and_what_does_not_fit_16_bits_stays_exact(tmp_path):
    one = np.full((2, 2), 3, '<u2')
    a = ct(tmp_path / 'a', one, z=0, number=1)
    b = ct(tmp_path / 'b', one, z=1, number=2, RescaleSlope=2, RescaleIntercept=-6)
    got = decode_dicom([a, b])
    assert got.voxels[:, 0, 0].tolist() == [-1021, 0]
    c = ct(tmp_path / 'c', np.full((2, 2), 65535, '<u2'), z=2, number=3)
    got = decode_dicom([a, b, c])
    assert got.voxels.dtype == np.float32 and got.voxels[:, 0, 0].tolist() == [-1021, 0, 64511]
    d = ct(tmp_path / 'd', np.array([[60000, 65535]], '<u2'), RescaleIntercept=-32768)
    assert decode_dicom([d]).voxels.tolist() == [[[27232, 32767]]]


@pytest.mark.parametrize('dtype, pad, vr', [('<u2', 63536, 'US'), ('<u2', -2000, 'SS'), ('<i2', -2000, 'SS'),
                                            ('<i2', 63536, 'US'), ('<u2', 0, 'US')])
def test_padding_is_air_whichever_sign_it_was_written_with(tmp_path, dtype, pad, vr):
    stored = np.array([[pad % 2**16, 1024], [1025, pad % 2**16]], np.uint16).view(dtype)
    path = ct(tmp_path / 'a', stored)
    data = pydicom.dcmread(path)
    data.add_new('PixelPaddingValue', vr, pad)
    data.save_as(path)
    got = decode_dicom([path])
    assert got.voxels.dtype == np.int16 and got.voxels.tolist() == [[[-1024, 0], [1, -1024]]]


def test_padding_of_a_range_and_in_implicit_syntax(tmp_path):
    stored = np.array([[-2000, -1990, -1979, 10]], '<i2')
    for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian):
        path = ct(tmp_path / 'a', stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1980, RescaleIntercept=0,
                  syntax=syntax)
        assert decode_dicom([path]).voxels.tolist() == [[[-1024, -1024, -1979, 10]]]


def test_bits_above_the_highest_are_old_overlays(tmp_path):
    stored = np.array([[-2048, -1, 0, 2047]], '<i2')
    for noise in (0x0000, 0x7000, 0xF000):
        dirty = (stored.view('<u2') & 0x0FFF | noise).view('<i2')
        got = decode_dicom([ct(tmp_path / 'a', dirty, BitsStored=12, RescaleIntercept=0)])
        assert got.voxels.tolist() == [[[-2048, -1, 0, 2047]]]
        got = decode_dicom([ct(tmp_path / 'b', dirty.view('<u2'), BitsStored=12, RescaleIntercept=0)])
        assert got.voxels.tolist() == [[[2048, 4095, 0, 2047]]]
    got = decode_dicom([ct(tmp_path / 'c', np.array([[0x0120, 0x800F]], '<u2'), BitsStored=12, HighBit=15)])
    assert got.voxels.tolist() == [[[0x012 - 1024, 0x800 - 1024]]]


def test_ct_in_monochrome1_has_the_same_hounsfield_units(tmp_path):
    one, two = (decode_dicom([ct(tmp_path / 'a', PhotometricInterpretation=f'MONOCHROME{n}')]) for n in (1, 2))
    np.testing.assert_array_equal(one.voxels, two.voxels)


def test_ct_that_is_not_in_hounsfield_units_is_grey_by_its_window_or_refused(tmp_path):
    stored = np.array([[0, 100, 150, 201]], '<u2')
    window = {'WindowCenter': [150.5, 7], 'WindowWidth': [101, 7]}
    got = decode_dicom([ct(tmp_path / 'a', stored, RescaleSlope=None, RescaleIntercept=None, **window)])
    assert not got.hounsfield
    np.testing.assert_allclose(got.voxels, [[[0, 0, 127.5, 255]]])
    got = decode_dicom([ct(tmp_path / 'b', stored + 1024, RescaleType='OD', PixelPaddingValue=1225, **window)])
    assert not got.hounsfield
    np.testing.assert_allclose(got.voxels, [[[0, 0, 127.5, 0]]])
    assert decode_dicom([ct(tmp_path / 'c', RescaleType='HU')]).hounsfield
    assert decode_dicom([ct(tmp_path / 'e', RescaleType='US')]).hounsfield  # unspecified: so writes GDCM what it changes
    refused([ct(tmp_path / 'd', RescaleType='OD')], 'slice 1', 'window')
    refused([ct(tmp_path / 'e', RescaleIntercept=None)], 'slice 1', 'window')


# X-rays


def test_an_xray_without_window_is_its_full_range(tmp_path):
    got = decode_dicom([xray(tmp_path / 'a', np.array([[1000, 2000], [3000, 1500]], '<u2'))])
    assert not got.hounsfield and got.spacing is None
    np.testing.assert_allclose(got.voxels, [[[0, 127.5], [255, 63.75]]], atol=1e-4)


def test_monochrome1_is_turned_over_after_the_window_and_padding_is_black(tmp_path):
    stored = np.array([[1000, 2000], [3000, 60000]], '<u2')
    got = decode_dicom([xray(tmp_path / 'a', stored, PhotometricInterpretation='MONOCHROME1', PixelPaddingValue=60000)])
    np.testing.assert_allclose(got.voxels, [[[255, 127.5], [0, 0]]], atol=1e-4)
    got = decode_dicom([xray(tmp_path / 'b', stored, PhotometricInterpretation='MONOCHROME1', WindowCenter=2000,
                             WindowWidth=4000, VOILUTFunction='LINEAR_EXACT')])
    np.testing.assert_allclose(got.voxels, [[[191.25, 127.5], [63.75, 0]]], atol=1e-4)


@pytest.mark.parametrize('function, width, expected', [
    ('LINEAR', 5, [0, 0, 63.75, 127.5, 191.25, 255, 255]), (None, 5, [0, 0, 63.75, 127.5, 191.25, 255, 255]),
    ('LINEAR_EXACT', 4, [0, 0, 63.75, 127.5, 191.25, 255, 255]), ('LINEAR', 1, [0, 0, 0, 0, 255, 255, 255]),
    ('SIGMOID', 4, [12.0939, 30.3966, 68.5801, 127.5, 186.4199, 224.6034, 242.9061])])
def test_windows_by_hand(tmp_path, function, width, expected):
    center = 13.5 if function != 'LINEAR_EXACT' and function != 'SIGMOID' else 13
    got = decode_dicom([xray(tmp_path / 'a', np.array([[10, 11, 12, 13, 14, 15, 16]], '<u2'), WindowCenter=center,
                             WindowWidth=width, VOILUTFunction=function)])
    np.testing.assert_allclose(got.voxels[0, 0], expected, atol=1e-3)


def test_rescale_comes_before_the_window(tmp_path):
    got = decode_dicom([xray(tmp_path / 'a', np.array([[0, 5, 10]], '<u2'), RescaleSlope=2, RescaleIntercept=-10,
                             WindowCenter=0.5, WindowWidth=21)])
    np.testing.assert_allclose(got.voxels, [[[0, 127.5, 255]]], atol=1e-4)


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_a_voi_table_is_looked_up_and_wins_over_the_window(tmp_path, syntax):
    path = xray(tmp_path / 'a', np.array([[0, 10, 11, 12, 500]], '<u2'), VOILUTSequence=table([0, 51, 255], 10, 8),
                WindowCenter=3, WindowWidth=3, syntax=syntax)
    np.testing.assert_allclose(decode_dicom([path]).voxels, [[[0, 0, 51, 255, 255]]], atol=1e-4)
    path = xray(tmp_path / 'b', np.array([[0, 1, 2]], '<u2'), ModalityLUTSequence=table([300, 200, 100], 0, 16),
                VOILUTSequence=table([0, 1023, 4095], 199, 12), syntax=syntax)
    np.testing.assert_allclose(decode_dicom([path]).voxels, [[[255, 255 * 1023 / 4095, 0]]], atol=1e-4)


def test_an_xray_of_a_secondary_capture_is_read_and_two_in_a_series_are_not(tmp_path):
    stored = np.array([[0, 255]], np.uint8)
    a = xray(tmp_path / 'a.dcm', stored, SOPClassUID=uid.SecondaryCaptureImageStorage, Modality='CR')
    assert decode_dicom([a]).voxels.tolist() == [[[0, 255]]]
    b = xray(tmp_path / 'b.dcm', stored)
    refused([b, xray(tmp_path / 'c.dcm', stored)], '2 X-rays', 'b.dcm', 'one file')


# what is read of a folder


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
    assert find(tmp_path) == sorted(wanted)
    assert is_dicom(wanted[0])
    assert not any(map(is_dicom, (wanted[1], tmp_path, tmp_path / 'notes')))


def test_a_file_without_preamble_is_read(tmp_path):
    bare, whole = ct(tmp_path / 'a.dcm', preamble=False), ct(tmp_path / 'b.dcm')
    np.testing.assert_array_equal(decode_dicom([bare]).voxels, decode_dicom([whole]).voxels)


# where slices are


def person():
    """[4, 6, 8]: from the feet to the head, from the front to the back, from the right to the left."""
    return np.random.default_rng(0).integers(0, 3000, (4, 6, 8)).astype('<u2')


@pytest.mark.parametrize('row, column', [
    ((1, 0, 0), (0, 1, 0)), ((-1, 0, 0), (0, -1, 0)), ((-1, 0, 0), (0, 1, 0)), ((1, 0, 0), (0, -1, 0)),
    ((0, 1, 0), (1, 0, 0)), ((0, -1, 0), (1, 0, 0)), ((0, -1, 0), (-1, 0, 0))])
def test_however_the_patient_lies_the_volume_is_the_same(tmp_path, row, column):
    volume = person()
    for k, plane in enumerate(volume):  # the slice as this orientation stores it
        plane = plane.T if row[0] == 0 else plane
        plane = plane[::sum(column), ::sum(row)]
        spacing = [0.5, 0.7] if row[0] == 0 else [0.7, 0.5]
        ct(tmp_path / f'{k}.dcm', plane, z=2.5 * k, number=9 - k, ImageOrientationPatient=[*row, *column],
           PixelSpacing=spacing)
    got = decode_dicom(find(tmp_path))
    np.testing.assert_array_equal(got.voxels, volume.astype(int) - 1024)
    assert got.spacing == (2.5, 0.7, 0.5)


def tilted(degrees, about='x'):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return [round(float(v), 6) for v in ([1, 0, 0, 0, c, s] if about == 'x' else [c, s, 0, -s, c, 0])]


@pytest.mark.parametrize('orientation, word', [
    ([1, 0, 0, 0, 0, -1], 'coronal'), ([0, 1, 0, 0, 0, -1], 'sagittal'),
    (tilted(30), 'oblique'), (tilted(12), 'oblique'),
    (tilted(15, 'z'), 'turned'), ([1, 0, 0, 1, 0, 0], 'right angles'), ([1, 0, 0, 0, 0, 0], 'right angles')])
def test_what_is_not_axial_is_refused(tmp_path, orientation, word):
    refused(series(tmp_path, ImageOrientationPatient=orientation), word, 'export')


@pytest.mark.parametrize('about', ['x', 'z'])
def test_a_tilt_of_5_degrees_is_axial(tmp_path, about):
    got = decode_dicom(series(tmp_path, ImageOrientationPatient=tilted(5, about)))
    assert got.spacing[0] == pytest.approx(2 * np.cos(np.radians(5)) if about == 'x' else 2, abs=1e-3)


def test_gaps_and_doubles_and_uneven_slices_are_named_by_number(tmp_path):
    assert decode_dicom(series(tmp_path / 'a', zs=(0, 2, 4.1, 6))).spacing[0] == pytest.approx(2)
    refused(series(tmp_path / 'b', zs=(0, 2, 4, 10, 12)), 'slices 3 and 4 are 6.0 mm apart', 'the others 2.0 mm')
    refused(series(tmp_path / 'c', zs=(0, 2, 4, 6.5, 8.5)), 'slices 3 and 4 are 2.5 mm apart')
    refused(series(tmp_path / 'd', zs=(0, 2, 2, 4)), 'slices 2 and 3 are at the same position (z = 2.0 mm)', 'remove')
    text = refused(series(tmp_path / 'e', zs=[z for z in range(7) for _ in (0, 1)]), 'same position', '...')
    assert text.count(' and ') == 5


def test_slices_without_number_are_named_by_file(tmp_path):
    refused(series(tmp_path / 'a', zs=(0, 2, 2, 4), InstanceNumber=None), 's2.dcm and s3.dcm')
    paths = series(tmp_path / 'b', zs=(0, 2, 2, 4), InstanceNumber=7)
    refused(paths, 'slices 7 (s2.dcm) and 7 (s3.dcm)')


def test_the_odd_slice_is_named(tmp_path):
    for key, value, word in (('Rows', None, '4 x 8 pixels'), ('PixelSpacing', [0.8, 0.8], 'another pixel spacing'),
                             ('ImageOrientationPatient', [-1, 0, 0, 0, 1, 0], 'another orientation'),
                             ('ImagePositionPatient', None, 'where it is'),
                             ('PixelSpacing', None, 'another pixel spacing')):
        paths = series(tmp_path / f'{key}{word[0]}')
        if key == 'Rows':
            ct(paths[2], np.zeros((4, 8), '<u2'), z=4, number=3)
        else:
            ct(paths[2], z=4, number=3, **{key: value})
        refused(paths, 'slice 3', word)


def test_one_slice_needs_no_position(tmp_path):
    path = ct(tmp_path / 'a', ImagePositionPatient=None, ImageOrientationPatient=None)
    assert decode_dicom([path]).spacing is None
    assert decode_dicom([ct(tmp_path / 'b')]).spacing == (3.0, 0.7, 0.5)
    assert decode_dicom([ct(tmp_path / 'c', SliceThickness=None)]).spacing is None
    assert decode_dicom([ct(tmp_path / 'd', SpacingBetweenSlices=2)]).spacing == (2.0, 0.7, 0.5)
    assert decode_dicom(series(tmp_path / 'e', PixelSpacing=None)).spacing is None


# many frames


def item(**tags):
    data = Dataset()
    for key, value in tags.items():
        setattr(data, key, value)
    return [data]


def enhanced(path, zs, slopes, **tags):
    """An enhanced CT whose frame n holds n everywhere."""
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = item(PixelSpacing=[0.7, 0.5], SliceThickness=2)
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    for z, slope in zip(zs, slopes, strict=True):
        frames.append(Dataset())
        frames[-1].PlanePositionSequence = item(ImagePositionPatient=[0, 0, z])
        frames[-1].PixelValueTransformationSequence = item(RescaleSlope=slope, RescaleIntercept=-10, RescaleType='HU')
    stored = np.repeat(np.arange(1, len(zs) + 1, dtype='<u2'), 48).reshape(-1, 6, 8)
    return ct(path, stored, **{
        'SOPClassUID': uid.EnhancedCTImageStorage, 'NumberOfFrames': len(zs),
        'SharedFunctionalGroupsSequence': [shared], 'PerFrameFunctionalGroupsSequence': frames,
        'RescaleSlope': None, 'RescaleIntercept': None, 'PixelSpacing': None,
        'ImagePositionPatient': None, 'ImageOrientationPatient': None, 'SliceThickness': None, **tags})


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_frames_of_an_enhanced_ct_are_sorted_and_scaled_one_by_one(tmp_path, syntax):
    path = enhanced(tmp_path / 'a', (4, 0, 6, 2), (1, 1, 1, 5), syntax=syntax)
    got = decode_dicom([path])
    assert got.voxels[:, 0, 0].tolist() == [-8, 10, -9, -7] and got.spacing == (2.0, 0.7, 0.5) and got.hounsfield
    refused([enhanced(tmp_path / 'b', (4, 0, 4, 2), (1,) * 4)], 'slices 1 and 3 are at the same')
    refused([enhanced(tmp_path / 'c', (4, 0, 6, 2), (1,) * 4, PerFrameFunctionalGroupsSequence=None)], '4 frames', '0')


def test_compressed_frames_of_an_enhanced_ct(tmp_path):
    path = enhanced(tmp_path / 'a', (4, 0, 6, 2), (1, 1, 1, 5))
    data = pydicom.dcmread(path)
    data.compress(uid.RLELossless)
    data.save_as(path)
    assert decode_dicom([path]).voxels[:, 0, 0].tolist() == [-8, 10, -9, -7]


# syntaxes


@pytest.mark.parametrize('syntax', [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless])
@pytest.mark.parametrize('dtype', ['<u2', '<i2', 'u1'])
def test_other_ways_to_write_the_same_bytes(tmp_path, syntax, dtype):
    stored = np.arange(48).reshape(6, 8).astype(dtype)
    if syntax == uid.RLELossless:
        path = ct(tmp_path / 'a', stored)
        data = pydicom.dcmread(path)
        data.compress(syntax)
        data.save_as(path)
    elif syntax == uid.ExplicitVRBigEndian and dtype == 'u1':  # OW: bytes are swapped two by two
        path = ct(tmp_path / 'a', stored, syntax=syntax, PixelData=stored.ravel().view('<u2').byteswap().tobytes())
    else:
        path = ct(tmp_path / 'a', stored, syntax=syntax)
    np.testing.assert_array_equal(decode_dicom([path]).voxels[0], np.arange(48).reshape(6, 8) - 1024)


def compressed(path, source, syntax):
    """The file with its pixels as gdcm compresses them."""
    import gdcm
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    packed = pydicom.dcmread(path)
    assert packed.file_meta.TransferSyntaxUID == syntax
    return with_frame(path, source, next(generate_frames(packed.PixelData, number_of_frames=1)), syntax)


def with_frame(path, source, frame, syntax):
    """The file with other, compressed pixels."""
    data = pydicom.dcmread(source)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([frame])
    data['PixelData'].VR = 'OB'
    data['PixelData'].is_undefined_length = True
    data.save_as(path)
    return path


def frame_of(path):
    return next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))


@pytest.mark.parametrize('syntax', [uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize('dtype, bits', [('<u2', 12), ('<i2', 12), ('<i2', 16), ('u1', 8)])
def test_lossless_compression_gives_the_same_values_back(tmp_path, syntax, dtype, bits, rng):
    low = 0 if 'u' in dtype else -2**(bits - 1)
    stored = rng.integers(low, low + 2**bits, (32, 24)).astype(dtype)
    plain = ct(tmp_path / 'a', stored, BitsStored=bits, RescaleIntercept=0)
    packed = compressed(tmp_path / 'b', plain, syntax)
    np.testing.assert_array_equal(decode_dicom([packed]).voxels[0], stored)


def test_jpeg_and_jpeg2000_as_pillow_writes_them(tmp_path):
    ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4
    packed = {}
    for name in ('JPEG', 'JPEG2000'):
        file = io.BytesIO()
        Image.fromarray(ramp).save(file, name, **({'quality': 100} if name == 'JPEG' else {'no_jp2': True}))
        packed[name] = file.getvalue()
    for syntax, name, off in ((uid.JPEGBaseline8Bit, 'JPEG', 2), (uid.JPEGExtended12Bit, 'JPEG', 2),
                              (uid.JPEG2000Lossless, 'JPEG2000', 0)):
        path = ct(tmp_path / 'a', ramp, syntax=syntax, PixelData=encapsulate([packed[name]]))
        assert np.abs(decode_dicom([path]).voxels[0] + 1024 - ramp.astype(int)).max() <= off
        path = ct(tmp_path / 'b.dcm', np.zeros((32, 48), np.uint8), syntax=syntax,
                  PixelData=encapsulate([packed[name]]))
        refused([path], 'b.dcm', 'cannot be decoded')


# broken files


def test_what_is_cut_off_says_so(tmp_path):
    path = ct(tmp_path / 'short.dcm', PixelData=bytes(90))
    refused([path], 'short.dcm', 'cut off, 90 bytes of pixels of 96')
    refused([*series(tmp_path / 's'), path], 'short.dcm', 'cut off')
    whole = ct(tmp_path / 'whole.dcm').read_bytes()
    path.write_bytes(whole[:-20])
    refused([path], 'short.dcm', 'cut off, 76 bytes')
    refused([ct(tmp_path / 'none.dcm', PixelData=None)], 'none.dcm', 'cut off before')
    for n in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:n])
        refused([path])


@pytest.mark.parametrize('syntax', [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless])
def test_broken_compressed_pixels_are_one_line(tmp_path, syntax, rng):
    plain = ct(tmp_path / 'a', rng.integers(0, 4096, (32, 24)).astype('<u2'), BitsStored=12)
    packed = compressed(tmp_path / 'b.dcm', plain, syntax)
    whole, frame = packed.read_bytes(), frame_of(packed)
    packed.write_bytes(whole[:-300])
    refused([packed], 'b.dcm', 'cut off')
    for keep in (0, 3, 40, 200, 600):
        refused([with_frame(packed, plain, frame[:keep] + bytes(2), syntax)], 'b.dcm', 'export or copy it again')


def test_jpegs_that_would_end_the_process_are_refused_before_gdcm_sees_them(tmp_path, rng):
    plain = ct(tmp_path / 'a', rng.integers(0, 4096, (32, 24)).astype('<u2'), BitsStored=12)
    path, syntax = tmp_path / 'b.dcm', uid.JPEGLosslessSV1
    frame = frame_of(compressed(path, plain, syntax))
    codes, size, scanned = (frame.index(mark) for mark in (b'\xff\xc4', b'\xff\xc3', b'\xff\xda'))
    for at, byte in ((codes + 21, 200), (codes, 0), (size + 5, 255), (size + 9, 3), (size + 3, 200), (size + 4, 195)):
        with_frame(path, plain, frame[:at] + bytes([byte]) + frame[at + 1:], syntax)
        refused([path], 'b.dcm', 'cannot be decoded')
    version = b'\xff\xe0\x00\x10JFIF\0\x09\x09\0\0\1\0\1\0\0'  # gdcm ends the process at the warning
    with_frame(path, plain, frame[:2] + version + frame[2:], syntax)
    np.testing.assert_array_equal(decode_dicom([path]).voxels, decode_dicom([plain]).voxels)
    # libjpeg fills up what is missing and tells nobody but stderr
    refused([with_frame(path, plain, frame[:scanned + 30] + b'\xff\xd9', syntax)], 'b.dcm', 'damaged')


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


# patients


def test_files_of_one_patient_have_one_digest_and_nobody_has_none(tmp_path):
    a, b = ct(tmp_path / 'a.dcm'), ct(tmp_path / 'b.dcm', PatientID='ID12345 ', SeriesInstanceUID='2')
    expected = hashlib.sha256(b'ID12345\0').hexdigest()
    assert {patient_digest(a), patient_digest(str(b)), patient_digest(tmp_path)} == {expected}
    other = ct(tmp_path / 'c.dcm', IssuerOfPatientID='another hospital')
    assert patient_digest(other) not in ('', patient_digest(a))
    for nobody in (None, '', ' ', 'Anonymous', 'ANONYMIZED', 'unknown', '0', '000', 'N/A', 'none', 'xxx', '-'):
        assert patient_digest(ct(tmp_path / 'd.dcm', PatientID=nobody)) == ''
    (tmp_path / 'e.dcm').write_bytes(b'ID12345')
    (tmp_path / 'f').mkdir()
    assert [patient_digest(tmp_path / name) for name in ('e.dcm', 'f', 'none')] == ['', '', '']


def test_the_elements_that_are_read_hold_no_patient(tmp_path):
    names = {pydicom.datadict.keyword_for_tag(tag) for tag in dicom_header.TAGS}
    assert len(names) == len(dicom_header.TAGS)
    assert not any(word in name for name in names for word in ('Patient', 'Name', 'Date', 'Description', 'Comment')
                   if name not in ('ImagePositionPatient', 'ImageOrientationPatient'))


# a real one


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
