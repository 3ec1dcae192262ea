"""MetaImage: one person, however a file stores it; its header alone; what nobody can know is refused."""

import zlib

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt
from scan_files import refused
from volumes import RAS, SPACING, assert_is, meta, person

from covid_jax.scans.decode import decode
from covid_jax.scans.metaimage import geometry
from covid_jax.scans.volumes import companions

LPS = {'L': (1, 0, 0), 'P': (0, 1, 0), 'S': (0, 0, 1), 'R': (-1, 0, 0), 'A': (0, -1, 0), 'I': (0, 0, -1)}


@pytest.fixture
def hu():
    return person()


def stored(hu, codes):
    """[i, j, k] of a file whose indices grow to the sides of the body that the codes name, such as 'PSL'."""
    turn = nibabel.orientations.ornt_transform(axcodes2ornt('LPS'), axcodes2ornt(codes))
    return nibabel.orientations.apply_orientation(hu.transpose(2, 1, 0), turn)


@pytest.mark.parametrize('codes', RAS)
def test_however_a_metaimage_is_stored_the_scan_is_the_same(tmp_path, hu, codes):
    matrix = [LPS[code] for code in codes]
    steps = np.abs(np.array(matrix) @ SPACING[::-1])
    meta(tmp_path / 'a.mha', stored(hu, codes), ElementSpacing=' '.join(map(str, steps)),
         TransformMatrix=' '.join(str(value) for row in matrix for value in row))
    assert_is(decode(tmp_path / 'a.mha'), hu)


@pytest.mark.parametrize('element, dtype', [('SHORT', 'i2'), ('INT', 'i4'), ('FLOAT', 'f4'), ('DOUBLE', 'f8')])
@pytest.mark.parametrize('order, key', [('<', 'ElementByteOrderMSB'), ('>', 'BinaryDataByteOrderMSB')])
@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('place', ['LOCAL', 'a b.raw', '.._x.zraw'])
def test_types_orders_of_bytes_and_places_of_a_metaimage(tmp_path, hu, element, dtype, order, key, compressed, place):
    raw = hu.astype(order + dtype).tobytes()
    meta(tmp_path / 'a.mhd', hu.T, zlib.compress(raw) if compressed else raw, ElementType=f'MET_{element}',
         CompressedData=compressed, ElementDataFile=place, **({'BinaryDataByteOrderMSB': None} | {key: order == '>'}))
    assert_is(decode(tmp_path / 'a.mhd'), hu)
    assert companions(tmp_path / 'a.mhd') == ([] if place == 'LOCAL' else [tmp_path / place])


@pytest.mark.parametrize('element, dtype', [('CHAR', 'i1'), ('UCHAR', 'u1'), ('USHORT', 'u2'), ('UINT', 'u4')])
def test_small_values_of_a_metaimage_are_grey(tmp_path, element, dtype):
    values = np.arange(60).reshape(5, 4, 3).astype(dtype)
    scan = decode(meta(tmp_path / 'a.mha', values, ElementType=f'MET_{element}', ElementSpacing=None))
    np.testing.assert_array_equal(scan.voxels, values.T)
    assert scan.voxels.dtype == np.uint8 and not scan.hounsfield and scan.spacing is None


@pytest.mark.parametrize('fields', [
    {'ElementSize': '0.7 0.8 2.5', 'ElementSpacing': None},
    {'Orientation': '1 0 0 0 1 0 0 0 1', 'TransformMatrix': None},
    {'TransformMatrix': None}, {'BinaryData': None, 'ObjectType': None, 'CompressedData': None},
    {'Comment': 'a = b', 'ElementNumberOfChannels': 1, 'AnatomicalOrientation': 'RAI', 'HeaderSize': 0},
    {'ElementSpacing': '-.7 .8 2.5', 'TransformMatrix': '-1 0 0 0 1 0 0 0 1'},
])
def test_other_ways_to_write_a_metaimage(tmp_path, hu, fields):
    assert_is(decode(meta(tmp_path / 'a.mha', hu.T, **fields)), hu)


