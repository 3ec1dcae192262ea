import shutil
import subprocess
import sys
import zipfile
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pydicom
import pytest
from dicoms import series
from layouts import refused, touch

from covid_jax import UserError, sources
from covid_jax.config import base
from covid_jax.scans import decode
from covid_jax.sources.exams import class_index
from covid_jax.sources.folders import unread_in
from covid_jax.sources.listing import read_ids


class TestFolder:

    def test_folders_of_classes(self, tmp_path):
        touch(tmp_path, 'covid/a.npz', 'covid/scan 2/1.png', 'covid/notes.txt', 'covid/.hidden.png', 'normal/b.JPG',
              'normal/c.npy', '.git/x.png', '__MACOSX/covid/._a.png', 'README.md')
        exams = sources.folder(tmp_path)
        assert [(exam.id, exam.label, exam.split) for exam in exams] == [
            ('covid/a.npz', 'covid', ''), ('covid/scan 2', 'covid', ''),
            ('normal/b.JPG', 'normal', ''), ('normal/c.npy', 'normal', '')]
        assert all(exam.patient == exam.id and exam.path == str(tmp_path / exam.id) for exam in exams)

    def test_what_systems_leave_behind_is_silent(self, tmp_path):
        """Folders and files, in the root, in a class and in the folder of a scan."""
        junk = ('x.dcm:Zone.Identifier', 'Icon\r', 'ehthumbs.db', 'Thumbs.db:encryptable', 'THUMBS.DB', 'a.png~', '._x', '.DS_Store', 'desktop.ini',
                '@eaDir/1.png', '$RECYCLE.BIN/1.png', 'System Volume Information/1.png', 'lost+found/1.png', '#recycle/1.png', '@Recycle/1.png')
        touch(tmp_path, 'covid/a.npz', 'normal/s/1.png', *(f'{place}{name}' for place in ('', 'covid/', 'normal/s/') for name in junk))
        assert [exam.id for exam in sources.folder(tmp_path)] == ['covid/a.npz', 'normal/s'] and unread_in(tmp_path) == []
        assert decode.files_of(tmp_path / 'normal' / 's') == [tmp_path / 'normal' / 's' / '1.png']
        touch(tmp_path, 'covid/Icon', 'covid/zone', 'covid/lost', 'covid/12:30')
        assert [left.id for left in unread_in(tmp_path)] == ['covid/12:30', 'covid/Icon', 'covid/lost', 'covid/zone']

    def test_folders_of_splits(self, tmp_path):
        touch(tmp_path, 'train/covid/1.png', 'train/normal/1.png', 'val/covid/2.png', 'test/covid/1.png', 'train/x.csv')
        exams = sources.folder(str(tmp_path))
        assert {(exam.id, exam.label, exam.split) for exam in exams} == {
            ('train/covid/1.png', 'covid', 'train'), ('train/normal/1.png', 'normal', 'train'),
            ('val/covid/2.png', 'covid', 'val'), ('test/covid/1.png', 'covid', 'test')}

    def test_splits_beside_classes_are_refused(self, tmp_path):
        touch(tmp_path, 'train/covid/1.png', 'valid/covid/2.png')
        assert '(valid)' in refused(sources.folder, tmp_path)

    def test_nothing_usable_says_what_was_found_and_expected(self, tmp_path):
        touch(tmp_path, 'a.png', 'covid/notes.txt')
        line = refused(sources.folder, tmp_path)
        assert 'found: a.png, covid' in line and '<class>/<scan>' in line
        assert '<class>/<scan>' in refused(sources.folder, tmp_path / 'a.png')


