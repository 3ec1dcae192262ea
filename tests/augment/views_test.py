import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


@pytest.mark.parametrize('name', list(views.LAWS))
@pytest.mark.parametrize('shape, depth', [((8, 12, 10, 1), 5), ((1, 12, 10, 3), 0)])
def test_every_law_is_a_view_of_a_volume_and_of_an_image(rng, name, shape, depth):
    """In [0, 1], of the same type, the same for the same key and by itself in a batch."""
    batch = jnp.array(rng.random((4, *shape), np.float32))
    keys = jax.random.split(KEY, 4)
    for view, slices in ((views.train_view(name, depth), depth or shape[0]), (views.test_view(name), shape[0])):
        out = jax.jit(jax.vmap(view))(keys, batch)
        assert out.shape == (4, slices, *shape[1:]) and out.dtype == jnp.float32
        assert out.min() >= 0 and out.max() <= 1
        np.testing.assert_allclose(jax.jit(view)(keys[2], batch[2]), out[2], atol=1e-6)


@pytest.mark.parametrize('make', [views.train_view, views.test_view])
def test_an_unknown_name_is_told_which_there_are(make):
    with pytest.raises(UserError, match=r"'cmcc': set --config.views.name=cmc\|none"):
        make('cmcc')
