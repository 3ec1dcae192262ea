"""The losses of the supervised method, and networks that are unlike a ResNet, trained with it: no statistics, dropout, sites."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_refused, small_config

from covid_jax import methods
from covid_jax.methods.method import row_keys
from covid_jax.methods.supervised import DEFAULTS, class_loss
from covid_jax.runtime import state as run_state
from covid_jax.runtime.mesh import make_mesh, put


def started(name, **model):
    config = small_config('baseline,size=small')
    with config.unlocked():
        config.prep.size = (1, 32, 32)
        config.model.update(name=name, **model)
    mesh, rng = make_mesh(), np.random.default_rng(0)
    method, tx = methods.make(config, mesh), optax.sgd(0.1)
    batch = {'image': rng.integers(0, 256, (8, 1, 32, 32, 1), np.uint8), 'label': np.arange(8, dtype=np.int32) % 2,
             'site': np.array([0, 1, 1, 0, 1, 0, 1, 1], np.int32), 'draw': np.arange(8, dtype=np.uint32)}
    state = jax.jit(lambda k: run_state.create(*method.init(k, batch), tx))(jax.random.key(0))
    return method, run_state.jit_step(method, tx, mesh), state, put(mesh, batch), batch


@pytest.mark.parametrize('name, model, statistics', [
    ('_VGGTiny', {'taps': 1}, 0), pytest.param('_COVIDNetRedesignTiny', {}, 6, marks=pytest.mark.slow),
    pytest.param('_DenseNetTiny', {}, 22, marks=pytest.mark.slow)])
def test_a_step_on_images(name, model, statistics):
    method, step, state, sharded, _ = started(name, **model)
    before = jax.device_get((state.params, state.state))
    assert len(jax.tree.leaves(before[1])) == statistics
    state, scalars = step(state, sharded, jax.random.key(1))
    assert int(state.bad) == -1
    np.testing.assert_allclose(scalars['loss'], np.log(2), rtol=0.2)
    after = state.params, state.state  # every kernel and every statistic has moved
    for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(after), jax.tree.leaves(before), strict=True):
        assert path[-1].key in ('bias', 'scale') or np.abs(new - old).max() > 0, jax.tree_util.keystr(path)
    assert np.isfinite(jax.jit(method.predict)(*after, sharded)['logits']).all()


def test_the_site_of_a_row_reaches_the_network():
    """In training its statistics go to its site, in prediction it is answered by its site."""
    method, step, state, sharded, batch = started('_COVIDNetRedesignTiny')
    trained = step(jax.tree.map(jnp.copy, state), sharded, jax.random.key(1))[0]
    for module in trained.state['network']['batch_stats'].values():
        assert (module['mean'][0] != module['mean'][1]).all()
    statistics = jax.tree.map(lambda x: x.at[1].add(1), state.state)  # of the second site alone
    predict = jax.jit(method.predict)
    known, moved = (predict(state.params, s, batch)['features'] for s in (state.state, statistics))
    same = (known == moved).all(1)
    np.testing.assert_array_equal(same, batch['site'] == 0)


def on_images(**options):
    """A method of eight images of 32 x 32 that are seen as they are, with these options, and a batch."""
    config = small_config('baseline,size=small')
    with config.unlocked():
        config.prep.size = (1, 32, 32)
        config.views.update(name='none', depth=0)
        config.model.name = '_ResNetTiny'
        config.supervised.update(options)
    rng = np.random.default_rng(0)
    batch = {'image': rng.integers(0, 256, (8, 1, 32, 32, 1), np.uint8), 'label': np.arange(8, dtype=np.int32) % 2,
             'site': np.zeros(8, np.int32), 'draw': np.arange(8, dtype=np.uint32)}
    return methods.make(config, make_mesh(jax.devices()[:1])), batch


def loss_of_class(method, batch, params, state):
    """What the loss is, and what its scalars say that it is of the class."""
    value, (_, scalars) = jax.jit(method.loss)(params, state, batch, jax.random.key(1), 0)
    return float(value), float(scalars['clf'])


def test_the_loss_by_each_name():
    """Of the probability p of the label: of ohem the mean over the least three of eight p; by default cross entropy."""
    method, batch = on_images()
    params, state = jax.jit(method.init)(jax.random.key(0), batch)
    params['network']['classifier'] = jax.tree.map(lambda x: 300 * x, params['network']['classifier'])
    apply = jax.jit(lambda x: method.network.apply({'params': params['network'], **state['network']}, x, train=True,
                                                   mutable=['batch_stats'])[0])
    logits = np.asarray(apply(batch['image'].astype('f') / 255)[0]).astype(float)
    label = batch['label']
    p = 1 / (1 + np.exp(logits[range(8), 1 - label] - logits[range(8), label]))
    assert np.ptp(p) > 0.1
    entropy = -np.log(p)
    expected = {'cross_entropy': entropy.mean(), 'focal': (np.where(label == 1, 0.25, 0.75) * (1 - p)**2 * entropy).mean(),
                'ohem': entropy[np.argsort(p)[:3]].mean()}
    assert loss_of_class(method, batch, params, state) == pytest.approx((expected['cross_entropy'],) * 2, rel=1e-4)
    for name, value in expected.items():
        found = loss_of_class(on_images(loss=name, keep=0.3)[0], batch, params, state)
        assert found == pytest.approx((value,) * 2, rel=1e-4), name


def test_of_ohem_half_a_batch_is_the_default():
    """Of logits 0 to 7 of the class that is wrong the last four."""
    logits = jnp.stack([jnp.zeros(8), jnp.arange(8.0)], 1)
    target = jax.nn.one_hot(jnp.zeros(8, int), 2)
    found = class_loss(logits, target, 'ohem', DEFAULTS['keep'])
    np.testing.assert_allclose(found, np.log1p(np.exp(np.arange(4, 8))).mean(), rtol=1e-6)


@pytest.mark.parametrize('change, message', [
    ({'supervised.loss': 'focal_loss'}, '--config.supervised.loss=focal_loss must be cross_entropy, focal or ohem'),
    ({'supervised.keep': 0.0}, '--config.supervised.keep=0.0 must be above 0 and at most 1'),
    ({'supervised.loss': 'ohem', 'supervised.keep': 1.01}, '--config.supervised.keep=1.01 must be above 0'),
    ({'supervised.keep': -0.5}, '--config.supervised.keep=-0.5 must be above 0'),
    ({'supervised.frozen': True, 'supervised.rotation': True}, 'learns no second task')])
def test_options_that_cannot_be(change, message):
    assert_refused(small_config('baseline,size=small'), change, message)


def test_rotation_is_a_second_task_of_the_same_view():
    """Of images that are turned each by its own draw: the loss is the sum of both, the class's of the turned image; in evaluation none is
    turned and nothing but the network answers."""
    method, batch = on_images(rotation=True)
    params, state = jax.jit(method.init)(jax.random.key(0), batch)
    params['rotation'] = jax.tree.map(lambda x: 300 * x, params['rotation'])
    key = jax.random.key(1)
    value, (_, scalars) = jax.jit(method.loss)(params, state, batch, key, 0)
    np.testing.assert_allclose(value, scalars['clf'] + scalars['rotation'], rtol=1e-6)
    quarters = [int(jax.random.randint(k, (), 0, 4)) for k in row_keys(key, 'quarters', batch['draw'])]
    assert len(set(quarters)) > 2
    turned = np.stack([np.rot90(image, q, (1, 2)) for image, q in zip(batch['image'], quarters, strict=True)]).astype('f') / 255
    apply = jax.jit(lambda x: method.network.apply({'params': params['network'], **state['network']}, x, train=True,
                                                   mutable=['batch_stats'])[0])
    logits, out = apply(turned)
    angles = out['features'] @ params['rotation']['Dense_0']['kernel'] + params['rotation']['Dense_0']['bias']
    for scalar, z, truth in (('clf', logits, batch['label']), ('rotation', angles, quarters)):
        expected = optax.softmax_cross_entropy_with_integer_labels(z, jnp.array(truth)).mean()
        np.testing.assert_allclose(scalars[scalar], expected, rtol=1e-4)
    plain = jax.jit(lambda x: method.network.apply({'params': params['network'], **state['network']}, x)[0])
    np.testing.assert_allclose(jax.jit(method.predict)(params, state, batch)['logits'], plain(batch['image'].astype('f') / 255), rtol=1e-4,
                               atol=1e-6)
