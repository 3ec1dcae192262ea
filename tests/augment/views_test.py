import itertools
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from covid_jax import UserError
from covid_jax.augment import views, volume

KEY = jax.random.key(3)


def slices(n):
    """[n, 2, 2, 1], each slice filled with its own number."""
    return jnp.arange(float(n))[:, None, None, None] * jnp.ones((1, 2, 2, 1))


def test_cmc_crops_slices_then_the_plane_then_changes_contrast(rng):
    """Three keys of one, in this order: recorded runs go on with the same numbers."""
    x = rng.random((9, 12, 10, 1), np.float32)

    @jax.jit
    def expected(key):
        k_depth, k_crop, k_intensity = jax.random.split(key, 3)
        cropped = volume.random_resized_crop(k_crop, volume.random_depth_crop(k_depth, x, 6))
        return volume.random_contrast_brightness(k_intensity, cropped)

    np.testing.assert_array_equal(jax.jit(views.train_view('cmc', 6))(KEY, x), expected(KEY))


@pytest.mark.parametrize('depth', [1, 9])
def test_at_full_depth_training_and_test_views_of_cmc_are_one(rng, depth):
    x = rng.random((depth, 12, 10, 1), np.float32)
    test = jax.jit(views.test_view('cmc'))(KEY, x)
    assert test.shape == x.shape and not np.allclose(test, x)
    for slices in (0, depth):
        np.testing.assert_array_equal(test, jax.jit(views.train_view('cmc', slices))(KEY, x))


def test_none_is_the_volume_itself(rng):
    for shape in ((9, 4, 5, 1), (1, 4, 5, 3)):
        x = rng.random(shape, np.float32)
        np.testing.assert_array_equal(views.train_view('none')(KEY, x), x)
        np.testing.assert_array_equal(views.test_view('none')(KEY, x), x)


@pytest.mark.parametrize('depth, middle', [(1, [4]), (3, [3, 4, 5]), (4, [2, 3, 4, 5]), (9, range(9))])
def test_none_takes_the_middle_slices_in_training(depth, middle):
    view = views.train_view('none', depth)(KEY, slices(9))
    np.testing.assert_array_equal(view[:, 0, 0, 0], middle)


@pytest.mark.parametrize('shape, depth, name', [
    pytest.param(*of, name, marks=pytest.mark.slow if of[1] == 0 and name in ('cmt', 'moco', 'self_trans') else ())
    for of in (((8, 12, 12, 1), 5), ((1, 12, 12, 3), 0)) for name in views.LAWS])
def test_every_law_is_a_view_of_a_volume_in_training_and_of_an_image_in_test(rng, name, shape, depth):
    """In [0, 1], of the same type, the same for the same key and by itself in a batch."""
    batch = jnp.array(rng.random((4, *shape), np.float32))
    keys = jax.random.split(KEY, 4)
    view = views.train_view(name, depth) if depth else views.test_view(name)
    out = jax.jit(jax.vmap(view))(keys, batch)
    assert out.shape == (4, depth or shape[0], *shape[1:]) and out.dtype == jnp.float32
    assert out.min() >= 0 and out.max() <= 1
    np.testing.assert_allclose(jax.jit(view)(keys[2], batch[2]), out[2], atol=1e-6)


@pytest.mark.parametrize('make', [views.train_view, views.test_view])
def test_an_unknown_name_is_told_which_there_are(make):
    with pytest.raises(UserError, match=r"'cmcc': set --config.views.name=cmc\|cmt\|cross_site\|moco\|self_trans\|rubik\|none"):
        make('cmcc')


SHAPES = [(1, 8, 8, 1), (5, 24, 24, 2)]


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('name', list(views.OPS))
def test_every_operation_is_of_a_volume_and_of_an_image(rng, name, shape):
    """In [0, 1], of the same shape and type, by itself as in a batch, and slices and channels alike but for the noise."""
    op = views.OPS[name]
    plane = rng.random((1, *shape[1:3], 1), np.float32)
    batch = jnp.array([np.broadcast_to(plane, shape), rng.random(shape, np.float32), np.zeros(shape), np.ones(shape)], jnp.float32)
    keys = jax.random.split(KEY, 4)
    out = jax.jit(jax.vmap(op))(keys, batch)
    assert out.shape == batch.shape and out.dtype == jnp.float32
    assert out.min() >= 0 and out.max() <= 1
    if name != 'poisson':
        np.testing.assert_array_equal(out[0], np.broadcast_to(out[0, :1, :, :, :1], shape))
    if shape == SHAPES[-1]:
        one = jax.jit(op)
        for i in range(4):
            np.testing.assert_allclose(one(keys[i], batch[i]), out[i], atol=1e-6)


