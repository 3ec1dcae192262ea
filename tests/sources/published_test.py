from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from layouts import listed, refused, touch, write
from scan_files import real

from covid_jax.scans.decode import decode
from covid_jax.sources import published
from covid_jax.sources.exams import class_index

BINARY = ('noncovid|non-covid|non_covid|normal|pneumonia|cap|cp', 'covid|covid-19|covid19|ncp')
UID = '1.3.6.1.4.1.14519.5.2.1.6279.6001.10022528722236566367867683686'


def cov19(root):
    touch(root, *(f'{split}/{label}/ct_scan_{n}/{k}.jpg' for split in ('train', 'val')
                  for label, count in (('covid', 2), ('non-covid', 3)) for n in range(count) for k in (0, 1)))


class TestCov19CtDb:

    def test_splits_labels_and_the_counts_of_the_paper(self, tmp_path):
        cov19(tmp_path)
        touch(tmp_path, 'test/ct_scan_7/0.jpg', 'test/0a4e7be0-3f5f/0.jpg', 'train/covid/.hidden/0.jpg', 'train/a.csv')
        exams, notes = listed(published.cov19_ct_db, tmp_path)
        assert Counter((exam.split, exam.label) for exam in exams) == {
            ('train', 'covid'): 2, ('train', 'non-covid'): 3, ('val', 'covid'): 2, ('val', 'non-covid'): 3,
            ('test', ''): 2}
        assert exams[0] == ('train/covid/ct_scan_0', 'train/covid/ct_scan_0', 'COV19-CT-DB', 'covid', 'train',
                            str(tmp_path / 'train/covid/ct_scan_0'))
        assert len({exam.patient for exam in exams}) == 12 and exams[-1].id == 'test/ct_scan_7'
        assert any('2 train covid (the paper: 690), 3 train non-covid (the paper: 870)' in note for note in notes)

    def test_folders_of_the_challenge_give_the_same_ids(self, tmp_path):
        touch(tmp_path, 'train_cov19d/covid/ct_scan_0/0.jpg', 'train_cov19d/non-covid/ct_scan899/0.jpg',
              'validation_cov19d/covid/ct_scan_0/0.jpg', 'validation_cov19d/non_covid/ct_scan_1/0.jpg')
        exams, _ = listed(published.cov19_ct_db, tmp_path)
        assert [exam.id for exam in exams] == ['train/covid/ct_scan_0', 'train/non-covid/ct_scan899',
                                               'val/covid/ct_scan_0', 'val/non-covid/ct_scan_1']

    def test_store_of_npy_and_a_labelled_test(self, tmp_path):
        touch(tmp_path, *(f'{split}/{label}/a.npy' for split in ('train', 'val', 'test')
                          for label in ('covid', 'non-covid')))
        exams, _ = listed(published.cov19_ct_db, tmp_path)
        assert exams[5] == ('test/non-covid/a', 'test/non-covid/a', 'COV19-CT-DB', 'non-covid', 'test',
                            str(tmp_path / 'test/non-covid/a.npy'))

    @pytest.mark.parametrize(('right', 'wrong'), [('train/covid', 'train/covd'), ('test', 'tests')])
    def test_a_misnamed_folder_is_refused_and_named(self, tmp_path, right, wrong):
        cov19(tmp_path)
        touch(tmp_path, 'test/ct_scan_0/0.jpg')
        (tmp_path / right).rename(tmp_path / wrong)
        line = refused(listed, published.cov19_ct_db, tmp_path)
        assert f"is {Path(wrong).name!r} meant to be {Path(right).name!r}?" in line and '/<scan>' in line

    def test_missing_empty_and_double_folders_are_refused(self, tmp_path):
        line = refused(listed, published.cov19_ct_db, tmp_path)
        assert "no folder 'train'" in line and 'found: nothing' in line
        cov19(tmp_path)
        touch(tmp_path, 'train/covid/ct_scan_0.npy')
        assert 'train/covid/ct_scan_0' in refused(listed, published.cov19_ct_db, tmp_path)
        (tmp_path / 'validation').mkdir()
        assert 'val and validation' in refused(listed, published.cov19_ct_db, tmp_path)
        (tmp_path / 'validation').rmdir()
        (tmp_path / 'test').mkdir()
        assert 'test holds no scans' in refused(listed, published.cov19_ct_db, tmp_path)