class TestManifest:

    @pytest.fixture
    def write(self, tmp_path):
        touch(tmp_path, 'a.npz', 'b c.npz', 'scans/1.png')

        def write(text, encoding='utf-8'):
            (tmp_path / 'm.csv').write_bytes(text.encode(encoding))
            return tmp_path / 'm.csv'
        return write

    def test_two_columns_are_enough_and_absolute_paths_stay(self, write, tmp_path):
        assert sources.manifest(write(f'path,label\na.npz,covid\n{tmp_path}/scans,\n')) == [
            ('a.npz', 'a.npz', 'default', 'covid', '', str(tmp_path / 'a.npz')),
            ('scans', 'scans', 'default', '', '', str(tmp_path / 'scans'))]

    def test_an_absolute_path_outside_is_the_id_and_one_below_is_not(self, write, tmp_path, monkeypatch):
        """Whether the manifest itself is named absolutely or not; of a part the address is kept."""
        (tmp_path / 'out.npz').touch()
        (tmp_path / 'set').mkdir()
        (tmp_path / 'set' / 'in.npz').touch()
        text = f'path,label\n{tmp_path}/set/in.npz::slice=3,covid\n{tmp_path}/out.npz,covid\n'
        (tmp_path / 'set' / 'scans.csv').write_text(text)
        monkeypatch.chdir(tmp_path)
        for path in ('set/scans.csv', tmp_path / 'set' / 'scans.csv'):
            assert [exam.id for exam in sources.manifest(path)] == ['in.npz::slice=3', f'{tmp_path}/out.npz']
        (tmp_path / 'set' / 'scans.csv').write_text(f'path,label\nin.npz,covid\n{tmp_path}/set/in.npz,covid\n')
        with pytest.raises(UserError, match="row 3: id 'in.npz' is already in row 2"):
            sources.manifest('set/scans.csv')

    def test_where_no_patient_is_named_that_is_said(self, write):
        for text, told in (('path,label\na.npz,covid\nb c.npz,normal\n', True), ('path,label,patient\na.npz,covid,p\nb c.npz,normal,\n', False)):
            said = []
            sources.manifest(write(text), said.append)
            assert any('each of 2 scans counts as its own' in line for line in said) == told

    def test_mark_of_excel_and_loose_spacing_are_tolerated(self, write, tmp_path):
        text = ('\r\n split , id,label,site, patient,path\r\n'
                'train,1 , covid,A,p1, b c.npz \r\n,,,,,\r\n\r\n,2,normal,, p1,a.npz\r\n')
        exams = sources.manifest(write(text, 'utf-8-sig'))
        assert exams == [('1', 'p1', 'A', 'covid', 'train', str(tmp_path / 'b c.npz')),
                         ('2', 'p1', 'default', 'normal', '', str(tmp_path / 'a.npz'))]

    @pytest.mark.parametrize('mark', [';', '\t'])
    def test_semicolons_and_tabs_part_cells_where_they_part_the_header(self, write, mark, tmp_path):
        (tmp_path / 'a,b.npz').touch()
        found = sources.manifest(write(f'"path"{mark} label{mark}patient\r\na,b.npz{mark}covid{mark}p, q\r\n', 'utf-8-sig'))
        assert found == [('a,b.npz', 'p, q', 'default', 'covid', '', str(tmp_path / 'a,b.npz'))]
        assert sources.manifest(write(f'path,label\na.npz,a{mark}b\n'))[0].label == f'a{mark}b'

    @pytest.mark.parametrize('start', ['sep=;\r\n', '"sep=;"\n', '\n', '\r\n \r\nsep=;\n\n'])
    def test_what_stands_before_the_header_is_no_row(self, write, start):
        """What tells Excel the delimiter, and blank lines; rows are called by their lines all the same."""
        assert [exam.label for exam in sources.manifest(write(f'{start}path;label\na.npz;covid, x\n'))] == ['covid, x']
        assert f'row {start.count(chr(10)) + 2})' in refused(sources.manifest, write(f'{start}path;label\ngone.npz;covid\n'))
        assert sources.manifest(write('sep=\t\npath\tlabel\na.npz\tcovid\n'))[0].label == 'covid'
        assert sources.manifest(write('sep=|\npath|label\na.npz|covid\n'))[0].label == 'covid'

    @pytest.mark.parametrize('text, words', [
        ('path,label,age\na.npz,covid,70\n', ["'age'", 'path, label, id, patient, site, split']),
        ('path;lable\na.npz;covid\n', ["is 'lable' meant to be 'label'?; accepted are"]),
        (',path,label\n0,a.npz,covid\n', ["unknown columns ''; a column without a name is the index of pandas: write the table with index=False; accepted"]),
        ('path,lable\na.npz,covid\n', ["unknown columns 'lable'; is 'lable' meant to be 'label'?; accepted are"]),
        ('path,label,Patiant,site\na.npz,covid,p,x\n', ["is 'Patiant' meant to be 'patient'?"]),
        ('path,patient\na.npz,1\n', ['path and label', 'found path, patient']),
        ('path,label,label\na.npz,covid,covid\n', ['each once']),
        ('path,label\na.npz,covid\n\nb.npz,covid\nc.npz,covid\n', ["2 scans are not there, 'b.npz' (row 4), 'c.npz' (row 5)"]),
        ('path,label\na.npz,covid\nb.npz,covid\n', ["1 scan is not there, 'b.npz' (row 3)"]),
        ('path,label\nx\\a.npz,covid\n', ["'x\\\\a.npz' (row 2): paths are relative to", ', and their folders are parted by /']),
        ('path,label\n,covid\n', ['row 2', "''"]),
        ('path,label\n' + 'x' * 5000 + ',covid\n', ['row 2']),
        ('path,label\na.npz,covid\na.npz,normal\n', ['row 3', "'a.npz' is already in row 2"]),
        ('path,label,split\na.npz,covid,dev\n', ['row 2', "'dev'", 'train, val, test']),
        ('path,label\na.npz,covid,train\n', ['row 2', '3 cells for 2 columns']),
        ('path,label\n"a.npz,covid\n', ['m.csv']),
        ('path,label\n', ['no rows']),
        ('', ['found none']),
    ])
    def test_refusals_name_the_row(self, write, text, words):
        line = refused(sources.manifest, write(text))
        assert all(word in line for word in ['m.csv', *words]), line

    def test_bytes_that_are_no_text_are_refused(self, write, tmp_path):
        (tmp_path / 'm.csv').write_bytes(b'PK\x03\x04\xff\xfe\x00')
        assert 'm.csv: no text in UTF-8: save the table as "CSV UTF-8"' in refused(sources.manifest, tmp_path / 'm.csv')
        for encoding in ('utf-16', 'utf-16-le', 'cp1252'):
            (tmp_path / 'm.csv').write_text('path,label\na.npz,schön\n', encoding=encoding)
            assert 'm.csv: no text in UTF-8: save the table as "CSV UTF-8"' in refused(sources.manifest, tmp_path / 'm.csv')
        assert 'source=folder' in refused(sources.manifest, tmp_path)


