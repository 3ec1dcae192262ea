"""Momentum contrast: queue, key encoder, groups of rows, and what is trained."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_refused, moco_config

from covid_jax import UserError, methods, train
from covid_jax.methods import moco
from covid_jax.predictions import Predictions
from covid_jax.runtime import optim
from covid_jax.runtime import state as run_state
from covid_jax.runtime.mesh import make_mesh
from covid_jax.sources.exams import Exam

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 1, 32, 32, 1), np.uint8)
BATCH = {'image': IMAGES, 'label': np.full(8, -1, np.int32), 'site': np.zeros(8, np.int32), 'draw': np.arange(40, 48, dtype=np.uint32)}
KEY = jax.random.key(1)


def made(**options):
    return methods.make(moco_config(**options), make_mesh(jax.devices()[:1]))


@functools.cache
def started():
    """The method, and parameters and state as it might start from, with a key encoder of its own."""
    method = made()
    params, state = jax.tree_util.tree_map_with_path(drawn, jax.eval_shape(method.init, jax.random.key(0), BATCH))
    return method, params, state, jax.jit(method.loss)


def drawn(path, like):
    name = jax.tree_util.keystr(path)
    if like.ndim > 1:
        value = np.random.default_rng(zlib.crc32(name.encode())).normal(0, np.prod(like.shape[-5:-1]) ** -0.5, like.shape)
        return (value / np.linalg.norm(value, axis=1, keepdims=True) if 'queue' in name else value).astype('f')
    return np.full(like.shape, name.endswith(("['scale']", "['var']")), 'f')


def keys_of(step=0, images=IMAGES):
    """The keys that a step enqueues."""
    _, params, state, loss = started()
    return np.asarray(loss(params, state, {**BATCH, 'image': images}, KEY, step)[1][0]['queue'][:8])


def test_the_queue_holds_the_last_keys_in_order():
    """Newest first; what is oldest leaves."""
    _, params, state, loss = started()
    keys = []
    for step in range(4):
        before = np.asarray(state['queue'])
        _, (state, _) = loss(params, state, BATCH, KEY, step)
        after = np.asarray(state['queue'])
        np.testing.assert_array_equal(after[8:], before[:16])
        keys.insert(0, after[:8])
    np.testing.assert_array_equal(state['queue'], np.concatenate(keys[:3]))
    np.testing.assert_allclose(np.linalg.norm(state['queue'], axis=1), 1, rtol=1e-5)


def test_the_key_encoder_is_a_moving_average_and_has_no_gradient():
    """Parameters alone; its first step is of what the run starts from."""
    method, params, state, loss = started()
    _, (after, _) = loss(params, state, BATCH, KEY, 0)
    jax.tree.map(lambda k, q, new: np.testing.assert_allclose(new, 0.999 * k + 0.001 * q, rtol=1e-6, atol=1e-8), state['encoder'], params,
                 after['encoder'])
    assert {*after} == {'network', 'encoder', 'queue'} and 'batch_stats' not in after['encoder']
    slope = jax.jit(jax.grad(lambda s: method.loss(params, {**state, 'encoder': s}, BATCH, KEY, 0)[0]))(state['encoder'])
    through_key = np.abs(slope['projector']['Dense_1']['kernel']).max()
    own = jax.jit(jax.grad(lambda p: method.loss(p, state, BATCH, KEY, 0)[0]))(params)
    still = jax.jit(jax.grad(lambda p: method.loss({**params, 'projector': p}, {**state, 'encoder': params}, BATCH, KEY, 0)[0]))(
        params['projector'])
    assert through_key > 0 and np.abs(own['projector']['Dense_1']['kernel']).max() > 0 and np.isfinite(still['Dense_1']['kernel']).all()


def test_the_gradient_is_of_the_query_alone():
    """By hand: that of InfoNCE with the keys as numbers."""
    method, params, state, loss = started()
    _, (after, _) = loss(params, state, BATCH, KEY, 0)
    keys = np.asarray(after['queue'][:8])
    group = np.arange(8) // 2

    def by_hand(projector):
        (_, out), _ = method.network.apply({'params': params['network'], **state['network']}, IMAGES.astype('f') / 255, train=True,
                                           group=group, mutable=['batch_stats'])
        x = jax.nn.relu(out['features'] @ projector['Dense_0']['kernel'] + projector['Dense_0']['bias'])
        z = x @ projector['Dense_1']['kernel'] + projector['Dense_1']['bias']
        z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
        logits = jnp.concatenate([jnp.sum(z * keys, 1, keepdims=True), z @ state['queue'].T], 1) / 0.07
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.zeros(8, int)).mean()

    value, expected = jax.jit(jax.value_and_grad(by_hand))(params['projector'])
    found, slope = jax.jit(jax.value_and_grad(lambda p: method.loss({**params, 'projector': p}, state, BATCH, KEY, 0)[0]))(
        params['projector'])
    np.testing.assert_allclose(found, value, rtol=1e-4)
    for module in expected:
        for leaf in expected[module]:
            np.testing.assert_allclose(slope[module][leaf], expected[module][leaf], rtol=0,
                                       atol=1e-3 * np.abs(expected[module][leaf]).max())


def test_an_image_changes_the_keys_of_its_group_alone_and_groups_are_drawn_anew():
    """Of eight images in groups of two: image 0 has one partner a step, another in other steps; queries are grouped in order."""
    other = IMAGES.copy()
    other[0] = 255 - other[0]
    partners = set()
    for step in range(12):
        moved = np.flatnonzero(np.abs(keys_of(step) - keys_of(step, other)).max(1) > 1e-6)
        assert len(moved) == 2 and moved[0] == 0
        partners.add(int(moved[1]))
    assert len(partners) > 3


def test_the_running_statistics_are_the_querys():
    """They move by the mean of the groups', whatever the keys' groups are."""
    _, params, state, loss = started()
    stats = [loss(params, state, BATCH, KEY, step)[1][0]['network']['batch_stats'] for step in (0, 1)]
    jax.tree.map(np.testing.assert_array_equal, *stats)
    changed = {**state, 'encoder': jax.tree.map(lambda x: 2 * x, state['encoder'])}
    jax.tree.map(np.testing.assert_array_equal, stats[0], loss(params, changed, BATCH, KEY, 0)[1][0]['network']['batch_stats'])


def test_with_a_full_queue_and_no_pairs_the_loss_is_that_of_chance(monkeypatch):
    """Query and key of different images at random, nothing learnt: log(K + 1) within 5 %. Before the queue is full of keys the loss
    is less, for all keys of a network at its start are near each other and a random queue is not."""
    monkeypatch.setattr(moco, 'see', lambda view, key, batch: jax.random.uniform(key, (8, 1, 32, 32, 1)))
    method = made()
    _, params, state, _ = started()
    state = {**state, 'encoder': params}
    loss = jax.jit(method.loss)
    values = []
    for step in range(13):
        value, (state, _) = loss(params, state, BATCH, jax.random.fold_in(KEY, step), step)
        values.append(value)
    np.testing.assert_allclose(np.mean(values[3:]), np.log(25), rtol=0.05)
    assert values[0] < 0.5 * np.log(25)


def test_what_comes_after_the_features_is_not_trained_and_all_else_is():
    method, params, state, _ = started()
    slope = jax.jit(jax.grad(lambda p: method.loss(p, state, BATCH, KEY, 0)[0]))(params)
    frozen = method.frozen(params)
    for (path, g), f in zip(jax.tree_util.tree_leaves_with_path(slope), jax.tree.leaves(frozen), strict=True):
        name = jax.tree_util.keystr(path)
        assert f == ('classifier' in name), name
        assert bool(np.abs(g).max() > 0) != f, name
    tx = optim.make(moco_config().train, 10, frozen)
    train = run_state.create(*jax.tree.map(jnp.asarray, (params, state)), tx)
    after, _ = jax.jit(run_state.train_step(method, tx))(train, BATCH, KEY)
    np.testing.assert_array_equal(after.params['network']['classifier']['Dense_0']['kernel'],
                                  params['network']['classifier']['Dense_0']['kernel'])


def test_the_encoder_starts_as_a_copy_of_what_the_run_starts_from():
    method, params, state, _ = started()
    double = jax.tree.map(lambda x: 2 * x, params)
    init = jax.jit(lambda key, start: method.init(key, BATCH, start))
    found, after = init(jax.random.key(0), (double, state['network']))
    jax.tree.map(np.testing.assert_array_equal, found, double)
    jax.tree.map(np.testing.assert_array_equal, after['encoder'], double)
    np.testing.assert_allclose(np.linalg.norm(after['queue'], axis=1), 1, rtol=1e-5)


def test_collapse_is_said():
    """In the line of a step; a healthy one has its loss alone, a validated one what the neighbours tell."""
    method = made()
    assert train.told(method, {'loss': 3.0, 'spread': 0.6, 'nearest': 0.1}) == 'loss 3.0000'
    assert train.told(method, {'loss': 3.0, 'spread': 0.6, 'val/knn_auc': 0.7}) == 'loss 3.0000  val/knn_auc 0.700'
    assert train.told(method, {'loss': 0.0, 'spread': 0.01}).startswith('loss 0.0000  spread 0.010: the embeddings of a batch are')


def test_what_neighbours_tell_by_hand():
    """Two labelled classes on two axes: a row near the second is of it; rows without a label count nowhere."""
    def rows(labels, features):
        exams = [Exam(str(i), str(i), 'x', '', 'val', '') for i in range(len(labels))]
        return Predictions(('noncovid', 'covid'), exams, np.array(labels), None, np.array(features, 'f'))

    learnt = rows([0, 0, 1, 1, -1], [[1, 0], [1, 0.1], [0, 1], [0.1, 1], [0, 1]])
    found = train.of_neighbours(learnt, rows([0, 1, -1], [[2, 0.1], [0.1, 5], [0, 1]]))
    assert {name: entry['value'] for name, entry in found.items()} == {'knn_auc': 1.0, 'knn_macro_f1': 1.0}
    assert train.of_neighbours(rows([0, 0], [[1, 0], [0, 1]]), learnt) == {} == train.of_neighbours(learnt, rows([-1], [[1, 0]]))


@pytest.mark.parametrize('z, expected', [(np.ones((6, 1)) * [[1., 0, 0]], 0), (np.concatenate([np.eye(3), -np.eye(3)]), 1)])
def test_spread_by_hand(z, expected):
    np.testing.assert_allclose(moco.spread(jnp.asarray(z, 'float32')), expected, atol=1e-6)


@pytest.mark.parametrize('change, message', [
    ({'moco.queue': 20}, 'moco.queue=20 must be a multiple of --config.train.batch=8'), ({'moco.queue': 0}, 'moco.queue=0 must be'),
    ({'moco.groups': 3}, 'batch=8 must be a multiple of --config.moco.groups=3'), ({'moco.groups': 8}, 'two scans or more in a group'),
    ({'moco.temperature': 0.0}, 'temperature=0.0 must be above 0'), ({'moco.momentum': 1.5}, 'momentum=1.5 from 0 to 1'),
    ({'model.name': 'COVIDNetRedesign'}, 'COVIDNetRedesign normalises by site')])
def test_what_cannot_be_is_one_line(change, message):
    assert_refused(moco_config(), change, message)


def test_a_network_whose_head_would_be_out_of_size_is_one_line():
    """CRNet: 13 x 13 places of 128 channels at 224 x 224."""
    config = moco_config('CRNet')
    config.prep.size = (1, 224, 224)
    method = methods.make(config, make_mesh(jax.devices()[:1]))
    batch = {**BATCH, 'image': np.zeros((8, 1, 224, 224, 1), np.uint8)}
    with pytest.raises(UserError, match='CRNet has 21,632 features, of which .* would make 467,943,424 parameters'):
        jax.eval_shape(method.init, jax.random.key(0), batch)
