"""NIfTI: one person, however a file stores it; what a header of any volume claims; what nobody can know is refused."""

import gzip
import struct
import zlib

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt
from scan_files import refused
from volumes import RAS, assert_is, image, meta, peak, person

from covid_jax.scans import scan as limits
from covid_jax.scans.decode import decode


@pytest.fixture
def hu():
    return person()


def edited(path, hu, at, form, *values):
    """A .nii of which the bytes of the header from `at` on are others."""
    nibabel.save(image(hu), path)
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, at, *values)
    path.write_bytes(data)
    return path


# NIfTI: offsets of its fields are those of the standard, nifti1.h


@pytest.mark.parametrize('codes', RAS)
def test_however_a_nifti_is_stored_the_scan_is_the_same(tmp_path, hu, codes):
    first = image(hu)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(first.affine), axcodes2ornt(codes))
    turned = first.as_reoriented(turn)
    assert ''.join(nibabel.aff2axcodes(turned.affine)) == codes
    nibabel.save(turned, tmp_path / 'a.nii')
    assert_is(decode(tmp_path / 'a.nii'), hu)


@pytest.mark.parametrize('name', ['a.nii', 'a.nii.gz', 'A.NII.GZ'])
@pytest.mark.parametrize('kind', [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize('dtype', ['<i2', '>i2', '<i4', '<f4', '>f8'])
def test_versions_types_and_compression(tmp_path, hu, name, kind, dtype):
    header = kind.header_class(endianness=dtype[0])
    header.set_data_dtype(np.dtype(dtype))
    (tmp_path / name).write_bytes(packed(name, kind(hu.transpose(2, 1, 0), image(hu).affine, header).to_bytes()))
    assert_is(decode(tmp_path / name), hu)


def packed(name, data):
    return gzip.compress(data) if name.lower().endswith('.gz') else data


def test_bytes_say_whether_a_nifti_is_compressed(tmp_path, hu):
    data = image(hu).to_bytes()
    (tmp_path / 'a.nii.gz').write_bytes(data)
    (tmp_path / 'b.nii').write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))
    assert_is(decode(tmp_path / 'a.nii.gz'), hu)
    assert_is(decode(tmp_path / 'b.nii'), hu)


@pytest.mark.parametrize('slope, inter, factor, dtype', [(1, -1024, 1, np.int16), (2, -1000, 1, np.int16),
                                                         (.5, -1000, 1, np.float32), (0, 7, 0, None)])
def test_stored_values_are_scaled(tmp_path, slope, inter, factor, dtype):
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5) + (0 if factor else 100)
    scan = decode(edited(tmp_path / 'a.nii', values, 112, '<2f', slope, inter))
    if factor:
        np.testing.assert_array_equal(scan.voxels, values * slope + inter)
        assert scan.voxels.dtype == dtype and scan.hounsfield
    else:  # a slope of 0 means that nothing is scaled
        np.testing.assert_array_equal(scan.voxels, values)
        assert scan.voxels.dtype == np.uint8 and not scan.hounsfield


def test_floats_that_are_no_whole_numbers_stay_floats(tmp_path, hu):
    nibabel.save(image(hu + np.float32(.25)), tmp_path / 'a.nii')
    scan = decode(tmp_path / 'a.nii')
    np.testing.assert_array_equal(scan.voxels, hu + .25)
    assert scan.voxels.dtype == np.float32 and scan.hounsfield
    nibabel.save(image(np.float64([[[0, .2], [.4, 1]]])), tmp_path / 'b.nii')
    np.testing.assert_allclose(decode(tmp_path / 'b.nii').voxels, [[[0, 51], [102, 255]]], rtol=1e-6)
    assert not decode(tmp_path / 'b.nii').hounsfield


@pytest.mark.parametrize('code, factor', [(0, 1), (1, 1000), (2, 1), (3, .001), (2 + 8, 1)])
def test_millimetres_whatever_the_unit(tmp_path, hu, code, factor):
    scale = nibabel.affines.from_matvec(image(hu).affine[:3, :3] / factor)
    header = nibabel.Nifti1Header()
    header['xyzt_units'] = code
    nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), scale, header), tmp_path / 'a.nii')
    assert_is(decode(tmp_path / 'a.nii'), hu)


def test_qform_is_read_where_there_is_no_sform(tmp_path, hu):
    mine = image(hu)
    mine.set_qform(mine.affine, 1)
    mine.set_sform(None, 0)
    nibabel.save(mine, tmp_path / 'a.nii')
    assert_is(decode(tmp_path / 'a.nii'), hu)