@pytest.mark.parametrize('files, wanted', [
    (['covid/a.npz', 'normal/b.png'], 'folder'), (['covid/s/1.png', 'Normal/t/1.png'], 'folder'), (['train/covid/a.npz', 'test/normal/b.npz'], 'folder'),
    (['covid/a.npz', 'normal/b.xyz', 'README.md'], 'folder'), (['NCP/1/2/3.png', 'Normal/4/5/6.png'], ''), (['pos/1/a.nii.gz', 'neg/2/b.nii.gz'], ''),
    (['Images-processed/CT_COVID/a.png', 'Data-split/COVID/a.txt'], ''), (['train/covid/a.npz', 'other/b.npz'], ''), (['a.npz'], ''), (['x/'], '')])
def test_folders_of_classes_are_known_by_their_looks(tmp_path, files, wanted):
    touch(tmp_path, *(name for name in files if not name.endswith('/')))
    assert sources.told(tmp_path, base().data.classes) == wanted


def test_a_table_is_known_by_its_suffix(tmp_path):
    touch(tmp_path, 'a.CSV', 'a.txt')
    assert [sources.told(tmp_path / name, ()) for name in ('a.CSV', 'a.txt')] == ['manifest', '']


def data(source, root, **more):
    counts = {'seed': 0, 'train': 4, 'val': 2, 'test': 2}
    return SimpleNamespace(**{'source': source, 'root': str(root), 'exclude': '', 'include': '', 'phantom': counts} | more)