@pytest.mark.parametrize('name', list(views.OPS))
def test_every_operation_changes_most_images_and_differs_by_key(rng, name):
    x = rng.random((1, 40, 40, 1), np.float32)
    out = jax.jit(jax.vmap(views.OPS[name], (0, None)))(jax.random.split(KEY, 16), x)
    assert sum(np.array_equal(y, x) for y in out) < 4
    assert len(np.unique(out, axis=0)) > (1 if name in ('flip', 'rotation') else 12)


@pytest.fixture
def digits(monkeypatch):
    """In place of each operation one that appends a digit: the volume 0 becomes the operations that it went through."""
    def append(digit):
        return lambda key, volume: 10 * volume + digit

    for digit, name in enumerate(views.OPS, 1):
        monkeypatch.setitem(views.OPS, name, append(digit))


def test_the_families_of_cmt_and_their_order(digits):
    """One of the seven choices of families, uniformly; of each one operation, uniformly; perspective, distortion, painting."""
    view = jax.jit(jax.vmap(views.train_view('cmt'), (0, None)))
    seen = [str(int(v)) for v in view(jax.random.split(KEY, 7000), jnp.zeros((1, 1, 1, 1))).ravel()]
    families = [''.join('PDM'[0 if d < '3' else 1 if d < '6' else 2] for d in s) for s in seen]
    assert set(families) == {'P', 'D', 'M', 'PD', 'PM', 'DM', 'PDM'}
    assert stats.chisquare(list(Counter(families).values())).pvalue > 1e-3
    for operations in ('12', '345', '67'):
        counts = [sum(d in s for s in seen) for d in operations]
        assert stats.chisquare(counts).pvalue > 1e-3
    whole = Counter(s for s, f in zip(seen, families, strict=True) if f == 'PDM')
    assert len(whole) == 12 and stats.chisquare(list(whole.values())).pvalue > 1e-3  # drawn apart


def test_the_operations_that_are_named_are_applied_in_their_order(digits):
    x = jnp.zeros((1, 1, 1, 1))
    for make in (views.train_view, views.test_view):
        for ops, digits_seen in ((('flip',), 2), (('hounsfield', 'flip'), 32), (('flip', 'hounsfield'), 23), (['outpaint'] * 2, 77)):
            assert make('cmt', ops=ops)(KEY, x).item() == digits_seen


def test_an_operation_by_name_is_the_operation(rng):
    """The view has the distribution of the operation itself: here of one that has two outcomes."""
    x = rng.random((2, 6, 7, 1), np.float32)
    out = jax.jit(jax.vmap(views.train_view('cmt', 0, ('flip',)), (0, None)))(jax.random.split(KEY, 100), x)
    counts = [sum(np.array_equal(y, np.flip(x, axis)) for y in out) for axis in (1, 2)]
    assert sum(counts) == 100 and 30 < counts[0] < 70


def test_cmt_takes_neighbouring_slices_in_training_alone(digits):
    out = jax.jit(jax.vmap(views.train_view('cmt', 3, ('flip',)), (0, None)))(jax.random.split(KEY, 40), slices(5))
    starts = (out[:, 0, 0, 0, 0] - 2) / 10
    np.testing.assert_allclose(out[:, :, 0, 0, 0], 10 * (starts[:, None] + np.arange(3)) + 2)
    assert set(starts.tolist()) == {0, 1, 2}
    assert views.test_view('cmt', ('flip',))(KEY, slices(5)).shape == (5, 2, 2, 1)


@pytest.mark.parametrize('make', [views.train_view, views.test_view])
def test_operations_that_cannot_be(make):
    known = 'rotation, flip, hounsfield, shuffle, poisson, inpaint, outpaint'
    with pytest.raises(UserError, match=f"--config.views.ops: no operation is called 'blur'; there are: {known}$"):
        make('cmt', ops=('flip', 'blur'))
    for law in ('cmc', 'none'):
        with pytest.raises(UserError, match='--config.views.ops=.*flip.* is of the views called cmt: set --config.views.name=cmt'):
            make(law, ops=('flip',))


