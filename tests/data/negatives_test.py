"""A ranking as a file, and the choice from it among exams with their splits."""

from collections import Counter

import numpy as np
import pytest

from covid_jax import UserError, ranges
from covid_jax.config import base
from covid_jax.data import negatives
from covid_jax.ranking import select
from covid_jax.sources.exams import Exam

NAMES = [f'n{i:03}' for i in range(100)]


def exams():
    """A hundred negatives of train, ten positives of it, and a few exams of val, of test and without a label."""
    made = [Exam(name, name, 'here', 'pneumonia' if i % 2 else 'normal', 'train', '') for i, name in enumerate(NAMES)]
    made += [Exam(f'p{i}', f'p{i}', 'here', 'covid', 'train', '') for i in range(10)]
    made += [Exam(f'{split}{i}', f'{split}{i}', 'here', 'normal', split, '') for split in ('val', 'test') for i in range(3)]
    return [*made, Exam('u', 'u', 'here', '', 'train', '')]


def ranking(order):
    """A Ranking of the hundred whose joint rank is the place in `order`, by difficulty the reverse and by diversity as they come."""
    joint = np.argsort(order) + 1
    ranks = {'joint': joint, 'difficulty': 101 - joint, 'diversity': np.arange(1, 101)}
    return negatives.Ranking(exams()[:100], np.linspace(0, 1, 100), np.linspace(2, 3, 100), ranks)


def data(**choice):
    c = base()
    c.data.negatives.update(choice)
    ranges.check(c)
    negatives.check(c.data)
    return c.data


def learnt(found):
    return {exam.id for exam in found if exam.split == 'train'}


ORDER = np.random.default_rng(0).permutation(100)
OTHERS = {f'p{i}' for i in range(10)} | {'u'}


@pytest.fixture
def folder(tmp_path):
    negatives.write(tmp_path, ranking(ORDER))
    return str(tmp_path)


def test_a_ranking_is_read_as_it_was_written(folder):
    """In the order of the joint ranks."""
    found, made = negatives.read(folder), ranking(ORDER)
    assert [exam.id for exam in found.exams] == [NAMES[i] for i in ORDER]
    assert found.ranks['joint'].tolist() == list(range(1, 101))
    np.testing.assert_allclose(found.distance, made.distance[ORDER], rtol=1e-8)
    np.testing.assert_allclose(found.diversity, made.diversity[ORDER], rtol=1e-8)
    for name in ('difficulty', 'diversity'):
        assert found.ranks[name].tolist() == made.ranks[name][ORDER].tolist()


@pytest.mark.parametrize('choice, expected', [
    ({'law': 'top', 'count': 7}, [NAMES[i] for i in ORDER[:7]]), ({'law': 'top', 'count': 0.07}, [NAMES[i] for i in ORDER[:7]]),
    ({'law': 'top', 'count': 3, 'by': 'difficulty'}, [NAMES[i] for i in ORDER[-3:]]),
    ({'law': 'top', 'count': 2, 'by': 'diversity'}, ['n000', 'n001']), ({'law': 'top', 'count': 0.001}, [NAMES[ORDER[0]]])])
def test_the_first_are_taken_and_all_else_stays(folder, choice, expected):
    found = negatives.choose(exams(), data(ranking=folder, **choice))
    assert learnt(found) == {*expected, *OTHERS}
    assert [exam._replace(split='') for exam in found] == [exam._replace(split='') for exam in exams()]
    assert Counter(exam.split for exam in found)['val'] == Counter(exam.split for exam in found)['test'] == 3


def test_a_choice_by_a_law_is_that_of_the_ranks_and_its_own_seed(folder):
    """Whatever the order of the exams."""
    expected = {NAMES[ORDER[i]] for i in select.choose(np.arange(1, 101), 30, 'long-tail', 5)}
    found = learnt(negatives.choose(exams()[::-1], data(ranking=folder, count=30, seed=5)))
    assert found == expected | OTHERS != learnt(negatives.choose(exams(), data(ranking=folder, count=30, seed=6)))


def test_a_random_choice_needs_no_ranking_and_nothing_is_chosen_where_nothing_is_asked():
    once = learnt(negatives.choose(exams(), data(law='random', count=0.2)))
    assert len(once - OTHERS) == 20 and once == learnt(negatives.choose(exams()[::-1], data(law='random', count=0.2)))
    assert negatives.choose(exams(), data()) == exams()
    often = Counter(name for seed in range(400) for name in learnt(negatives.choose(exams(), data(law='random', count=20, seed=seed))))
    assert min(often[name] for name in NAMES) > 40 and max(often[name] for name in NAMES) < 130  # of 80 expected, s.d. 8


def test_a_random_choice_from_a_ranking_is_of_what_is_ranked(folder):
    """So that its share is that of the other laws where some of train was not ranked, as what could not be read."""
    more = [Exam(f'broken{i}', f'broken{i}', 'here', 'normal', 'train', '') for i in range(100)]
    found = learnt(negatives.choose([*exams(), *more], data(ranking=folder, law='random', count=0.5))) - OTHERS
    assert len(found) == 50 and not {exam.id for exam in more} & found


def test_an_exam_of_test_among_the_candidates_is_an_error(folder):
    """So is one of val, one that is not there, and one that has COVID."""
    for other in ('test0', 'val1', 'gone', 'p3'):
        made = ranking(ORDER)
        made.exams[50] = made.exams[50]._replace(id=other)
        negatives.write(folder, made)
        with pytest.raises(UserError, match=rf'1 exams of the ranking .* are not in train here, or have COVID \({other}\)'):
            negatives.choose(exams(), data(ranking=folder, count=3))


@pytest.mark.parametrize('choice, message', [
    ({'count': 5}, 'needs a ranking: set --config.data.negatives.ranking to the folder of one, or --config.data.negatives.law=random'),
    ({'ranking': 'x'}, 'how many negatives are to be learnt from'), ({'ranking': 'x', 'count': 2.5}, 'a whole number, or below 1 a share'),
    ({'count': float('nan'), 'law': 'random'}, 'a finite number'), ({'count': float('inf'), 'law': 'random'}, 'a finite number'),
    ({'count': -1, 'law': 'random'}, 'at least 0'), ({'count': 5, 'law': 'best'}, 'must be long-tail, normal, top or random'),
    ({'count': 5, 'ranking': 'x', 'by': 'age'}, 'must be joint, difficulty or diversity')])
def test_a_choice_that_cannot_be(choice, message):
    with pytest.raises(UserError, match=message):
        data(**choice)


def test_more_than_there_are_and_files_that_are_no_rankings(folder, tmp_path):
    with pytest.raises(UserError, match='there are 100 exams without COVID to choose from'):
        negatives.choose(exams(), data(ranking=folder, count=101))
    with pytest.raises(UserError, match=r'holds no ranking.csv: give the folder of a ranking'):
        negatives.choose(exams(), data(ranking=str(tmp_path / 'nowhere'), count=1))
    path = tmp_path / 'ranking.csv'
    lines = path.read_text().splitlines()
    for text in ('', 'id,rank\na,1\n', '\n'.join(lines[:3]) + '\nn9', lines[0] + '\n'):
        path.write_text(text)
        with pytest.raises(UserError, match='expected the columns id, patient'):
            negatives.read(folder)
    path.write_text('\n'.join(lines[:3]) + '\n')
    with pytest.raises(UserError, match='is damaged: its ranks are not 1 to 2'):
        negatives.read(folder)
