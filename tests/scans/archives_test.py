"""What is in a .zip: unpacked where it may be, read as a folder is, and refused where something in it would be lost."""

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scan_files import nifti, refused, slices, zipped

from covid_jax.scans import decode as module
from covid_jax.scans.decode import decode


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


@pytest.mark.parametrize('name', ['../evil.png', '../../../tmp/evil.png', 'a/../../evil.png', '..\\evil.png',
                                  '/tmp/evil.png', '\\evil.png', 'C:\\evil.png', 'c:evil.png', 'a/../evil.png', './.', '..'])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path, temporary, name):
    (tmp_path / 'box').mkdir()
    png = slices(tmp_path / 'scan', 1) / 'ct 0.png'
    path = zipped(tmp_path / 'box' / 'a.zip', {'a.png': png, name: png})
    before = sorted(tmp_path.rglob('*'))
    refused(path, f'its member {name!r} leads out')
    assert sorted(tmp_path.rglob('*')) == before
    around = (temporary, temporary.parent, Path('/tmp'), Path())
    assert not [file for folder in around for file in folder.glob('*evil.png')]


def test_a_link_in_an_archive_is_refused(tmp_path, temporary):
    secret = slices(tmp_path / 'secret', 1) / 'ct 0.png'
    link = zipfile.ZipInfo('a.png')
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr(link, str(secret))
    refused(tmp_path / 'a.zip', "'a.png' is a link")


@pytest.mark.parametrize('one, two', [('1.png', '1.png'), ('1.png', '1.PNG'), ('a/1.png', 'A/1.png'),
                                      ('a/1.png', 'a\\1.png'), ('a/1.png', './a//1.png'), ('1', '1')])
@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_two_members_of_one_name_are_refused(tmp_path, temporary, one, two):
    png = slices(tmp_path / 'scan', 1) / 'ct 0.png'
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for name in (one, two):
            archive.writestr(name, png.read_bytes())
    refused(tmp_path / 'a.zip', f'{one!r} and {two!r} have one name')


def test_slices_at_several_levels_of_an_archive_are_refused(tmp_path, temporary):
    png = slices(tmp_path / 'scan', 1) / 'ct 0.png'
    path = zipped(tmp_path / 'a.zip', {'x/1.png': png, 'x/2.png': png, 'x/y/3.png': png})
    refused(path, '2 slices and 1 more', 'y/3.png')
    refused(zipped(tmp_path / 'b.zip', {'x/1.png': png, 'y/2.png': png}), 'no slices', 'found: x, y')
    path = zipped(tmp_path / 'c.zip', {'x\\1.png': png, 'x\\2.png': png})  # as some write it on Windows
    assert decode(path).voxels.shape == (2, 6, 8)


def test_an_archive_is_unpacked_where_the_caller_says(tmp_path, temporary, monkeypatch):
    path = zipped(tmp_path / 'a.zip', {'b.png': slices(tmp_path / 'scan', 1) / 'ct 0.png'})
    (scratch := tmp_path / 'scratch').mkdir()
    seen, read = [], module.images.decode_slices

    def spy(paths):
        seen.extend(paths)
        return read(paths)
    monkeypatch.setattr(module.images, 'decode_slices', spy)
    decode(path, scratch)
    assert seen[0].is_relative_to(scratch) and not list(scratch.iterdir())


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
