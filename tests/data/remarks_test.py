"""What a user would want to know of exams before a network learns from them."""

import json

import nrrd
import numpy as np
import pytest
from dicoms import ct
from PIL import Image

from covid_jax import UserError
from covid_jax.config import base
from covid_jax.data import pipeline, remarks
from covid_jax.scans import decode
from covid_jax.sources.exams import Exam
from covid_jax.sources.unread import beside


def config_of(source, root, **data):
    c = base()
    c.data.update(source=source, root=str(root), **data)
    c.prep.size = (2, 4, 4)
    return c


def survey(source, root, **data):
    """(Survey, what was said)."""
    said = []
    return pipeline.survey(config_of(source, root, **data), root.parent / 'store', say=said.append), said


def picture(path, seed, mode='L'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32), np.uint8)).convert(mode).save(path)


class TestNames:

    def exams(self, patients, sites=None):
        return [Exam(f'e{i}', name, (sites or ['here'] * 99)[i], '', '', '') for i, name in enumerate(patients)]

    @pytest.mark.parametrize('patients, told', [
        (('Anna', 'anna', 'ANNA', 'Eva'), "'ANNA' and 'Anna' and 'anna'"), (('001', '1', '01', '10'), "'001' and '01' and '1'"),
        (('oslo/P 7', 'oslo/p07'), "'oslo/P 7' and 'oslo/p07'"), (('p1', 'p10', 'p100', '0'), ''), (('a1', 'a-1', 'b1'), ''), (('e0', 'E1'), '')])
    def test_patients_that_differ_in_case_or_zeros_alone_are_said(self, patients, told):
        said = []
        exams = self.exams(patients)
        remarks.alike_names(exams, said.append)
        assert [told in line and 'patients that differ' in line for line in said] == [True] * bool(told)

    def test_whom_nobody_named_is_not_compared(self):
        said = []
        remarks.alike_names([Exam(name, name, 'here', '', '', '') for name in ('covid/A.png', 'covid/a.png', 'covid/1.png', 'covid/01.png')], said.append)
        assert not said

    def test_so_are_sites(self):
        said = []
        remarks.alike_names(self.exams('abc', ['Oslo', 'oslo', 'Rome']), said.append)
        assert len(said) == 1 and "sites that differ in case, spaces or zeros in front alone are kept apart, as they are written: 'Oslo' and 'oslo'" in said[0]

    def test_of_a_table_they_stay_apart_as_they_are_written(self, tmp_path):
        patients = ('001', '1', '01', '001', '2', '002', '3', 'Anna', 'ANNA', 'nan')
        for i in range(10):
            picture(tmp_path / f'{i}.png', i)
        (tmp_path / 'm.csv').write_text('\n'.join(['path,label,patient', *(f'{i}.png,{("covid", "normal")[i % 2]},{p}' for i, p in enumerate(patients))]))
        found, said = survey('manifest', tmp_path / 'm.csv')
        assert [e.patient for e in found.exams] == [*patients[:9], '9.png']
        assert f"{tmp_path / 'm.csv'}: 1 row calls its patient 'nan' or the like, which names nobody: each counts as its own" in said
        assert any("'001' and '01' and '1', '002' and '2', 'ANNA' and 'Anna'" in line for line in said)


