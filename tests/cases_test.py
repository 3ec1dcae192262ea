"""The inputs of ../shared/cases, which public data sets and bug trackers taught: each is read as its script says, or refused in a line."""

import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from covid_jax import UserError, flags, sources
from covid_jax.config import base
from covid_jax.data import pipeline
from covid_jax.scans.decode import decode

CASES = Path(__file__).parents[1] / '../shared/cases'
CMC = Path(__file__).parents[1] / 'configs/cmc.py'


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


@pytest.fixture
def surveyed(tmp_path):
    """surveyed(config): (Survey, the lines that a training says)."""
    def survey(config):
        said = []
        return pipeline.survey(config, tmp_path / 'store', True, said.append), said
    return survey


@pytest.fixture
def prepared(surveyed, tmp_path):
    """prepared(config): (Dataset, the lines that a training says)."""
    def prepare(config):
        config.prep.size = (2, 4, 4)
        survey, said = surveyed(config)
        return pipeline.prepare(survey, tmp_path / 'store', 1, said.append), said
    return prepare


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


@pytest.mark.parametrize('suffix, line', [
    ('.xyz', '8 files in class folders are not read (covid: 8, and 2 exams, normal: 0, and 8 exams), as covid/c0.xyz: what is left out may '
             'tell the label; they stand in quarantine.csv'),
    ('.nrrd', '8 could not be prepared, see quarantine.csv: 8 covid'), ('.bmp', ''), ('.gif', '')])
def test_08_a_class_of_a_format_that_is_not_read(made, prepared, suffix, line):
    dataset, said = prepared(config('folder', made('08', suffix), val=0.0, test=0.0))
    assert Counter(exam.label for exam in dataset.exams) == {'covid': 2 if line else 10, 'normal': 8}
    assert said == [f'train: 8 noncovid, {2 if line else 10} covid'] if not line else line in said
    assert list(dataset.quarantine) == [f'covid/c{i}{suffix}' for i in range(8 if line else 0)]


def test_09_pictures_and_their_masks_in_folders_of_a_class(made):
    root = made('09')
    with pytest.raises(UserError, match='pictures of many people would be its slices'):
        listed('folder', root)


def test_10_signs_and_decimals_in_names(made):
    assert decode(made('10')).voxels[:, 0, 0].tolist() == [10 + 20 * k for k in range(8)]


PATIENTS = ['001', '1', '01', '001', '2', '002', '3', '4', '5', '6']


@pytest.mark.parametrize('name, classes, patients', [
    ('bom_crlf', (), PATIENTS), ('semicolon', (), PATIENTS), ('absolute', (), PATIENTS), ('int_labels', ('0', '1'), PATIENTS),
    ('nan_patient', (), [*PATIENTS[:6], *(f'my scans é/Scan {name}' for name in ('06.nii', '07.NII.GZ', '08.nii', '09.NII.GZ'))]),
    ('case_patient', (), ['Anna', '1', 'anna', '001', 'ANNA', '002', '3', '4', '5', '6'])])
def test_15_manifests_of_spreadsheets_that_are_read(made, surveyed, name, classes, patients):
    """What is written as a number stays as it is written, and 001, who has two scans, is in one split."""
    table = config('manifest', made('15') / f'{name}.csv')
    table.data.classes = classes or table.data.classes
    survey, said = surveyed(table)
    assert [exam.patient for exam in survey.exams] == patients
    assert [exam.label in ('1', 'covid') for exam in survey.exams] == [True, False] * 5
    assert all(decode(exam.path).voxels.shape == (4, 8, 8) for exam in survey.exams)
    splits = {exam.patient: exam.split for exam in survey.exams}
    assert all(exam.split == splits[exam.patient] for exam in survey.exams)
    alike = "'ANNA' and 'Anna' and 'anna'" if name == 'case_patient' else "'001' and '01' and '1', '002' and '2'"
    assert [alike in line for line in said].count(True) == 1
    assert any("4 rows call their patient 'nan' or the like" in line for line in said) == (name == 'nan_patient')


@pytest.mark.parametrize('name, classes, words', [
    ('backslash', (), ('backslash.csv: 10 scans are not there', 'their folders are parted by /')),
    ('pandas_index', (), ('pandas_index.csv: unknown columns', 'write the table with index=False')),
    ('utf16', (), ('utf16.csv: no text in UTF-8', 'save the table as "CSV UTF-8"')),
    ('int_labels', (), ('Scan 00.nii', "label '1' is not declared: add")),
    ('float_labels_nan', ('0.0', '1.0'), ('Scan 09.NII.GZ', "label 'nan' is not declared: add")),
    ('same_file_twice', (), ('1 scan is here more than once', 'r8', 'again', 'keep one of each'))])
def test_15_manifests_of_spreadsheets_that_say_too_little(made, surveyed, name, classes, words):
    table = config('manifest', made('15') / f'{name}.csv')
    table.data.classes = classes or table.data.classes
    with pytest.raises(UserError) as caught:
        surveyed(table)
    line = str(caught.value)
    assert '\n' not in line and all(word in line for word in words), line


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


@pytest.mark.parametrize('table, value, test', [
    ('m', "('001',)", '001'), ('m', '(001,)', '001'), ('plain', '(1,)', '1'), ('plain', '1', '1'), ('m', '(1,)', '')])
def test_24_patients_whose_ids_are_numbers(made, surveyed, monkeypatch, table, value, test):
    """What a flag holds out is the test split, and whom there is not is named in one line."""
    monkeypatch.setattr(ConfigDict, '__str__', object.__repr__)  # the text of defaults takes absl longer than all else
    root = made('24') / f'{table}.csv'
    given = flags.parse([f'--config={CMC}:baseline,size=small', '--config.data.source=manifest', f'--config.data.root={root}',
                         f'--config.data.held_out={value}']).config
    if not test:
        with pytest.raises(UserError, match='^held_out names patients that the data does not have: 1; it has 001, 002'):
            surveyed(given)
        return
    exams = surveyed(given)[0].exams
    assert {exam.patient for exam in exams if exam.split == 'test'} == {test} and len(exams) == 10
    assert {exam.split for exam in exams} == {'train', 'val', 'test'}


def test_25_numbers_that_are_missing_are_said(made, surveyed, tmp_path):
    folder = made('25')
    assert decode(folder).voxels[:, 0, 0].tolist() == [10 + 15 * k for k in range(12) if k not in (4, 5, 6)]
    (tmp_path / 'data' / 'covid').mkdir(parents=True)
    folder.rename(tmp_path / 'data' / 'covid' / 's')
    _, said = surveyed(config('folder', tmp_path / 'data', val=0.0, test=0.0))
    assert ('1 scan has slices whose numbers are not all there (1 covid), as covid/s, which lacks 4, 5, 6: it is read as if they '
            'were neighbours') in said


def test_30_hounsfield_units_in_one_class_and_grey_in_the_other(made, prepared):
    root = made('30')
    dataset, said = prepared(config('folder', root))
    assert len(dataset.exams) == 20 and not dataset.quarantine
    assert said[-1] == ('scans in Hounsfield units and in grey values are mixed (noncovid 10 and 0, covid 0 and 10): the window is applied to '
                        'the former alone, and where classes differ in it a network can tell the label by it')
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
