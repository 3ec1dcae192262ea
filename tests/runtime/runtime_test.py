import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from covid_jax import UserError
from covid_jax.runtime import checkpoint, mesh, state


@pytest.mark.parametrize('devices,batch', [(1, 8), (2, 8), (3, 12), (4, 8), (8, 16), (256, 512)])
def test_default_batch(devices, batch):
    assert mesh.default_batch(devices) == batch


def train_state(value, step):
    params = {'w': jnp.full((4, 2), value), 'b': jnp.full(2, value)}
    return state.create(params, {'mean': jnp.full(3, value)}, optax.adam(1e-3)).replace(step=jnp.int32(step))


def test_last_and_best_are_kept_and_the_later_of_equals(tmp_path):
    for step, score in ((1, 0.6), (2, 0.9), (3, 0.9), (4, 0.7), (5, None)):
        with checkpoint.manager(tmp_path) as m:  # a fresh manager each time, as after a restart
            checkpoint.save(m, train_state(float(step), step), score)
    with checkpoint.manager(tmp_path) as m:
        assert sorted(m.all_steps()) == [3, 5] and m.best_step() == 3 and m.latest_step() == 5
        like = train_state(0.0, 0)
        restored = checkpoint.restore(m, 3, like)
        jax.tree.map(np.testing.assert_array_equal, restored, train_state(3.0, 3))


def test_a_checkpoint_moves_between_numbers_of_devices(tmp_path):
    def on(devices):
        return jax.device_put(train_state(1.5, 7), mesh.replicated(mesh.make_mesh(jax.devices()[:devices])))

    with checkpoint.manager(tmp_path) as m:
        checkpoint.save(m, on(8))
        m.wait_until_finished()
        for devices in (1, 2, 8):
            restored = checkpoint.restore(m, 7, jax.tree.map(lambda x: x * 0, on(devices)))
            assert restored.params['w'].sharding == on(devices).params['w'].sharding
            jax.tree.map(np.testing.assert_array_equal, restored, on(devices))


def test_another_network_is_one_line(tmp_path):
    with checkpoint.manager(tmp_path) as m:
        checkpoint.save(m, train_state(1.0, 1))
        m.wait_until_finished()
        other = train_state(1.0, 1).replace(params={'w': jnp.zeros((4, 3)), 'b': jnp.zeros(2)})
        with pytest.raises(UserError, match=r'another network.*params/w \(4, 2\) there, \(4, 3\) here'):
            checkpoint.restore(m, 1, other)


def test_a_start_takes_what_agrees_in_name_and_shape(tmp_path):
    with checkpoint.manager(tmp_path / 'checkpoints') as m:
        checkpoint.save(m, train_state(2.0, 1), 0.5)
        checkpoint.save(m, train_state(3.0, 2), 0.4)
    step, saved = checkpoint.read(tmp_path)
    assert step == 1 and (saved['state']['mean'] == 2).all()  # the best, not the last
    like = {'w': jnp.zeros((4, 2)), 'b': jnp.zeros(3), 'new': {'b': jnp.zeros(2)}}
    started, kept = checkpoint.put(saved['params'], like)
    assert (started['w'] == 2).all() and (started['b'] == 0).all() and kept == ['b', 'new/b']
    started, kept = checkpoint.put(saved['params'], {'w': jnp.zeros((4, 2)), 'b': jnp.zeros(2)}, skip=('w',))
    assert (started['w'] == 0).all() and (started['b'] == 2).all() and kept == ['w']
    with pytest.raises(UserError, match='holds no checkpoints'):
        checkpoint.read(tmp_path / 'nowhere')


def test_how_long_the_best_score_stands(tmp_path):
    """An equal score is kept as the best, and is no better one; nor is what a restart finds."""
    waited = []
    for step, score in ((1, 0.6), (2, 0.9), (3, 0.9), (4, 0.7), (5, None), (6, 0.91)):
        with checkpoint.manager(tmp_path) as m:  # a fresh manager each time, as after a restart
            checkpoint.save(m, train_state(float(step), step), score)
            waited.append(checkpoint.since_better(m, step))
    assert waited == [0, 0, 1, 2, 3, 0]
    with checkpoint.manager(tmp_path / 'none') as m:
        assert checkpoint.since_better(m, 7) == 0


def test_the_first_step_that_is_not_finite_is_remembered():
    from covid_jax.methods.method import Method

    def loss(params, extra, batch, key, step):
        return params['w'] ** 2 * jnp.where(step == 2, jnp.nan, 1.0), (extra, {})

    tx = optax.sgd(1e-3)
    step = jax.jit(state.train_step(Method(None, None, loss, None), tx))
    train = state.create({'w': jnp.float32(1.0)}, {}, tx)
    seen = []
    for _ in range(5):
        train, _ = step(train, {}, jax.random.key(0))
        seen.append(int(train.bad))
    assert seen == [-1, -1, 2, 2, 2]


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is():
    from covid_jax.methods.method import Method

    tx = optax.sgd(1e-3)
    step = state.train_step(Method(None, None, lambda p, s, b, k, n: (jnp.sqrt(p['w']), (s, {})), None), tx)
    train, scalars = step(state.create({'w': jnp.float32(0.0)}, {}, tx), {}, jax.random.key(0))
    assert np.isfinite(scalars['loss']) and int(train.bad) == 0