class TestPosNeg:

    def test_labels_patients_and_masks(self, tmp_path):
        """A mask is no exam; other files are none."""
        touch(tmp_path, 'pos/1/a.nii.gz', 'pos/1/a_mask.nii.gz', 'pos/1/b.nii.gz', 'neg/1/a.nii.gz', 'neg/2/c.nii.gz', 'neg/2/c_mask.nii.gz',
              'neg/2/notes.txt', 'neg/2/gone_mask.nii.gz', 'pos/stray.nii.gz')
        exams, notes = listed(published.pos_neg, tmp_path)
        assert [(exam.id, exam.patient, exam.label) for exam in exams] == [
            ('pos/1/a', 'pos/1', 'covid'), ('pos/1/b', 'pos/1', 'covid'), ('neg/1/a', 'neg/1', 'noncovid'), ('neg/2/c', 'neg/2', 'noncovid')]
        assert [exam.path.removeprefix(f'{tmp_path}/') for exam in exams] == [
            'pos/1/a.nii.gz::lungs=a_mask.nii.gz', 'pos/1/b.nii.gz', 'neg/1/a.nii.gz', 'neg/2/c.nii.gz::lungs=c_mask.nii.gz']
        assert notes == [f'{tmp_path / name}: 1 of 2 exams have a mask of their lungs beside them; of the others lungs are looked for'
                         for name in ('pos', 'neg')] + [
            f'{tmp_path}: 3 files are no exam and no mask of one, as pos/stray.nii.gz: {{pos,neg}}/<patient>/<exam>.nii.gz']

    def test_a_folder_that_is_missing_or_empty(self, tmp_path):
        touch(tmp_path, 'pos/1/a.nii.gz')
        assert 'neg' in refused(listed, published.pos_neg, tmp_path)
        touch(tmp_path, 'neg/1/a_mask.nii.gz')
        assert 'files <patient>/<exam>.nii.gz' in refused(listed, published.pos_neg, tmp_path)


class TestCcCcii:

    def make(self, root):
        for scan, count in (('NCP/25/1181', 20), ('NCP/25/1183', 21), ('CP/25/3690', 30), ('Normal/742/177', 25),
                            ('Normal/1761/1127', 18)):
            touch(root, *(f'{scan}/{k}.{("png", "jpg", "tif")[k % 3]}' for k in range(count)))

    def test_labels_patients_and_short_scans(self, tmp_path):
        self.make(tmp_path)
        exams, notes = listed(published.cc_ccii, tmp_path)
        assert [(exam.id, exam.patient, exam.label, exam.split) for exam in exams] == [
            ('NCP/25/1181', 'NCP/25', 'NCP', ''), ('NCP/25/1183', 'NCP/25', 'NCP', ''),
            ('CP/25/3690', 'CP/25', 'CP', ''), ('Normal/742/177', 'Normal/742', 'Normal', '')]
        assert notes == ['CC-CCII: 1 of 5 scans have fewer than 20 slices and are left out']

    def test_the_table_tells_what_is_incomplete(self, tmp_path):
        self.make(tmp_path)
        write(tmp_path / 'unzip_filenames.csv', 'zip_file,label,patient_id,scan_id,n_slice',
              'NCP-8.zip,NCP,25,1181,129', 'NCP-8.zip,NCP,25,1183,21', 'CP-8.zip,CP,1327,3690,253',
              'CP-8.zip,CP,1327,3690,253', newline='\r\n')
        assert listed(published.cc_ccii, tmp_path)[1][1] == (
            'CC-CCII: of 3 scans in unzip_filenames.csv 1 are not here and 1 have another number of slices '
            '(NCP/25/1181)')
        write(tmp_path / 'unzip_filenames.csv', 'zip_file,label,scan_id', 'a,NCP,1')
        assert 'expected the columns label, patient_id' in refused(listed, published.cc_ccii, tmp_path)

    def test_a_class_without_scans_is_refused(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / 'Normal').rename(tmp_path / 'other')
        (tmp_path / 'Normal').mkdir()
        assert 'Normal holds no folders <patient>/<scan> (found: nothing)' in refused(listed, published.cc_ccii, tmp_path)


