"""What trunks take from the field `compute`: prepared images, and normalisation of these rows."""

from functools import partial

import jax
import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.models import network
from covid_jax.models.compute import Compute, as_volume
from covid_jax.models.norm import DomainBatchNorm


def test_images_of_integers_are_normalised_in_float32():
    image = np.full((1, 2, 2, 1), 3, np.uint8)
    np.testing.assert_allclose(as_volume(image, 0.5, 0.25, 'float32'), np.full((1, 1, 2, 2, 1), 10), rtol=1e-6)


def test_each_colour_has_its_own_mean():
    image = np.full((1, 2, 2, 3), 0.5, 'f')
    given = Compute(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.5)).volume(image)
    np.testing.assert_allclose(given[0, 0, 1, 1], [1, 0, -0.2], rtol=1e-5)


def test_an_image_that_is_too_small_is_one_line():
    with pytest.raises(UserError, match='no less than 1x32x32 .* not 1x40x16: set --config.prep.size'):
        as_volume(np.zeros((1, 40, 16, 1), 'f'), 0.0, 1.0, 'float32', (1, 32, 32))


FAMILIES = {'_ResNetTiny': (8, 3, 16, 16, 1), '_ResNetGRUTiny': (8, 3, 16, 16, 1), '_ResNeStTiny': (8, 3, 16, 16, 1),
            '_DenseNetTiny': (8, 16, 16, 1), '_EfficientNetTiny': (8, 3, 16, 16, 1), '_CRNetTiny': (8, 40, 40, 1)}
# Each family has one of the two ways, and one has both: its normalisation is given to it in either.
BOTH = [pytest.param(name, image, by, marks=pytest.mark.slow if by == 'site' and name != '_ResNetTiny' else ())
        for name, image in FAMILIES.items() for by in ('site', 'group')]


@pytest.mark.parametrize('name, image, by', BOTH)
def test_in_training_a_row_sees_the_rows_of_its_own_set_alone(rng, name, image, by):
    """Sets of rows by an injected normalisation of three sites, or by groups; no family knows of either."""
    compute = Compute(norm=partial(DomainBatchNorm, sites=3)) if by == 'site' else Compute(groups=3)
    net = network(name)(classes=2, compute=compute)
    image = rng.random(image, np.float32)
    member = np.array([2, 0, 1, 1, 0, 2, 2, 0])
    variables = jax.jit(net.init)(jax.random.key(0), image)
    for leaf in jax.tree.leaves(variables['batch_stats']):
        assert leaf.shape[:-1] == ((3,) if by == 'site' else ())

    @jax.jit
    def run(image, member):
        rngs = {'dropout': jax.random.key(1)}
        return net.apply(variables, image, True, **{by: member}, mutable=['batch_stats'], rngs=rngs)[0][1]

    own = member == 0
    flipped = np.where(own.reshape(-1, *(1,) * (image.ndim - 1)), image, 1 - image)
    given = run(image, member)
    others = run(flipped, member)
    moved = run(image, np.roll(member, 1))
    for key, x in given.items():
        np.testing.assert_allclose(others[key][own], x[own], rtol=1e-4, atol=1e-5, err_msg=key)
        for other in (others, moved):
            assert np.abs(other[key] - x).max() > 1e-2 * np.abs(x).max(), key
