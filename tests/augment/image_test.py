import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from covid_jax import UserError
from covid_jax.augment import image


def drawn(op, x, n):
    return np.asarray(jax.jit(jax.vmap(op, (0, None)))(jax.random.split(jax.random.key(0), n), x))


def test_a_plane_is_turned_by_one_of_three_quarters(rng):
    x = rng.random((2, 5, 5, 2), np.float32)
    turned = drawn(image.rotate, x, 900)
    counts = [sum(np.array_equal(y, np.rot90(x, quarters, (1, 2))) for y in turned) for quarters in range(4)]
    assert counts[0] == 0 and sum(counts) == 900 and stats.chisquare(counts[1:]).pvalue > 1e-3


def test_four_quarter_turns_change_nothing(rng):
    x = rng.random((1, 6, 6, 1), np.float32)
    key = next(k for k in jax.random.split(jax.random.key(1), 20) if np.array_equal(image.rotate(k, x), np.rot90(x, 1, (1, 2))))
    y = x
    for _ in range(4):
        y = image.rotate(key, y)
    np.testing.assert_array_equal(y, x)


def test_a_plane_that_is_not_square_is_not_turned():
    message = 'a plane of 4 x 5 .*: set --config.prep.size, or name operations without rotation in --config.views.ops'
    with pytest.raises(UserError, match=message):
        image.rotate(jax.random.key(0), np.zeros((1, 4, 5, 1), np.float32))


def test_a_plane_is_mirrored_in_one_of_two_ways(rng):
    x = rng.random((2, 4, 5, 2), np.float32)
    mirrored = drawn(image.flip, x, 600)
    counts = [sum(np.array_equal(y, np.flip(x, axis)) for y in mirrored) for axis in (1, 2)]
    assert sum(counts) == 600 and 240 < counts[0] < 360
    for key in jax.random.split(jax.random.key(1), 4):
        np.testing.assert_array_equal(image.flip(key, image.flip(key, x)), x)


def test_a_crop_is_of_any_whole_pixels_inside_the_extent():
    """Pixels that are their own number, -1 beyond the extent: each place about equally often, the edges too."""
    x = np.full((1, 9, 9, 1), -1, np.float32)
    x[:, :6, :7, 0] = np.arange(42).reshape(6, 7)
    crops = np.asarray(jax.jit(jax.vmap(lambda key: image.crop(key, x, 4, np.int32([6, 7]))))(jax.random.split(jax.random.key(0), 2400)))
    assert crops.shape == (2400, 1, 4, 4, 1)
    first = crops[:, 0, 0, 0, 0]
    np.testing.assert_array_equal(crops[..., 0], (np.arange(4)[:, None] * 7 + np.arange(4)) + first[:, None, None, None])
    places, counts = np.unique(first, return_counts=True)
    assert places.tolist() == [7 * top + left for top in range(3) for left in range(4)]
    assert stats.chisquare(counts).pvalue > 1e-3
    whole = drawn(lambda key, x: image.crop(key, x, 8), x, 200)  # without an extent all is there
    assert len(np.unique(whole, axis=0)) == 4


def test_each_axis_is_mirrored_or_not(rng):
    x = rng.random((2, 4, 5, 2), np.float32)
    mirrored = drawn(image.mirror, x, 800)
    forms = [x, x[:, ::-1], x[:, :, ::-1], x[:, ::-1, ::-1]]
    counts = [sum(np.array_equal(y, form) for y in mirrored) for form in forms]
    assert sum(counts) == 800 and stats.chisquare(counts).pvalue > 1e-3


def test_slices_are_mirrored_where_that_is_asked(rng):
    """Each of the eight forms of a volume about equally often; of one axis two."""
    x = rng.random((3, 4, 5, 2), np.float32)
    mirrored = drawn(lambda key, volume: image.mirror(key, volume, (0, 1, 2)), x, 1600)
    forms = [np.flip(x, axes) for n in range(4) for axes in itertools.combinations(range(3), n)]
    counts = [sum(np.array_equal(y, form) for y in mirrored) for form in forms]
    assert len(counts) == 8 and sum(counts) == 1600 and stats.chisquare(counts).pvalue > 1e-3
    depth = drawn(lambda key, volume: image.mirror(key, volume, (0,)), x, 200)
    assert 60 < sum(np.array_equal(y, x[::-1]) for y in depth) < 140
