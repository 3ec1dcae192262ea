"""A part of a scan never passes for the whole: what of its folder cannot be opened is refused by name, missing numbers are known."""

from pathlib import Path

import numpy as np
import pytest
from dicoms import no_name_is_told, series  # noqa: F401
from PIL import Image
from scan_files import refused, slices

from covid_jax import UserError
from covid_jax.data.store import content_hashes
from covid_jax.scans.decode import decode
from covid_jax.scans.lost import missing_numbers
from covid_jax.sources.exams import Exam


def annexed(folder, files):
    """The files as links into a store beside their folder, as git-annex has them; -> where each of them is kept."""
    store = folder.parent / 'objects'
    store.mkdir(exist_ok=True)
    kept = []
    for file in files:
        kept.append(file.rename(store / f'{folder.name} {file.name}'))
        file.symlink_to(Path('..', 'objects', kept[-1].name))
    return kept


@pytest.mark.parametrize('make, names', [
    (lambda folder: sorted(slices(folder, 10).iterdir()), ('ct 6.png', 'ct 7.png', 'ct 8.png', 'ct 9.png')),
    (lambda folder: series(folder, range(0, 20, 2)), ('s10.dcm', 's7.dcm', 's8.dcm', 's9.dcm')),
    (lambda folder: [p.rename(p.with_suffix('')) for p in series(folder, range(0, 20, 2))], ('s10', 's7', 's8', 's9'))])
def test_slices_that_are_links_without_content_are_named(tmp_path, make, names):
    """Six of ten were fetched."""
    folder = tmp_path / 'scan'
    files = make(folder)
    kept = annexed(folder, files)
    assert len(decode(folder).voxels) == 10
    for path in [kept[files.index(folder / name)] for name in names]:
        path.unlink()
    assert f'{folder}: {", ".join(names)}: 4 links whose content is not here: fetch it' in refused(folder)


def test_a_folder_of_which_nothing_was_fetched_says_so(tmp_path):
    for path in annexed(tmp_path / 'scan', list(slices(tmp_path / 'scan', 3).iterdir())):
        path.unlink()
    refused(tmp_path / 'scan', '3 links whose content is not here')


@pytest.mark.parametrize('make', [lambda folder: slices(folder, 3), series])
def test_a_link_to_a_folder_is_named_for_what_is_in_it_would_be_left_out(tmp_path, make):
    make(tmp_path / 'scan')
    make(tmp_path / 'rest')
    (tmp_path / 'scan' / 'more').symlink_to(tmp_path / 'rest')
    refused(tmp_path / 'scan', 'more: 1 links to folders, which are not followed')


def test_a_scan_that_is_itself_a_link_is_read(tmp_path):
    (tmp_path / 'scan').symlink_to(slices(tmp_path / 'elsewhere', 3))
    assert len(decode(tmp_path / 'scan').voxels) == 3


@pytest.mark.parametrize('suffix', ['IMA', 'dcm', 'x.IMA', 'dicom'])
@pytest.mark.parametrize('damage', [lambda path: path.write_bytes(b''), lambda path: path.write_bytes(path.read_bytes()[:100]),
                                    lambda path: path.rename(f'{path}.part').write_bytes(b'x')])
def test_a_broken_slice_of_any_suffix_is_not_passed_over(tmp_path, suffix, damage):
    """The disk was full, or the copy was cut off, at the last of eight."""
    files = [path.rename(path.with_name(f'P01.CT.{k:04d}.{suffix}')) for k, path in enumerate(series(tmp_path / 'scan', range(0, 16, 2)))]
    assert len(decode(tmp_path / 'scan').voxels) == 8
    damage(files[-1])
    with pytest.raises(UserError, match='P01.CT.0007'):
        decode(tmp_path / 'scan')


@pytest.mark.parametrize('top, deeper', [('a.png', 'part2/b.png'), ('a.png', 'x/part2/b.tif'), ('a.npz', 'part2/b.npz'), ('a.nii.gz', 'more/b.png'),
                                         ('a.png', 'more/b.npy'), ('a.gif', 'more/b.bmp')])
