"""What all methods draw on."""

import jax
import numpy as np
import pytest
from conftest import small_config

from covid_jax import UserError
from covid_jax.methods.method import build_network, training_view
from covid_jax.runtime.mesh import make_mesh


@pytest.mark.parametrize('slices, depth, seen', [(8, 6, 6), (8, 0, 8), (8, 8, 8), (1, 6, 1), (1, 0, 1)])
def test_a_view_has_as_many_slices_as_the_config_says(slices, depth, seen):
    """0: all; a scan of one slice has views of one, whatever it says."""
    c = small_config()
    c.prep.size, c.views.depth = (slices, 16, 16), depth
    view = jax.eval_shape(training_view(c), jax.random.key(0), np.zeros((slices, 16, 16, 1), np.float32))
    assert view.shape == (seen, 16, 16, 1)


def test_a_view_of_more_slices_than_there_are():
    c = small_config()
    c.views.depth = 9
    with pytest.raises(UserError, match='--config.views.depth=9 must be from 1 to the depth of a prepared scan, 8'):
        training_view(c)
    c.views.depth, c.views.name = 6, 'cmcc'
    with pytest.raises(UserError, match="no views are called 'cmcc'"):
        training_view(c)


def test_a_network_sees_images_by_the_mean_and_deviation_of_the_authors():
    net = build_network(small_config(), make_mesh())
    image = np.float32([0.3529, 0.3529 + 0.2983]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(net.compute.volume(image).ravel(), [0, 1], atol=1e-6)