class TestCovidCtMd:

    def test_folders_of_classes(self, tmp_path):
        touch(tmp_path, 'COVID-19 subjects/P001/a_1.dcm', 'COVID-19 subjects/P002/a_1.dcm', 'Cap subjects/cap001/x.dcm',
              'Normal subjects/normal001/x.dcm', 'Index.csv')
        exams, notes = listed(published.covid_ct_md, tmp_path)
        assert {exam.patient: exam.label for exam in exams} == {
            'P001': 'COVID-19', 'P002': 'COVID-19', 'cap001': 'CAP', 'normal001': 'Normal'}
        assert exams[2].path == str(tmp_path / 'Cap subjects/cap001')
        assert [class_index(exam.label, BINARY) for exam in exams] == [1, 1, 0, 0]
        assert '2 COVID-19 (the paper: 169)' in notes[0]

    def test_folders_of_subjects(self, tmp_path):
        touch(tmp_path, 'dicom/P010/1.dcm', 'dicom/cap002/1.dcm', 'dicom/normal003/1.dcm', 'dicom/N001/1.dcm',
              'dicom/Petra/1.dcm')
        exams, _ = listed(published.covid_ct_md, tmp_path)
        assert {exam.id: exam.label for exam in exams} == {'P010': 'COVID-19', 'cap002': 'CAP', 'normal003': 'Normal',
                                                           'N001': 'Normal'}
        (tmp_path / 'dicom/P011').mkdir()
        assert 'P011 holds no DICOM files' in refused(listed, published.covid_ct_md, tmp_path)

    def test_volumes_come_first_and_their_label_is_never_unpickled(self, tmp_path):
        np.savez(tmp_path / 'P1.npz', hu=np.zeros((2, 2, 2), np.int16), label='Normal')
        touch(tmp_path, 'dicom/P1/1.dcm', 'dicom/P2/1.dcm', '._P1.npz')
        exams, notes = listed(published.covid_ct_md, tmp_path)
        assert exams == [('P1', 'P1', 'COVID-CT-MD', 'Normal', '', str(tmp_path / 'P1.npz'))]
        assert '1 .npz volumes are read, the DICOM files of 2 subjects' in notes[0]
        np.savez(tmp_path / 'P2.npz', label=np.array({'a': 1}, object))
        assert 'P2.npz' in refused(listed, published.covid_ct_md, tmp_path)
        np.savez(tmp_path / 'P2.npz', hu=np.zeros((2, 2, 2), np.int16))
        line = refused(listed, published.covid_ct_md, tmp_path)
        assert 'P2.npz' in line and 'label' in line

    def test_nothing_is_refused(self, tmp_path):
        touch(tmp_path, 'patients/1.dcm')
        line = refused(listed, published.covid_ct_md, tmp_path)
        assert 'found: patients' in line and 'P001' in line

    def test_real(self):
        exams, notes = listed(published.covid_ct_md, real('COVID-CT-MD'))
        assert {exam.patient: exam.label for exam in exams} == {
            'P001': 'COVID-19', 'cap001': 'CAP', 'cap002': 'CAP', 'normal001': 'Normal'}
        assert 'the DICOM files of 1 subjects' in notes[0]
        exams, _ = listed(published.covid_ct_md, real('COVID-CT-MD/dicom'))
        assert [exam[:5] for exam in exams] == [('cap002', 'cap002', 'COVID-CT-MD', 'CAP', '')]

    def test_slices(self, tmp_path):
        """Of the sick the slices labelled so, of the others all; each is the one of its number, of one patient."""
        hu = np.stack([np.full((4, 4), 10 * z, np.int16) for z in range(4)])
        for name, label, of_slices in (('P1', 'COVID-19', [0, 1, -1, 1]), ('cap1', 'CAP', [1, 0, 0, 1]),
                                       ('normal1', 'Normal', [-1, -1, -1, -1])):
            np.savez(tmp_path / f'{name}.npz', hu=hu, label=label, slice_label=np.array(of_slices, np.int8))
        exams, (note,) = listed(published.covid_ct_md_slices, tmp_path)
        assert [exam.id for exam in exams if exam.label == 'COVID-19'] == ['P1::slice=1', 'P1::slice=3']
        assert {(exam.patient, exam.label) for exam in exams} == {('P1', 'COVID-19'), ('cap1', 'CAP'), ('normal1', 'Normal')}
        assert len(exams) == 10 and 'of 4 slices of COVID-19 subjects 2 are labelled infected, the other 2 are left out' in note
        for exam in exams:
            voxels = decode(exam.path).voxels
            assert voxels.shape == (1, 4, 4) and (voxels == 10 * int(exam.id[-1])).all()
        assert [class_index(exam.label, BINARY) for exam in exams] == 2 * [1] + 8 * [0]

    def test_slices_without_labels_are_refused(self, tmp_path):
        line = refused(listed, published.covid_ct_md_slices, tmp_path)
        assert 'holds no .npz volumes of COVID-CT-MD' in line
        volume = {'hu': np.zeros((2, 2, 2), np.int16), 'label': 'COVID-19'}
        for more, said in (({}, 'slice_label'), ({'slice_label': np.array([1, 7], np.int8)}, '7'),
                           ({'slice_label': np.array([0, 0], np.int8)}, 'holds no slices of these'),
                           ({'slice_label': np.array([1, 0], np.int8), 'label': 'covid'}, "the label 'covid'")):
            np.savez(tmp_path / 'P1.npz', **{**volume, **more})
            assert said in refused(listed, published.covid_ct_md_slices, tmp_path)

    def test_real_slices(self):
        """80 slices of P001 are labelled infected; the others have 168, 131 and 154."""
        exams, (note,) = listed(published.covid_ct_md_slices, real('COVID-CT-MD'))
        assert Counter(exam.patient for exam in exams) == {'P001': 80, 'cap001': 168, 'cap002': 131, 'normal001': 154}
        assert 'the other 68 are left out' in note
        assert decode(exams[-1].path).voxels.shape == (1, 128, 128)


