import hashlib

import numpy as np
import pytest
from scipy import ndimage

from covid_jax import UserError
from covid_jax.data.decode import Scan, decode
from covid_jax.data.phantom import address
from covid_jax.data.prep import Prep, prepare

PREP = Prep((-1000.0, 400.0), (8, 24, 20))


def test_window_by_hand():
    hu = np.array([-3000, -1000, -300, 400, 1500], np.int16).reshape(1, 1, 5)
    out = prepare(Scan(hu, True, None), Prep((-1000.0, 400.0), (1, 1, 5)))
    np.testing.assert_array_equal(out.ravel(), [0, 0, 128, 255, 255])  # -300 is the middle: 127.5 rounds to even


@pytest.mark.parametrize('shape', [(11, 48, 31), (3, 10, 50), (8, 24, 20), (1, 7, 7)])
def test_resize_equals_scipy_on_half_pixels(rng, shape):
    grey = rng.uniform(0, 255, shape).astype('f')
    at = [np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1) for n, m in zip(PREP.size, shape, strict=True)]
    expected = ndimage.map_coordinates(grey.astype(float), np.meshgrid(*at, indexing='ij'), order=1, mode='nearest')
    out = prepare(Scan(grey, False, None), PREP)
    assert out.dtype == np.uint8 and out.shape == (8, 24, 20, 1)
    assert np.abs(out[..., 0] - expected).max() < 0.501


def test_grey_is_taken_as_it_is(rng):
    grey = rng.integers(0, 256, (8, 24, 20), np.uint8)
    np.testing.assert_array_equal(prepare(Scan(grey, False, None), PREP)[..., 0], grey)


@pytest.mark.parametrize('values', [(-5.0, 100.0), (0.0, 3000.0)])
def test_values_of_no_known_scale_are_refused(values):
    with pytest.raises(UserError, match='neither Hounsfield'):
        prepare(Scan(np.full((1, 2, 2), values, 'f'), False, None), PREP)


def test_hash_tells_preps_apart_and_is_stable():
    assert PREP.hash == Prep((-1000, 400), (8, 24, 20)).hash == '76e7696793e9ba40'
    others = [Prep((-1000, 401), (8, 24, 20)), Prep((-1000, 400), (8, 24, 21)), Prep((-1000, 400), (8, 24, 20), 2)]
    assert len({p.hash for p in [PREP, *others]}) == 4


@pytest.mark.parametrize('window,size', [((400.0, -1000.0), (8, 8, 8)), ((-1000.0, 400.0), (8, 8)), ((0.0,), (8, 8, 8)),
                                         ((0.0, 1.0), (0, 8, 8))])
def test_a_prep_that_cannot_be_is_refused(window, size):
    with pytest.raises(UserError, match='config.prep'):
        Prep(window, size)


def test_digest_of_a_prepared_phantom():
    """Changes only with Prep.version (or the phantom's own)."""
    out = prepare(decode(address(7, 3, 'covid')), Prep((-1000.0, 400.0), (32, 64, 64)))
    assert hashlib.sha256(out.tobytes()).hexdigest()[:16] == '6be449173783aa9b'
