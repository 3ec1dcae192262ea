"""Folders of masks beside folders of pictures are known by what is in them; patients and series side by side are none."""

import numpy as np
import pytest
from dicoms import ct
from layouts import refused
from PIL import Image

from covid_jax import sources

NUMBERS = ('1', '2', '10')


def lay(folder, names, levels=256):
    """Pictures of noise, of so many values."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        values = np.random.default_rng(i).integers(0, levels, (40, 40)) * (255 // (levels - 1))
        Image.fromarray(values.astype(np.uint8)).save(folder / f'{name}.png')


@pytest.mark.parametrize('pictures, masks, levels', [
    ('CT', 'Lung_mask', 256), ('scan', 'label', 256), ('CT_scans', 'GT', 256), ('frames', 'ground truth', 256), ('x', 'InfectionMask', 256), ('x', 'LabelMap', 256),
    ('x', 'chestmasks', 256), ('x', 'GT02', 2), ('x', 'Label_Anna', 2), ('x', 'chestmask', 256), ('slices', 'lung', 2), ('a', 'b', 2), ('b', 'a', 4)])
def test_a_folder_of_masks_beside_one_of_pictures_is_refused(tmp_path, pictures, masks, levels):
    lay(tmp_path / 'covid' / pictures, NUMBERS)
    lay(tmp_path / 'covid' / masks, NUMBERS, levels)
    line = refused(sources.folder, tmp_path)
    why = 'is called like masks' if levels == 256 else 'holds pictures of few values'
    assert f'{masks} {why}' in line and f'like those in {tmp_path}/covid/{pictures}: move {masks} away' in line
    assert f'a folder in {tmp_path}/covid is one scan' in line and 'source=chest_xray' in line


def test_among_many_folders_those_whose_name_speaks_of_masks_are_looked_into(tmp_path):
    for i in range(9):
        lay(tmp_path / 'covid' / f'P{i}', NUMBERS)
    lay(tmp_path / 'covid' / 'Label_Anna', NUMBERS)
    assert len(sources.folder(tmp_path)) == 10
    lay(tmp_path / 'covid' / 'Label_Anna', NUMBERS, 2)
    assert 'Label_Anna holds pictures of few values' in refused(sources.folder, tmp_path)


def test_dicom_files_are_no_masks_whatever_their_folder_is_called(tmp_path):
    for name in ('GT', 'CT'):
        (tmp_path / 'covid' / name).mkdir(parents=True)
        for k in range(3):
            ct(tmp_path / 'covid' / name / f'IM{k}', np.zeros((8, 8), '<u2'), 5. * k, k + 1)
    assert len(sources.folder(tmp_path)) == 2


def test_files_are_called_alike_by_their_numbers_and_lie_in_the_class_itself_too(tmp_path):
    lay(tmp_path / 'covid', ('CT 1', 'CT 2', 'CT 3'))
    lay(tmp_path / 'covid' / 'y', ('out-01', 'out-02', 'out-03', 'out-09'), 2)
    assert f'like those in {tmp_path}/covid: move y away' in refused(sources.folder, tmp_path)
    for name in ('out-01', 'out-02'):
        (tmp_path / 'covid' / 'y' / f'{name}.png').unlink()
    assert 'covid/CT 1.png is an exam of one image, and covid/y one of 2' in refused(sources.folder, tmp_path)  # and no masks


def test_a_folder_called_after_its_class_is_no_scan_of_it(tmp_path):
    lay(tmp_path / 'covid', NUMBERS)
    lay(tmp_path / 'covid' / 'covid_mask', NUMBERS, 2)
    assert f'like those in {tmp_path}/covid: move covid_mask away' in refused(sources.folder, tmp_path)


@pytest.mark.parametrize('folders', [
    {'P1': (NUMBERS, 256), 'P2': (NUMBERS, 256), 'P3': (('1', '2'), 256)},  # patients
    {'a': (NUMBERS, 256), 'a_lung': (NUMBERS, 256), 'b': (NUMBERS, 256)},  # a series of another kernel
    {'P1': (NUMBERS, 256), 'GT02': (NUMBERS, 256), 'Seg-3': (NUMBERS, 256), 'SEG0001': (NUMBERS, 256), 'ROI 180mm': (NUMBERS, 256), 'Label_Anna': (NUMBERS, 256)},
    {'Segal': (NUMBERS, 256), 'Labelle': (NUMBERS, 256), 'Weight': (NUMBERS, 256)},
    {'P1': (NUMBERS, 256), 'P2_mask': (('7', '8'), 256)},
    {'P1': (('a', 'b', 'c'), 256), 'P2': (('x', 'y', 'z'), 2)},  # called otherwise, without numbers
    {'P1': (NUMBERS, 2), 'P2': (NUMBERS, 2)},  # all alike: decoding says what they are
    {f'P{i}': (NUMBERS, 2 if i == 4 else 256) for i in range(9)}])  # more than masks come in: decoding sets one aside
def test_scans_side_by_side_are_read(tmp_path, folders):
    for name, (files, levels) in folders.items():
        lay(tmp_path / 'covid' / name, files, levels)
    assert [exam.id for exam in sources.folder(tmp_path)] == sorted(f'covid/{name}' for name in folders)


def test_what_speaks_of_pictures_makes_no_masks_of_them(tmp_path):
    lay(tmp_path / 'covid' / 'P1', NUMBERS)
    lay(tmp_path / 'covid' / 'P2', ('7',), 2)
    for name in NUMBERS:
        (tmp_path / 'covid' / 'P2' / f'{name}.txt').write_text('x')
    assert len(sources.folder(tmp_path)) == 2


def test_pictures_that_cannot_be_read_are_no_masks(tmp_path):
    lay(tmp_path / 'covid' / 'P1', NUMBERS)
    lay(tmp_path / 'covid' / 'P2', NUMBERS)
    for path in (tmp_path / 'covid' / 'P2').iterdir():
        path.write_bytes(b'x')
    assert len(sources.folder(tmp_path)) == 2


def test_a_folder_of_one_picture_is_no_class_of_many(tmp_path):
    for label in ('covid', 'normal'):
        lay(tmp_path / label / 'P1', ('1',))
    said = []
    assert len(sources.folder(tmp_path, said.append)) == 2 and not said


def test_black_ends_of_a_scan_make_no_masks_of_it(tmp_path):
    for name in ('P1', 'P2'):
        lay(tmp_path / 'covid' / name, [str(k) for k in range(1, 9)])
    for end in '128':
        Image.new('L', (40, 40)).save(tmp_path / 'covid' / 'P2' / f'{end}.png')
    assert len(sources.folder(tmp_path)) == 2


def test_one_scan_in_each_class_is_said_though_a_folder_of_its_masks_lies_beside_it(tmp_path):
    said = []
    for label in ('covid', 'normal'):
        lay(tmp_path / label / 'CT', NUMBERS)
        lay(tmp_path / label / 'CT_mask', NUMBERS, 2)
    sources.folder(tmp_path, said.append)
    assert ['each class is one scan' in line for line in said] == [True]
