import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from covid_jax.augment import distort

LEVELS = np.arange(256, dtype=np.float32) / 255
RAMP = jnp.array(LEVELS).reshape(1, 16, 16, 1)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def curves(n, **how):
    """[n, 256]: what becomes of the values 0, 1 / 255 .. 1."""
    return np.asarray(jax.jit(jax.vmap(lambda k: distort.hounsfield(k, RAMP, **how).ravel()))(keys(n)))


def test_a_curve_rises_or_falls_from_end_to_end():
    found = curves(1000)
    falls = found[:, 0] == 1
    assert 0.45 < falls.mean() < 0.55
    np.testing.assert_array_equal(found[:, 0], falls)
    np.testing.assert_array_equal(found[:, -1], 1 - falls)
    assert (np.diff(found, axis=1) * np.where(falls, -1, 1)[:, None] >= 0).all()
    assert not (curves(100, inversion=False)[:, 0] == 1).any()


def test_a_curve_is_that_of_bezier():
    """Of the same control points, sampled finely in numpy; both directions."""
    found = curves(200)
    t = np.linspace(0, 1, 100_001)
    for key, curve in zip(keys(200), found, strict=True):
        x1, y1, x2, y2 = np.asarray(jax.random.uniform(jax.random.split(key)[0], (4,)), float)
        x, y = (3 * (1 - t)**2 * t * p + 3 * (1 - t) * t**2 * q + t**3 for p, q in ((x1, x2), (y1, y2)))
        assert np.diff(x).min() >= 0
        np.testing.assert_allclose(curve, np.interp(LEVELS, x, y[::-1] if curve[0] else y), atol=2e-4)


def test_values_between_two_levels_are_interpolated():
    between = (RAMP[:, :, :-1] + RAMP[:, :, 1:]) / 2
    for key in keys(5):
        f = jax.jit(distort.hounsfield)(key, RAMP)
        np.testing.assert_allclose(jax.jit(distort.hounsfield)(key, between), (f[:, :, :-1] + f[:, :, 1:]) / 2, atol=1e-5)


def sources(n, size):
    """[n, size, size]: for each draw, the place that a pixel came from."""
    places = jnp.arange(float(size * size)).reshape(1, size, size, 1)
    return np.asarray(jax.jit(jax.vmap(lambda k: distort.shuffle_pixels(k, places)[0, :, :, 0]))(keys(n))).astype(int)