def test_what_lies_in_a_folder_of_a_scan_s_folder_is_not_left_out(tmp_path, top, deeper):
    """Slices or volumes; before they are opened, for a part of the scan would pass for the whole."""
    for name in (top, deeper):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    refused(tmp_path, f'1 of its files lie in it and 1 in folders of it ({deeper}), which would be left out: put all slices')
    before = content_hashes([Exam('a', 'a', '', '', '', str(tmp_path))], tmp_path / '.store')
    (tmp_path / deeper).unlink()
    assert content_hashes([Exam('a', 'a', '', '', '', str(tmp_path))], tmp_path / '.store') != before


def test_what_is_no_slice_may_lie_in_a_folder_of_a_scan_s_folder(tmp_path):
    folder = slices(tmp_path / 'scan', 3)
    for name in ('more/preview.gif', '.ipynb_checkpoints/1.png', '@eaDir/1.png', 'more/list.csv', '$RECYCLE.BIN/9.png'):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new('L', (8, 6), 9).save(folder / name) if name.endswith('png') else (folder / name).write_bytes(b'x')
    assert len(decode(folder).voxels) == 3
    series(tmp_path / 'dicom')
    slices(tmp_path / 'dicom' / 'pictures', 3)
    assert len(decode(tmp_path / 'dicom').voxels) == 4


@pytest.mark.parametrize('name, lost', [('ct 1.png~', False), ('ct 7.png~', True), ('.ct 7.png~', False)])
def test_an_older_slice_that_an_editor_kept_is_none_unless_it_is_all_there_is(tmp_path, name, lost):
    folder = slices(tmp_path / 'scan', 3)
    (folder / name).write_bytes(b'x')
    if lost:
        refused(folder, f'{name}: 1 files that are called like its slices')
    else:
        assert len(decode(folder).voxels) == 3


def test_what_only_lies_beside_dicom_slices_is_none(tmp_path):
    series(tmp_path / 'scan')
    for name in ('LICENSE', 'README.md', 'Thumbs.db', 'desktop.ini', 'notes.doc', 'DICOMDIR', 's1.dcm.md5', 's2.dcm.xml'):
        (tmp_path / 'scan' / name).write_bytes(b'')
    Image.new('L', (20, 20), 7).save(tmp_path / 'scan' / 'preview.gif')
    assert len(decode(tmp_path / 'scan').voxels) == 4


