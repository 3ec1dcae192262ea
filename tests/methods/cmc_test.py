import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config

from covid_jax import UserError, methods
from covid_jax.augment.views import train_view
from covid_jax.losses.contrastive import supcon
from covid_jax.methods import cmc
from covid_jax.methods.method import build_network, row_keys, see
from covid_jax.models import network
from covid_jax.models.heads import Projector
from covid_jax.runtime.mesh import make_mesh


def batch_of(n, rng, size=(8, 16, 16)):
    return {'image': rng.integers(0, 256, (n, *size, 1), np.uint8), 'label': rng.integers(0, 2, n).astype(np.int32),
            'site': np.zeros(n, np.int32), 'draw': np.arange(40, 40 + n, dtype=np.uint32)}


BATCH = batch_of(4, np.random.default_rng(0))


def made(**losses):
    config = small_config()
    config.cmc.update(losses)
    return methods.make(config, make_mesh(jax.devices()[:1]))


@functools.cache
def start():
    """Parameters and state of the method, before its first step."""
    return jax.jit(made().init)(jax.random.key(0), BATCH)


@functools.cache
def loss_at_the_start(**losses):
    """(value, state after the step, scalars)."""
    value, (state, scalars) = jax.jit(made(**losses).loss)(*start(), BATCH, jax.random.key(1), 3)
    return value, state, scalars


def test_joint_loss_oracles():
    np.testing.assert_allclose(cmc.joint_loss(1.2, 0.7, jnp.ones(2)), 2.6989709, rtol=1e-6)
    best = jnp.log(jnp.array([1.2, 0.7]))
    np.testing.assert_allclose(cmc.joint_loss(1.2, 0.7, best), 1.8256466, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(cmc.joint_loss, 2)(1.2, 0.7, best), 0, atol=1e-6)
    slopes = jax.grad(cmc.joint_loss, (0, 1, 2))(1.2, 0.7, jnp.ones(2))
    e = np.exp(-1)  # d/dA = 1 / sigma; d/ds = 1 - A / sigma
    np.testing.assert_allclose(jnp.hstack(slopes), [e, e, 1 - 1.2 * e, 1 - 0.7 * e], rtol=1e-6)


def test_a_vanishing_loss_cannot_send_its_weight_to_infinity():
    value = cmc.joint_loss(0.0, 0.0, jnp.array([-50.0, -50.0]))
    np.testing.assert_allclose(value, -8.0)
    np.testing.assert_allclose(cmc.joint_loss(1.0, 0.0, jnp.array([-50.0, 0.0])), np.exp(4) - 4, rtol=1e-6)


def test_projection_head_has_the_papers_size():
    shapes = jax.eval_shape(Projector(128).init, jax.random.key(0), jax.ShapeDtypeStruct((2, 2048), 'float32'))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 4_458_624


def test_projections_lie_on_the_unit_sphere(rng):
    z, _ = Projector(16).init_with_output(jax.random.key(0), rng.normal(size=(5, 32)))
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=1), 1, rtol=1e-5)


def test_the_config_says_which_network_is_built():
    """0 and () are the network's own."""
    c = small_config()
    c.model.name = '_ResNeStTiny'
    own = build_network(c, make_mesh())
    assert (own.taps, own.stem_plane, own.depth_strides) == (3, 3, (1, 1, 1, 2, 2, 2))
    c.model.update(taps=1, stem_plane=7, depth_strides=(1, 2, 1))
    net = build_network(c, make_mesh())
    assert (net.taps, net.stem_plane, net.depth_strides) == (1, 7, (1, 2, 1))


def test_views_are_interleaved_and_differ():
    """Scans of grey 0, 1 and 2, and views that add a number below 1: of scan k are the rows 2k and 2k + 1."""
    batch = {'image': jnp.arange(3, dtype=jnp.uint8).reshape(3, 1, 1, 1, 1), 'draw': jnp.arange(3, dtype=jnp.uint32)}
    views = cmc.two_views(lambda key, scan: 255 * scan + jax.random.uniform(key), jax.random.key(1), batch)
    np.testing.assert_array_equal(jnp.floor(views).ravel(), [0, 0, 1, 1, 2, 2])
    assert len(np.unique(views % 1)) == 6