# In training each law, and in test those that differ there: the others are one function (LAWS).
@pytest.mark.parametrize('depth, name', [
    pytest.param(depth, name, marks=pytest.mark.slow if depth == 0 and name in ('cmc', 'moco', 'self_trans') else ())
    for depth in (3, 0) for name in views.LAWS])
def test_every_law_sees_the_extent_alone_and_gives_the_plane(rng, name, depth):
    """Of a canvas of 24 x 24 with two scans in it; without an extent of a volume of its own aspect."""
    extent = jnp.int32([[12, 20], [24, 12]])
    canvas = rng.random((2, 5, 24, 24, 1), np.float32)
    beyond = (np.arange(24)[:, None] >= extent[:, :1, None]) | (np.arange(24) >= extent[:, 1:, None])
    keys = jax.random.split(KEY, 2)
    ops = ('rotation', 'flip') if name == 'cmt' else ()  # all of them take long to compile
    view = views.train_view(name, depth, ops, plane=10) if depth else views.test_view(name, ops, plane=10)
    seen = jax.jit(jax.vmap(view))
    out = seen(keys, canvas, extent)
    assert out.shape == (2, depth or 5, 10, 10, 1) and out.dtype == jnp.float32 and out.min() >= 0 and out.max() <= 1 + 1e-6
    for marker in (0, 1):
        marked = jnp.where(beyond[:, None, ..., None], marker, canvas)
        np.testing.assert_array_equal(seen(keys, marked, extent), out)
    without = view(KEY, canvas[0, :, :14, :21])
    assert without.shape == (depth or 5, 10, 10, 1)
    if name == 'none':
        np.testing.assert_allclose(out[1, 0], views.whole(canvas[1, :, :, :12], 10)[(5 - (depth or 5)) // 2], atol=1e-6)


@pytest.mark.parametrize('plane', [0, 4])
def test_cross_site_is_neighbouring_slices_a_crop_and_mirrors(plane):
    """Nothing is interpolated: pixels that are their own number, each once, in rows that are whole."""
    x = jnp.arange(3 * 6 * 6.0).reshape(3, 6, 6, 1)
    for key in jax.random.split(KEY, 8):
        out = np.asarray(views.train_view('cross_site', 2, plane=plane)(key, x))[..., 0]
        upright = out[:, ::-1] if out[0, 0, 0] > out[0, 1, 0] else out
        upright = upright[:, :, ::-1] if upright[0, 0, 0] > upright[0, 0, 1] else upright
        side = plane or 6
        grid = 36 * np.arange(2)[:, None, None] + 6 * np.arange(side)[:, None] + np.arange(side)
        np.testing.assert_array_equal(upright, grid + upright[0, 0, 0])


def test_parts_of_a_view_of_cross_site_are_drawn_apart():
    """Of 2 starts of the slices, 2 x 2 places and 4 mirrored forms each combination about equally often."""
    x = jnp.arange(3 * 4 * 4.0).reshape(3, 4, 4, 1)
    out = np.asarray(jax.jit(jax.vmap(views.train_view('cross_site', 2, plane=3), (0, None)))(jax.random.split(KEY, 3200), x))
    counts = np.unique(out.reshape(3200, -1), axis=0, return_counts=True)[1]
    assert len(counts) == 32 and stats.chisquare(counts).pvalue > 1e-3


def test_parts_of_a_view_of_moco(monkeypatch):
    """Of marks in place of its parts: brightness and contrast in four of five views, blur and mirror each in every other, drawn apart; a
    crop of a fifth or more; nothing of colour."""
    areas = []
    monkeypatch.setattr(views, 'random_resized_crop', lambda key, volume, area, plane, extent: areas.append(area) or volume)
    monkeypatch.setattr(views, 'jitter', lambda key, volume, *range: volume + jnp.array([0, 10.]) * (range == (0.4, 0.4)))
    monkeypatch.setattr(views, 'blur', lambda key, volume: volume + jnp.array([0, 100.]))
    volume = jnp.array([1., 2]).reshape(1, 1, 2, 1) * jnp.ones((1, 1, 2, 2))
    seen = jax.jit(jax.vmap(views.train_view('moco'), (0, None)))(jax.random.split(KEY, 4000), volume)
    mirrored = np.asarray(seen[:, 0, 0, 0, 0]) == 2
    marks = np.asarray(seen[:, 0, 0, 0, 1]) - np.where(mirrored, 2, 1)
    parts = np.stack([marks // 10 % 10 == 1, marks // 100 == 1, mirrored])
    assert areas == [(0.2, 1.0)]
    for part, p in zip(parts, (0.8, 0.5, 0.5), strict=True):
        assert stats.binomtest(int(part.sum()), 4000, p).pvalue > 1e-3
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(parts[a], parts[b])[0, 1]) < 0.06


def test_parts_of_a_view_of_self_trans(monkeypatch):
    """A crop of half the plane or more, mirrored in every other view, brightness and contrast by 0.2."""
    drawn = []
    monkeypatch.setattr(views, 'random_resized_crop', lambda key, volume, area, plane, extent: drawn.append(area) or volume)
    monkeypatch.setattr(views, 'jitter', lambda key, volume, *range: drawn.append(range) or volume)
    volume = jnp.array([1., 2]).reshape(1, 1, 2, 1)
    seen = jax.jit(jax.vmap(views.train_view('self_trans'), (0, None)))(jax.random.split(KEY, 2000), volume)
    assert drawn == [(0.5, 1.0), (0.2, 0.2)]
    assert stats.binomtest(int((seen[:, 0, 0, 0, 0] == 2).sum()), 2000, 0.5).pvalue > 1e-3


def test_parts_of_a_view_of_rubik():
    """Each of three axes mirrored or not, neighbouring slices, one factor from 0.9 to 1.1: all drawn apart; in test views alike."""
    x = jnp.arange(4 * 2 * 2.0).reshape(4, 2, 2, 1) / 32
    keys = jax.random.split(KEY, 3200)
    for make, slices in ((partial(views.train_view, depth=3), 3), (views.test_view, 4)):
        out = np.asarray(jax.jit(jax.vmap(make('rubik'), (0, None)))(keys, x), float)
        step = np.abs(out[:, 0, 0, 1, 0] - out[:, 0, 0, 0, 0])[:, None]  # from pixel to pixel, 1/32 of the volume itself
        assert stats.kstest(32 * step[:, 0], stats.uniform(0.9, 0.2).cdf).pvalue > 1e-3
        numbers = np.rint(out.reshape(3200, -1) / step)
        np.testing.assert_allclose(out.reshape(3200, -1), numbers * step, atol=1e-6)
        seen, which, counts = np.unique(numbers, axis=0, return_inverse=True, return_counts=True)
        whole = np.arange(16).reshape(4, 2, 2)
        forms = {tuple(np.flip(whole[first:first + slices], axes).ravel()) for first in range(5 - slices)
                 for n in range(4) for axes in itertools.combinations(range(3), n)}
        assert {tuple(form) for form in seen} == forms and len(forms) == 8 * (5 - slices)
        assert stats.chisquare(counts).pvalue > 1e-3
        assert stats.f_oneway(*(step[which == i, 0] for i in range(len(seen)))).pvalue > 1e-3


def test_a_view_of_rubik_is_cut_at_one():
    out = jax.vmap(views.train_view('rubik'), (0, None))(jax.random.split(KEY, 64), jnp.full((2, 2, 2, 1), 0.95))
    assert out.max() == 1 and 10 < (out == 1).all((1, 2, 3, 4)).sum() < 30  # of factors above 1 / 0.95 a quarter


@pytest.mark.parametrize('name', ['moco', 'self_trans'])
def test_a_crop_is_resized_to_the_plane_from_the_whole_scan(rng, name):
    """From 40 to 24 pixels: a scan whose right half alone is bright is bright at the right of views that are not mirrored."""
    volume = np.zeros((1, 40, 40, 1), np.float32)
    volume[:, :, 20:] = 0.5
    seen = jax.jit(jax.vmap(views.train_view(name, plane=24), (0, None)))(jax.random.split(KEY, 64), volume)
    assert seen.shape == (64, 1, 24, 24, 1)
    left = np.asarray(seen[:, 0, :, :12, 0]).mean((1, 2))
    right = np.asarray(seen[:, 0, :, 12:, 0]).mean((1, 2))
    assert 10 < (right > left + 0.05).sum() and 10 < (left > right + 0.05).sum()
