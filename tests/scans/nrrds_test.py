"""NRRD: one person, however pynrrd stores it; what nobody can know or what leads out of the folder is refused."""

import gzip

import nibabel
import nrrd
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt
from scan_files import refused
from volumes import RAS, SPACING, assert_is, peak, person

from covid_jax.scans.decode import decode, files_of, is_scan
from covid_jax.scans.volumes import companions

X_STEP = b'(0.69999999999999996,0,0)'  # as pynrrd writes 0.7
LPS = {'L': (1, 0, 0), 'P': (0, 1, 0), 'S': (0, 0, 1), 'R': (-1, 0, 0), 'A': (0, -1, 0), 'I': (0, 0, -1)}


@pytest.fixture
def hu():
    return person()


def write(path, hu, codes='LPS', space='left-posterior-superior', **fields):
    """[z, y, x] with its axes in the order and direction of codes, as pynrrd writes it."""
    turn = nibabel.orientations.ornt_transform(axcodes2ornt('LPS'), axcodes2ornt(codes))
    vectors = np.array([LPS[code] for code in codes]) * SPACING[::-1]
    header = {'space': space, 'space directions': vectors, 'encoding': 'raw', **fields}
    nrrd.write(str(path), nibabel.orientations.apply_orientation(hu.transpose(2, 1, 0), turn), header)
    return path


def edited(path, hu, before, after):
    """An NRRD whose header says something else."""
    data = write(path, hu).read_bytes()
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, after))
    return path


@pytest.mark.parametrize('codes', RAS)
def test_however_an_nrrd_is_stored_the_scan_is_the_same(tmp_path, hu, codes):
    assert_is(decode(write(tmp_path / 'a.nrrd', hu, codes)), hu)


@pytest.mark.parametrize('space, signs', [('LPS', (1, 1, 1)), ('RAS', (-1, -1, 1)), ('right-anterior-superior', (-1, -1, 1)),
                                          ('Left-Anterior-Superior', (1, -1, 1)), ('LAS', (1, -1, 1))])
def test_directions_are_those_of_the_space_that_is_said(tmp_path, hu, space, signs):
    vectors = np.diag(SPACING[::-1]) * signs
    assert_is(decode(write(tmp_path / 'a.nrrd', hu, space=space, **{'space directions': vectors})), hu)


@pytest.mark.parametrize('name', ['a.nrrd', 'a.nhdr', 'A.NRRD'])
@pytest.mark.parametrize('encoding', ['raw', 'gzip'])
@pytest.mark.parametrize('dtype', ['<i2', '>i2', '<i4', '<f4', '>f8'])
def test_types_orders_of_bytes_and_places_of_an_nrrd(tmp_path, hu, name, encoding, dtype):
    path = write(tmp_path / name.lower(), hu.astype(dtype), encoding=encoding).rename(tmp_path / name)
    assert_is(decode(path), hu)
    beside = [path.with_name(f'a.{"raw" if encoding == "raw" else "raw.gz"}')] if name == 'a.nhdr' else []
    assert companions(path) == beside and files_of(path) == sorted([path, *beside]) and is_scan(path)


@pytest.mark.parametrize('before, after, words', [
    (b'NRRD0005', b'NARD0005', 'no NRRD'), (b'NRRD0005', b'NRRD0009', 'version'),
    (b'dimension: 3', b'dimension: 4', 'dimension is 4'), (b'sizes: 5 4 3', b'sizes: 5 12', '3 sizes'),
    (b'sizes: 5 4 3', b'sizes: 5 4 4', 'cut off'), (b'sizes: 5 4 3', b'sizes: 5 4 2', 'more'),
    (b'sizes: 5 4 3', b'sizes: 5 4 -3', 'none'), (b'sizes: 5 4 3', b'sizes: 5 4 x', 'cannot be read'),
    (b'sizes: 5 4 3', b'sizes: 5 4 1e30', 'voxels'), (b'type: int16', b'type: block', "type 'block'"),
    (b'encoding: raw', b'encoding: bzip2', "'bzip2' is not read"), (b'encoding: raw', b'encoding: gzip', 'incorrect header'),
    (b'endian: little', b'endian: middle', 'endian'), (b'left-posterior-superior', b'3D-right-handed', 'where left'),
    (b'space directions', b'space nothing', 'where left'), (b'encoding: raw', b'encoding raw', 'cannot be read'),
    (b'encoding: raw', b'encoding: raw\nspace units: "cm" "cm" "cm"', 'not mm'),
    (b'encoding: raw', b'encoding: raw\nbyte skip: 8', 'skipped'), (b'encoding: raw', b'encoding: raw\ntype: short', 'Duplicate'),
    (X_STEP, b'none', 'three vectors'), (X_STEP, b'(0.7,0.7,0)', 'oblique'), (X_STEP, b'(700,0,0)', 'wrong unit'),
    (X_STEP, b'(nan,0,0)', 'three vectors'),
])
def test_a_header_that_cannot_be_or_is_not_read_is_refused(tmp_path, hu, before, after, words):
    refused(edited(tmp_path / 'a.nrrd', hu, before, after), words)


@pytest.mark.parametrize('name', ['../a.raw', '/etc/passwd', 'sub/a.raw', '..', r'..\a.raw', 'C:a', '', 'LIST', 'LIST 2',
                                  'a%03d.raw 1 3 1', 'gone.raw', 'folder'])
def test_voxels_of_an_nrrd_are_in_one_file_beside_it(tmp_path, hu, name):
    box = tmp_path / 'box'
    for place in (box / 'sub', box / 'folder'):
        place.mkdir(parents=True)
    for place in (tmp_path, box / 'sub'):
        (place / 'a.raw').write_bytes(hu.tobytes())
    path = write(box / 'a.nhdr', hu)
    path.write_bytes(path.read_bytes().replace(b'data file: a.raw', f'data file: {name}'.encode()))
    refused(path)
    assert companions(path) == []


@pytest.mark.parametrize('data', [b'', b'x' * 10**5, b'NRRD0004\n' + b'#\n' * 10**5, b'NRRD0004\ntype: short\n\n', b'NRRD'])
def test_what_is_no_header_of_an_nrrd_is_refused(tmp_path, data):
    (tmp_path / 'a.nrrd').write_bytes(data)
    refused(tmp_path / 'a.nrrd')
    assert companions(tmp_path / 'a.nrrd') == companions(tmp_path / 'gone.nhdr') == []


@pytest.mark.parametrize('encoding', ['raw', 'gzip'])
def test_an_nrrd_that_is_cut_off_or_goes_on_is_refused(tmp_path, hu, encoding):
    path = write(tmp_path / 'a.nrrd', hu, encoding=encoding)
    data = path.read_bytes()
    for end in (-1, -30):
        path.write_bytes(data[:end])
        refused(path, 'cut off')
    start = data.index(b'\n\n') + 2
    path.write_bytes(data[:start] + (gzip.compress(hu.tobytes() + bytes(2**26)) if encoding == 'gzip' else data[start:] + b'x'))
    assert peak(lambda: refused(path, 'holds more')) < 2**25


def test_a_claim_of_an_nrrd_takes_no_memory(tmp_path, hu):
    path = edited(tmp_path / 'a.nrrd', hu, b'sizes: 5 4 3', b'sizes: 1024 1024 1024')
    assert peak(lambda: refused(path, 'cut off')) < 2**22