class TestUnread:

    @pytest.mark.parametrize('suffix', ['.xyz', '.heic', '.nrrd.zst', ''])
    def test_most_of_a_class_cannot_vanish_unsaid(self, tmp_path, suffix):
        root = tmp_path / 'data'
        for i in range(8):
            picture(root / 'normal' / f'n{i}.png', i)
            (root / 'covid').mkdir(exist_ok=True)
            (root / 'covid' / f'c{i}{suffix}').write_bytes(b'no scan' + bytes(128))
        for i in range(2):
            picture(root / 'covid' / f'd{i}.png', 10 + i)
        for name in ('.DS_Store', 'Thumbs.db', 'desktop.ini', '._d0.png', '__MACOSX', 'THUMBS.DB'):
            (root / 'normal' / name).write_bytes(b'x')
        found, said = survey('folder', root, val=0.0, test=0.0)
        assert [e.label for e in found.exams].count('covid') == 2 and len(found.exams) == 10
        assert said == [f'8 files in class folders are not read (covid: 8, and 2 exams, normal: 0, and 8 exams), as covid/c0{suffix}: what is '
                        'left out may tell the label; they stand in quarantine.csv']
        d = pipeline.prepare(found, tmp_path / 'store', 1, said.append)
        assert not d.broken and list(d.quarantine) == [f'covid/c{i}{suffix}' for i in range(8)]
        assert all(reason.startswith(f'{root / name}: not a scan: expected .npz') for name, reason in d.quarantine.items())

    def test_not_even_all_of_it(self, tmp_path):
        root = tmp_path / 'data'
        for split in ('train', 'test'):
            for i in range(4):
                picture(root / split / 'normal' / f'{i}.png', [i, len(split)])
            (root / split / 'covid').mkdir()
            (root / split / 'covid' / 'a.xyz').write_bytes(b'x')
        (root / 'train' / 'covid' / 'gone').symlink_to('nowhere')
        (root / 'notes.txt').write_text('of no class')
        found, said = survey('folder', root, val=0.0)
        assert any('3 files in class folders are not read (covid: 3, and 0 exams, normal: 0, and 8 exams)' in line for line in said)
        assert found.unread['train/covid/gone'].endswith('a link whose content is not here')

    @pytest.mark.parametrize('suffix', ['.gif', '.bmp', '.webp', '.jfif'])
    def test_images_that_pillow_reads_are_read(self, tmp_path, suffix):
        for i in range(8):
            picture(tmp_path / 'data' / 'normal' / f'n{i}.png', i)
            picture(tmp_path / 'data' / 'covid' / f'c{i}{suffix}', 20 + i)
        found, said = survey('folder', tmp_path / 'data')
        assert len(found.exams) == 16 and not said and not found.unread
        assert {fact.format for fact in found.facts} == {'PNG', {'.jfif': 'JPEG'}.get(suffix, suffix[1:].upper())}

    def test_what_was_not_known_by_its_suffix_is_an_exam(self, tmp_path):
        """DICOM without preamble or suffix, and NRRD; beside them what only begins like DICOM is said."""
        place = tmp_path / 'data' / 'covid'
        picture(tmp_path / 'data' / 'normal' / 'n.png', 0)
        place.mkdir()
        for i in range(3):
            ct(place / f'IM{i}', np.full((6, 8), 100 * i, '<u2'), preamble=False, PatientID='')
        nrrd.write(str(place / 'a.nrrd'), np.random.default_rng(0).integers(-1000, 900, (4, 4, 4)).astype(np.int16),
                   {'space': 'LPS', 'space directions': np.eye(3)})
        (place / 'IM9').write_bytes((place / 'IM1').read_bytes()[:10])
        found, said = survey('folder', tmp_path / 'data', val=0.0, test=0.0)
        assert [e.id for e in found.exams] == ['covid/IM0', 'covid/IM1', 'covid/IM2', 'covid/a.nrrd', 'normal/n.png']
        assert list(found.unread) == ['covid/IM9'] and 'covid: 1, and 4 exams' in said[0]
        dataset = pipeline.prepare(found, tmp_path / 'store', 1, said.append)
        assert not dataset.broken and len(dataset.exams) == 5

    def test_the_voxels_of_a_header_are_read_with_it(self, tmp_path):
        place = tmp_path / 'data' / 'covid'
        picture(place / 'b.png', 0)
        (place / 'a.mhd').write_text('ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = a.raw\n')
        (place / 'a.raw').write_bytes(bytes(64))
        (place / 'other.raw').write_bytes(bytes(64))
        assert list(survey('folder', tmp_path / 'data', val=0.0, test=0.0)[0].unread) == ['covid/other.raw']

    @pytest.mark.parametrize('twin', ['{}_mask.png', '{}-seg.png', '{}_lung.png'])
    def test_masks_beside_scans_take_no_place_in_the_draw(self, tmp_path, twin):
        """With them and without them the same scans are drawn into the same splits; they are listed as what is not read."""
        for i in range(20):
            picture(tmp_path / 'data' / ('covid', 'normal')[i % 2] / f's{i}.png', i)
        plain, said = survey('folder', tmp_path / 'data')
        assert {e.split for e in plain.exams} == {'train', 'val', 'test'} and not said
        masks = [f'covid/{twin.format(f"s{i}")}' for i in range(0, 20, 2)]
        for i, name in enumerate(masks):
            picture(tmp_path / 'data' / name, 50 + i)
        (tmp_path / 'data' / 'm.csv').write_text('\n'.join(['path,label', *(f'{e.id},{e.label}' for e in plain.exams), *(f'{name},covid' for name in masks)]))
        for source, root in (('folder', tmp_path / 'data'), ('manifest', tmp_path / 'data' / 'm.csv')):
            found, said = survey(source, root)
            assert {(e.id, e.split) for e in found.exams} == {(e.id, e.split) for e in plain.exams}
            assert sorted(found.unread) == sorted(masks)
            assert found.unread[masks[0]].endswith(f'{masks[0]}: by its name the mask of s0.png, no scan')
            assert said[-1] == f'10 files are by their names masks of scans beside them, and no exams (10 covid), as {masks[0]}; they stand in quarantine.csv'

    def test_what_speaks_of_scans_is_listed_and_not_worth_a_word(self, tmp_path):
        picture(tmp_path / 'data' / 'covid' / 'a.png', 0)
        names = ['COPYING', 'README.md', 'a.json', 'dicomdir', 'list.xlsx', 'md5sums']
        for name in names:
            (tmp_path / 'data' / 'covid' / name).write_text('x')
        found, said = survey('folder', tmp_path / 'data', val=0.0, test=0.0)
        assert sorted(found.unread) == [f'covid/{name}' for name in names] and not said
        assert all('by its name what speaks of scans' in reason for reason in found.unread.values())

    def test_of_a_public_data_set_and_of_several_sources(self, tmp_path):
        for label in ('COVID', 'non-COVID'):
            for i in range(4):
                picture(tmp_path / 'sars' / label / f'{label} ({i}).png', [i, len(label)])
        (tmp_path / 'sars' / 'COVID' / 'scan.xyz').write_bytes(b'x')
        (tmp_path / 'sars' / 'readme.txt').write_text('of no class')
        assert list(survey('sars_cov_2_ct', tmp_path / 'sars')[0].unread) == ['COVID/scan.xyz']
        picture(tmp_path / 'oslo' / 'covid' / 'a.png', 99)
        (tmp_path / 'oslo' / 'covid' / 'b.xyz').write_bytes(b'x')
        said = []
        c = config_of('sars_cov_2_ct,folder', f'{tmp_path}/sars,{tmp_path}/oslo')
        found = pipeline.survey(c, tmp_path / 'store', say=said.append)
        assert list(found.unread) == ['SARS-CoV-2-CT/COVID/scan.xyz', 'oslo/covid/b.xyz']
        assert any('COVID: 1, and 4 exams, covid: 1, and 1 exam, non-COVID: 0, and 4 exams' in line for line in said)