def exams_of(settings, say=lambda line: None):
    return list(chain.from_iterable(sources.parts_of(settings, say)))


class TestPartsOf:

    def test_every_source_has_its_name(self, tmp_path):
        assert len(exams_of(data('phantom', ''))) == 8
        touch(tmp_path, 'covid/a.npz')
        (tmp_path / 'm.csv').write_text('path,label\ncovid/a.npz,covid\n')
        assert exams_of(data('folder', tmp_path)) == exams_of(data('manifest', tmp_path / 'm.csv'))

    def test_several_sources_are_sites_whose_ids_and_patients_stay_apart(self, tmp_path):
        touch(tmp_path, 'rome/covid/a.npz', 'oslo/covid/a.npz', 'sars/COVID/Covid (1).png', 'sars/non-COVID/Non-Covid (1).png')
        roots = ','.join(str(tmp_path / name) for name in ('rome', 'oslo', 'sars'))
        exams = exams_of(data('folder,folder,sars_cov_2_ct', roots))
        assert [(exam.id, exam.site) for exam in exams[:2]] == [('rome/covid/a.npz', 'rome'), ('oslo/covid/a.npz', 'oslo')]
        assert {exam.site for exam in exams[2:]} == {'SARS-CoV-2-CT'} and len({exam.patient for exam in exams}) == 4
        touch(tmp_path, 'more/rome/covid/b.npz')
        line = refused(exams_of, data('folder,folder', f'{tmp_path}/rome,{tmp_path}/more/rome'))
        assert "both called 'rome'" in line

    def test_listed_ids_or_their_last_parts_are_left_out(self, tmp_path):
        touch(tmp_path, *(f'{split}/covid/{n}.npz' for split in ('train', 'val') for n in range(4)))
        path = tmp_path / 'out.txt'
        path.write_bytes(b'# why\r\n\r\ntrain/covid/1.npz  # wrong view\r\ncovid/2.npz\r\n7.npz\r\n')
        notes = []
        exams = exams_of(data('folder', tmp_path, exclude=str(path)), notes.append)
        assert {exam.id for exam in exams} == {
            'train/covid/0.npz', 'train/covid/3.npz', 'val/covid/0.npz', 'val/covid/1.npz', 'val/covid/3.npz'}
        assert notes == [f'{path}: 3 of 8 exams are left out; 1 of 3 ids are not in the data (7.npz)']

    @pytest.mark.parametrize('name, count, files', [
        ('cov19_ct_db', 16, ('0.jpg',)), ('cc_ccii', 8, tuple(f'{k}.png' for k in range(20)))])
    def test_shipped_lists_are_written_as_the_source_writes_ids(self, tmp_path, root, name, count, files):
        path = root / f'configs/exclude/{name}.txt'
        bad = read_ids(path)
        good = {'cov19_ct_db': ('train/covid/a', 'train/non-covid/a', 'val/covid/a', 'val/non-covid/a'),
                'cc_ccii': ('NCP/1/1', 'CP/1/1', 'Normal/1/1')}[name]
        touch(tmp_path, *(f'{scan}/{file}' for scan in (*bad, *good) for file in files))
        notes = []
        kept = exams_of(data(name, tmp_path, exclude=str(path)), notes.append)
        assert {exam.id for exam in kept} == set(good) and len(bad) == count
        assert f'; 0 of {count} ids are not in the data' in notes[-1]

    def test_every_field_of_the_phantom_is_the_config_s(self):
        exams = exams_of(data('phantom', '', phantom={**base().data.phantom, 'train': 8, 'kind': 'xray', 'sites': 2, 'unlabelled': 1}))
        assert exams[0].path == 'phantom:xray:0:0:covid:site0' and exams[0].label == '' and len(exams) == 8 + 60 + 120

    def test_phantom_labels_are_declared_by_binary_and_ternary_classes(self):
        for exam in sources.phantoms(0, 4, 0, 0):
            assert class_index(exam.label, ('normal', 'covid', 'pneumonia')) >= 0
            assert class_index(exam.label, ('normal|pneumonia', 'covid')) == (exam.label == 'covid')

    @pytest.mark.parametrize('name, nearest', [
        ('phantoms', 'phantom'), ('mainfest', 'manifest'), ('covid-ct-md', 'covid_ct_md'), ('Folder', 'folder')])
    def test_mistyped_source_is_corrected(self, name, nearest):
        line = refused(sources.check, data(name, '/'))
        assert f'did you mean {nearest!r}' in line
        assert line == refused(exams_of, data(name, '/'))

    def test_checks_list_nothing(self, tmp_path):
        """An empty folder passes; a list that is not there, roots too many or too few do not."""
        for name in sources.SOURCES:
            sources.check(data(name, tmp_path))
        sources.check(data('phantom', ''))
        sources.check(data('phantom,folder', f',{tmp_path}'))
        assert '--config.data.root=' in refused(sources.check, data('folder', ''))
        for field in ('exclude', 'include'):
            line = refused(sources.check, data('folder', tmp_path, **{field: 'gone.txt'}))
            assert line == f'--config.data.{field}=gone.txt: no such file'
        assert 'needs --config.data.source' in refused(sources.check, data('phantom', tmp_path))
        assert '2 sources and --config.data.root 1 roots' in refused(sources.check, data('folder,folder', tmp_path))
        assert 'there is nothing at' in refused(sources.check, data('folder', f'{tmp_path},{tmp_path}'))

    def test_a_folder_that_is_like_one_that_is_read_is_not_passed_over(self, tmp_path):
        touch(tmp_path, 'COVID/a.png', 'non-COVID/a.png', 'COVID2/a.png')
        assert "is 'COVID2' meant to be 'COVID'?" in refused(exams_of, data('sars_cov_2_ct', tmp_path))


