"""Networks that are unlike a ResNet, trained with the supervised method: no statistics, dropout, sites."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_config

from covid_jax import methods
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
    ('_VGGTiny', {'taps': 1}, 0), ('_COVIDNetRedesignTiny', {}, 6), ('_DenseNetTiny', {}, 22)])
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
