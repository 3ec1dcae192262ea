import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from covid_jax.augment import volume


def test_resized_crop_equals_scipy(rng):
    x = rng.random((3, 10, 12, 1), np.float32)
    box = (1.3, 2.6, 6.5, 7.25)  # top, left, height, width
    rows = np.clip(1.3 + (np.arange(10) + 0.5) * 6.5 / 10 - 0.5, 0, 9)
    columns = np.clip(2.6 + (np.arange(12) + 0.5) * 7.25 / 12 - 0.5, 0, 11)
    grid = np.meshgrid(rows, columns, indexing='ij')
    expected = [ndimage.map_coordinates(s[..., 0], grid, order=1, mode='nearest') for s in x]
    np.testing.assert_allclose(jax.jit(volume.resized_crop)(x, *box)[..., 0], expected, atol=1e-5)


def test_the_whole_box_changes_nothing(rng):
    x = rng.random((2, 9, 7, 1), np.float32)
    np.testing.assert_allclose(jax.jit(volume.resized_crop)(x, 0.0, 0.0, 9.0, 7.0), x, atol=1e-6)


def box_of(key, size=64):
    """The box that a crop took, read from a ramp of coordinates."""
    ramp = jnp.stack(jnp.meshgrid(jnp.arange(size), jnp.arange(size), indexing='ij'), -1)[None].astype(jnp.float32)
    out = volume.random_resized_crop(key, ramp)[0]
    middle = out[size // 4:3 * size // 4, size // 4:3 * size // 4]  # away from repeated edges
    scale = (middle[-1, -1] - middle[0, 0]) / (size // 2 - 1)
    start = middle[0, 0] + 0.5 - (size // 4 + 0.5) * scale
    return start, scale * size


def test_boxes_follow_the_stated_law():
    start, extent = jax.jit(jax.vmap(box_of))(jax.random.split(jax.random.key(1), 2000))
    height, width = np.asarray(extent).T
    area = height * width / 64**2
    ratio = width / height
    assert area.min() > 0.69 and area.max() < 1.001 and ratio.min() > 0.74 and ratio.max() < 1.34
    # what does not fit is redrawn: only wide crops of large area are lost, so the mean lies a little under 0.85
    assert 0.80 < area.mean() < 0.86
    assert abs(np.log(ratio).mean()) < 0.01
    assert (start > -0.01).all() and (start + extent < 64.01).all()
    assert np.abs(extent - np.round(extent)).mean() > 0.2  # not rounded to pixels: a quarter by chance
    assert 0.4 < (start[:, 0] / np.maximum(64 - height, 1e-3)).mean() < 0.6


def test_all_slices_are_treated_alike(rng):
    x = np.repeat(rng.random((1, 16, 16, 1), np.float32), 5, 0)
    for f in (volume.random_resized_crop, volume.random_contrast_brightness):
        y = jax.jit(f)(jax.random.key(2), x)
        assert not np.allclose(y[0], x[0])
        np.testing.assert_array_equal(y, np.repeat(y[:1], 5, 0))


def test_depth_crop_takes_neighbours_from_every_start():
    x = jnp.arange(10.0)[:, None, None, None] * jnp.ones((1, 2, 2, 1))
    starts = set()
    crop = jax.jit(volume.random_depth_crop, static_argnums=2)
    for key in jax.random.split(jax.random.key(3), 60):
        y = crop(key, x, 7)[:, 0, 0, 0]
        np.testing.assert_array_equal(y, y[0] + np.arange(7))
        starts.add(int(y[0]))
    assert starts == {0, 1, 2, 3}
    np.testing.assert_array_equal(crop(key, x, 10), x)


def test_contrast_and_brightness_on_the_scale_of_one():
    x = jnp.array([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1)
    values = jax.jit(jax.vmap(lambda k: volume.random_contrast_brightness(k, x).ravel()))(jax.random.split(jax.random.key(4), 500))
    assert values.min() == 0 and values.max() == 1
    middle = values[:, 1]  # 0.5 c + b
    assert 0.3 <= middle.min() < 0.33 and 0.67 < middle.max() <= 0.7


@pytest.mark.parametrize('extent', [(48, 30), (24, 37), (24, 24), (12, 9), (31, 48)])
def test_squashed_as_by_pillow(rng, extent):
    """To 24 x 24: shrunk, the same and enlarged; nothing beyond the extent is seen, whatever is there."""
    scans = rng.integers(0, 256, (2, 48, 50, 1), np.uint8)
    height, width = extent
    expected = [Image.fromarray(s[:height, :width, 0]).resize((24, 24), Image.Resampling.BILINEAR) for s in scans]
    squashed = jax.jit(lambda x, extent: volume.squash(x, 24, extent))
    out = squashed(scans / np.float32(255), np.int32(extent))
    assert out.shape == (2, 24, 24, 1) and out.dtype == jnp.float32 and out.min() >= 0 and out.max() <= 1 + 1e-6
    np.testing.assert_allclose(255 * out[..., 0], expected, atol=1.01)  # Pillow rounds twice
    scans[:, height:] = 255
    scans[:, :, width:] = 255
    np.testing.assert_array_equal(squashed(scans / np.float32(255), np.int32(extent)), out)


def test_squashed_without_an_extent_is_all_of_it(rng):
    x = rng.random((2, 30, 21, 3), np.float32)
    squash = jax.jit(volume.squash, static_argnums=1)
    padded = np.pad(x, ((0, 0), (0, 5), (0, 9), (0, 0)))
    np.testing.assert_allclose(squash(x, 12), squash(padded, 12, np.int32([30, 21])), atol=1e-6)
    np.testing.assert_allclose(squash(x[:, :21], 21), x[:, :21], atol=1e-6)
    np.testing.assert_allclose(squash(padded, 12, np.int32([1, 1])), np.broadcast_to(x[:, :1, :1], (2, 12, 12, 3)), rtol=1e-6)
    assert np.isfinite(squash(padded, 12, np.int32([0, 0]))).all()  # of the empty batch that a network starts on