def fitting(source, longest):
    """Of each draw the smallest window (rows, columns, top, left of one) whose tiles no pixel left, and of which no cut one
    was touched; its area, 0 where there is none."""
    size = source.shape[-1]
    y, x = np.divmod(np.arange(size * size).reshape(size, size), size)
    from_y, from_x = np.divmod(source, size)
    moved = source != y * size + x
    best = np.zeros((len(source), 5), int)
    for a, b in sorted(np.ndindex(longest, longest), key=lambda sides: -(sides[0] + 1) * (sides[1] + 1)):
        a, b = a + 1, b + 1
        for top, left in np.ndindex(a, b):
            within = ((from_y - top) // a == (y - top) // a) & ((from_x - left) // b == (x - left) // b)
            row, column = (y - top) // a * a + top, (x - left) // b * b + left
            whole = (row >= 0) & (row + a <= size) & (column >= 0) & (column + b <= size)
            best[(within & (whole | ~moved)).all((1, 2))] = a, b, top, left, a * b
    return best


def test_pixels_change_places_within_windows_that_tile_the_plane():
    source = sources(300, 40)
    np.testing.assert_array_equal(np.sort(source.reshape(300, -1), 1), np.tile(np.arange(1600), (300, 1)))
    windows = fitting(source, 4)
    assert (windows[:, 4] > 0).all()
    for side in windows[:, :2].T:
        assert stats.chisquare(np.bincount(side, minlength=5)[1:]).pvalue > 1e-3
    wide = windows[windows[:, 0] == 4]
    assert set(wide[:, 2]) == {0, 1, 2, 3}  # from every offset


def squares(count):
    """(where each pixel came from, top, left) of those of so many draws of 20 x 20 whose windows are 2 x 2."""
    source = sources(count, 20)
    return [(draw, top, left) for draw, (_, _, top, left, area) in zip(source, fitting(source, 2), strict=True) if area == 4]


def test_the_order_within_a_window_is_uniform():
    """Of windows of 2 x 2 the 24 orders, equally often but for those windows that stay as they are."""
    orders = []
    for draw, top, left in squares(6000):
        y, x = top + 8, left + 8
        own = np.array([y * 20 + x, y * 20 + x + 1, y * 20 + x + 20, y * 20 + x + 21])
        orders.append(np.searchsorted(own, draw[y:y + 2, x:x + 2].ravel()) @ [64, 16, 4, 1])
    assert 0.22 < len(orders) / 6000 < 0.28
    codes, counts = np.unique(orders, return_counts=True)
    stayed = codes == np.array([0, 1, 2, 3]) @ [64, 16, 4, 1]
    assert len(codes) == 24 and stats.chisquare(counts[~stayed]).pvalue > 1e-3
    assert abs(counts[stayed][0] / len(orders) - (0.1 + 0.9 / 24)) < 0.03


def test_windows_are_not_shuffled_alike():
    """They enter the order at places of their own: each of the four turns of a window of 2 x 2 is seen."""
    seen = []
    for draw, top, left in squares(200):
        tiles = (draw - np.arange(400).reshape(20, 20))[top:top + 18, left:left + 18].reshape(9, 2, 9, 2)
        seen.append(len(np.unique(tiles.transpose(0, 2, 1, 3).reshape(81, 4), axis=0)))
    assert len(seen) > 20 and set(seen) <= {4, 5} and 5 in seen  # the turns, and where none is the order itself, those that stayed


def test_draws_of_windows_are_uniform_and_independent():
    """Neighbours, and the four corners of a rectangle, whose rows and columns are the same two."""
    bits = jax.random.bits(jax.random.key(5), (2, 512))
    draws = np.asarray(distort._mixed(bits[0][:, None] ^ bits[1]), float) / 2**16
    assert stats.chisquare(np.bincount((draws * 64).astype(int).ravel(), minlength=64)).pvalue > 1e-3
    z = (draws - 0.5) * np.sqrt(12)
    a, b, c, d = z[::2, ::2], z[::2, 1::2], z[1::2, ::2], z[1::2, 1::2]
    for product in (a * b, a * c, a * d, a * b * c, a * b * c * d):
        assert abs(product.mean()) < 4 / 256


def test_the_share_of_pixels_that_move():
    """Nine windows of ten, whole ones alone; of n pixels in a uniform order one stays."""
    shares = []
    for a, b in np.ndindex(4, 4):
        a, b = a + 1, b + 1
        rows, columns = (np.mean([(40 - start) // side * side for start in range(side)]) / 40 for side in (a, b))
        shares.append(0.9 * rows * columns * (1 - 1 / (a * b)))
    moved = (sources(2000, 40) != np.arange(1600).reshape(40, 40)).mean()
    assert abs(moved - np.mean(shares)) < 0.015, (moved, np.mean(shares))


def test_counts_are_those_of_poisson():
    """scipy's, for 2^14 evenly spaced u: exactly up to a mean of 4, and by mean and variance above."""
    u = (np.arange(2**14) + 0.5) / 2**14
    means = np.array([0, 0.1, 0.5, 1, 2, 3, 4, 4.01, 5, 7, 10, 20, 50, 100, 255], np.float32)
    found = np.asarray(jax.jit(distort.poisson_quantile)(np.float32(u), means[:, None]), float)
    exact = stats.poisson.ppf(u, means[:, None])
    np.testing.assert_array_equal(found[means <= 4], exact[means <= 4])
    assert np.abs(found - exact).max() <= 1 and (found != exact).mean(1).max() < 0.006
    np.testing.assert_allclose(found.mean(1)[1:], means[1:], rtol=4e-4)
    np.testing.assert_allclose(found.var(1)[1:], exact.var(1)[1:], rtol=3e-3)


def test_noise_has_the_mean_and_the_variance_of_its_photons():
    """At x: mean x, variance x / P, whatever P between 30 and 255; P is log-uniform, and voxels are independent."""
    levels = np.array([0, 0.01, 0.05, 0.3, 0.6], np.float32)
    volume = jnp.broadcast_to(levels[:, None, None, None], (5, 64, 64, 1))
    noisy = np.asarray(jax.jit(jax.vmap(distort.poisson_noise, (0, None)))(keys(200), volume), float)[..., 0]
    assert not noisy[:, 0].any()
    np.testing.assert_allclose(noisy.mean((0, 2, 3)), levels, rtol=5e-3)
    photons = 0.3 / noisy[:, 3].var((1, 2))
    # the same P at every level, each read with an error of 2 % (a standard deviation of 4096 voxels)
    for i, width in ((1, 0.12), (2, 0.1), (4, 0.1)):
        np.testing.assert_allclose(levels[i] / noisy[:, i].var((1, 2)) / photons, 1, atol=1.5 * width)
        assert abs(np.mean(levels[i] / noisy[:, i].var((1, 2)) / photons) - 1) < 0.01
    assert stats.kstest((np.log(photons) - np.log(30)) / np.log(255 / 30), 'uniform').pvalue > 1e-3
    assert 28 < photons.min() < 33 and 232 < photons.max() < 275
    residual = (noisy - levels[:, None, None]) * np.sqrt(photons)[:, None, None, None]
    assert abs(np.mean(residual[:, 3, 1:] * residual[:, 3, :-1])) < 3e-3
    assert abs(np.mean(residual[:, 3] * residual[:, 4])) < 3e-3


def test_noise_stays_in_the_range():
    noisy = jax.jit(distort.poisson_noise)(jax.random.key(0), jnp.ones((1, 64, 64, 1)))
    assert noisy.max() == 1 and noisy.min() > 0.5 and 0.3 < (noisy < 1).mean() < 0.6
