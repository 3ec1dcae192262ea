from functools import partial

import jax
import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.models import network
from covid_jax.models.compute import Compute
from covid_jax.models.crnet import torch_name


def tiny(**fields):
    return network('_CRNetTiny')(classes=2, compute=Compute(mean=0.45, std=0.33), **fields)


@pytest.fixture(scope='module')
def started():
    image = np.random.default_rng(1).random((4, 40, 40, 1), np.float32)
    return image, jax.jit(tiny().init)(jax.random.key(0), image)


def leaves(tree):
    return [(jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]


def test_the_papers_number_of_parameters_layer_by_layer():
    net = network('CRNet')(classes=2)

    def run(x):
        variables = net.init(jax.random.key(0), x)
        return variables['params'], net.apply(variables, x)

    params, (logits, out) = jax.eval_shape(run, jax.ShapeDtypeStruct((3, 224, 224, 1), 'float32'))
    sizes = {name: sum(x.size for x in jax.tree.leaves(module)) for name, module in params.items()}
    assert sizes == {'conv1': 49 * 32 + 32, 'bn1': 64, 'conv2': 49 * 32 * 64 + 64, 'conv3': 49 * 64 * 128 + 128,
                     'classifier': 13 * 13 * 128 * 2 + 2}
    assert sum(sizes.values()) == 546_882  # Table II
    assert logits.shape == (3, 2) and out['map'].shape == (3, 27, 27, 128) and out['features'].shape == (3, 21_632)
    assert {torch_name([name]) for name in params} == {'conv1', 'bn1', 'conv2', 'conv3', 'fc'}


def test_the_features_are_means_of_four_in_torchs_order(started):
    image, variables = started
    logits, out = jax.jit(tiny().apply)(variables, image)
    x = np.asarray(out['map'])
    assert x.shape == (4, 4, 4, 5)
    assert out['features'][2, 0] == pytest.approx(x[2, :2, :2, 0].mean(), rel=1e-5)
    assert out['features'][2, 1] == pytest.approx(x[2, :2, 2:, 0].mean(), rel=1e-5)  # along the width first,
    assert out['features'][2, 2] == pytest.approx(x[2, 2:, :2, 0].mean(), rel=1e-5)  # then the height,
    assert out['features'][2, 4] == pytest.approx(x[2, :2, :2, 1].mean(), rel=1e-5)  # then the channels
    again, features = tiny().apply(variables, out['map'], method='head')
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features, out['features'], rtol=1e-4, atol=1e-6)


def test_an_image_is_a_volume_of_one_slice(started):
    image, variables = started
    run = jax.jit(tiny().apply)
    (logits, out), (again, one) = run(variables, image), run(variables, image[:, None])
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one['map'][:, 0], out['map'], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('shape, given', [
    ((256, 256, 1), '1x256x256x1'), ((224, 224, 3), '1x224x224x3'), ((2, 224, 224, 1), '2x224x224x1')])
def test_another_image_is_one_line_that_names_the_size(shape, given):
    net = network('CRNet')(classes=2)
    line = rf'grey images of 224x224: 1x224x224x1 .* not {given}; set --config.prep.size=\(1,224,224\)'
    with pytest.raises(UserError, match=line):
        jax.eval_shape(partial(net.init, jax.random.key(0)), np.zeros((1, *shape), 'f'))


def test_another_image_in_a_compiled_call_too(started):
    image, variables = started
    with pytest.raises(UserError, match='40x40'):
        jax.jit(tiny().apply)(variables, image[:, :32])


def test_fields_that_it_does_not_have_are_one_line():
    with pytest.raises(UserError, match='CRNet has no --config.model.taps: leave it unset'):
        network('CRNet', taps=1)
