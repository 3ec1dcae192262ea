"""A shortcut that was planted is found by the probe that sees it, and by no other."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from covid_jax import shortcuts
from covid_jax.data.pipeline import Dataset
from covid_jax.report import evidence
from covid_jax.sources.exams import Exam
from covid_jax.sources.files import Facts

NAMES = ('noncovid', 'covid')
SPLIT = ['train'] * 60 + ['val'] * 30 + ['test'] * 60
PNG = Facts('PNG', 'RGB', 300, 200, 50_000)


def dataset(images, label, facts, split=SPLIT):
    exams = [Exam(str(i), str(i), 'here', NAMES[k] if k >= 0 else '', s, '')
             for i, (s, k) in enumerate(zip(split, label, strict=True))]
    n = len(exams)
    return Dataset(exams, np.array(label, np.int32), np.zeros(n, np.int32), np.arange(n), [{'image': x} for x in images], {}, '',
                   [''] * n, ('here',), facts)


def noise(rng, n, shape=(1, 32, 32)):
    return rng.integers(90, 170, (n, *shape, 1), np.uint8)


def aucs(data):
    answers = shortcuts.answer(data, NAMES)
    return {name: roc_auc_score(p.of('test').label, p.of('test').probability[:, 1]) for name, p in answers.items()}


@pytest.fixture
def label(rng):
    return rng.permutation(np.arange(len(SPLIT)) % 2)


@pytest.mark.parametrize('shape', [(1, 32, 32), (9, 32, 32)])
def test_in_the_border(rng, label, shape):
    """Two voxels thick, and the block of the thumbnail has its mean again."""
    images = noise(rng, len(label), shape)
    images[label == 1, :, :2, 12:16] += 40
    images[label == 1, :, 2:4, 12:16] -= 40
    found = aucs(dataset(images, label, [PNG] * len(label)))
    assert found['border'] > 0.9 and found['thumbnail'] < 0.75 and found['file'] == 0.5


def test_in_the_middle(rng, label):
    images = noise(rng, len(label))
    images[label == 1, :, 12:20, 12:20] += 30
    found = aucs(dataset(images, label, [PNG] * len(label)))
    assert found['thumbnail'] > 0.9 and 0.3 < found['border'] < 0.7 and found['file'] == 0.5


@pytest.mark.parametrize('change', [{'format': 'JPEG'}, {'mode': 'RGBA'}, {'width': 301}, {'height': 150}, {'bytes': 20_000}])
def test_in_the_file(rng, label, change):
    facts = [PNG._replace(**change) if k else PNG for k in label]
    found = aucs(dataset(noise(rng, len(label)), label, facts))
    assert found['file'] == 1 and 0.3 < found['border'] < 0.7 and 0.3 < found['thumbnail'] < 0.7


def test_a_size_between_two_others_is_found(rng, label):
    """A line through the number itself finds nothing there."""
    facts = [PNG._replace(width=300 if k else [100, 500][i // 2 % 2]) for i, k in enumerate(label)]
    assert aucs(dataset(noise(rng, len(label)), label, facts))['file'] == 1


def test_of_several_sites_the_site_alone_tells_what_it_tells(rng, label):
    """By hand: of train 3 of 4 are covid at a and 1 of 4 at b, half of both together, as at c that nobody learnt from. What is
    not labelled does not count, nor do val and test."""
    split = np.array(['train'] * 9 + ['val', 'test', 'test', 'test'])
    site = np.array([*'aaaabbbbb', *'aabc'])
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 1, -1, 0, 0, 1, 1])
    told = shortcuts.of_site(site, split, truth, 2)
    np.testing.assert_allclose(told[-4:], [[0.25, 0.75], [0.25, 0.75], [0.75, 0.25], [0.5, 0.5]])
    data = dataset(noise(rng, len(label)), label, [PNG] * len(label))
    assert 'site' not in shortcuts.answer(data, NAMES)
    apart = data._replace(exams=[e._replace(site=NAMES[k]) for e, k in zip(data.exams, label, strict=True)])
    found = shortcuts.answer(apart, NAMES)
    assert list(found) == list(evidence.SHORTCUTS)
    assert roc_auc_score(found['site'].of('test').label, found['site'].of('test').probability[:, 1]) == 1


def test_what_each_sees_by_hand():
    """Of a 16 x 16 image of rows 0 to 15: two rows a block; the border is one voxel thick."""
    image = np.broadcast_to(np.arange(16, dtype=np.uint8)[None, :, None, None], (1, 16, 16, 1))
    np.testing.assert_array_equal(shortcuts.thumbnail(image).reshape(8, 8), np.repeat(np.arange(0.5, 16, 2), 8).reshape(8, 8))
    sides = np.arange(0.5, 16, 2)
    np.testing.assert_array_equal(shortcuts.border(image), np.concatenate([np.zeros(8), np.full(8, 15), sides, sides]))
    volume = np.zeros((8, 50, 100, 1), np.uint8)
    volume[:, 3:-3, 6:-6] = 255  # 6 %: 3 rows, 6 columns
    assert not shortcuts.border(volume).any() and shortcuts.border(volume).shape == (256,)
    volume[:, 2, 50] = 1
    assert shortcuts.border(volume).any() and shortcuts.thumbnail(volume).shape == (512,)
    assert shortcuts.thumbnail(np.ones((1, 5, 7, 1), np.uint8)).shape == (35,)  # blocks of one voxel


def test_blocks_of_unequal_size_have_their_own_means():
    """Of 10 voxels 8 blocks: the mean of all is that of the blocks by their sizes."""
    image = np.arange(100, dtype=np.uint8).reshape(1, 10, 10, 1)
    starts = [0, 1, 2, 3, 5, 6, 7, 8]
    ends = [*starts[1:], 10]
    blocks = list(zip(starts, ends, strict=True))
    by_hand = [[image[0, a:b, c:d].mean() for c, d in blocks] for a, b in blocks]
    np.testing.assert_allclose(shortcuts.thumbnail(image).reshape(8, 8), by_hand)


def test_a_run_is_left_the_answers_and_their_auc(tmp_path, rng, label):
    facts = [PNG._replace(mode='RGBA') if k else PNG for k in label]
    data = dataset(noise(rng, len(label)), label, facts)
    shortcuts.report(tmp_path, data, NAMES, 0.95)
    kept = json.loads((tmp_path / 'shortcuts.json').read_text())
    assert list(kept) == ['val', 'test'] and list(kept['test']) == ['thumbnail', 'border', 'file']
    assert kept['test']['file']['auc']['value'] == 1 and kept['test']['file']['auc']['low'] > 0.9
    answers, notes = evidence.read(tmp_path)
    assert list(answers) == ['thumbnail', 'border', 'file'] and not notes
    assert [e.split for e in answers['border'].exams] == ['val'] * 30 + ['test'] * 60
    before = {p.name: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
    shortcuts.report(tmp_path, data, NAMES, 0.95)
    assert {p.name: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()} == before


def test_the_labels_of_test_are_not_learnt_from(rng, label):
    """All of test may have another one."""
    images = noise(rng, len(label))
    images[label == 1] += 30
    data = dataset(images, label, [PNG] * len(label))
    turned = data._replace(label=np.where(np.array(SPLIT) == 'test', 1 - data.label, data.label))
    one, other = (shortcuts.answer(d, NAMES)['thumbnail'].probability for d in (data, turned))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('unlabelled', [slice(0, 4), slice(60, 64)])
def test_an_exam_without_a_label_is_not_learnt_from(rng, label, unlabelled):
    """Of train, or of val: whatever it looks like, the answers of test are the same."""
    label[unlabelled] = -1
    images = noise(rng, len(label))
    images[label == 1] += 30
    found = []
    for grey in (0, 255):
        images[unlabelled] = grey
        answers = shortcuts.answer(dataset(images, label, [PNG] * len(label)), NAMES)
        found.append([answers[name].of('test').probability for name in ('thumbnail', 'border')])
    np.testing.assert_array_equal(*found)


def test_one_class_has_no_probe_and_says_why(tmp_path, rng):
    """In shortcuts.json, and as a note for the table; an exam without a label is of no class. All else is an error of its own."""
    label = [1] * 59 + [-1] + [0, 1] * 45
    shortcuts.report(tmp_path, dataset(noise(rng, 150), label, [PNG] * 150), NAMES, 0.95)
    reason = json.loads((tmp_path / 'shortcuts.json').read_text())['reason']
    assert 'fewer than two classes' in reason and evidence.read(tmp_path) == ({}, (reason,))
    with pytest.raises(ValueError, match='shape'):
        shortcuts.report(tmp_path, dataset([*noise(rng, 149), noise(rng, 1, (1, 3, 3))[0]], [0, 1] * 75, [PNG] * 150), NAMES, 0.95)


def test_without_val_and_test_the_rest_answers(tmp_path, rng, label):
    split = ['train'] * 100 + ['test'] * 50
    answers = shortcuts.answer(dataset(noise(rng, 150), label, [PNG] * 150, split), NAMES)
    assert {len(p.exams) for p in answers.values()} == {50}
