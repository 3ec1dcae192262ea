import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from covid_jax.augment.intensity import blur, brighten, jitter

KEYS = jax.random.split(jax.random.key(0), 400)


def test_jitter_of_brightness_is_a_factor(rng):
    """Uniform within its range, of all voxels alike, cut to [0, 1]."""
    volume = rng.uniform(0.1, 0.6, (2, 3, 4, 1)).astype('f')
    found = jax.jit(jax.vmap(lambda k: jitter(k, volume, 0.4, 0.0)))(KEYS)
    factors = found[:, 0, 0, 0, 0] / volume[0, 0, 0, 0]
    np.testing.assert_allclose(found, factors[:, None, None, None, None] * volume, rtol=1e-4)
    assert stats.kstest(factors, stats.uniform(0.6, 0.8).cdf).pvalue > 0.01
    assert jax.vmap(lambda k: jitter(k, 2 * volume, 0.4, 0.4))(KEYS).max() == 1


def test_brighten_is_a_factor_alone(rng):
    """Uniform within its range, of all voxels alike, cut at 1; black stays black."""
    volume = rng.uniform(0.0, 1.0, (2, 3, 4, 1)).astype('f')
    volume[0, 0, 0] = 0.5
    volume[1, 0, 0] = 0
    found = np.asarray(jax.jit(jax.vmap(lambda k: brighten(k, volume, 0.1)))(KEYS))
    factors = 2 * found[:, 0, 0, 0, 0]
    np.testing.assert_allclose(found, np.minimum(factors[:, None, None, None, None] * volume, 1), rtol=1e-6)
    assert stats.kstest(factors, stats.uniform(0.9, 0.2).cdf).pvalue > 0.01
    assert found.max() == 1 and (found[:, 1, 0, 0] == 0).all()


def test_jitter_of_contrast_keeps_the_mean(rng):
    volume = rng.uniform(0.4, 0.6, (2, 3, 4, 1)).astype('f')
    found = jax.jit(jax.vmap(lambda k: jitter(k, volume, 0.0, 0.4)))(KEYS)
    np.testing.assert_allclose(found.mean((1, 2, 3, 4)), volume.mean(), rtol=1e-5)
    factors = found.std((1, 2, 3, 4)) / volume.std()
    assert stats.kstest(factors, stats.uniform(0.6, 0.8).cdf).pvalue > 0.01


def test_both_orders_of_jitter_come():
    """Brightness first changes the mean that contrast is about, contrast first does not: with cutting at 1 they differ."""
    volume = jnp.array([0.2, 0.95]).reshape(1, 1, 2, 1)
    found = np.asarray(jax.jit(jax.vmap(lambda k: jitter(k, volume, 0.4, 0.4)))(KEYS)).reshape(-1, 2)
    dark_first = found[:, 1] < 1
    assert 0.2 < dark_first.mean() < 0.95 and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize('sigma', [0.3, 1.0, 2.0])
def test_blur_is_scipys(rng, sigma):
    volume = rng.random((2, 20, 24, 1), np.float32)
    found = blur(jax.random.key(0), volume, (sigma, sigma))
    for z in range(2):
        expected = ndimage.gaussian_filter(volume[z, :, :, 0].astype(float), sigma, mode='nearest', truncate=round(3 * sigma) / sigma)
        np.testing.assert_allclose(found[z, :, :, 0], expected, atol=2e-5)


def test_blur_is_drawn_from_its_range():
    """A point's height after the blur is 1 / (2 pi sigma^2): from nearly 1 to 0.04."""
    point = jnp.zeros((1, 17, 17, 1)).at[0, 8, 8, 0].set(1)
    height = jax.jit(jax.vmap(lambda k: blur(k, point)[0, 8, 8, 0]))(KEYS)
    sigma = np.sqrt(1 / (2 * np.pi * np.sort(height)[:200]))  # of wide ones the formula holds
    assert 1.95 < sigma.max() < 2.05 and abs(np.median(sigma) - 1.525) < 0.1 and height.max() > 0.95