@pytest.mark.parametrize('labels, found', [(('covid', 'covid'), ['x.txt']), (('covid', 'normal'), []), (('', ''), [])])
def test_a_folder_of_several_labels_is_the_folder_of_no_class(tmp_path, labels, found):
    for name in ('a.npz', 'b.npz', 'x.txt'):
        (tmp_path / name).write_bytes(b'x')
    exams = [Exam(name, name, 'here', label, '', str(tmp_path / name)) for name, label in zip(('a.npz', 'b.npz'), labels, strict=True)]
    assert [left.id for left in beside(tmp_path, exams)] == found


def test_numbers_that_are_missing_among_slices_are_said_by_label(tmp_path):
    for label, gone in (('covid', (4, 5, 6)), ('normal', ())):
        for scan in range(4):
            for k in range(12):
                if k not in gone:
                    picture(tmp_path / 'data' / label / f's{scan}' / f'{k:04d}.png', [scan, k, len(label)])
    _, said = survey('folder', tmp_path / 'data')
    assert said == ['4 scans have slices whose numbers are not all there (4 covid), as covid/s0, which lacks 4, 5, 6: it is read as if they '
                    'were neighbours']


@pytest.mark.parametrize('grey, told', [('covid', 'noncovid 8 and 0, covid 0 and 8'), ('half', 'noncovid 4 and 4, covid 4 and 4'), ('none', ''), ('all', '')])
def test_hounsfield_units_beside_grey_values_are_said_by_class(tmp_path, grey, told):
    for label in ('covid', 'normal'):
        (tmp_path / 'data' / label).mkdir(parents=True)
        for i in range(8):
            hu = np.random.default_rng([i, len(label)]).integers(-1000, 900, (2, 4, 4)).astype(np.int16)
            if grey == label or grey == 'all' or grey == 'half' and i % 2:
                hu = np.clip((hu + 1350) / 1500 * 255, 0, 255).astype(np.uint8)
            np.save(tmp_path / 'data' / label / f'{i}.npy', hu)
    found, said = survey('folder', tmp_path / 'data')
    for _ in range(2):  # the second time the store is there
        said.clear()
        pipeline.prepare(found, tmp_path / 'store', 1, said.append)
        mixed = [line for line in said if 'Hounsfield' in line]
        assert [f'are mixed ({told})' in line for line in mixed] == [True] * bool(told)


