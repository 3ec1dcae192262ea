"""What a radiologist would say the values are, in every syntax that can be written here."""

import io

import numpy as np
import pydicom
import pytest
from dicoms import compressed, ct, enhanced, frame_of, no_name_is_told, refused, series, table, with_frame, xray  # noqa: F401
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from covid_jax.scans.decode import decode
from covid_jax.scans.dicom.series import decode_dicom


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
    c = ct(tmp_path / 'c', np.full((2, 2), 65535, '<u2'), z=2, number=3, RescaleSlope=.5)
    got = decode_dicom([a, b, c])
    assert got.voxels.dtype == np.float32 and got.voxels[:, 0, 0].tolist() == [-1021, 0, 31743.5]
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


@pytest.mark.parametrize('dtype, intercept, pad', [('<i2', 0, 0), ('<u2', -1024, 1024), ('<i2', 0, 40)])
def test_padding_that_tissue_has_too_is_padding_at_the_edge_alone(tmp_path, dtype, intercept, pad):
    hu = np.array([[pad, pad, -900, -900, -900], [pad, 30, pad, 30, -900], [-900, 30, 30, 30, -900],
                   [-900, -900, -900, -900, pad]])
    hu[hu == pad] = pad + intercept
    stored = (hu - intercept).astype(dtype)
    got = decode_dicom([ct(tmp_path / 'a', stored, RescaleIntercept=intercept, PixelPaddingValue=pad)])
    hu[0, :2] = hu[1, 0] = hu[3, 4] = -1024
    np.testing.assert_array_equal(got.voxels, [hu])
    stored[stored == pad] = 30 - intercept
    stored[1, 2] = pad
    got = decode_dicom([ct(tmp_path / 'b', stored, RescaleIntercept=intercept, PixelPaddingValue=pad)])
    np.testing.assert_array_equal(got.voxels, [stored.astype(int) + intercept])


@pytest.mark.parametrize('pad, stored, told', [
    (0, [[0, 30], [40, 50]], True), (0, [[1, 30], [40, 50]], False), (None, [[0, 30], [40, 50]], False),
    (-2000, [[-2000, 30], [40, 0]], False), (-201, [[-201, 30], [40, 0]], False), (-200, [[-200, 30], [40, 0]], True)])
def test_padding_that_tissue_has_too_is_told_of(tmp_path, pad, stored, told):
    path = ct(tmp_path / 'a', np.array(stored, '<i2'), RescaleIntercept=0, PixelPaddingValue=pad)
    assert decode_dicom([path]).tissue_padding is told
    assert decode(path).tissue_padding is told


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


@pytest.mark.parametrize('syntax', [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize('dtype', ['<u2', '<i2'])
@pytest.mark.parametrize('high', [11, 13, 15])
def test_the_highest_bit_counts_in_every_plain_syntax(tmp_path, syntax, dtype, high, rng):
    stored = rng.integers(0, 2**16, (6, 8)).astype('<u2').view(dtype)
    little, other = (decode_dicom([ct(tmp_path / 'a', stored, BitsStored=12, HighBit=high, syntax=each)]).voxels
                     for each in (uid.ExplicitVRLittleEndian, syntax))
    np.testing.assert_array_equal(little, other)
    assert np.ptp(little) < 4096


def test_compressed_pixels_end_at_the_highest_bit(tmp_path):
    data = pydicom.dcmread(ct(tmp_path / 'a.dcm'))
    data.compress(uid.RLELossless)
    data.BitsStored, data.HighBit = 12, 15
    data.save_as(tmp_path / 'a.dcm')
    refused([tmp_path / 'a.dcm'], 'a.dcm', '12 bits up to bit 15', 'uncompressed')


@pytest.mark.parametrize('samples', [None, ''])
def test_samples_that_are_not_said_are_one(tmp_path, samples):
    path = ct(tmp_path / 'a.dcm', SamplesPerPixel=None)
    if samples is not None:
        data = pydicom.dcmread(path)
        data.add_new('SamplesPerPixel', 'US', None)
        data.save_as(path)
    assert decode_dicom([path]).hounsfield


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
    assert decode_dicom([ct(tmp_path / 'e', RescaleType='US')]).hounsfield  # unspecified: GDCM writes it
    refused([ct(tmp_path / 'd', RescaleType='OD')], 'slice 1', 'window')
    refused([ct(tmp_path / 'e', RescaleIntercept=None)], 'slice 1', 'window')


# X-rays


def test_an_xray_that_uses_little_of_its_window_is_read(tmp_path):
    """Its header says what its values are: a dark exposure is no mask."""
    path = xray(tmp_path / 'a.dcm', np.random.default_rng(0).integers(0, 800, (40, 40)).astype('<u2'), WindowCenter=2048, WindowWidth=4096)
    assert 0 < decode(path).voxels.max() < 64


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


@pytest.mark.parametrize('tags', [{'SOPClassUID': uid.DigitalXRayImageStorageForProcessing},
                                  {'PresentationIntentType': 'FOR PROCESSING'},
                                  {'PresentationIntentType': 'for processing ', 'Modality': 'CR'}])
def test_the_raw_values_of_a_detector_are_no_xray(tmp_path, tags):
    stored = np.array([[1000, 2000], [3000, 1500]], '<u2')
    refused([xray(tmp_path / 'a.dcm', stored, **tags)], 'a.dcm is an X-ray FOR PROCESSING', 'FOR PRESENTATION')
    decode_dicom([xray(tmp_path / 'b.dcm', stored, PresentationIntentType='FOR PRESENTATION')])
    decode_dicom([ct(tmp_path / 'c.dcm', PresentationIntentType='FOR PROCESSING')])


def test_rescale_comes_before_the_window(tmp_path):
    got = decode_dicom([xray(tmp_path / 'a', np.array([[0, 5, 10]], '<u2'), RescaleSlope=2, RescaleIntercept=-10,
                             WindowCenter=0.5, WindowWidth=21)])
    np.testing.assert_allclose(got.voxels, [[[0, 127.5, 255]]], atol=1e-4)


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_a_voi_table_is_looked_up_and_wins_over_the_window(tmp_path, syntax):
    path = xray(tmp_path / 'a', np.array([[0, 10, 11, 12, 266]], '<u2'), VOILUTSequence=table([0, 51, 255], 10, 8),
                WindowCenter=3, WindowWidth=3, syntax=syntax)
    np.testing.assert_allclose(decode_dicom([path]).voxels, [[[0, 0, 51, 255, 255]]], atol=1e-4)
    path = xray(tmp_path / 'b', np.array([[0, 1, 2]], '<u2'), ModalityLUTSequence=table([300, 200, 100], 0, 16),
                VOILUTSequence=table([0, 1023, 4095], 199, 12), syntax=syntax)
    np.testing.assert_allclose(decode_dicom([path]).voxels, [[[255, 255 * 1023 / 4095, 0]]], atol=1e-4)


def test_compressed_frames_of_an_enhanced_ct(tmp_path):
    path = enhanced(tmp_path / 'a', (4, 0, 6, 2), (1, 1, 1, 5))
    data = pydicom.dcmread(path)
    data.compress(uid.RLELossless)
    data.save_as(path)
    assert decode_dicom([path]).voxels[:, 0, 0].tolist() == [-8, 10, -9, -7]


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
