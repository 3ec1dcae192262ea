"""What is a finished run, and when two of them answered the same exams."""

import numpy as np
import pytest
from finished_runs import exam, finish, leave, run, scores

from covid_jax import UserError, runs


def refused(message, *arguments):
    with pytest.raises(UserError, match=message) as e:
        runs.parts(*arguments) if len(arguments) == 2 else match(*arguments)
    assert '\n' not in str(e.value)


def match(a, b, split='test'):
    return runs.match(str(a), runs.parts(a, split), str(b), runs.parts(b, split))


def test_the_folder_of_one_training_is_a_run(tmp_path):
    exams = [exam(0, 'val'), exam(1), exam(2), exam(3)._replace(label='')]
    leave(tmp_path, exams, [0.1, 0.9, 0.4, 0.5])
    (part,) = runs.parts(tmp_path, 'test')
    assert [e.id for e in part.predictions.exams] == ['e1', 'e2'] and part.predictions.names == ('normal', 'covid')
    np.testing.assert_allclose(part.predictions.probability[:, 1], [0.9, 0.4], atol=1e-6)


@pytest.mark.parametrize('folds, seeds', [(1, (0, 1, 2)), (3, (0,)), (2, (4, 5))])
@pytest.mark.parametrize('stage', ['', 'model4'])
def test_folds_and_seeds_are_found_below(tmp_path, folds, seeds, stage):
    found = runs.parts(run(tmp_path / 'a', 1, folds, seeds, n=12, stage=stage), 'test')
    assert [(part.fold, part.seed) for part in found] == [(fold, seed) for fold in range(folds) for seed in seeds]
    assert {part.stage for part in found} == {stage}


def test_one_stage_or_fold_of_a_run_is_given_by_its_folder(tmp_path):
    run(tmp_path / 'a', 1, 2, (0, 1), n=12, stage='first')
    run(tmp_path / 'a', 1, 2, (0, 1), n=12, stage='second')
    refused('several runs or stages', tmp_path / 'a', 'test')
    assert len(runs.parts(tmp_path / 'a' / 'first', 'test')) == 4
    assert {part.fold for part in runs.parts(tmp_path / 'a' / 'first' / 'fold1', 'test')} == {1}


def test_a_folder_of_several_runs_is_none(tmp_path):
    run(tmp_path / 'both' / 'a', 1, n=12)
    run(tmp_path / 'both' / 'b', 1, n=12)
    refused('several runs or stages .*/a, .*/b.*give one of them', tmp_path / 'both', 'test')
    run(tmp_path / 'stages', 1, n=12, stage='first', seeds=(0, 1))
    run(tmp_path / 'stages', 1, n=12, stage='second', seeds=(2, 3))
    refused('several runs or stages', tmp_path / 'stages', 'test')


def test_a_stage_that_answers_nothing_does_not_count(tmp_path):
    finish(tmp_path / 'a' / 'pretrain', 'pretrain')
    run(tmp_path / 'a', 1, 2, n=12, stage='fine')
    assert {part.stage for part in runs.parts(tmp_path / 'a', 'test')} == {'fine'}


def test_what_is_no_finished_run_is_told_so(tmp_path):
    refused('there is no folder .*nowhere', tmp_path / 'nowhere', 'test')
    (tmp_path / 'empty').mkdir()
    refused('holds no predictions.csv', tmp_path / 'empty', 'test')
    run(tmp_path / 'a', 1, 3, n=12)
    (tmp_path / 'a' / 'fold1' / 'seed0' / 'results.json').unlink()
    refused('fold1/seed0 is not finished', tmp_path / 'a', 'test')
    (tmp_path / 'a' / 'fold1').rename(tmp_path / 'elsewhere')
    refused('not finished, it holds fold0/seed0, fold2/seed0 alone', tmp_path / 'a', 'test')
    (tmp_path / 'a' / 'fold2').rename(tmp_path / 'elsewhere2')
    refused('not finished, it holds fold0/seed0 alone', tmp_path / 'a', 'test')
    run(tmp_path / 'b', 1, 2, (0, 1), n=12)
    (tmp_path / 'b' / 'fold1' / 'seed1').rename(tmp_path / 'elsewhere3')
    refused('not finished, it holds', tmp_path / 'b', 'test')


def test_a_damaged_table_or_result_is_one_line(tmp_path):
    run(tmp_path / 'a', 1, 2, n=12)
    (tmp_path / 'a' / 'fold0' / 'seed0' / 'results.json').write_text('{"fold": ')
    refused('fold0/seed0/results.json', tmp_path / 'a', 'test')
    (tmp_path / 'predictions.csv').write_text('id,patient\n')
    refused('no columns p_CLASS', tmp_path, 'test')
    (tmp_path / 'predictions.csv').write_text('id,patient,site,split,label,p_a,p_b\ne,p,s,test,a,0.5\n')
    refused('line 2 is damaged', tmp_path, 'test')


def test_a_split_has_to_be_there_with_labels(tmp_path):
    leave(tmp_path, [exam(0, 'val'), exam(1)._replace(label='')], [0.5, 0.5])
    refused("no exams of the split 'train': choose --split from val, test", tmp_path, 'train')
    refused("no labels in the split 'test'", tmp_path, 'test')


