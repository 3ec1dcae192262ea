import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from covid_jax.methods.method import Method
from covid_jax.runtime import state


def poisoned(params, extra, batch, key, step):
    """Not finite at step 2 alone, gradient and all."""
    return params['w'] ** 2 * jnp.where(step == 2, jnp.nan, 1.0), (extra, {})


def steep(params, extra, batch, key, step):
    """A finite loss of 0 whose gradient is infinite."""
    return jnp.sqrt(params['w']), (extra, {})


@pytest.mark.parametrize('loss, start, bad', [(poisoned, 1.0, [-1, -1, 2, 2]), (steep, 0.0, [0, 0])])
def test_the_first_step_whose_loss_or_gradient_is_not_finite_is_remembered(loss, start, bad):
    tx = optax.sgd(1e-3)
    step = jax.jit(state.train_step(Method(None, None, loss, None), tx))
    train = state.create({'w': jnp.float32(start)}, {}, tx)
    seen = []
    for _ in bad:
        train, _ = step(train, {}, jax.random.key(0))
        seen.append(int(train.bad))
    assert seen == bad


def test_a_step_by_hand():
    """w = 3, loss w^2 + 1 at rate 0.1: gradient 6, then w = 2.4; the method's state and scalars are those of its loss."""
    def loss(params, extra, batch, key, step):
        return params['w'] ** 2 + batch['one'], (extra + 5, {'step': step})

    tx = optax.sgd(0.1)
    train = state.create({'w': jnp.float32(3.0)}, jnp.int32(7), tx)
    train, scalars = state.train_step(Method(None, None, loss, None), tx)(train, {'one': 1.0}, jax.random.key(0))
    np.testing.assert_allclose([train.params['w'], scalars['loss'], scalars['grad_norm']], [2.4, 10, 6], rtol=1e-6)
    assert (int(train.step), int(train.state), int(scalars['step'])) == (1, 12, 0)


def test_the_average_by_hand():
    """Decay 0.25: of the weight 3, 2.4, 1.92 the average is 3, then a tenth (1 of 10) and 2 of 11 of itself; a whole number is the last;
    what does not move stays bit for bit; what of the state is not the network's is the last."""
    def loss(params, extra, batch, key, step):
        network = {**extra['network'], 'count': extra['network']['count'] + 1}
        return params['w'] ** 2, ({'network': network, 'queue': extra['queue'] + 1}, {})

    tx = optax.sgd(0.1)
    step = jax.jit(state.train_step(Method(None, None, loss, None), tx, 0.25))
    still = jnp.float32(0.1)
    extra = {'network': {'count': jnp.int32(0), 'mean': still}, 'queue': jnp.float32(0)}
    train = state.create({'w': jnp.float32(3.0)}, extra, tx, 0.25)
    expected = 3.0
    for kept, w in ((1 / 10, 2.4), (2 / 11, 1.92), (3 / 12, 1.536), (0.25, 1.2288)):
        train, _ = step(train, {}, jax.random.key(0))
        expected = kept * expected + (1 - kept) * w
        np.testing.assert_allclose(train.params['w'], w, rtol=1e-6)
        np.testing.assert_allclose(train.average['params']['w'], expected, rtol=1e-6)
    answered = state.answering(train)
    assert answered.params is train.average['params'] and int(answered.state['network']['count']) == 4
    assert answered.state['network']['mean'] == still and answered.state['queue'] == 4
    assert state.answering(train.replace(average=None)).params is train.params
