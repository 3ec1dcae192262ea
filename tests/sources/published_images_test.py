import csv
from collections import Counter
from pathlib import Path

import pytest
from layouts import listed, refused, touch, write
from scan_files import real

from covid_jax.sources import published_images
from covid_jax.sources.exams import class_index
from covid_jax.sources.names import whole

BINARY = ('noncovid|non-covid|non_covid|normal|pneumonia|cap|cp', 'covid|covid-19|covid19|ncp')


def covid_ct(root, splits=('train', 'val', 'test'), newline='\n', name='2020.02.10-p6%{n} (a) [b].{suffix}'):
    """The layout at full length, with names as odd as the real ones, and one image more than the lists name."""
    for label, counts in published_images.COVID_CT.items():
        start = 0
        for split, count in counts.items():
            names = [name.format(n=n, article=n // 4, suffix='png' if n % 2 else 'jpg') for n in range(start, start + count)]
            start += count
            touch(root / f'Images-processed/CT_{label}', *names)
            if split in splits:
                write(root / f'Data-split/{label}/{split}CT_{label}.txt', *(f'{image}  ' for image in names), '',
                      newline=newline)
    touch(root, 'Images-processed/CT_COVID/unlisted.png')


class TestCovidCt:

    @pytest.mark.parametrize('newline', ['\n', '\r\n'])
    def test_lists(self, tmp_path, newline):
        covid_ct(tmp_path, newline=newline)
        exams, notes = listed(published_images.covid_ct, tmp_path)
        assert Counter((exam.label, exam.split) for exam in exams) == {
            ('COVID', 'train'): 191, ('COVID', 'val'): 60, ('COVID', 'test'): 98,
            ('NonCOVID', 'train'): 234, ('NonCOVID', 'val'): 58, ('NonCOVID', 'test'): 105}
        assert 'COVID-CT: 1 image is in no list and left out' in notes and not any('absent' in note for note in notes)
        assert Path(exams[0].path).is_file() and exams[0].id == exams[0].patient
        assert {class_index(exam.label, BINARY) for exam in exams if exam.label == 'COVID'} == {1}

    def test_absent_lists_are_absent_splits(self, tmp_path):
        covid_ct(tmp_path, splits=('train',))
        exams, notes = listed(published_images.covid_ct, tmp_path)
        assert Counter(exam.split for exam in exams) == {'train': 191 + 234}
        absent = 'valCT_COVID.txt, testCT_COVID.txt, valCT_NonCOVID.txt, testCT_NonCOVID.txt'
        assert [note for note in notes if 'absent' in note] == [
            f'COVID-CT: the lists {absent} are not here: those splits are absent']

    def test_without_lists_every_image_is_given(self, tmp_path):
        covid_ct(tmp_path, splits=())
        exams, notes = listed(published_images.covid_ct, tmp_path)
        assert len(exams) == 349 + 397 + 1 and {exam.split for exam in exams} == {''}
        assert 'COVID-CT: no lists in Data-split: every image is given, without a split' in notes
        (tmp_path / 'Images-processed').rename(tmp_path / 'x')
        assert "no folder 'Images-processed'" in refused(listed, published_images.covid_ct, tmp_path)
        assert len(listed(published_images.covid_ct, tmp_path / 'x')[0]) == 747

    def test_modified_lists_are_refused(self, tmp_path):
        covid_ct(tmp_path)
        path = tmp_path / 'Data-split/COVID/valCT_COVID.txt'
        lines = path.read_text().split('\n')[:60]
        write(path, *lines, 'unlisted.png')
        line = refused(listed, published_images.covid_ct, tmp_path)
        assert str(path) in line and 'names 61 images, the official list 60' in line
        write(path, *lines[:57], 'a.png', 'b.png', 'c.png', 'd.png')
        assert 'names 4 images that are not here (a.png, b.png, c.png, ...)' in refused(listed, published_images.covid_ct, tmp_path)
        train = (tmp_path / 'Data-split/COVID/trainCT_COVID.txt').read_text().split('\n')[0]
        write(path, *lines[:59], train)
        line = refused(listed, published_images.covid_ct, tmp_path)
        assert 'names 1 images a second time' in line and '.txt' in line
        write(path, *lines[:59], lines[0])
        assert f'({lines[0].strip()})' in refused(listed, published_images.covid_ct, tmp_path)

    def test_misnamed_lists_and_folders(self, tmp_path):
        covid_ct(tmp_path)
        path = tmp_path / 'Data-split/NonCOVID/testCT_NonCOVID.txt'
        path.rename(path.with_name('testCT_Non-COVID.txt'))
        assert 'testCT_Non-COVID.txt is not a list of COVID-CT' in refused(listed, published_images.covid_ct, tmp_path)
        (tmp_path / 'Data-split').rename(tmp_path / 'Data-splits')
        assert "is 'Data-splits' meant to be 'Data-split'?" in refused(listed, published_images.covid_ct, tmp_path)

    def test_patients(self, tmp_path):
        covid_ct(tmp_path)
        write(tmp_path / 'COVID-CT-MetaInfo.csv', 'File name,Patient ID,Age,Captions',
              '2020.02.10-p6%0 (a) [b].jpg,Patient 1,41,"[""Figure, 1""]"', '2020.02.10-p6%1 (a) [b],Patient 1 ,41,')
        touch(tmp_path, 'NonCOVID-CT-MetaInfo.xlsx')
        exams, notes = listed(published_images.covid_ct, tmp_path)
        patients = {exam.id.removeprefix('Images-processed/CT_'): exam.patient for exam in exams}
        assert patients['COVID/2020.02.10-p6%0 (a) [b].jpg'] == patients['COVID/2020.02.10-p6%1 (a) [b].png'] == (
            'COVID/Patient 1')
        assert len(set(patients.values())) == 746 - 1
        assert any('COVID-CT-MetaInfo.csv for 348 of 350 COVID images' in note for note in notes)
        assert any('NonCOVID-CT-MetaInfo.xlsx is not read, save it as .csv' in note for note in notes)
        write(tmp_path / 'COVID-CT-MetaInfo.csv', 'image,patient', 'a,b')
        line = refused(listed, published_images.covid_ct, tmp_path)
        assert 'expected the columns File name, Patient ID, found image, patient' in line and 'MetaInfo.csv' in line

    def test_names_tell_articles_of_both_classes_and_the_official_lists_tear_them(self, tmp_path):
        """Four images an article: COVID images of train, val and test are of the articles 0-47, 47-62 and 62-87, the others
        of 0-58, 58-72 and 73-99. In two splits are 47 to 58 and 62 to 72, which are 12 + 11."""
        covid_ct(tmp_path, name='2020.03.13.{article}-p23-{n}.{suffix}')
        exams, notes = listed(published_images.covid_ct, tmp_path)
        of_split = {split: {exam.patient for exam in exams if exam.split == split} for split in ('train', 'val', 'test')}
        assert of_split['val'] & of_split['train'] == of_split['val'] & of_split['test'] == set()
        assert '2020.03.13.47 (train)' in of_split['train'] and '2020.03.13.47 (val)' in of_split['val']
        assert '2020.03.13.0' in of_split['train'] and '2020.03.13.99' in of_split['test']
        torn = [note for note in notes if 'in more than one split' in note]
        assert torn == ['COVID-CT: the lists have images of 23 groups in more than one split (2020.03.13.47, 2020.03.13.48, '
                        '2020.03.13.49, ...): kept so with the lists, whole where patients are drawn']
        assert any('349 are 88 groups' in note for note in notes) and any('397 are 100 groups' in note for note in notes)
        assert {exam.label for exam in exams if exam.patient == '2020.03.13.0'} == {'COVID', 'NonCOVID'}
        drawn = [whole(exam) for exam in exams]
        assert len({exam.patient for exam in drawn}) == 100 and {exam.split for exam in drawn} == {''}


class TestSarsCov2Ct:

    def test_images(self, tmp_path):
        touch(tmp_path, 'COVID/Covid (1).png', 'COVID/Covid (2).png', 'non-COVID/Non-Covid (1).png', 'COVID/Thumbs.db')
        exams, notes = listed(published_images.sars_cov_2_ct, tmp_path)
        assert [(exam.id, exam.label) for exam in exams] == [
            ('COVID/Covid (1).png', 'COVID'), ('COVID/Covid (2).png', 'COVID'),
            ('non-COVID/Non-Covid (1).png', 'non-COVID')]
        assert all(exam.patient == exam.id and not exam.split for exam in exams)
        assert 'random split' in notes[0] and '2 COVID (the paper: 1252), 1 non-COVID (the paper: 1230)' in notes[1]

    @pytest.mark.parametrize('non', [1229, 1230])
    def test_the_download_has_one_less_than_the_paper(self, tmp_path, non):
        touch(tmp_path, *(f'COVID/{n}.png' for n in range(1252)), *(f'non-COVID/{n}.png' for n in range(non)))
        assert len(listed(published_images.sars_cov_2_ct, tmp_path)[1]) == 1

    def test_real(self):
        exams, _ = listed(published_images.sars_cov_2_ct, real('SARS-CoV-2-CT'))
        assert Counter(exam.label for exam in exams) == {'COVID': 250, 'non-COVID': 250}


class TestChestXray:

    def test_folders_of_classes(self, tmp_path):
        touch(tmp_path, 'Covid-19/1F6343EE-AFEC.png', 'No_findings/00001305_001.png', 'Pneumonia/00001305_004.png')
        exams, notes = listed(published_images.chest_xray, tmp_path)
        assert [(exam.id, exam.patient, exam.label) for exam in exams] == [
            ('Covid-19/1F6343EE-AFEC.png', 'Covid-19/1F6343EE-AFEC.png', 'COVID-19'),
            ('No_findings/00001305_001.png', '00001305', 'normal'),
            ('Pneumonia/00001305_004.png', '00001305', 'pneumonia')]
        assert 'of 3 images by their names 2 are 1 group (' in notes[0] and '1 of 2 patients are in two classes' in notes[1]

    def test_kermany(self, tmp_path):
        touch(tmp_path, 'train/NORMAL/IM-0115-0001.jpeg', 'train/PNEUMONIA/person1_bacteria_1.jpeg',
              'train/PNEUMONIA/person1_bacteria_2.jpeg', 'test/NORMAL/IM-0001-0001.jpeg',
              'test/PNEUMONIA/person1_virus_6.jpeg', '__MACOSX/x')
        exams, notes = listed(published_images.chest_xray, tmp_path)
        assert 'of 5 images by their names 3 are 2 groups' in notes[1]
        assert [(exam.split, exam.label, exam.patient) for exam in exams] == [
            ('train', 'normal', 'train/NORMAL/IM-0115-0001.jpeg'), ('train', 'pneumonia', 'person1_bacteria'),
            ('train', 'pneumonia', 'person1_bacteria'), ('test', 'normal', 'test/NORMAL/IM-0001-0001.jpeg'),
            ('test', 'pneumonia', 'person1_virus')]

    def test_ieee8023(self, tmp_path):
        covid = 'Pneumonia/Viral/COVID-19'
        rows = [('2', covid, 'PA', 'X-ray', 'a.jpeg', 'said, "he"'),
                ('2', covid, 'AP', 'X-ray', 'b.jpeg', 'two\nlines'),
                ('', 'No Finding', 'PA', 'X-ray', 'c.png', ''), ('', 'No Finding', 'AP', 'X-ray', '00001305_001.png', ''),
                ('5', 'Pneumonia/Viral/SARS', 'PA', 'X-ray', 'd.png', ''),
                ('6', covid, 'AP', 'CT', 'e.png', ''), ('7', 'Tuberculosis', 'PA', 'X-ray', 'f.png', ''),
                ('8', covid, 'L', 'X-ray', 'g.png', ''), ('9', 'Pneumonia', 'PA', 'X-ray', 'gone.png', '')]
        header = ('patientid', 'finding', 'view', 'modality', 'filename', 'clinical_notes')
        with (tmp_path / 'metadata.csv').open('w', newline='', encoding='utf-8-sig') as stream:
            csv.writer(stream).writerows([header, *rows])
        touch(tmp_path, *(f'images/{row[4]}' for row in rows if row[4] != 'gone.png'))
        exams, notes = listed(published_images.chest_xray, tmp_path)
        assert [(exam.id, exam.patient, exam.label) for exam in exams] == [
            ('images/a.jpeg', '2', 'COVID-19'), ('images/b.jpeg', '2', 'COVID-19'),
            ('images/c.png', 'images/c.png', 'normal'), ('images/00001305_001.png', '00001305', 'normal'),
            ('images/d.png', '5', 'pneumonia')]
        assert '3 rows of metadata.csv are left out' in notes[0] and '1 name an image that is not here' in notes[0]

    def test_real(self):
        exams, notes = listed(published_images.chest_xray, real('chest-xray'))
        assert Counter(exam.label for exam in exams) == {'COVID-19': 62, 'normal': 250, 'pneumonia': 250}
        assert notes[0].startswith('chest X-ray: of 562 images by their names 537 are 417 groups (')
        assert notes[0].endswith(', 25 whose names say no more are groups of their own')
        assert '13 of 442 patients are in two classes' in notes[1]