def test_padding_that_tissue_has_too_is_said_by_class(tmp_path):
    """Stores of before it was kept are read, and nothing is said of them."""
    for label, pads in (('covid', (0, 0, None)), ('normal', (0, -2000, -2000))):
        (tmp_path / 'data' / label).mkdir(parents=True)
        for i, pad in enumerate(pads):
            stored = np.random.default_rng([i, len(label)]).integers(-900, 900, (6, 8)).astype('<i2')
            stored[0, :4] = pad or 0
            ct(tmp_path / 'data' / label / f'{i}.dcm', stored, RescaleIntercept=0, PixelPaddingValue=pad, PatientID='')
    found, said = survey('folder', tmp_path / 'data', val=0.0, test=0.0)
    line = ('3 scans have padding of a value that tissue has too, such as 0 where 0 is water (2 covid, 1 normal), as covid/0.dcm: '
            'what reaches the edge of a slice is read as air, the rest as tissue; look at them')
    pipeline.prepare(found, tmp_path / 'store', 1, said.append)
    table, = (tmp_path / 'store').glob('*/table.json')
    assert said.count(line) == 1
    kept = json.loads(table.read_text())
    table.write_text(json.dumps({**kept, 'seen': [of[:5] for of in kept['seen']]}))
    said.clear()
    pipeline.prepare(found, tmp_path / 'store', 1, said.append)
    assert said == ['train: 3 noncovid, 3 covid']


class TestOfDataThatAreAllTest:
    """Who asks a finished run is told the same, though nothing is learnt."""

    def asked(self, root):
        said = []
        found = pipeline.survey_test(config_of('folder', root), root.parent / 'store', say=said.append)
        return found, said

    def test_nothing_is_said_of_what_is_sound(self, tmp_path):
        for i in range(4):
            picture(tmp_path / 'data' / ('covid', 'normal')[i % 2] / f's{i}.png', i)
        found, said = self.asked(tmp_path / 'data')
        assert len(found.exams) == 4 and not said and not found.unread

    def test_what_is_not_read_and_what_lacks_slices_is(self, tmp_path):
        for k in (0, 1, 2, 5):
            picture(tmp_path / 'data' / 'covid' / 'a' / f'{k}.png', k)
        picture(tmp_path / 'data' / 'normal' / 'b.tif', 9)
        picture(tmp_path / 'data' / 'normal' / 'b_mask.tif', 10)
        (tmp_path / 'data' / 'covid' / 'c.xyz').write_bytes(b'x')
        found, said = self.asked(tmp_path / 'data')
        assert said == ['1 scan has slices whose numbers are not all there (1 covid), as covid/a, which lacks 3, 4: it is read as if they were neighbours',
                        '1 file in class folders is not read (covid: 1, and 1 exam, normal: 0, and 1 exam), as covid/c.xyz: what is left out may tell '
                        'the label', '1 file is by its name the mask of a scan beside it, and no exam (1 normal), as normal/b_mask.tif']
        assert list(found.unread) == ['covid/c.xyz', 'normal/b_mask.tif'] and [e.id for e in found.exams] == ['covid/a', 'normal/b.tif']

    def test_one_scan_of_two_patients_is_said_once(self, tmp_path):
        for name in ('s', 't'):
            picture(tmp_path / 'data' / 'covid' / f'{name}.png', 0)
        picture(tmp_path / 'data' / 'normal' / 'n.png', 1)
        found, said = self.asked(tmp_path / 'data')
        pipeline.prepare(found, tmp_path / 'store', 1, said.append)
        assert [line[:48] for line in said if 'several patients' in line] == ['1 scan is here more than once, of several patien']


