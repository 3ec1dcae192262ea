"""The inputs of ../shared/cases, which public data sets and bug trackers taught: each is read as its script says, or refused in a line."""

import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from covid_jax import UserError, sources
from covid_jax.config import base
from covid_jax.data import pipeline
from covid_jax.scans.decode import decode

CASES = Path(__file__).parents[1] / '../shared/cases'


@pytest.fixture
def made(tmp_path, monkeypatch, capsys):
    """made(number, *arguments): the folder that a script writes, which also says what is right."""
    def make(number, *arguments):
        found = sorted(CASES.glob(f'{number}_*.py'))
        if not found:
            pytest.skip(f'needs the scripts in {CASES}')
        folder = tmp_path / '_'.join((number, *arguments))
        monkeypatch.setattr(sys, 'argv', [str(found[0]), str(folder), *arguments])
        runpy.run_path(str(found[0]), run_name='__main__')
        assert capsys.readouterr().out.startswith('right: ')
        return folder
    return make


def no(path, *words):
    """That decode refuses a path in one line with these words."""
    with pytest.raises(UserError) as caught:
        decode(path)
    line = str(caught.value)
    assert '\n' not in line and all(word in line for word in (path.name, *words)), line


def config(source, root, **fields):
    c = base()
    c.data.update(source=source, root=str(root), **fields)
    return c


def listed(source, root, **fields):
    """(exams, what is left out and then said) of a data set."""
    parts, left = sources.listed(config(source, root, **fields).data, lambda line: None)
    return [exam for exams in parts for exam in exams], left


def test_01_hounsfield_units_with_an_offset_in_16_bits(made):
    no(made('01'), 'Hounsfield units, perhaps with an offset')


@pytest.mark.parametrize('bits', ['12', '16'])
def test_02_a_lost_sign(made, bits):
    no(made('02', bits), 'a sign was lost')


def test_03_a_lost_intercept(made):
    no(made('03'), 'from 24 to 1064', 'RescaleIntercept')


def test_04_and_20_slices_that_cannot_be_opened(made):
    for kind in ('png', 'dcm'):
        no(made('04') / kind, 'links whose content is not here', *(f'slice{k:02d}.{kind}' for k in (6, 7, 8, 9)))
    for kind in ('IMA', 'dcm'):
        no(made('20') / kind, f'P01.CT.0006.x.{kind}')


def test_05_masks_beside_scans(made):
    root = made('05')
    exams, left = listed('folder', root)
    assert Counter(exam.label for exam in exams) == {'covid': 6, 'normal': 6}
    assert [(one.label, one.kind) for one in left] == [('covid', 'mask')] * 6
    mask = next(root.glob('covid/*_seg.nii.gz'))
    no(mask, 'by its name the mask of')
    no(mask.rename(mask.with_name('other.nii.gz')), '2 different values alone')


def test_06_positions_with_one_decimal(made):
    scan = decode(made('06'))
    assert scan.spacing == pytest.approx((.625, 1, 1))
    np.testing.assert_array_equal(scan.voxels[:, 0, 0], 10 * np.arange(24) - 1024)


@pytest.mark.parametrize('suffix, read', [('.xyz', 2), ('.bmp', 10), ('.gif', 10)])
def test_08_a_class_of_a_format_that_is_not_read(made, suffix, read):
    exams, left = listed('folder', made('08', suffix))
    assert Counter(exam.label for exam in exams) == {'covid': read, 'normal': 8}
    assert [one.label for one in left] == ['covid'] * (10 - read)


def test_09_pictures_and_their_masks_in_folders_of_a_class(made):
    root = made('09')
    with pytest.raises(UserError, match='pictures of many people would be its slices'):
        listed('folder', root)


def test_10_signs_and_decimals_in_names(made):
    assert decode(made('10')).voxels[:, 0, 0].tolist() == [10 + 20 * k for k in range(8)]


@pytest.mark.parametrize('name', ['bom_crlf', 'semicolon', 'backslash', 'absolute', 'pandas_index'])
def test_15_manifests_of_spreadsheets(made, name):
    try:
        exams, _ = listed('manifest', made('15') / f'{name}.csv')
    except UserError as error:
        assert f'{name}.csv' in str(error) and '\n' not in str(error)
        return
    assert [exam.patient for exam in exams] == ['001', '1', '01', '001', '2', '002', '3', '4', '5', '6']
    assert all(decode(exam.path).voxels.shape == (4, 8, 8) for exam in exams)


def test_16_one_scan_under_two_labels(made, tmp_path):
    with pytest.raises(UserError, match='s0.nii'):
        pipeline.survey(config('manifest', made('16') / 'm.csv'), tmp_path / 'store', True, print)


@pytest.mark.parametrize('kind', ['with', 'without', 'without_dcm', 'mixed_vr'])
def test_18_dicom_without_preamble_or_suffix(made, kind):
    scan = decode(made('18') / kind)
    assert scan.voxels[:, 3, 3].tolist() == [-1024, -924, -824, -724, -624, -524]


def test_23_kinds_of_tiff(made):
    folder = made('23')
    no(folder / 'raw16.tif', '16 bits that do not use their range')
    no(folder / 'float.tif', 'floating-point')
    no(folder / 'imagej.tif', '6 slices on 1 page')
    assert decode(folder / 'stack.tif').voxels[:, 0, 0].tolist() == [0, 20, 40, 60, 80, 100]


def test_24_patients_whose_ids_are_numbers(made):
    folder = made('24')
    exams, _ = listed('manifest', folder / 'm.csv', held_out=('001',))
    assert {exam.patient for exam in exams} == {f'{i:03d}' for i in range(1, 11)}


def test_25_numbers_that_are_missing_are_said(made):
    from covid_jax.scans.lost import missing_numbers

    folder = made('25')
    assert missing_numbers(sorted(folder.iterdir())) == [4, 5, 6]
    assert decode(folder).voxels[:, 0, 0].tolist() == [10 + 15 * k for k in range(12) if k not in (4, 5, 6)]


def test_30_hounsfield_units_in_one_class_and_grey_in_the_other(made):
    root = made('30')
    assert not decode(root / 'covid/radiopaedia_000.nii.gz').hounsfield
    assert decode(root / 'normal/coronacases_000.nii.gz').hounsfield


def test_32_one_series_in_many_broken_ways(made):
    root = made('32')
    no(root / 'copies', 'IM2 (1).dcm', 'same position')
    hu = [[1, 2, .5][k % 3] * 100 * k + [-1024, -1000, -500][k % 3] for k in range(6)]
    np.testing.assert_allclose(decode(root / 'per_slice').voxels[:, 0, 0], hu)
    no(root / 'no_intercept', 'neither how its values become Hounsfield units nor a window')
    grey = [255 * min(max((100 * k - 249.5) / 499 + .5, 0), 1) for k in range(6)]
    np.testing.assert_allclose(decode(root / 'no_intercept_window').voxels[:, 0, 0], grey, rtol=1e-5)
    no(root / 'one_without', 'slice 4')
    spaceless = decode(root / 'no_spacing')
    assert spaceless.hounsfield and spaceless.spacing is None
    no(root / 'no_position', 'does not say where it is')