def mhd(path, matrix='1 0 0 0 1 0 0 0 1', offset='Offset = -198.1 -195 -335.5', spacing='0.76 0.76 2.5', depth='121'):
    write(path, 'ObjectType = Image', 'NDims = 3', f'TransformMatrix = {matrix}', offset, f'ElementSpacing = {spacing}',
          f'DimSize = 512 512 {depth}', 'ElementType = MET_SHORT', f'ElementDataFile = {path.stem}.raw')


class TestLuna16:

    def test_slices(self, tmp_path):
        touch(tmp_path, f'{UID}0.mhd_154.png', f'{UID}0.mhd_314.png', f'{UID}1.mhd_45.png', 'cover.png')
        exams, notes = listed(published.luna16, tmp_path)
        assert [(exam.patient, exam.label, exam.split) for exam in exams] == [(UID + n, '', '') for n in '001']
        assert notes == ['LUNA16: 1 images are not called <series>.mhd_<slice>.png and are left out']

    @pytest.mark.parametrize('place', ['', 'CSVFILES', 'subset0'])
    def test_slices_of_nodules(self, tmp_path, place):
        mhd(tmp_path / f'subset0/{UID}0.mhd')
        mhd(tmp_path / f'subset3/{UID}1.mhd', '-1 0 0 0 -1 0 0 0 1', offset='Position = 0 0 10', spacing='1 1 1.25')
        mhd(tmp_path / f'subset3/{UID}2.mhd')
        write(tmp_path / place / 'annotations.csv', 'seriesuid,coordX,coordY,coordZ,diameter_mm',
              f'{UID}0,-128.6,-175.3,-298.3,5.6', f'{UID}0,103.7,-211.9,-297.2,4.2', f'{UID}0,1,2,-335.5,8',
              f'{UID}1,1,2,20.0,8', f'{UID}9,1,2,20.0,8')
        exams, notes = listed(published.luna16, tmp_path)
        # (-298.3 + 335.5) / 2.5 = 14.88 and (-297.2 + 335.5) / 2.5 = 15.32 are one slice, (20 - 10) / 1.25 is 8
        assert [exam.id for exam in exams] == [f'subset0/{UID}0.mhd::slice=0', f'subset0/{UID}0.mhd::slice=15',
                                               f'subset3/{UID}1.mhd::slice=8']
        assert exams[1].path == f'{tmp_path}/subset0/{UID}0.mhd::slice=15' and exams[1].patient == UID + '0'
        assert notes == ['LUNA16: 3 slices with nodules; 1 of 3 scans have none, '
                         '1 nodules are of scans that are not here']

    def test_whole_scans_without_annotations(self, tmp_path):
        mhd(tmp_path / f'{UID}0.mhd')
        exams, notes = listed(published.luna16, tmp_path)
        assert exams == [(f'{UID}0.mhd', UID + '0', 'LUNA16', '', '', str(tmp_path / f'{UID}0.mhd'))]
        assert 'whole scans' in notes[0]

    @pytest.mark.parametrize(('header', 'word'), [
        ({'matrix': '1 0 0 0 1 0 0 0 -1'}, 'TransformMatrix'), ({'matrix': '1 0 0 0 0 1 0 1 0'}, 'TransformMatrix'),
        ({'offset': ''}, 'Offset'), ({'spacing': '1 1 0'}, 'steps of 0'), ({'spacing': '1 1 nan'}, 'nan'),
        ({'depth': '10'}, 'outside the 10 slices'), ({'matrix': '1'}, '.mhd'), ({'offset': 'x' * 5000}, 'KEY = VALUE')])
    def test_headers_that_cannot_be(self, tmp_path, header, word):
        mhd(tmp_path / f'{UID}0.mhd', **header)
        write(tmp_path / 'annotations.csv', 'seriesuid,coordX,coordY,coordZ,diameter_mm', f'{UID}0,1,2,-298.3,5.6')
        line = refused(listed, published.luna16, tmp_path)
        assert word in line and f'{UID}0' in line

    def test_a_nodule_without_a_place_and_none_of_these_scans(self, tmp_path):
        mhd(tmp_path / f'{UID}0.mhd')
        write(tmp_path / 'annotations.csv', 'seriesuid,coordX,coordY,coordZ', f'{UID}0,1,2,nan')
        assert 'annotations.csv' in refused(listed, published.luna16, tmp_path)
        write(tmp_path / 'annotations.csv', 'seriesuid,coordX,coordY,coordZ', f'{UID}9,1,2,3')
        assert 'annotations.csv holds no nodules of the scans that are here' in refused(listed, published.luna16, tmp_path)

    def test_nothing_and_both(self, tmp_path):
        assert '0 .mhd scans and 0 slices' in refused(listed, published.luna16, tmp_path)
        mhd(tmp_path / f'{UID}0.mhd')
        touch(tmp_path, f'{UID}0.mhd_154.png')
        assert 'one of the two' in refused(listed, published.luna16, tmp_path)