class TestPatients:
    """Who is whose scan, from PatientIDs that are said nowhere."""

    @pytest.fixture
    def hospital(self, tmp_path):
        def scan(name, patient, **tags):
            folder = tmp_path / name
            folder.mkdir(parents=True, exist_ok=True)
            series(folder, PatientID=patient, **tags)
            return folder
        with pydicom.config.disable_value_validation():
            yield scan

    def patients(self, root, source='folder'):
        notes = []
        exams = exams_of(data(source, root), notes.append)
        return {exam.id: exam.patient for exam in exams}, notes

    def test_scans_of_one_patient_are_called_after_the_first_id_of_the_alphabet(self, hospital, tmp_path):
        for name, patient in (('covid/b', '7'), ('normal/c', '7'), ('covid/a', '8'), ('normal/d', 'ANONYMOUS'),
                              ('normal/e', 'anonymous')):
            hospital(name, patient)
        found, notes = self.patients(tmp_path)
        assert found == {'covid/a': 'covid/a', 'covid/b': 'covid/b', 'normal/c': 'covid/b', 'normal/d': 'normal/d',
                         'normal/e': 'normal/e'}
        assert notes == [f'{tmp_path}: 3 DICOM scans of 2 patients, by their PatientID']

    def test_an_archive_and_the_chosen_series_tell_too(self, hospital, tmp_path):
        both = hospital('both', '1', SeriesInstanceUID='1.1')
        for path in series(tmp_path / 'more', PatientID='2', SeriesInstanceUID='1.2'):
            path.rename(both / f'x{path.name}')
        with zipfile.ZipFile(tmp_path / 'b.zip', 'w') as archive:
            for path in sorted(hospital('c', '2').iterdir()):
                archive.write(path, f'inside/{path.name}')
        (tmp_path / 'm.csv').write_text('path,label,id\nboth::series=1.1,covid,one\nboth::series=1.2,covid,two\n'
                                        'b.zip,normal,three\n')
        assert self.patients(tmp_path / 'm.csv', 'manifest')[0] == {'one': 'one', 'two': 'three', 'three': 'three'}

    def test_a_row_that_names_the_patient_names_the_others(self, hospital, tmp_path):
        for name in 'abc':
            hospital(name, '7')
        hospital('d', '8')
        rows = 'path,label,patient\na,covid,anna\nb,covid,\nc,covid,{}\nd,covid,\n'
        (tmp_path / 'm.csv').write_text(rows.format('anna'))
        assert self.patients(tmp_path / 'm.csv', 'manifest')[0] == {'a': 'anna', 'b': 'anna', 'c': 'anna', 'd': 'd'}
        (tmp_path / 'm.csv').write_text(rows.format('eva'))
        assert 'anna, eva' in refused(exams_of, data('manifest', tmp_path / 'm.csv'))

    def test_patients_that_a_table_names_stay_and_that_they_share_an_id_is_said(self, hospital, tmp_path):
        for name in 'abcde':
            hospital(name, '7' if name < 'd' else '8')
        (tmp_path / 'm.csv').write_text('path,label,patient\na,covid,anna\nb,covid,eva\nc,normal,eva\nd,normal,ida\ne,covid,ida\n')
        found, notes = self.patients(tmp_path / 'm.csv', 'manifest')
        assert found == {'a': 'anna', 'b': 'eva', 'c': 'eva', 'd': 'ida', 'e': 'ida'}
        assert ['1 PatientID has scans of several patients, as the table names them' in line for line in notes] == [True]

    def test_two_scans_of_one_patient_id_alone_are_of_one_patient(self, hospital, tmp_path):
        """A follow-up; only of three or more one id tells nothing."""
        hospital('covid/a', '7')
        hospital('normal/b', '7')
        assert self.patients(tmp_path) == ({'covid/a': 'covid/a', 'normal/b': 'covid/a'}, [f'{tmp_path}: 2 DICOM scans of 1 patient, by their PatientID'])

    def test_one_patient_id_for_all_is_no_patient_id(self, hospital, tmp_path):
        for number, name in enumerate(('covid/a', 'normal/b', 'normal/c')):
            hospital(name, 'STUDY-1', SeriesNumber=number)
        assert 'all 3 DICOM scans carry one PatientID: name the patients' in refused(exams_of, data('folder', tmp_path))

    def test_copies_of_one_scan_are_called_so(self, hospital, tmp_path):
        folder = hospital('covid/a', 'STUDY-1')
        for name in ('covid/b', 'normal/c'):
            shutil.copytree(folder, tmp_path / name)
        line = refused(exams_of, data('folder', tmp_path))
        assert 'covid/a = covid/b = normal/c: all 3 DICOM scans are one and the same' in line and 'keep one' in line and 'STUDY-1' not in line


    def test_a_link_without_content_in_scans_of_one_patient_id_makes_them_no_copies(self, hospital, tmp_path):
        """Nor an error of ours: decoding names the link."""
        for name in ('covid/a', 'normal/b', 'normal/c'):
            (hospital(name, 'STUDY-1') / 's9.dcm').symlink_to('nowhere')
        assert 'all 3 DICOM scans carry one PatientID' in refused(exams_of, data('folder', tmp_path))


def test_workers_that_decode_do_not_import_jax():
    code = 'import sys; from covid_jax.data import parts, splits; sys.exit("jax" in sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).parents[2])