def test_lines_of_a_metaimage_may_be_blank_and_end_as_windows_ends_them(tmp_path, hu):
    meta(tmp_path / 'a.mhd', hu.T, ElementDataFile='a.raw')
    text = (tmp_path / 'a.mhd').read_bytes().replace(b'NDims', b'\n\nNDims')
    (tmp_path / 'a.mhd').write_bytes(text.replace(b'\n', b'\r\n'))
    assert_is(decode(tmp_path / 'a.mhd'), hu)
    (tmp_path / 'a.mhd').write_bytes((tmp_path / 'a.mhd').read_bytes().rstrip())
    assert_is(decode(tmp_path / 'a.mhd'), hu)


@pytest.mark.parametrize('fields, words', [
    ({'NDims': 4}, ["'4'"]), ({'NDims': 2}, ["'2'"]), ({'ObjectType': 'Tube'}, ['Tube']),
    ({'BinaryData': False}, ['False']),
    ({'ElementNumberOfChannels': 3}, ['ElementNumberOfChannels', "'3'"]), ({'HeaderSize': -1}, ['HeaderSize']),
    ({'ElementToIntensityFunctionSlope': 2}, ['Slope']), ({'ElementType': 'MET_LONG'}, ['MET_LONG']),
    ({'ElementType': None}, ['ElementType']), ({'DimSize': '5 4'}, ['DimSize', "'5 4'"]),
    ({'DimSize': None}, ['DimSize']),
    ({'DimSize': '5 4 3.0'}, ['DimSize']), ({'DimSize': '5 4 -3'}, ['none']), ({'DimSize': '0 4 3'}, ['none']),
    ({'DimSize': f'5 4 {10**30}'}, ['more than']), ({'DimSize': f'5 4 {"9" * 5000}'}, ['DimSize']),
    ({'DimSize': '5 4 4'}, ['cut off']), ({'DimSize': '5 4 2'}, ['holds more']),
    ({'ElementSpacing': '1 1'}, ['Spacing']),
    ({'ElementSpacing': '1 nan 1'}, ['nan']), ({'ElementSpacing': '1 0 1'}, ['1 x 0 x 1 mm']),
    ({'ElementSpacing': '1e300 1 1'}, ['mm']), ({'TransformMatrix': '1 0 0 0 1 0'}, ['TransformMatrix']),
    ({'TransformMatrix': '2 0 0 0 1 0 0 0 1'}, ['length']),
    ({'TransformMatrix': '1 0 0 1 0 0 0 0 1'}, ['one direction']),
    ({'TransformMatrix': '.8 .6 0 -.6 .8 0 0 0 1'}, ['oblique', '37 degrees']),
    ({'CompressedData': 'maybe'}, ['maybe']),
    ({'TransformMatrix': None, 'AnatomicalOrientation': 'LPI'}, ['LPI']),
    ({'ElementByteOrderMSB': True}, ['different']),
    ({'CompressedData': True}, ['incorrect header']),
])
def test_a_metaimage_that_cannot_be_or_is_not_read_is_refused(tmp_path, hu, fields, words):
    refused(meta(tmp_path / 'a.mha', hu.T, **fields), *words)


@pytest.mark.parametrize('name', ['../a.raw', '/etc/passwd', 'sub/a.raw', '..', '.', r'..\a.raw', r'C:\a.raw', '',
                                  'C:a', 'LIST', 'LIST 2', 'a%03d.raw 1 3 1', 'gone.raw', 'folder', 'a\0.raw', 'x' * 300])