def test_a_row_is_drawn_by_its_number_never_by_its_place():
    image, draw, order = BATCH['image'], jnp.array([5, 9, 2, 7], jnp.uint32), np.array([2, 0, 3, 1])
    seen = jax.jit(lambda image, draw: see(train_view('cmc', 6), jax.random.key(1), {'image': image, 'draw': draw}))
    views = seen(image, draw)
    np.testing.assert_array_equal(seen(image[order], draw[order]), views[order])
    assert all(not np.allclose(a, b) for a, b in zip(views, seen(image, draw + 1), strict=True))
    names = [jax.random.key_data(row_keys(jax.random.key(1), n, draw)) for n in ('view', 'tta')]
    assert (names[0] != names[1]).any()


def test_weights_follow_beta_one_half():
    """One for the whole batch, another at every step. Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)): 1/8."""
    target, draw = jax.nn.one_hot(jnp.array([0, 0, 1, 1]), 2), jnp.arange(2, dtype=jnp.uint32)
    soft = jax.vmap(lambda step: cmc.mixed_views(jax.random.key(3), step, target, target, draw, 0.5)[1])(jnp.arange(4000))
    w = soft[:, 0, 0]
    np.testing.assert_allclose(soft, jnp.where(target, w[:, None, None], 1 - w[:, None, None]), atol=1e-6)
    assert abs(w.mean() - 0.5) < 0.02 and abs(w.var() - 0.125) < 0.006


def test_the_loss_is_the_sum_of_its_parts():
    """A classifier that knows nothing yet has log 2 of both losses, each weighed by 1 / e: without one the rest is the same."""
    value, _, scalars = loss_at_the_start()
    con = np.e * (value - 2) - 2 * np.log(2)  # and log sigma = 1 twice
    for part, losses in ((('con', 'mix'), {'classification': False}), (('con', 'clf'), {'mixup': 0.0})):
        less, _, rest = loss_at_the_start(**losses)
        np.testing.assert_allclose(value - less, np.log(2) / np.e, rtol=0.02)
        np.testing.assert_allclose([rest[p] for p in part], [scalars[p] for p in part], rtol=1e-5)
        np.testing.assert_allclose([rest[p] for p in part], [con, np.log(2)], rtol=0.02)


@pytest.mark.parametrize('classification, contrastive, mixup, parts', [
    (True, False, 0.0, {'clf'}), (True, False, 0.5, {'clf', 'mix'}), (True, True, 0.0, {'clf', 'con'}),
    (False, True, 0.5, {'mix', 'con'}), (False, False, 0.5, {'mix'})])
def test_losses_can_be_switched_off(classification, contrastive, mixup, parts):
    method = made(classification=classification, contrastive=contrastive, mixup=mixup)
    params, state = jax.eval_shape(method.init, jax.random.key(0), BATCH)
    _, (_, scalars) = jax.eval_shape(method.loss, params, state, BATCH, jax.random.key(1), 0)
    assert {name for name in scalars if 'sigma' not in name} == parts
    assert {'projector', 'log_sigma'} & set(params) == ({'projector', 'log_sigma'} if contrastive else set())


@pytest.mark.parametrize('field, changes, message', [
    ('cmc', {'classification': False, 'mixup': 0.0}, 'nothing trains the classifier'), ('train', {'batch': 9}, 'even')])
def test_what_cannot_train_is_refused(field, changes, message):
    config = small_config()
    config[field].update(changes)
    with pytest.raises(UserError, match=message):
        methods.make(config, make_mesh())


def test_running_statistics_come_from_the_clean_views_alone():
    """Mixup on or off: the same statistics."""
    states = [loss_at_the_start(**losses)[1] for losses in ({}, {'mixup': 0.0})]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *states)


def test_all_slices_are_seen_in_evaluation():
    """Views have 6 of 8 slices; a prediction depends on each of the 8."""
    predict = jax.jit(made().predict)
    before = predict(*start(), BATCH)['features']
    for z in range(8):
        changed = {**BATCH, 'image': BATCH['image'].copy()}
        changed['image'][:, z] = 255 - changed['image'][:, z]
        assert not np.isclose(predict(*start(), changed)['features'], before, atol=1e-6).all(1).any(), z


def test_a_small_network_can_learn_a_bright_corner():
    """Sanity of the whole: 30 steps on a class that one bright cube tells."""
    import optax

    from covid_jax.runtime import state as run_state

    rng = np.random.default_rng(0)
    method = made()
    tx = optax.adam(3e-3)
    step = jax.jit(run_state.train_step(method, tx))
    batch = batch_of(8, rng)
    train = run_state.create(*start(), tx)
    for _ in range(30):
        batch['image'] = rng.integers(0, 100, batch['image'].shape).astype(np.uint8)
        batch['label'] = rng.permutation(np.arange(8) % 2).astype(np.int32)
        batch['image'][batch['label'] == 1, 2:6, 5:11, 5:11] = 250
        train, scalars = step(train, batch, jax.random.key(1))
    assert scalars['clf'] < 0.35


