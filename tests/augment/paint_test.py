from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from covid_jax.augment import paint

UNTOUCHED = 2.0  # no constant is as high


def drawn(op, shape, n):
    """[n, height, width]: the first slice of a volume that was UNTOUCHED; all slices are alike."""
    volume = jnp.full(shape, UNTOUCHED)
    out = np.asarray(jax.jit(jax.vmap(op, (0, None)))(jax.random.split(jax.random.key(0), n), volume))
    assert (out == out[:, :1, :, :, :1]).all()
    return out[:, 0, :, :, 0]


def box(mask):
    """(first, side) of rows and of columns of the true pixels, which must fill it."""
    ends = [(np.flatnonzero(lines)[0], np.count_nonzero(lines)) for lines in (mask.any(1), mask.any(0))]
    (top, height), (left, width) = ends
    assert mask[top:top + height, left:left + width].all() and mask.sum() == height * width
    return top, height, left, width


@pytest.mark.parametrize('op, low, high', [(paint.in_paint, (8, 6), (16, 13)), (paint.out_paint, (21, 18), (28, 23))])
def test_one_window_has_its_sides_and_its_place_by_the_law(monkeypatch, op, low, high):
    """Of a plane of 48 x 40: L/6 to L/3, or L - 4L/7 to L - 3L/7, at least 3 pixels from the border, uniformly."""
    monkeypatch.setattr(paint, 'MOST', 1)
    out = drawn(partial(op), (2, 48, 40, 2), 2000)
    inside = (out != UNTOUCHED) == (op is paint.in_paint)
    boxes = np.array([box(mask) for mask in inside])
    for first, side, least, most, length in zip(boxes[:, ::2].T, boxes[:, 1::2].T, low, high, (48, 40), strict=True):
        counts = np.bincount(side, minlength=most + 1)
        assert not counts[:least].any() and len(counts) == most + 1
        assert stats.chisquare(counts[least:]).pvalue > 1e-3
        assert first.min() == 3 and (length - first - side).min() == 3
        of_one = first[side == least]
        assert stats.chisquare(np.bincount(of_one - 3, minlength=length - least - 5)).pvalue > 1e-3
    assert abs(np.corrcoef(boxes[:, 1], boxes[:, 3])[0, 1]) < 0.1


def test_the_number_of_windows():
    """One, and after each the next with probability 0.95, five at most."""
    volume = jnp.zeros((1, 9, 9, 1))
    there = jax.jit(jax.vmap(lambda k: paint._windows(k, volume, [(1, 3)] * 2).there))(jax.random.split(jax.random.key(1), 8000))
    assert (np.diff(there.astype(int), axis=1) <= 0).all()
    expected = [0.05, 0.05 * 0.95, 0.05 * 0.95**2, 0.05 * 0.95**3, 0.95**4]
    assert stats.chisquare(np.bincount(there.sum(1), minlength=6)[1:], 8000 * np.array(expected)).pvalue > 1e-3


def test_blocks_have_a_constant_each():
    out = drawn(paint.in_paint, (1, 48, 48, 1), 600)
    values = [set(plane[plane != UNTOUCHED]) for plane in out]
    counts = np.array([len(v) for v in values])
    assert counts.min() == 1 and counts.max() == 5 and counts.mean() > 4  # a later block seldom covers one wholly
    assert stats.kstest([v for found in values for v in found], 'uniform').pvalue > 1e-3
    painted = (out != UNTOUCHED).mean((1, 2))
    assert painted.min() >= (8 / 48)**2 and painted.max() <= 5 * (16 / 48)**2


def test_all_but_the_windows_has_one_constant():
    out = drawn(paint.out_paint, (1, 48, 48, 1), 600)
    values = [set(plane[plane != UNTOUCHED]) for plane in out]
    assert {len(v) for v in values} == {1}
    assert stats.kstest([v.pop() for v in values], 'uniform').pvalue > 1e-3
    kept = (out == UNTOUCHED).mean((1, 2))
    assert kept.min() >= (21 / 48)**2 and 0.5 < kept.mean() < 0.8 and kept.max() <= (42 / 48)**2


@pytest.mark.parametrize('size', [1, 3, 8])
def test_small_planes_are_painted_in_part(size):
    for op in (paint.in_paint, paint.out_paint):
        touched = (drawn(op, (1, size, size, 1), 50) != UNTOUCHED).mean((1, 2))
        inside = touched if op is paint.in_paint else 1 - touched
        assert (inside > 0).all() and (size < 5 or (inside < 1).any())


def test_rows_and_columns_are_drawn_apart(monkeypatch):
    monkeypatch.setattr(paint, 'MOST', 1)
    boxes = np.array([box(plane != UNTOUCHED) for plane in drawn(partial(paint.in_paint), (1, 48, 48, 1), 400)])
    assert abs(np.corrcoef(boxes[:, 1], boxes[:, 3])[0, 1]) < 0.2
