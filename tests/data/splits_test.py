import random
from collections import Counter, defaultdict
from types import SimpleNamespace

import pytest

from covid_jax import UserError
from covid_jax.data.splits import assign, assign_sources, check, check_folds, choose, own_splits, thin
from covid_jax.sources.exams import Exam

CLASSES = ('normal', 'covid|COVID-19', 'pneumonia')


def exam(name, label='covid', split='', patient=None, site='x'):
    return Exam(name, patient or name, site, label, split, name)


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


class TestGiven:

    def test_what_the_source_says_is_kept(self):
        given = [exam(f'{split}{i}', split=split) for split in ('train', 'val', 'test') for i in range(9)]
        assert assign(given, CLASSES) == given

    @pytest.mark.parametrize('given, drawn', [('test', 'val'), ('val', 'test')])
    def test_only_what_the_source_does_not_give_is_drawn(self, given, drawn):
        placed = assign(cohort(10, 10, 0) + [exam('x', split=given)], CLASSES)
        assert patients(placed, given) == {'x'} and len(patients(placed, drawn)) == 4

    def test_exam_without_a_split_follows_its_patient(self):
        placed = assign([exam('a', split='val', patient='p'), exam('b', patient='p'), *cohort(5, 5, 0)], CLASSES)
        assert placed[1].split == 'val'

    def test_held_out_patients_are_the_test(self):
        exams = [*cohort(scans=2), exam('v', split='val'), exam('t', split='train')]
        placed = assign(exams, CLASSES, held_out=('covid3', 'normal7', 't'))
        assert patients(placed, 'test') == {'covid3', 'normal7', 't'}
        assert patients(placed, 'val') == {'v'}

    def test_an_exam_without_a_label_follows_its_patient_else_it_is_in_train(self):
        unlabelled = [exam('a', ''), exam('b', '', 'train'), exam('c', '', 'test'), exam('d', '', patient='c'),
                      *(exam(f'{e.id}-bare', '', patient=e.patient) for e in cohort())]
        split = {e.id: e.split for e in assign(unlabelled + cohort(), CLASSES)}
        assert [split[name] for name in 'abcd'] == ['train', 'train', 'test', 'test']
        assert all(split[f'{e.id}-bare'] == split[e.id] for e in cohort())

    def test_exams_without_a_label_change_no_draw(self):
        placed = assign([*cohort(), *(exam(f'u{i}', '') for i in range(50))], CLASSES)
        assert placed[:len(cohort())] == assign(cohort(), CLASSES)

    def test_patient_in_two_splits_is_named(self):
        torn = [exam(f'{i}{split}', split=split, patient=f'p{i:02}') for i in range(12) for split in ('train', 'test')]
        with pytest.raises(UserError, match=r'^12 patients .* p00 \(test and train\), .*p09 \(test and ') as caught:
            assign(torn, CLASSES)
        assert 'p10' not in str(caught.value)


class TestFolds:

    @pytest.mark.parametrize('folds', [2, 5, 7])
    def test_every_patient_is_tested_once_and_parts_are_nearly_equal(self, folds):
        exams = cohort(23, 11, 8, scans=2)
        parts = [patients(assign(exams, CLASSES, folds=folds, fold=fold, seed=1), 'test') for fold in range(folds)]
        assert Counter(p for part in parts for p in part) == Counter({e.patient for e in exams})
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        for label in ('normal', 'covid', 'pneumonia'):
            counts = [sum(p.startswith(label) for p in part) for part in parts]
            assert max(counts) - min(counts) <= 1

    def test_a_class_of_fewer_patients_than_folds_is_said_and_of_one_refused(self):
        said = []
        check_folds(cohort(9, 3, 0), ('normal', 'covid'), 5, say=said.append)
        assert said == ['class covid has 3 patients for 5 folds: 2 folds test on none of it, and what needs both classes is undefined there']
        one = cohort(9, 1, 0, scans=4)
        with pytest.raises(UserError, match='class covid has one patient for 5 folds'):
            check_folds(one, ('normal', 'covid'), 5, say=said.append)
        check_folds(one, ('normal', 'covid'), 5, labelled=False, say=said.append)
        assert 'has 1 patient for 5 folds: 4 folds test on none' in said[1]
        check_folds(one, ('normal', 'covid'), 1, say=said.append)
        check_folds(cohort(9, 5, 0), ('normal', 'covid', 'other'), 5, say=said.append)
        assert len(said) == 2

    def test_a_fold_trains_and_validates_on_the_rest(self):
        placed = assign(cohort(), CLASSES, folds=5, fold=3)
        assert Counter(e.split for e in placed) == {'train': 48, 'val': 16, 'test': 16}

    def test_source_keeps_its_own(self):
        exams = [*cohort(10, 10, 0), exam('v', split='val'), exam('a', split='train')]
        placed = assign(exams, CLASSES, folds=4, fold=2)
        assert patients(placed, 'val') == {'v'} and len(patients(placed, 'test')) == 5 and 'a' in patients(placed, 'train')

    def test_folds_of_too_few_open_patients_are_refused(self):
        with pytest.raises(UserError, match='folds=5 needs at least 5 labelled patients .* not the 4 of here: take fewer folds, '
                                            'or --config.data.split=drawn for the 1 that have a split'):
            assign([*cohort(2, 2, 0), exam('a', split='train')], CLASSES, folds=5, name='here')


