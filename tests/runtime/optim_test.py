import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.runtime import optim


def train(**fields):
    """A section config.train: constant 0.1, plain SGD, no L2, but for the fields."""
    plain = {'optimizer': 'sgd', 'momentum': 0.0, 'clip': 0.0, 'lr': 0.1, 'schedule': 'constant', 'lr_steps': (),
             'period': 0.0, 'weight_decay': 0.0, 'average': 0.0, 'epochs': 10.0}
    return ConfigDict({**plain, **fields})


def rates(section, steps_per_epoch, at):
    """The rate at each step of `at`, as a compiled step of training asks for it."""
    rate = optim.SCHEDULES[section.schedule](section, steps_per_epoch)
    return np.array(jax.jit(jax.vmap(rate))(jnp.array(at, jnp.int32)))


def walk(section, params, gradients, frozen=None):
    """The parameters after one update with each of the gradients."""
    tx = optim.make(section, 10, frozen)

    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    return params


def test_the_papers_schedule():
    """1e-3, divided by 10 at 30 % and 80 % of 100 epochs; 7 steps an epoch."""
    section = train(schedule='steps', lr=1e-3, lr_steps=(0.3, 0.8), epochs=100.0)
    at = [0, 209, 210, 559, 560, 699]
    np.testing.assert_allclose(rates(section, 7, at), [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5], rtol=1e-5)