def test_a_preview_beside_slices_is_none_and_pictures_of_its_kind_alone_are(tmp_path):
    folder = slices(tmp_path / 'scan', 3)
    Image.new('L', (20, 20), 7).save(folder / 'preview.bmp')
    assert decode(folder).voxels[:, 0, 0].tolist() == [0, 1, 2]
    (tmp_path / 'own').mkdir()
    for k in range(3):
        Image.new('L', (8, 6), k).save(tmp_path / 'own' / f'{k}.bmp')
    assert decode(tmp_path / 'own').voxels[:, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize('suffix', ['.bmp', '.webp', '.gif'])
def test_slices_that_go_on_in_another_format_are_slices(tmp_path, suffix):
    """Three of PNG, then two of another format; a preview of one of them is none."""
    folder = slices(tmp_path / 'scan', 3)
    for k in (3, 4):
        Image.new('L', (8, 6), k).save(folder / f'ct {k}{suffix}', **({'lossless': True} if suffix == '.webp' else {}))
    Image.new('L', (8, 6), 99).save(folder / f'ct 2{suffix}')
    assert decode(folder).voxels[:, 0, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('name', ['ct 3.png.part', 'ct 3.jp2', 'ct 3', 'ct 3.png_'])
def test_what_is_called_like_a_slice_and_is_none_is_named(tmp_path, name):
    folder = slices(tmp_path / 'scan', 3)
    (folder / name).write_bytes(b'')
    refused(folder, f'{name}: 1 files that are called like its slices')


def test_what_speaks_of_slices_may_lie_beside_them(tmp_path):
    folder = slices(tmp_path / 'scan', 3)
    for name in ('ct 1.xml', 'ct 2.roi', 'ct 7.txt', 'info.dat', 'Thumbs.db', '.ct 3.png.part', 'labels2.bin'):
        (folder / name).write_bytes(b'x')
    assert len(decode(folder).voxels) == 3


def test_a_scan_that_was_mended_is_another(tmp_path):
    """Else what was set aside once would be set aside for ever."""
    folder = slices(tmp_path / 'scan', 3)
    exam = [Exam('a', 'a', '', '', '', str(folder))]
    good = content_hashes(exam, tmp_path / 'store')
    for spoil in (lambda path: path.symlink_to('nowhere'), lambda path: path.symlink_to(tmp_path), lambda path: path.write_bytes(b'')):
        spoil(folder / 'ct 3.jp2')
        assert content_hashes(exam, tmp_path / 'store') != good
        (folder / 'ct 3.jp2').unlink()
    assert content_hashes(exam, tmp_path / 'store') == good


def test_what_cannot_be_opened_is_no_copy_of_another(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / '1.png').symlink_to('nowhere')
        (tmp_path / f'{name}.npz').write_bytes(b'')
    exams = [Exam(name, name, '', '', '', str(tmp_path / name)) for name in ('a', 'b', 'a.npz', 'b.npz', 'gone', 'lost')]
    assert len(set(content_hashes(exams, tmp_path / 'store'))) == 6


@pytest.mark.parametrize('names, missing', [
    ([f'{k:04d}' for k in range(12) if k not in (4, 5, 6)], [4, 5, 6]), ([f'ct_{k}' for k in (1, 2, 4)], [3]),
    ([f'IM-0001-{k:04d}' for k in (1, 2, 5)], [3, 4]), ([f'{k}' for k in range(0, 50, 5)], []), (['0', '5', '15', '20'], [10]),
    (['1', '2', '3'], []), (['1', '3'], []), (['a', 'b', 'c'], []), (['a1', 'b2', 'c4'], []), (['1-1', '1-2', '2-4', '2-9'], []),
    ([f'2020010{k}1200{k}' for k in (1, 5, 9)], []), (['1', '01', '2', '4'], [3]), (['20200101', '20200309', '20210212'], []), ([], [])])
def test_numbers_that_are_missing_among_slices(names, missing):
    assert missing_numbers([Path(f'{name}.png') for name in names]) == missing


@pytest.mark.parametrize('suffix, mode', [('.gif', 'L'), ('.gif', 'P'), ('.bmp', 'L'), ('.bmp', 'RGB'), ('.webp', 'RGB'), ('.jfif', 'L')])
def test_images_of_other_formats_are_the_same_grey(tmp_path, suffix, mode):
    grey = np.random.default_rng(0).integers(0, 255, (12, 10)).astype(np.uint8)
    image = Image.fromarray(np.kron(grey, np.ones((4, 4), np.uint8))).convert(mode)
    image.save(tmp_path / f'a{suffix}', **{'lossless': True} if suffix == '.webp' else {'format': 'JPEG', 'quality': 95} if suffix == '.jfif' else {})
    voxels = decode(tmp_path / f'a{suffix}').voxels
    assert voxels.shape == (1, 48, 40) and np.abs(voxels[0, 2::4, 2::4].astype(int) - grey).max() <= (3 if suffix == '.jfif' else 0)


@pytest.mark.parametrize('suffix', ['.gif', '.png', '.webp'])
def test_a_moving_picture_is_refused(tmp_path, suffix):
    frames = [Image.new('L', (8, 6), k * 50) for k in range(3)]
    frames[0].save(tmp_path / f'a{suffix}', save_all=True, append_images=frames[1:])
    refused(tmp_path / f'a{suffix}', 'a moving picture of 3 frames')
