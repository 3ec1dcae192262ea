"""Difficulty, diversity, joint ranks, and what each law of choice takes."""

import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.ranking import select

RANK = np.arange(1, 101)


def test_the_ranks_of_three_by_hand():
    """systems.md, section 10: x2, x1, x3."""
    dif, div = np.array([1.0, 2, 3]), np.array([1.0, 3, 2])
    assert select.ranks(dif).tolist() == [1, 2, 3] and select.ranks(-div).tolist() == [3, 1, 2]
    assert np.argsort(select.joint_ranks(dif, div)).tolist() == [1, 0, 2]
    assert select.joint_ranks(dif, div, 1).tolist() == [1, 2, 3] and select.joint_ranks(dif, div, 0).tolist() == [3, 1, 2]


def test_both_tracks_by_hand():
    """Of two positives, and of three negatives, of which one is left out of its own mean."""
    assert select.difficulty(np.array([[1.0, 3], [2, 6]])).tolist() == [2, 4]
    assert select.diversity(np.array([[0.0, 1, 5], [1, 0, 3], [5, 3, 0]])).tolist() == [3, 2, 4]
    assert select.diversity(np.array([[9.0, 1, 5], [1, 9, 3], [5, 3, 9]])).tolist() == [3, 2, 4]
    with pytest.raises(UserError, match='single negative'):
        select.diversity(np.zeros((1, 1)))


def test_ties_are_in_the_order_of_the_rows():
    assert select.ranks(np.array([2.0, 1, 2, 1])).tolist() == [3, 1, 4, 2]


def frequencies(law, count, draws=2000):
    """How often each rank is chosen."""
    taken = [select.choose(RANK, count, law, seed) for seed in range(draws)]
    assert all(len(set(chosen)) == count == len(chosen) for chosen in taken)
    return np.bincount(np.concatenate(taken), minlength=len(RANK)) / draws


@pytest.mark.parametrize('law, weight', [('random', np.ones(100)), ('long-tail', 1 / RANK),
                                         ('normal', np.exp(-(RANK - 50)**2 / (2 * (100 / 6)**2)))])
def test_of_one_choice_the_frequencies_are_the_weights(law, weight):
    found = frequencies(law, 1, 20000)
    expected = weight / weight.sum()
    assert np.abs(found - expected).max() < 5 * np.sqrt(expected.max() / 20000)
    assert abs(found[:10].sum() - expected[:10].sum()) < 0.02


def test_of_many_the_long_tail_has_more_of_the_first_than_the_bell_and_the_bell_of_the_middle():
    tail, bell, flat = (frequencies(law, 30, 300) for law in ('long-tail', 'normal', 'random'))
    assert tail[0] > 0.95 and bell[0] < 0.1 and bell[45:55].mean() > 0.6 > tail[45:55].mean()
    assert np.abs(flat - 0.3).max() < 0.15


def test_the_top_are_the_first_and_a_choice_is_the_seeds():
    rank = np.array([3, 1, 4, 2])
    assert select.choose(rank, 2, 'top').tolist() == [1, 3]
    same, other = select.choose(RANK, 30, 'long-tail', 3), select.choose(RANK, 30, 'long-tail', 4)
    assert same.tolist() == select.choose(RANK, 30, 'long-tail', 3).tolist() != other.tolist()


@pytest.mark.parametrize('count, law, message', [(0, 'top', '0 of 100'), (101, 'random', '101 of 100'), (1, 'best', "called 'best'")])
def test_what_cannot_be_chosen_is_one_line(count, law, message):
    with pytest.raises(UserError, match=message):
        select.choose(RANK, count, law)