class Bright(nn.Module):
    """A network that answers by brightness, from 0 to 1: logits -30 to 30, features of length 5 to 15."""

    @nn.compact
    def __call__(self, image, train=False, site=None, group=None):
        bright = jnp.mean(image, (1, 2, 3, 4)) + 0 * self.param('unused', nn.initializers.ones, ())
        logits = 30 * jnp.stack([1 - 2 * bright, 2 * bright - 1], 1)
        return logits, {'features': jnp.stack([3 + 10 * bright, 4 + 0 * bright], 1)}


def loss_of_bright_scans(monkeypatch, **options):
    """What the loss of two dark scans (not covid) and two bright ones is made of, each view the scan itself."""
    monkeypatch.setattr(cmc, 'build_network', lambda config, mesh: Bright())
    config = small_config()
    config.views.name = 'none'
    config.cmc.update(options)
    method = cmc.make(config, make_mesh(jax.devices()[:1]))
    batch = batch_of(4, np.random.default_rng(0))
    batch['label'] = np.array([0, 1, 1, 0], np.int32)
    bright = np.uint8(255 * batch['label']).reshape(-1, 1, 1, 1, 1)
    batch['image'] = np.broadcast_to(bright, batch['image'].shape)
    params, state = jax.jit(method.init)(jax.random.key(0), batch)
    # off the start: without biases the direction of a projection would not know the length of r
    params = jax.tree.map(lambda x: x + 0.1, params)
    value, (_, scalars) = jax.jit(method.loss)(params, state, batch, jax.random.key(1), 3)
    return value, scalars, params


def test_cross_entropy_takes_logits(monkeypatch):
    """Of probabilities it could not fall below 0.313."""
    _, scalars, _ = loss_of_bright_scans(monkeypatch, mixup=0.0)
    assert scalars['clf'] < 1e-9


def test_r_is_projected_and_classified_at_its_own_length(monkeypatch):
    """z alone is on the unit sphere. The temperature is 0.1, and Eq 2 is not rescaled."""
    _, scalars, params = loss_of_bright_scans(monkeypatch, mixup=0.0)
    r = np.float32([[3, 4], [13, 4], [13, 4], [3, 4]]).repeat(2, 0)
    first, second = params['projector'].values()
    z = np.maximum(r @ first['kernel'] + first['bias'], 0) @ second['kernel'] + second['bias']
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    label = np.repeat([0, 1, 1, 0], 2)
    np.testing.assert_allclose(scalars['con'], np.mean(supcon(z, label, 0.1)), rtol=1e-4)

    net = network('_ResNeStTiny')(classes=2)
    feature_map = np.random.default_rng(0).normal(3, 1, (2, 1, 2, 2, 16)).astype('f')
    (logits, features), variables = net.init_with_output(jax.random.key(0), feature_map, method='head')
    classifier = variables['params']['classifier']['Dense_0']
    r = feature_map.mean((1, 2, 3))
    np.testing.assert_allclose(features, r, rtol=1e-5)
    np.testing.assert_allclose(logits, r @ classifier['kernel'] + classifier['bias'], rtol=1e-4, atol=1e-7)


def test_without_the_contrastive_loss_nothing_is_weighed(monkeypatch):
    value, scalars, params = loss_of_bright_scans(monkeypatch, contrastive=False)
    assert scalars['mix'] > 0.1 and 'log_sigma' not in params
    np.testing.assert_allclose(value, scalars['clf'] + scalars['mix'], rtol=1e-6)


def test_a_partner_is_never_drawn_by_itself():
    """Views that are their own number: a partner is always of scan k ^ 1, and has this one for its own."""
    views = jnp.eye(16)
    own = np.arange(16)
    mixing = jax.jit(lambda step, draw: cmc.mixed_views(jax.random.key(0), step, views, views, draw, 20.0))
    met = set()
    for step in range(6):
        mixed, target = mixing(step, np.arange(8 * step, 8 * step + 8, dtype=np.uint32))
        np.testing.assert_array_equal(mixed, target)
        partner = np.argmax(mixed * (1 - np.eye(16)), 1)
        np.testing.assert_array_equal(partner // 2, own // 2 ^ 1)
        np.testing.assert_array_equal(partner[partner], own)
        met |= {*zip(own.tolist(), partner.tolist(), strict=True)}
    assert len(met) == 16 * 2  # each view has met both views of the neighbour, and nothing else