def test_answers_stand_beside_each_other_in_any_order_of_the_files(tmp_path):
    exams = [exam(i) for i in range(4)]
    leave(tmp_path / 'a', exams, [0.1, 0.2, 0.3, 0.4])
    leave(tmp_path / 'b', exams[::-1], [0.9, 0.8, 0.7, 0.6])
    (fold,) = match(tmp_path / 'a', tmp_path / 'b')
    assert [e.id for e in fold.exams] == ['e0', 'e1', 'e2', 'e3'] and fold.label.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(fold.a[:, 0, 1], [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(fold.b[:, 0, 1], [0.6, 0.7, 0.8, 0.9], atol=1e-6)
    assert fold.of_site('oslo').b.tolist() == fold.b.tolist() and not len(fold.of_site('rome').label)


def test_seeds_and_folds_keep_their_places(tmp_path):
    """A with other noise in each part: each answer is that of the file."""
    a, b = run(tmp_path / 'a', 1, 2, (0, 1), n=12), run(tmp_path / 'b', 0.5, 2, (0, 1), n=12)
    folds = match(a, b)
    for fold, answers in enumerate(folds):
        rows = [int(e.id[1:]) for e in answers.exams]
        assert rows == [i for i in range(12) if i // 2 % 2 == fold]
        for seed in (0, 1):
            np.testing.assert_allclose(answers.a[:, seed, 1], scores(12, 1, 100 * seed + fold)[rows], atol=1e-6)
            np.testing.assert_allclose(answers.of_seed(seed).b[:, 0, 1], scores(12, 0.5, 100 * seed + fold)[rows], atol=1e-6)
    whole = runs.pool(folds, a)
    assert sorted(e.id for e in whole.exams) == sorted(f'e{i}' for i in range(12))
    at = [e.id for e in whole.exams].index('e5')  # of fold 0
    assert whole.a[at, :, 1] == pytest.approx([scores(12, 1, 0)[5], scores(12, 1, 100)[5]], abs=1e-6)
    assert whole.label[at] == 1 and whole.b.shape == (12, 2, 2)


def test_single_trainings_of_any_seed_and_fold_are_compared(tmp_path):
    a, b = run(tmp_path / 'a', 1, 3, (0, 1), n=12), run(tmp_path / 'b', 1, n=12, seeds=(5,))
    leave(b, [exam(i) for i in (2, 3, 8, 9)], [0.1, 0.2, 0.3, 0.4])
    assert len(match(a / 'fold1' / 'seed1', b)) == 1


@pytest.mark.parametrize('change, message', [
    (lambda e: e._replace(id='x' + e.id), 'did not answer the same exams: 24 differ, one is e0;'),
    (lambda e: e._replace(label='covid'), 'e0 has another label in .*b than in .*a'),
    (lambda e: e._replace(patient='p' + e.patient, site='rome'), 'another patient and site'),
    (lambda e: e._replace(split='val' if e.id == 'e3' else 'test'), 'same exams: 1 differ, one is e3')])
def test_other_exams_are_refused(tmp_path, change, message):
    refused(message, run(tmp_path / 'a', 1, n=12), run(tmp_path / 'b', 1, n=12, change=change), 'test')


def test_other_folds_seeds_and_classes_are_refused(tmp_path):
    a = run(tmp_path / 'a', 1, 2, (0, 1), n=12)
    refused('has the folds 0, 1, and .* has 0, 1, 2', a, run(tmp_path / 'b', 1, 3, (0, 1), n=12), 'test')
    refused('has the folds 0, 1, and .* has 0:', a, run(tmp_path / 'c', 1, 1, (0, 1), n=12), 'test')
    refused('has the seeds 0, 1, and .* has 0:', a, run(tmp_path / 'd', 1, 2, (0,), n=12), 'test')
    refused('has the seeds 0, 1, and .* has 1, 2:', a, run(tmp_path / 'e', 1, 2, (1, 2), n=12), 'test')
    drawn = run(tmp_path / 'f', 1, 2, (0, 1), n=12)
    for name in ('seed0', 'seed1'):  # fold 0 with an exam that A tests in fold 1
        leave(drawn / 'fold0' / name, [exam(i) for i in (0, 1, 4, 5, 8, 2)], [0.5] * 6)
    refused('fold0/seed0 and .*fold0/seed0 did not answer the same exams: 2 differ, one is e2', a, drawn, 'test')
    leave(tmp_path / 'g', [exam(0)], [0.5], ('normal', 'covid', 'pneumonia'))
    leave(tmp_path / 'h', [exam(0)], [0.5])
    refused('has the classes normal, covid, pneumonia, and .* has normal, covid:', tmp_path / 'g', tmp_path / 'h', 'test')


def test_folds_that_share_exams_are_not_put_together(tmp_path):
    for name in 'ab':
        for fold in (0, 1):
            leave(tmp_path / name / f'fold{fold}', [exam(0, 'val'), exam(fold + 1, 'val')], [0.5, 0.5])
            finish(tmp_path / name / f'fold{fold}', fold=fold, folds=2)
    with pytest.raises(UserError, match='share 1 exams'):
        runs.pool(match(tmp_path / 'a', tmp_path / 'b', 'val'), tmp_path / 'a')