def test_a_nifti_that_does_not_say_where_left_is_is_refused(tmp_path, hu):
    mine = image(hu)
    mine.set_sform(None, 0)
    mine.set_qform(None, 0)
    nibabel.save(mine, tmp_path / 'a.nii')
    refused(tmp_path / 'a.nii', 'neither sform nor qform')


@pytest.mark.parametrize('other', [np.diag([.7, -.8, 2.5]), np.diag([-.7, -.8, -2.5]),
                                   np.array([[0, -.8, 0], [-.7, 0, 0], [0, 0, 2.5]])])
def test_sform_and_qform_that_mirror_each_other_are_refused(tmp_path, hu, other):
    mine = image(hu)
    mine.set_sform(mine.affine, 1)
    mine.set_qform(nibabel.affines.from_matvec(other), 1)
    nibabel.save(mine, tmp_path / 'a.nii')
    refused(tmp_path / 'a.nii', 'sform and qform disagree', 'code of the wrong one')
    mine.set_qform(nibabel.affines.from_matvec(other), 0)
    nibabel.save(mine, tmp_path / 'b.nii')
    assert_is(decode(tmp_path / 'b.nii'), hu)
    mine.set_qform(rotated(3, 0), 1)  # a little turned is no other direction
    nibabel.save(mine, tmp_path / 'c.nii')
    assert_is(decode(tmp_path / 'c.nii'), hu)


@pytest.mark.parametrize('field, at, value', [('pixdim', 0, 0.0), ('quatern_b', (), 1.000001), ('pixdim', slice(1, 4), 0.0)])
def test_a_qform_that_says_nothing_disagrees_with_no_sform(tmp_path, hu, field, at, value):
    """A quaternion that is none by rounding, no distances, and the factor that the standard reads as 1 where it is 0."""
    mine = image(hu)
    mine.set_sform(mine.affine, 1)
    mine.set_qform(mine.affine, 1)
    nibabel.save(mine, tmp_path / 'a.nii')
    data = bytearray((tmp_path / 'a.nii').read_bytes())
    header = np.frombuffer(data, nibabel.Nifti1Header.template_dtype, 1)
    header[field][0, ...][at] = value
    (tmp_path / 'a.nii').write_bytes(data)
    assert_is(decode(tmp_path / 'a.nii'), hu)