def test_steps_fall_after_their_share_of_the_steps_and_not_of_the_whole_epochs():
    """12 epochs of 45 steps: 80 % of 540 are 432 and 95 % are 513, in the middle of an epoch."""
    section = train(schedule='steps', lr=1.0, lr_steps=(0.8, 0.95), epochs=12.0)
    at = [0, 431, 432, 512, 513, 539]
    np.testing.assert_allclose(rates(section, 45.0, at), [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


def test_an_epoch_need_not_be_whole_steps():
    """3 epochs of 2.5 steps are 8 steps: 0.3 of them are 2.4, 0.8 are 6.4."""
    section = train(schedule='steps', lr=1.0, lr_steps=(0.3, 0.8), epochs=3.0)
    assert optim.total_steps(section, 2.5) == 8
    np.testing.assert_allclose(rates(section, 2.5, range(8)), [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


def test_two_steps_may_coincide_in_a_short_training():
    section = train(schedule='steps', lr=1.0, lr_steps=(0.45, 0.55), epochs=1.0)
    assert optim.total_steps(section, 0.1) == 1
    np.testing.assert_allclose(rates(section, 2.0, [0, 1]), [1, 0.01], rtol=1e-5)


def test_cosine_by_hand():
    """Over all 100 epochs, from 1e-4: half of it at 50, 2.467e-8 in the last; constant within an epoch of 4 steps."""
    section = train(schedule='cosine', lr=1e-4, epochs=100.0)
    at = [0, 3, 4, 7, 200, 203, 396, 399, 400]
    first = 1e-4 * (1 + 0.9995065604) / 2  # cos 1.8 degrees
    expected = [1e-4, 1e-4, first, first, 5e-5, 5e-5, 2.467e-8, 2.467e-8, 0]
    np.testing.assert_allclose(rates(section, 4, at), expected, rtol=1e-4)
    np.testing.assert_allclose(rates(section, 4, [4]), first, rtol=1e-6)


def test_cosine_beyond_its_period_equals_the_recursion_of_torch():
    """T_max = 10 over 50 epochs. torch takes each rate from the one before, and starts anew where that was 0."""
    expected = [1.0]
    for epoch in range(1, 50):
        ratio = (1 + np.cos(np.pi * epoch / 10)) / (1 + np.cos(np.pi * (epoch - 1) / 10)) if epoch % 20 != 11 else None
        expected.append(expected[-1] * ratio if ratio is not None else (1 - np.cos(np.pi / 10)) / 2)
    assert expected[10] == 0 and expected[20] == pytest.approx(1)
    section = train(schedule='cosine', lr=1.0, epochs=50.0, period=10.0)
    ours = rates(section, 3, range(0, 150, 3))
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    np.testing.assert_allclose(ours[[0, 5, 10, 15, 20, 30, 40]], [1, 0.5, 0, 0.5, 1, 0, 1], atol=1e-6)


@pytest.mark.parametrize('scans, batch', [(360, 8), (425, 16), (100, 3), (7, 128), (1000, 7), (743, 32)])
def test_a_cosine_epoch_ends_with_the_step_that_completes_it(scans, batch):
    """After s steps s * batch // scans passes over the scans are finished, in whole numbers."""
    epochs = 60
    section = train(schedule='cosine', lr=1.0, epochs=float(epochs))
    at = np.arange(epochs * scans // batch)
    finished = np.array([s * batch // scans for s in at.tolist()])
    expected = [0.5 + 0.5 * np.cos(np.pi * e / epochs) for e in finished]
    np.testing.assert_allclose(rates(section, scans / batch, at), expected, atol=1e-6)


def test_the_constant_schedule():
    np.testing.assert_array_equal(rates(train(lr=0.25), 3, [0, 29, 1000]), 0.25)


def test_adam_with_l2_by_hand():
    """torch.optim.Adam(weight_decay): the decay joins the gradient before the moments."""
    gradients = jnp.array([[0.5, 1.0], [-0.2, 0.3]])
    w = walk(train(optimizer='adam', lr=1e-3, weight_decay=0.1), jnp.array([2.0, -3.0]), gradients)
    m, v, x = np.zeros(2), np.zeros(2), np.array([2.0, -3.0])
    for t, g in enumerate(np.array(gradients), 1):
        full = g + 0.1 * x
        m, v = 0.9 * m + 0.1 * full, 0.999 * v + 0.001 * full**2
        x = x - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(w, x, rtol=1e-6)


def test_sgd_with_momentum_and_l2_by_hand():
    """From 2 with gradient 1 and L2 0.5: buffer 1 + 1 = 2, to 1.8; then 0.9 * 2 + 1 + 0.9 = 3.7, to 1.43."""
    section = train(momentum=0.9, weight_decay=0.5)
    np.testing.assert_allclose(walk(section, jnp.array([2.0]), jnp.ones((1, 1))), 1.8, rtol=1e-6)
    np.testing.assert_allclose(walk(section, jnp.array([2.0]), jnp.ones((2, 1))), 1.43, rtol=1e-6)


def test_sgd_without_momentum_remembers_nothing():
    np.testing.assert_allclose(walk(train(), jnp.array([2.0]), jnp.ones((3, 1))), 1.7, rtol=1e-6)


def test_the_gradient_is_clipped_by_its_global_norm():
    """Norm 5 becomes 2: (3, 4) to (1.2, 1.6). Norm 1 stays."""
    params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
    long, short = ({'a': jnp.array([3.0 * s]), 'b': jnp.array([4.0 * s])} for s in (1.0, 0.2))
    moved = walk(train(lr=1.0, clip=2.0), params, [long])
    np.testing.assert_allclose([*moved['a'], *moved['b']], [-1.2, -1.6], rtol=1e-6)
    moved = walk(train(lr=1.0, clip=2.0), params, [short])
    np.testing.assert_allclose([*moved['a'], *moved['b']], [-0.6, -0.8], rtol=1e-6)


def test_l2_is_added_after_clipping():
    """(3, 4) becomes (1.2, 1.6), and L2 of 0.5 on (10, 0) adds (5, 0)."""
    w = walk(train(lr=1.0, clip=2.0, weight_decay=0.5), jnp.array([10.0, 0.0]), jnp.array([[3.0, 4.0]]))
    np.testing.assert_allclose(w, [10 - 6.2, -1.6], rtol=1e-6)


@pytest.mark.parametrize('optimizer, momentum', [('adam', 0.0), ('sgd', 0.9)])
def test_frozen_parameters_stay_bit_for_bit(rng, optimizer, momentum):
    params = {'frozen': jnp.array(rng.normal(size=100), jnp.float32), 'trained': jnp.ones(3)}
    section = train(optimizer=optimizer, momentum=momentum, weight_decay=0.5, clip=2.0)
    after = walk(section, params, [jax.tree.map(jnp.ones_like, params)] * 3, {'frozen': True, 'trained': False})
    assert np.array(after['frozen']).tobytes() == np.array(params['frozen']).tobytes()
    assert (after['trained'] != 1).all()


def test_the_gradient_of_what_is_frozen_counts_for_no_norm():
    """The trained part has norm 5 of its own, so 2 remains of it, however long the frozen part is."""
    params = {'frozen': jnp.zeros(1), 'trained': jnp.zeros(2)}
    gradient = {'frozen': jnp.array([1e6]), 'trained': jnp.array([3.0, 4.0])}
    after = walk(train(lr=1.0, clip=2.0), params, [gradient], {'frozen': True, 'trained': False})
    np.testing.assert_allclose(after['trained'], [-1.2, -1.6], rtol=1e-6)


@pytest.mark.parametrize('fields, complaint', [
    ({'optimizer': 'adamm'}, "'adamm': set --config.train.optimizer=adam|sgd"),
    ({'schedule': 'step'}, "'step': set --config.train.schedule=steps|cosine|constant"),
    ({'momentum': 1.0}, 'momentum=1.0 must be at least 0 and below 1'),
    ({'momentum': -0.1}, 'momentum=-0.1 must be'),
    ({'optimizer': 'adam', 'momentum': 0.9}, 'momentum=0.9 does nothing with adam: set it to 0'),
    ({'epochs': 0.0}, 'epochs=0.0 must be above 0'),
    ({'clip': -1.0}, 'clip=-1.0 must be at least 0'),
    ({'clip': float('nan')}, 'clip=nan must be at least 0'),
    ({'period': -1.0}, 'period=-1.0 must be at least 0'),
    ({'lr_steps': (0.0, 0.5)}, r'lr_steps=(0.0, 0.5) must be shares'),
    ({'lr_steps': (0.5, 1.0)}, r'lr_steps=(0.5, 1.0) must be shares'),
    ({'lr_steps': (0.8, 0.3)}, r'lr_steps=(0.8, 0.3) must be shares'),
    ({'lr_steps': (0.3, 0.3)}, r'lr_steps=(0.3, 0.3) must be shares'),
])
def test_what_cannot_be_is_one_line(fields, complaint):
    with pytest.raises(UserError) as error:
        optim.make(train(**fields), 1)
    assert complaint in str(error.value) and '\n' not in str(error.value)