def test_what_is_no_exam_is_none_that_could_not_be_prepared(tmp_path):
    """A submission says how many scans it lacks."""
    for i in range(4):
        picture(tmp_path / 'data' / ('covid', 'normal')[i % 2] / f's{i}.png', i)
    (tmp_path / 'data' / 'covid' / 'broken.png').write_bytes(b'x')
    (tmp_path / 'data' / 'covid' / 'README.md').write_bytes(b'x')
    d = pipeline.prepare(survey('folder', tmp_path / 'data', val=0.0, test=0.0)[0], tmp_path / 'store', 1, lambda line: None)
    assert list(d.broken) == ['covid/broken.png'] and list(d.quarantine) == ['covid/broken.png', 'covid/README.md']


def test_the_folder_of_a_scan_is_walked_once(tmp_path, monkeypatch):
    walked = []
    files_of = decode.files_of
    monkeypatch.setattr(decode, 'files_of', lambda address: walked.append(address) or files_of(address))
    for i in range(6):
        for k in range(2):
            picture(tmp_path / 'data' / ('covid', 'normal')[i % 2] / f's{i}' / f'{k}.png', [i, k])
    found, _ = survey('folder', tmp_path / 'data')
    assert sorted(walked) == sorted(e.path for e in found.exams) and {fact.format for fact in found.facts} == {'PNG'}


class TestCollections:
    """Folders of many people's pictures, each of which would pass for a scan."""

    @pytest.mark.parametrize('folders', [('images', 'masks'), ('Images',), ('lung masks',), ('test', 'train'), ('infection_masks', 'a')])
    def test_are_refused_with_the_way_out(self, tmp_path, folders):
        root = tmp_path / 'data'
        for name in folders:
            for i in range(4):
                picture(root / 'COVID' / name / f'COVID-{i}.png', [i, len(name)])
        with pytest.raises(UserError, match=f'COVID holds {folders[0]}.* move the images themselves into COVID .*source=chest_xray') as e:
            survey('folder', root)
        assert '\n' not in str(e.value)

    @pytest.mark.parametrize('prefix', ['', 'Train/'])
    def test_are_read_as_x_rays(self, tmp_path, prefix):
        root = tmp_path / 'data'
        for label in ('COVID', 'Normal', 'Viral Pneumonia', 'Lung_Opacity'):
            for part in ('images', 'masks'):
                for i in range(1, 7):
                    picture(root / f'{prefix}{label}' / part / f'{label}-{i}.png', [i, len(label), len(part)])
        found, said = survey('chest_xray', root)
        assert sorted(e.label for e in found.exams) == ['COVID-19'] * 6 + ['normal'] * 6 + ['pneumonia'] * 6
        assert len({e.patient for e in found.exams}) == 18 and all('/images/' in e.path for e in found.exams)
        assert {e.split for e in found.exams} == ({'train'} if prefix else {'train', 'val', 'test'})
        assert any('each of 18 images beside masks is an exam' in line and f'{prefix}Lung_Opacity are left out' in line for line in said)

    def test_classes_of_one_folder_of_images_or_of_a_few_are_said(self, tmp_path):
        root = tmp_path / 'data'
        for label in ('covid', 'normal'):
            for i in range(3):
                picture(root / label / 'all' / f'{i}.png', [i, len(label)])
        _, said = survey('folder', root, val=0.0, test=0.0)
        assert said == [f'{root}: each class is one scan, whose slices are the images of one folder (covid/all: 3, normal/all: 3): where each '
                        'image is an exam, move the images themselves into the folder of the class']
        for i in range(2):
            picture(root / 'covid' / 'more' / f'{i}.png', [77, i])
            picture(root / 'covid' / 'third' / f'{i}.png', [78, i])
        _, said = survey('folder', root, val=0.0, test=0.0)
        assert [f'{root}: each class is 3 scans or fewer, each the images of one folder (covid/all: 3, covid/more: 2, covid/third: 2, normal/all: '
                '3): where' in line for line in said] == [True]
        for i in range(2):
            picture(root / 'covid' / 'fourth' / f'{i}.png', [79, i])
        assert not survey('folder', root, val=0.0, test=0.0)[1]


def test_a_class_that_is_a_link_to_nothing_is_refused(tmp_path):
    picture(tmp_path / 'data' / 'normal' / 'a.png', 0)
    (tmp_path / 'data' / 'covid').symlink_to('nowhere')
    with pytest.raises(UserError, match='covid is a link whose content is not here'):
        survey('folder', tmp_path / 'data')
