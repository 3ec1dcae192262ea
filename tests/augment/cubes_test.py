"""The moves of Rubik's cube Pro."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.augment import cubes

KEY = jax.random.key(0)
VOLUME = jnp.arange(12 * 8 * 10, dtype='float32').reshape(12, 8, 10, 1) + 1


def test_any_two_orders_differ_in_six_places_or_more():
    """Of the eight; seven are possible for 56 orders at most. No cube comes to a place in more than a quarter of them."""
    orders = cubes.permutations()
    assert orders.shape == (100, 8) and (np.sort(orders, 1) == np.arange(8)).all()
    apart = [(a != b).sum() for a, b in itertools.combinations(orders, 2)]
    assert min(apart) == 6
    counts = np.stack([np.bincount(place, minlength=8) for place in orders.T])
    assert counts.min() >= 8 and counts.max() <= 25


def test_eight_cubes_without_a_gap_are_the_volume():
    """z the slowest, x the fastest."""
    eight = cubes.cut(KEY, VOLUME, (0, 0, 0))
    whole = np.block([[[np.asarray(eight[4 * z + 2 * y + x, ..., 0]) for x in (0, 1)] for y in (0, 1)] for z in (0, 1)])
    np.testing.assert_array_equal(whole, VOLUME[..., 0])


def test_a_cube_lies_anywhere_in_its_cell():
    """Of a gap of 2, 1, 3: all 3 x 2 x 4 places, in every cell, and never over its border."""
    found = set()
    for i in range(300):
        eight = np.asarray(cubes.cut(jax.random.fold_in(KEY, i), VOLUME, (2, 1, 3)))
        assert eight.shape == (8, 4, 3, 2, 1)
        for cell, cube in enumerate(eight):
            first = np.unravel_index(int(cube[0, 0, 0, 0]) - 1, (12, 8, 10))
            start = np.array([6, 4, 5]) * [cell // 4, cell // 2 % 2, cell % 2]
            z, y, x = first
            np.testing.assert_array_equal(cube, VOLUME[z:z + 4, y:y + 3, x:x + 2])
            found.add((cell, *(first - start)))
    assert found == set(itertools.product(range(8), range(3), range(2), range(4)))


def test_orders_and_turns_are_undone():
    eight = cubes.cut(KEY, VOLUME, (0, 0, 0))
    for number in (0, 57, 99):
        moved = cubes.permute(number, eight)
        np.testing.assert_array_equal(moved[0], eight[cubes.permutations()[number, 0]])
        np.testing.assert_array_equal(moved[np.argsort(cubes.permutations()[number])], eight)
    turned = jnp.array(list(itertools.product((False, True), repeat=2)) * 2)
    np.testing.assert_array_equal(cubes.turn(turned, cubes.turn(turned, eight)), eight)


@pytest.mark.parametrize('turned, flips', [((0, 0), ()), ((1, 0), (1, 2)), ((0, 1), (0, 2)), ((1, 1), (0, 1))])
def test_a_turn_by_hand(turned, flips):
    """180 degrees about an axis are flips of the two others; about z and y, about x."""
    cube = VOLUME[:2, :3, :4]
    eight = jnp.stack(8 * [cube])
    expected = np.flip(cube, flips) if flips else cube
    which = jnp.zeros((8, 2), bool).at[5].set(jnp.array(turned, bool))
    found = np.asarray(cubes.turn(which, eight))
    np.testing.assert_array_equal(found[5], expected)
    np.testing.assert_array_equal(np.delete(found, 5, 0), np.delete(np.asarray(eight), 5, 0))


def test_half_the_cubes_lose_half_their_voxels():
    eight = jnp.ones((8, 4, 4, 4, 1))
    kept = np.stack([np.asarray(cubes.mask(jax.random.fold_in(KEY, i), eight)).mean((1, 2, 3, 4)) for i in range(100)])
    assert set(np.unique(np.asarray(cubes.mask(KEY, eight)))) <= {0, 1}
    masked = kept < 1
    assert abs(masked.mean() - 0.5) < 0.06 and abs(kept[masked].mean() - 0.5) < 0.01
    assert abs(masked.mean(0) - 0.5).max() < 0.2


def test_what_is_told_of_a_scrambled_volume_is_what_was_done():
    """Undone, it is the volume again; all orders come, and every cube is turned about either axis in half of all."""
    numbers, turns = [], []
    draw = jax.jit(lambda key: cubes.scramble(key, VOLUME, (0, 0, 0), False))
    for i in range(400):
        seen = draw(jax.random.fold_in(KEY, i))
        numbers.append(int(seen.permutation))
        turns.append(np.asarray(seen.turned))
        if i < 5:
            before = cubes.turn(seen.turned, seen.cubes)[np.argsort(cubes.permutations()[seen.permutation])]
            np.testing.assert_array_equal(before, cubes.cut(KEY, VOLUME, (0, 0, 0)))
    assert len(set(numbers)) > 90 and np.abs(np.mean(turns, 0) - 0.5).max() < 0.1
    masked = cubes.scramble(KEY, VOLUME, (0, 0, 0), True)
    assert 0.1 < float((masked.cubes == 0).mean()) < 0.4