def test_voxels_of_a_metaimage_are_in_one_file_beside_it(tmp_path, hu, name):
    box = tmp_path / 'box'
    (box / 'sub').mkdir(parents=True)
    (box / 'folder').mkdir()
    for place in (tmp_path, box / 'sub', box):
        (place / 'a.raw').write_bytes(hu.tobytes())
    meta(box / 'a.mhd', hu.T)
    data = (box / 'a.mhd').read_bytes()
    (box / 'a.mhd').write_bytes(data[:data.index(b'LOCAL')] + name.encode() + b'\n')
    refused(box / 'a.mhd')
    assert companions(box / 'a.mhd') == []


@pytest.mark.parametrize('data', [b'', b'\n', b'x' * 10**5, b'NDims = 3\n' * 10**4, b'NDims = 3\nDimSize',
                                  b'ElementDataFile\n'])
def test_what_is_no_header_of_a_metaimage_is_refused(tmp_path, data):
    for name in ('a.mha', 'a.mhd'):
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, 'no MetaImage')
        assert companions(tmp_path / name) == []
    assert companions(tmp_path / 'gone.mhd') == companions(tmp_path / 'a.nii') == []


@pytest.mark.parametrize('left', [0, 1, 30, -1])
@pytest.mark.parametrize('compressed', [False, True])
def test_a_metaimage_that_is_cut_off_is_refused(tmp_path, hu, left, compressed):
    raw = zlib.compress(hu.tobytes()) if compressed else hu.tobytes()
    for place in ('LOCAL', 'a.raw'):
        path = meta(tmp_path / 'a.mhd', hu.T, raw[:left], CompressedData=compressed, ElementDataFile=place)
        refused(path, 'cut off')


@pytest.mark.parametrize('fields, expected', [
    ({}, (0, 2.5, 3)), ({'Offset': '-198.1 -195 -335.5'}, (-335.5, 2.5, 3)),
    ({'Offset': None, 'Position': '1 2 3'}, (3, 2.5, 3)), ({'Offset': None, 'Origin': '1 2 3'}, (3, 2.5, 3)),
    ({'TransformMatrix': '-1 0 0 0 -1 0 0 0 1'}, (0, 2.5, 3)), ({'TransformMatrix': None}, (0, 2.5, 3)),
    ({'TransformMatrix': '0 1 0 1 0 0 0 0 1'}, (0, 2.5, 3)),
    ({'ElementSize': '1 1 5', 'ElementSpacing': None}, (0, 5, 3)),
])
def test_where_slices_lie_is_in_the_header(tmp_path, hu, fields, expected):
    path = meta(tmp_path / 'a.mhd', hu.T, ElementDataFile='gone.raw', **fields)
    (tmp_path / 'gone.raw').unlink()
    assert geometry(path) == expected


@pytest.mark.parametrize('fields, word', [
    ({'TransformMatrix': '1 0 0 0 1 0 0 0 -1'}, 'TransformMatrix'),
    ({'TransformMatrix': '1 0 0 0 0 1 0 1 0'}, 'not axial'),
    ({'TransformMatrix': '1 0 0 0 .9998 .02 0 -.02 .9998'}, 'not axial'),
    ({'TransformMatrix': '1 0'}, 'TransformMatrix'),
    ({'Offset': None}, 'Offset'), ({'Offset': '1 2'}, 'Offset'), ({'Offset': '1 2 nan'}, 'Offset'),
    ({'ElementSpacing': None}, 'ElementSpacing'), ({'ElementSpacing': '1 1 0'}, 'steps of 0'),
    ({'ElementSpacing': '1 1 -1'}, 'steps of -1'), ({'ElementSpacing': '1 1 1e-5'}, 'wrong unit'),
    ({'DimSize': '5 4'}, 'DimSize'), ({'TransformMatrix': None, 'AnatomicalOrientation': 'LPI'}, 'LPI'),
])
def test_slices_that_do_not_rise_along_the_body_have_no_place(tmp_path, hu, fields, word):
    with pytest.raises(ValueError, match=word):
        geometry(meta(tmp_path / 'a.mhd', hu.T, **fields))
