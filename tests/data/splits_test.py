import random
from collections import Counter, defaultdict

import pytest

from covid_jax import UserError
from covid_jax.data.exams import Exam
from covid_jax.data.splits import assign, check_duplicates, check_training

CLASSES = ('normal', 'covid|COVID-19', 'pneumonia')


def exam(name, label='covid', split='', patient=None):
    return Exam(name, patient or name, 'x', label, split, name)


def cohort(normal=50, covid=20, pneumonia=10, scans=1):
    """Patients of three classes with so many scans each."""
    return [exam(f'{label}{i}-{scan}', label, patient=f'{label}{i}')
            for label, count in (('normal', normal), ('covid', covid), ('pneumonia', pneumonia))
            for i in range(count) for scan in range(scans)]


def patients(exams, split):
    return {exam.patient for exam in exams if exam.split == split}


class TestDraw:

    def test_fractions_hold_in_every_class(self):
        placed = assign(cohort(), CLASSES)
        assert Counter((exam.split, exam.label) for exam in placed) == {
            ('train', 'normal'): 30, ('val', 'normal'): 10, ('test', 'normal'): 10,
            ('train', 'covid'): 12, ('val', 'covid'): 4, ('test', 'covid'): 4,
            ('train', 'pneumonia'): 6, ('val', 'pneumonia'): 2, ('test', 'pneumonia'): 2}

    def test_halves_round_up(self):
        tested = [e.label for e in assign(cohort(5, 15, 25), CLASSES, val=0, test=.1) if e.split == 'test']
        assert Counter(tested) == {'normal': 1, 'covid': 2, 'pneumonia': 3}

    def test_patient_is_never_torn(self):
        exams = cohort(20, 20, 20, scans=3)
        random.Random(0).shuffle(exams)
        placed = assign(exams, CLASSES)
        assert [e._replace(split='') for e in placed] == exams
        splits = defaultdict(set)
        for e in placed:
            splits[e.patient].add(e.split)
        assert all(len(found) == 1 for found in splits.values())

    def test_order_of_rows_does_not_matter_and_the_seed_does(self):
        exams = cohort(scans=2)
        placed = assign(exams, CLASSES, seed=3)
        for trial in range(5):
            shuffled = random.Random(trial).sample(exams, len(exams))
            assert sorted(assign(shuffled, CLASSES, seed=3)) == sorted(placed)
        assert assign(exams, CLASSES, seed=4) != placed

    def test_patients_with_several_classes_are_a_stratum(self):
        both = [exam(f'p{i}-{label}', label, patient=f'p{i}') for i in range(10) for label in ('normal', 'covid')]
        placed = assign(both + cohort(10, 10, 0), CLASSES)
        assert len([p for p in patients(placed, 'test') if p.startswith('p')]) == 2
        assert len(patients(placed, 'test')) == 6

    def test_other_words_for_a_class_are_the_same_stratum(self):
        words = [exam(f'p{i}', ('covid', 'COVID-19')[i % 2]) for i in range(10)]
        assert len(patients(assign(words, CLASSES, val=0, test=.1), 'test')) == 1

    def test_class_of_two_patients_goes_to_train(self):
        placed = assign(cohort(10, 10, 2), CLASSES)
        assert {e.split for e in placed if e.label == 'pneumonia'} == {'train'}


class TestGiven:

    def test_what_the_source_says_is_kept(self):
        given = [exam(f'{split}{i}', split=split) for split in ('train', 'val', 'test') for i in range(9)]
        assert assign(given, CLASSES) == given

    def test_only_val_is_drawn_where_the_source_gives_test(self):
        placed = assign(cohort(10, 10, 0) + [exam('t', split='test')], CLASSES)
        assert patients(placed, 'test') == {'t'}
        assert len(patients(placed, 'val')) == 4

    def test_only_test_is_drawn_where_the_source_gives_val(self):
        placed = assign(cohort(10, 10, 0) + [exam('v', split='val')], CLASSES)
        assert patients(placed, 'val') == {'v'}
        assert len(patients(placed, 'test')) == 4

    def test_exam_without_a_split_follows_its_patient(self):
        placed = assign([exam('a', split='val', patient='p'), exam('b', patient='p'), *cohort(5, 5, 0)], CLASSES)
        assert placed[1].split == 'val'

    def test_held_out_patients_are_the_test(self):
        exams = [*cohort(scans=2), exam('v', split='val'), exam('t', split='train')]
        placed = assign(exams, CLASSES, held_out=('covid3', 'normal7', 't'))
        assert patients(placed, 'test') == {'covid3', 'normal7', 't'}
        assert patients(placed, 'val') == {'v'}

    def test_unlabelled_exams_keep_what_they_have(self):
        unlabelled = [exam('a', ''), exam('b', '', 'train'), exam('covid1-9', '', patient='covid1')]
        placed = assign(unlabelled + cohort(), CLASSES)
        assert [e.split for e in placed[:3]] == ['', 'train', '']
        assert all(e.split for e in placed[3:])

    def test_patient_in_two_splits_is_named(self):
        torn = [exam(f'{i}{split}', split=split, patient=f'p{i:02}') for i in range(12) for split in ('train', 'test')]
        with pytest.raises(UserError, match=r'^12 patients .* p00 \(test and train\), .*p09 \(test and ') as caught:
            assign(torn, CLASSES)
        assert 'p10' not in str(caught.value)