def rotated(degrees, about):
    """A RAS affine turned about the patient's axis 0, 1 or 2."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.roll(np.roll([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], about + 1, 0), about + 1, 1)
    return nibabel.affines.from_matvec(turn @ np.diag([-.7, -.8, 2.5]))


@pytest.mark.parametrize('about', range(3))
def test_10_degrees_off_an_axis_is_oblique(tmp_path, hu, about):
    nibabel.save(image(hu, rotated(9.5, about)), tmp_path / 'a.nii')
    assert_is(decode(tmp_path / 'a.nii'), hu)
    for degrees in (10.5, 45):
        nibabel.save(image(hu, rotated(degrees, about)), tmp_path / 'b.nii')
        refused(tmp_path / 'b.nii', 'oblique', 'resample')


@pytest.mark.parametrize('at, form, values, words', [
    (0, '<i', [347], ['no NIfTI']), (344, '4s', [b'ni1\0'], ['no NIfTI of one file']),
    (40, '<8h', [4, 5, 4, 3, 2, 1, 1, 1], ['5 x 4 x 3 x 2']), (40, '<8h', [2, 5, 12, 1, 1, 1, 1, 1], ['5 x 12']),
    (40, '<8h', [3, 5, 4, 0, 1, 1, 1, 1], ['none']), (40, '<8h', [3, 5, 4, -3, 1, 1, 1, 1], ['none']),
    (40, '<8h', [3, 5, 4, 4, 1, 1, 1, 1], ['cut off', '5 x 4 x 4']), (70, '<h', [77], ['type', '77']),
    (70, '<h', [32], ['complex64']), (70, '<h', [128], ['R', 'not read']), (108, '<f', [0], ['start at byte 0']),
    (108, '<f', [1e30], ['start at byte']), (108, '<f', [np.nan], ['NaN']), (112, '<2f', [1, np.nan], ['nan']),
    (123, 'B', [5], ['unit', '5']), (280, '<12f', [0] * 12, ['0 x 0 x 0 mm']),
    (280, '<12f', [np.nan] * 12, ['nan']), (280, '<12f', [.7, .7, 0, 0, .7, .7, 0, 0, 0, 0, 1, 0], ['oblique']),
    (280, '<12f', [1, 1, 0, 0, 0, .1, 0, 0, 0, 0, 1, 0], ['one direction']),
    (280, '<12f', [1000, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], ['1000 x']),
])
def test_a_header_that_cannot_be_is_refused(tmp_path, hu, at, form, values, words):
    refused(edited(tmp_path / 'a.nii', hu, at, form, *values), *words)


def test_a_fourth_dimension_of_one_is_one_volume(tmp_path, hu):
    assert_is(decode(edited(tmp_path / 'a.nii', hu, 40, '<8h', 4, 5, 4, 3, 1, 1, 1, 1)), hu)
    assert_is(decode(edited(tmp_path / 'a.nii', hu, 40, '<8h', 5, 5, 4, 3, 1, 1, 1, 1)), hu)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_values_that_are_no_number_are_refused(tmp_path, hu, dtype):
    values = hu.astype(dtype)
    values[1, 1, 1] = np.nan
    nibabel.save(image(values), tmp_path / 'a.nii')
    refused(tmp_path / 'a.nii', 'not finite')
    nibabel.save(image(hu.astype(np.int16) + 1500), tmp_path / 'b.nii')
    refused(tmp_path / 'b.nii', 'not grey', "'hu'")


@pytest.mark.parametrize('left', [0, 1, 100, 200, -1])
@pytest.mark.parametrize('whole, cut', [(lambda data: data, 'cut off'), (gzip.compress, 'end-of-stream')])
def test_a_nifti_that_is_cut_off_is_refused(tmp_path, hu, whole, cut, left):
    path = tmp_path / 'a.nii'
    path.write_bytes(whole(image(hu).to_bytes())[:left])
    refused(path, *([cut] if left < 0 else []))
    path.write_bytes(gzip.compress(image(hu).to_bytes()[:left]))
    refused(path, 'cut off' if left < 0 else 'no NIfTI')


def test_a_flipped_bit_of_compressed_voxels_is_noticed(tmp_path, hu):
    data = bytearray(gzip.compress(image(hu).to_bytes(), compresslevel=0))
    data[-20] ^= 1
    (tmp_path / 'a.nii.gz').write_bytes(data)
    refused(tmp_path / 'a.nii.gz', 'CRC')


# memory: of all volumes


def test_what_a_header_claims_takes_no_memory(tmp_path, hu):
    zeros = zlib.compressobj(9, wbits=31)
    rest = b''.join(zeros.compress(bytes(2**22)) for _ in range(32)) + zeros.flush()  # 128 MiB in 130 kB
    start = image(hu).to_bytes()[:352]
    for shape, words in (((1024, 1024, 1025), 'more than'), ((1024, 1024, 1024), 'cut off'), ((-1, 2, 1), 'none')):
        dim = struct.pack('<8h', 3, *shape, 1, 1, 1, 1)
        (tmp_path / 'a.nii').write_bytes(start[:40] + dim + start[56:] + bytes(100))
        (tmp_path / 'a.nii.gz').write_bytes(gzip.compress(start[:40] + dim + start[56:]) + rest)
        meta(tmp_path / 'a.mha', hu, DimSize=' '.join(map(str, shape)))
        meta(tmp_path / 'a.mhd', hu, rest, DimSize=' '.join(map(str, shape)), CompressedData=True,
             ElementDataFile='a.zraw')
        for name in ('a.nii', 'a.nii.gz', 'a.mha', 'a.mhd'):
            assert peak(lambda name=name, words=words: refused(tmp_path / name, words)) < 2**22


def test_what_comes_after_the_voxels_takes_no_memory(tmp_path, hu):
    bomb = zlib.compress(hu.tobytes() + bytes(2**26), 9)
    (tmp_path / 'a.nii.gz').write_bytes(gzip.compress(image(hu).to_bytes() + bytes(2**26)))
    meta(tmp_path / 'a.mha', hu, bomb, CompressedData=True, DimSize='5 4 3')
    assert peak(lambda: assert_is(decode(tmp_path / 'a.nii.gz'), hu)) < 2**25
    assert peak(lambda: refused(tmp_path / 'a.mha', 'holds more')) < 2**25


def test_wide_values_are_judged_by_their_bytes(tmp_path, hu, monkeypatch):
    monkeypatch.setattr('covid_jax.scans.volumes.BYTES', 479)
    nibabel.save(image(hu.astype(np.float64)), tmp_path / 'a.nii')
    refused(tmp_path / 'a.nii', '8 bytes', '479')
    monkeypatch.setattr(limits, 'VOXELS', 59)
    refused(tmp_path / 'a.nii', '59 voxels')
