from functools import partial

import jax
import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.models import network


def test_the_papers_number_of_parameters_layer_by_layer():
    net = network('CRNet')(classes=2)
    params = jax.eval_shape(partial(net.init, jax.random.key(0)), np.zeros((3, 224, 224, 1), 'f'))['params']
    sizes = {name: sum(x.size for x in jax.tree.leaves(module)) for name, module in params.items()}
    assert sizes == {'conv1': 49 * 32 + 32, 'bn1': 64, 'conv2': 49 * 32 * 64 + 64, 'conv3': 49 * 64 * 128 + 128,
                     'classifier': 13 * 13 * 128 * 2 + 2}
    assert sum(sizes.values()) == 546_882  # Table II


def test_the_features_are_means_of_four_in_torchs_order(rng):
    image = rng.random((3, 40, 40, 1), np.float32)
    _, out = jax.jit(lambda key: network('_CRNetTiny')(classes=2).init_with_output(key, image)[0])(jax.random.key(0))
    x = np.asarray(out['map'])
    assert out['features'][2, 0] == pytest.approx(x[2, :2, :2, 0].mean(), rel=1e-5)
    assert out['features'][2, 1] == pytest.approx(x[2, :2, 2:, 0].mean(), rel=1e-5)  # along the width first,
    assert out['features'][2, 2] == pytest.approx(x[2, 2:, :2, 0].mean(), rel=1e-5)  # then the height,
    assert out['features'][2, 4] == pytest.approx(x[2, :2, :2, 1].mean(), rel=1e-5)  # then the channels


@pytest.mark.parametrize('shape, given', [
    ((256, 256, 1), '1x256x256x1'), ((224, 224, 3), '1x224x224x3'), ((2, 224, 224, 1), '2x224x224x1')])
def test_another_image_is_one_line_that_names_the_size(shape, given):
    net = network('CRNet')(classes=2)
    line = rf'grey images of 224x224: 1x224x224x1 .* not {given}; set --config.prep.size=\(1,224,224\)'
    with pytest.raises(UserError, match=line):
        jax.eval_shape(partial(net.init, jax.random.key(0)), np.zeros((1, *shape), 'f'))
