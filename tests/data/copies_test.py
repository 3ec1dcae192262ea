"""One scan twice: in two splits or of two classes it is refused, of two patients it is said."""

import shutil

import numpy as np
import pytest
from PIL import Image

from covid_jax import UserError
from covid_jax.config import base
from covid_jax.data import copies, pipeline
from covid_jax.sources.exams import Exam

CLASSES = ('normal|pneumonia', 'covid')


def exam(name, split='train', label='covid', patient=''):
    return Exam(name, patient or name, 'here', label, split, name)


def test_same_content_in_two_splits_is_named():
    exams = [exam('a', 'train'), exam('b', 'test'), exam('lonely', 'train')]
    with pytest.raises(UserError, match=r'1 scan is here more than once .* in several splits: a \(train\) = b \(test\);') as caught:
        copies.check(exams, ['1', '1', '2'], CLASSES)
    assert 'lonely' not in str(caught.value)


def test_all_of_several_copies_are_named():
    exams = [exam('a', 'train'), exam('b', 'train'), exam('c', 'test'), exam('d', 'val'), exam('e'), exam('f', 'test')]
    with pytest.raises(UserError, match=r'2 scans are .*: a \(train\) = b \(train\) = c \(test\) = d \(val\), e \(train\) = f \(test\);'):
        copies.check(exams, ['1'] * 4 + ['2'] * 2, CLASSES)


def test_same_content_of_two_classes_is_named_also_within_a_split():
    exams = [exam('a'), exam('b', label='normal'), exam('c', label='Pneumonia'), exam('lonely', label='normal')]
    with pytest.raises(UserError, match=r'1 scan is .* of several classes: a \(covid\) = b \(normal\) = c \(normal\);'):
        copies.check(exams, ['1', '1', '1', '2'], CLASSES)


def test_what_does_not_contradict_itself_is_fine():
    exams = [exam('a'), exam('b'), exam('unlabelled', label=''), exam('unused', '', 'normal'), exam('d', 'test')]
    copies.check(exams, ['1', '1', '1', '1', '2'], CLASSES)
    copies.check([exam('e', label='normal'), exam('f', label='pneumonia')], ['1', '1'], CLASSES)


def test_a_word_that_is_the_name_is_said_once():
    assert str(copies.Copies(('a', 'b'), ('a', 'p'))) == 'a = b (p)'


def test_two_patients_of_one_scan_are_said_once():
    exams = [exam('a', patient='p'), exam('b', patient='q'), exam('c', patient='p')]
    said = []
    copies.tell(exams, ['1', '1', '1'], said.append)
    copies.tell(exams, ['2', '2', '2'], said.append, ['1', '1', '1'])
    assert said == ['1 scan is here more than once, of several patients, as these are named, and count as often: a = b = c; keep one of each, '
                    'or give all the same patient']
    copies.tell(exams, ['1', '2', '1'], said.append)
    assert len(said) == 1


def table(root, *rows):
    """A manifest of six scans, and of further rows."""
    for i in range(6):
        np.save(root / f's{i}.npy', np.random.default_rng(i).integers(-1000, 300, (4, 8, 8)).astype(np.int16))
    splits = ('train', 'train', 'train', 'val', 'val', 'train')
    kept = [f's{i}.npy,{("covid", "normal")[i % 2]},p{i},{split}' for i, split in enumerate(splits)]
    (root / 'm.csv').write_text('\n'.join(['path,label,patient,split', *kept, *rows]))
    c = base()
    c.data.update(source='manifest', root=str(root / 'm.csv'))
    c.prep.size = (4, 8, 8)
    return c


@pytest.mark.parametrize('survey', [pipeline.survey, pipeline.survey_test])
def test_a_copy_under_another_label_is_found_before_anything_is_prepared(tmp_path, survey):
    c = table(tmp_path, 'copy_of_s0.npy,normal,p9,train')
    shutil.copy(tmp_path / 's0.npy', tmp_path / 'copy_of_s0.npy')
    with pytest.raises(UserError, match=r'of several classes: s0.npy \(covid\) = copy_of_s0.npy \(noncovid\)'):
        survey(c, tmp_path / 'store')


def test_a_copy_under_another_patient_is_said(tmp_path):
    c = table(tmp_path, 'copy_of_s0.npy,covid,p9,train')
    shutil.copy(tmp_path / 's0.npy', tmp_path / 'copy_of_s0.npy')
    said = []
    pipeline.prepare(pipeline.survey(c, tmp_path / 'store', say=said.append), tmp_path / 'store', 1, said.append)
    assert [line[:58] for line in said if 'several patients' in line] == ['1 scan is here more than once, of several patients, as the']


@pytest.mark.parametrize('label, patient, word', [('normal', 'p9', 'several classes'), ('covid', 'p9', 'several patients'), ('covid', 'p', '')])
def test_the_same_picture_in_another_format_is_found_when_it_is_prepared(tmp_path, label, patient, word):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8))
    for name in ('a.png', 'b.bmp'):
        picture.save(tmp_path / name)
    c = table(tmp_path, 'a.png,covid,p,train', f'b.bmp,{label},{patient},train')
    said = []
    survey = pipeline.survey(c, tmp_path / 'store', say=said.append)
    try:
        pipeline.prepare(survey, tmp_path / 'store', 1, said.append)
    except UserError as e:
        said.append(str(e))
    assert [line for line in said if 'a.png' in line and 'b.bmp' in line and word in line] == [line for line in said if 'more than once' in line]
    assert bool(word) == any('more than once' in line for line in said)