@pytest.mark.parametrize('settings, words', [
    ({'val': .5, 'test': .5}, 'val=0.5 and test=0.5'),
    ({'val': -.1}, 'val=-0.1'),
    ({'folds': 3, 'fold': 3}, 'fold=3'),
    ({'folds': 0}, 'folds=0'),
])
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        assign(cohort(), CLASSES, **settings)


def settings(**more):
    """The data section of a config."""
    return SimpleNamespace(**{'source': 'folder', 'classes': CLASSES, 'split': 'auto', 'use': 'auto', 'include': '', 'val': .2,
                              'test': .2, 'held_out': (), 'sites': (), 'held_out_sites': (), 'split_seed': 0, **more})


def sites(*splits):
    """A source for each site: 20 normal and 20 covid patients, its splits in turn."""
    return [[exam(f's{at}/{i}', ('normal', 'covid')[i % 2], own[i // 2 % len(own)], site=f's{at}') for i in range(40)]
            for at, own in enumerate(splits)]


def drawn(parts, data, folds=1, fold=0, say=list):
    return assign_sources(own_splits(parts, data, folds, say), data, folds, fold, say)


def placed(parts, folds=1, fold=0, **more):
    """{site: how many of each split}, and what is said."""
    said = []
    exams = drawn(parts, settings(**more), folds, fold, said.append)
    return {site: Counter(e.split for e in exams if e.site == site) for site in sorted({e.site for e in exams})}, said


class TestPlace:

    def test_a_source_keeps_what_it_names_and_another_draws(self):
        counts, said = placed(sites(('train', 'val'), ('',)))
        assert counts == {'s0': {'train': 20, 'val': 20}, 's1': {'train': 24, 'val': 8, 'test': 8}} and said == []
        assert placed(sites(('train', 'val'), ('',)), split='source') == (counts, said)

    def test_drawn_splits_ignore_what_sources_name_and_that_is_said(self):
        counts, said = placed(sites(('train', 'test'), ('',), ('val',)), split='drawn')
        assert counts == dict.fromkeys(('s0', 's1', 's2'), {'train': 24, 'val': 8, 'test': 8})
        assert said == ['s0 and s2: own splits are ignored, all patients are drawn (--config.data.split=source keeps them)']
        assert placed(sites(('',), ('',)), split='drawn')[1] == []

    def test_a_group_that_a_source_parts_is_whole_where_it_is_drawn(self):
        parted = [[e._replace(patient='x (train)', split='train') if e.id == 's0/0' else
                   e._replace(patient='x (val)', split='val') if e.id == 's0/2' else e for e in sites(('train', 'val'))[0]]]
        for more, folds, both in (({}, 1, {'x (train)', 'x (val)'}), ({'split': 'drawn'}, 1, {'x'}), ({}, 3, {'x'})):
            two = [e for e in drawn(parted, settings(**more), folds) if e.id in ('s0/0', 's0/2')]
            assert {e.patient for e in two} == both and len({e.split for e in two}) == len(both)

    def test_drawn_splits_are_those_of_the_same_patients_without_any(self):
        assert drawn(sites(('train', 'val')), settings(split='drawn')) == drawn(sites(('',)), settings())

    def test_every_source_is_folded(self):
        tested = Counter()
        for fold in range(3):
            exams = drawn(sites(('train', 'val'), ('',), ('test',)), settings(), 3, fold)
            tested.update(e.id for e in exams if e.split == 'test')
            counts = Counter(e.site for e in exams if e.split == 'test')
            assert set(counts) == {'s0', 's1', 's2'} and set(counts.values()) <= {13, 14}  # of 40
        assert set(tested.values()) == {1} and len(tested) == 120

    def test_folds_of_the_sources_own_splits_go_past_what_has_nothing_to_draw(self):
        counts, said = placed(sites(('train', 'val'), ('',)), 4, split='source')
        assert counts == {'s0': {'train': 20, 'val': 20}, 's1': {'train': 22, 'val': 8, 'test': 10}}
        assert said == ['s0: nothing to deal into folds, the same in each']

    def test_unlabelled_source_is_trained_on_in_every_fold(self):
        bare = [exam(f'b/{i}', '', site='b') for i in range(5)]
        for fold in range(3):
            counts, _ = placed([bare, *sites(('',))], 3, fold)
            assert counts['b'] == {'train': 5} and counts['s0']['test'] in (13, 14)

    def test_a_source_of_fewer_patients_than_folds_is_named(self):
        two = [exam('b/1', site='b'), exam('b/2', site='b', split='val'), exam('b/3', '', site='b')]
        with pytest.raises(UserError, match='folds=3 needs at least 3 .* not the 2 of b: take fewer folds$'):
            drawn([*sites(('',)), two], settings(), 3)
        with pytest.raises(UserError, match='not the 2 of folder: take fewer folds$'):
            drawn([two], settings(), 3)

    def test_held_out_patients_are_the_test_whatever_else_is_asked(self):
        for more in ({}, {'split': 'drawn'}, {'split': 'source'}):
            counts, _ = placed(sites(('train',), ('',)), held_out=('s0/0', 's1/1', 's1/2'), **more)
            assert [counts[site]['test'] for site in ('s0', 's1')] == [1, 2]
        exams = drawn(sites(('',), ('',)), settings(held_out=('s0/0',)), 4, 1)
        assert next(e.split for e in exams if e.id == 's0/0') == 'test'
        with pytest.raises(UserError, match='nobody'):
            placed(sites(('',), ('',)), held_out=('nobody',))

    def test_a_site_that_is_held_out_whole_needs_no_folds(self):
        counts, said = placed(sites(('',), ('train',)), 4, held_out=tuple(f's0/{i}' for i in range(40)))
        assert counts['s0'] == {'test': 40} and counts['s1']['test'] == 10
        assert said[-1] == 's0: nothing to deal into folds, the same in each'


class TestHeldOutSites:

    @pytest.mark.parametrize('own', [('',), ('train',), ('train', 'val', 'test')])
    def test_every_exam_of_a_held_out_site_is_test_and_no_other(self, own):
        counts, said = placed(sites(own, ('',)), held_out_sites=('s0',))
        assert counts == {'s0': {'test': 40}, 's1': {'train': 32, 'val': 8}} and said == []
        counts, _ = placed(sites(own, ('',), ('',)), held_out_sites=('s2', 's0'), split='drawn')
        assert counts == {'s0': {'test': 40}, 's1': {'train': 32, 'val': 8}, 's2': {'test': 40}}

    def test_what_another_source_calls_test_is_not_used_unless_it_is_drawn(self):
        parts = sites(('',), ('train', 'test'), ('test', 'val', 'train', 'train'))
        counts, said = placed(parts, held_out_sites=('s0',))
        assert counts == {'s0': {'test': 40}, 's1': {'train': 20, '': 20}, 's2': {'train': 20, 'val': 10, '': 10}}
        assert said == ['test is what is held out: 30 other exams, of s1, s2, are not used, for their source calls them test, or '
                        'their patients are at s0, too']
        assert placed(parts, held_out_sites=('s0',), split='drawn')[0]['s1'] == {'train': 32, 'val': 8}

    @pytest.mark.parametrize('own', ['', 'train', 'val'])
    def test_a_patient_of_a_held_out_site_is_learnt_from_nowhere(self, own):
        """In one table, also where the source puts the patient's other exam into train."""
        (table,) = [[*one, *other] for one, other in [sites(('',), ('',))]]
        table += [exam('moved', 'covid', own, patient='s0/1', site='s1')]
        counts, said = placed([table], held_out_sites=('s0',))
        assert counts['s0'] == {'test': 40} and counts['s1'][''] == 1 and said[0].startswith('test is what is held out: 1 other exams')
        counts, said = placed([table], held_out_sites=('s0',), held_out=('s0/1', 's1/5'))
        assert counts['s0'] == {'test': 40} and counts['s1']['test'] == 2 and said == []

    @pytest.mark.parametrize('held_out, words', [
        (('s0', 'rome', 'oslo'), '^--config.data.held_out_sites names sites that there are not: oslo, rome; there are s0, s1$'),
        (('s0', 's1'), 'holds out all sites that there are: leave one to learn from$'),
    ])
    def test_sites_that_cannot_be_held_out_are_one_line(self, held_out, words):
        with pytest.raises(UserError, match=words):
            placed(sites(('',), ('',)), held_out_sites=held_out)


SEEN = [exam('a', 'normal', 'train'), exam('b', 'COVID-19', 'train'), exam('c', 'pneumonia', 'train'), exam('d', '', 'train'),
        exam('v', 'normal', 'val'), exam('t', '', 'test')]
BARE = [exam(name, '', 'train') for name in 'abcd']


class TestChoose:

    @pytest.mark.parametrize('use, labelled, named, kept', [
        ('auto', True, None, 'abc'), ('auto', False, None, 'abcd'), ('labelled', True, None, 'abc'),
        ('labelled', False, None, 'abc'), ('all', False, None, 'abcd'), ('covid', True, None, 'b'),
        ('covid, pneumonia', False, None, 'bc'), ('auto', True, {'a', 'd', 'v', 'gone'}, 'a'),
        ('auto', False, {'a', 'd', 'v'}, 'ad'), ('all', True, {'a', 'b'}, 'ab'), ('covid', True, {'a', 'b'}, 'b')])
    def test_what_is_learnt_from(self, use, labelled, named, kept):
        """Train exams that are not have no split; val and test, labelled or not, stay as they are."""
        chosen = choose(SEEN, settings(use=use), labelled, named)
        assert [e.split for e in chosen] == ['train' if e.id in kept else '' for e in SEEN[:4]] + ['val', 'test']
        assert [e._replace(split='') for e in chosen] == [e._replace(split='') for e in SEEN]

    @pytest.mark.parametrize('exams, use, labelled, named, words', [
        ([], 'auto', True, None, 'no exam is left to learn from: of 0 exams none'),
        (BARE, 'auto', True, None, 'of 4 exams 4 have no label; the method learns from labels'),
        (BARE, 'labelled', False, None, 'of 4 exams 4 have no label$'),
        (BARE, 'covid', False, None, 'of 4 exams 4 have no label$'),
        (BARE, 'all', True, None, 'use=all: 4 exams of the train split have no label, .* take --config.data.use=labelled'),
        (SEEN, 'all', True, None, 'use=all: 1 exams of the train split have no label'),
        (SEEN[3:], 'auto', True, None, 'of 3 exams 1 have no label, 2 are in val or test; the method learns from labels'),
        (SEEN[4:], 'auto', False, None, 'of 2 exams 2 are in val or test$'),
        (SEEN[:1], 'covid', True, None, 'of 1 exams 1 are not of --config.data.use=covid$'),
        (SEEN, 'auto', True, {'d', 'v'}, 'of 6 exams 3 are not in ids.txt, 1 have no label, 2 are in val or test'),
    ])
    def test_nothing_to_learn_from_says_why(self, exams, use, labelled, named, words):
        with pytest.raises(UserError, match=words) as caught:
            choose(exams, settings(use=use, include='ids.txt'), labelled, named)
        assert '\n' not in str(caught.value)

    @pytest.mark.parametrize('use', ['flu', 'COVID-19', 'covid,', 'labelled,covid', ''])
    def test_a_word_that_is_no_class_is_refused(self, use):
        check(settings(use='covid,normal'))
        with pytest.raises(UserError, match='no class is called .* between them .normal, covid, pneumonia.'):
            check(settings(use=use))


def of_sites(sizes, positives=0.5):
    """Exams of one patient each, so many at each site, the first share of each covid."""
    return [Exam(f'{site}{i}', f'{site}{i}', site, 'covid' if i < positives * size else 'normal', '', '')
            for site, size in sizes.items() for i in range(size)]


@pytest.mark.parametrize('seed', range(3))
def test_what_is_drawn_is_shared_among_sites(seed):
    """Of 200, 40 and 12 patients a fifth each to within a patient of each class; of a hundred sites of one patient a fifth in all."""
    found = assign(of_sites({'a': 200, 'b': 40, 'c': 12}), CLASSES, seed=seed)
    for site, size in (('a', 200), ('b', 40), ('c', 12)):
        for label in ('covid', 'normal'):
            count = Counter(e.split for e in found if (e.site, e.label) == (site, label))
            assert abs(count['test'] - 0.1 * size) <= 1 and abs(count['val'] - 0.1 * size) <= 1
    single = Counter(e.split for e in assign(of_sites({f's{i}': 1 for i in range(100)}), CLASSES, seed=seed))
    assert single == {'train': 60, 'val': 20, 'test': 20}


def test_folds_are_shared_among_sites():
    exams = of_sites({'a': 40, 'b': 40, 'c': 12})
    for fold in range(4):
        count = Counter((e.site, e.label) for e in assign(exams, CLASSES, folds=4, fold=fold) if e.split == 'test')
        assert all(abs(count[site, label] - size / 8) < 1 for site, size in (('a', 40), ('b', 40), ('c', 12))
                   for label in ('covid', 'normal'))


class TestThin:

    def thinned(self, exams, imbalance, seed=0, held_out=()):
        said = []
        data = SimpleNamespace(imbalance=imbalance, classes=CLASSES, split_seed=seed, held_out=held_out)
        return thin([exams], data, said.append)[0], said

    def test_so_many_of_other_classes_for_one_with_covid(self):
        """Of 60 without and 20 with it at 1 to 8: 8 stay, for 7 are fewer than one for eight; the seed decides which, not the order of rows."""
        exams = cohort()
        left, said = self.thinned(exams, 8.0)
        assert Counter(e.label for e in left) == {'normal': 50, 'covid': 8, 'pneumonia': 10}
        assert said == ['12 patients with COVID are left out (--config.data.imbalance): 8 exams have it and 60 have not']
        shuffled, _ = self.thinned(random.Random(0).sample(exams, len(exams)), 8.0)
        assert sorted(shuffled) == sorted(left) and self.thinned(exams, 8.0, 1)[0] != left
        assert self.thinned(exams, 0.0) == (exams, [])

    def test_a_patient_goes_or_stays_whole_and_one_of_several_classes_stays(self):
        """And who is held out. Of 61 without COVID 10.2 with it are the least at 1 to 6: 11, for patients have two exams and one stays."""
        exams = [*cohort(30, 10, 0, scans=2), exam('torn1', 'covid', patient='torn'), exam('torn2', 'normal', patient='torn'),
                 exam('open', '', patient='covid3')]
        for seed in range(5):
            left, said = self.thinned(exams, 6.0, seed, held_out=('covid7',))
            count = Counter(e.patient for e in left if e.patient.startswith('covid') and e.label)
            assert set(count.values()) == {2} and len(count) == 5 and {'torn1', 'torn2'} <= {e.id for e in left} and 'covid7' in count
            assert said[0].endswith('11 exams have it and 61 have not')
            assert ('open' in {e.id for e in left}) == ('covid3' in count)

    def test_where_a_patient_has_many_exams_one_of_them_stays(self):
        exams = [exam(f'{p}-{i}', 'covid', patient=p) for p in 'ab' for i in range(50)] + cohort(10, 0, 0)
        left, said = self.thinned(exams, 1.0)
        assert len({e.patient for e in left if e.label == 'covid'}) == 1 and said[0].endswith('50 exams have it and 10 have not')

    @pytest.mark.parametrize('exams, imbalance, told', [
        (cohort(), 2.0, '20 exams have COVID and 60 have not, 3 for one with it: give a larger number, of at most 60'),
        (cohort(), 3.0, 'give a larger number'), (cohort(), 61.0, 'of at most 60'), (cohort(152, 50, 0), 3.02, '3.04 for one with it'),
        (cohort(9, 0, 0), 3.0, '0 exams have COVID and 9 have not: give')])
    def test_what_cannot_be_is_one_line(self, exams, imbalance, told):
        with pytest.raises(UserError, match=told):
            self.thinned(exams, imbalance)