class TestFolds:

    @pytest.mark.parametrize('folds', [2, 3, 5, 7])
    def test_every_patient_is_tested_once_and_parts_are_nearly_equal(self, folds):
        exams = cohort(23, 11, 8, scans=2)
        parts = [patients(assign(exams, CLASSES, folds=folds, fold=fold, seed=1), 'test') for fold in range(folds)]
        assert Counter(p for part in parts for p in part) == Counter({e.patient for e in exams})
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        for label in ('normal', 'covid', 'pneumonia'):
            counts = [sum(p.startswith(label) for p in part) for part in parts]
            assert max(counts) - min(counts) <= 1

    def test_each_fold_trains_and_validates_on_the_rest(self):
        for fold in range(5):
            placed = assign(cohort(), CLASSES, folds=5, fold=fold)
            assert Counter(e.split for e in placed) == {'train': 48, 'val': 16, 'test': 16}

    def test_source_keeps_its_own(self):
        exams = [*cohort(10, 10, 0), exam('v', split='val'), exam('a', split='train')]
        for fold in range(4):
            placed = assign(exams, CLASSES, folds=4, fold=fold)
            assert patients(placed, 'val') == {'v'} and len(patients(placed, 'test')) == 5
            assert 'a' in patients(placed, 'train')

    def test_folds_of_too_few_open_patients_are_refused(self):
        with pytest.raises(UserError, match='folds=5 needs at least 5 patients that the source leaves .*, not 4'):
            assign([*cohort(2, 2, 0), exam('a', split='train')], CLASSES, folds=5)


@pytest.mark.parametrize('settings, words', [
    ({'held_out': ('nobody',)}, 'nobody'),
    ({'val': .5, 'test': .5}, 'val=0.5 and test=0.5'),
    ({'val': -.1}, 'val=-0.1'),
    ({'folds': 3, 'fold': 3}, 'fold=3'),
    ({'folds': 0}, 'folds=0'),
])
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        assign(cohort(), CLASSES, **settings)


@pytest.mark.parametrize('exams', [[], [exam('a', '')], [exam('a', split='test'), exam('b', split='val')]])
def test_empty_train_is_refused(exams):
    with pytest.raises(UserError, match='no exam is left to train on'):
        check_training(assign(exams, CLASSES))


def test_undeclared_label_is_refused():
    with pytest.raises(UserError, match='flu'):
        assign([exam('a', 'flu')], CLASSES)


class TestDuplicates:

    def test_same_content_in_two_splits_is_named(self):
        exams = [exam('a', split='train'), exam('b', split='test'), exam('lonely', split='train')]
        with pytest.raises(UserError, match=r'a \(train\) = b \(test\)') as caught:
            check_duplicates(exams, ['1', '1', '2'])
        assert 'lonely' not in str(caught.value)

    def test_at_most_ten_pairs_are_listed(self):
        exams = [exam(f'{split}{i}', split=split) for i in range(30) for split in ('train', 'val')]
        with pytest.raises(UserError, match='30 pairs') as caught:
            check_duplicates(exams, [str(i // 2) for i in range(60)])
        assert str(caught.value).count(' = ') == 10

    def test_within_a_split_or_without_one_is_fine(self):
        exams = [exam('a', split='train'), exam('b', split='train'), exam('c'), exam('d', split='test')]
        check_duplicates(exams, ['1', '1', '1', '2'])
