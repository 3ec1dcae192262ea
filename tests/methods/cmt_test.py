import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import cmt_config

from covid_jax import UserError, methods
from covid_jax.methods import cmt
from covid_jax.models.attention import AttentionDecoder
from covid_jax.runtime import state as run_state
from covid_jax.runtime.mesh import make_mesh

BATCH = {'image': np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32, 1), np.uint8), 'label': np.array([0, 1, 1, 0], np.int32),
         'site': np.zeros(4, np.int32), 'draw': np.arange(40, 44, dtype=np.uint32)}


def made(network='_ResNetTiny', **options):
    return methods.make(cmt_config(network, **options), make_mesh(jax.devices()[:1]))


@functools.cache
def after_a_step(network='_ResNetTiny', **options):
    """(method, parameters and state before, value, state after, scalars) of views that are the scans themselves, and of a
    classifier that is sure of something."""
    method = made(network, **options)
    params, state = jax.jit(method.init)(jax.random.key(0), BATCH)
    if 'classifier' in params:
        params['classifier'] = jax.tree.map(lambda x: 300 * x, params['classifier'])
    value, (after, scalars) = jax.jit(method.loss)(params, state, BATCH, jax.random.key(1), 3)
    return method, params, state, value, after, scalars


def test_the_loss_is_eq_8():
    """lambda times the contrastive loss and the classification; of equal views of four scans the contrastive loss by hand."""
    method, params, state, value, _, scalars = after_a_step()
    np.testing.assert_allclose(value, scalars['clf'] + 0.25 * scalars['con'], rtol=1e-6)
    np.testing.assert_allclose(after_a_step(weight=0.0)[3], scalars['clf'], rtol=1e-6)
    assert set(after_a_step(weight=0.0)[5]) == {'clf'}
    np.testing.assert_allclose(after_a_step(classification=False)[3], scalars['con'], rtol=1e-6)
    variables = {'params': params['network'], **state['network']}
    image = BATCH['image'].repeat(2, 0).astype('f') / 255
    (_, out), _ = jax.jit(functools.partial(method.network.apply, train=True, mutable=['batch_stats']))(variables, image)
    r = np.maximum(out['features'] @ params['latent']['kernel'] + params['latent']['bias'], 0)
    np.testing.assert_allclose(scalars['con'], optax.losses.ntxent(r, np.repeat(np.arange(4), 2), 0.1), rtol=1e-4)
    dense = params['classifier']['Dense_0']
    log_p = jax.nn.log_softmax(r @ dense['kernel'] + dense['bias'])
    np.testing.assert_allclose(scalars['clf'], -np.mean(log_p[np.arange(8), BATCH['label'].repeat(2)]), rtol=1e-4)


def gradient(**options):
    method = made(**options)
    params, state = jax.jit(method.init)(jax.random.key(0), BATCH)
    return jax.jit(jax.grad(lambda p: method.loss(p, state, BATCH, jax.random.key(1), 3)[0]))(params)


def test_the_contrastive_loss_moves_the_features_alone():
    """Eq 9: the classifier's gradient is that of the classification, whatever lambda is; the trunk's is not."""
    with_it, without = gradient(weight=1.0), gradient(weight=0.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), with_it['classifier'], without['classifier'])
    kernels = [g['network']['conv1']['kernel'] for g in (with_it, without)]
    assert not np.allclose(*kernels, rtol=1e-2)


@pytest.mark.parametrize('network, options, own', [
    ('_VGGTiny', {}, {'latent', 'classifier'}), pytest.param('_VGGTiny', {'latent': 0}, set(), marks=pytest.mark.slow),
    pytest.param('_VGGTiny', {'classification': False}, {'latent'}, marks=pytest.mark.slow),
    ('_VGGTiny', {'attention': True, 'latent': 0}, {'attention'}),
    pytest.param('_COVIDNetTiny', {}, {'latent', 'classifier'}, marks=pytest.mark.slow)])
def test_what_is_unused_is_frozen_and_all_else_has_a_gradient(network, options, own):
    config = cmt_config(network, **options)
    method = methods.make(config, make_mesh(jax.devices()[:1]))
    params, state = jax.jit(method.init)(jax.random.key(0), BATCH)
    assert set(params) == {'network', *own}
    slopes = jax.jit(jax.grad(lambda p: method.loss(p, state, BATCH, jax.random.key(1), 3)[0]))(params)
    moved = jax.tree.map(lambda g: bool(jnp.any(g != 0)), slopes)
    still = method.frozen(params) or jax.tree.map(lambda _: False, params)
    jax.tree.map(lambda m, f: None if m != f else pytest.fail(f'{moved} {still}'), moved, still)


def test_without_a_classifier_there_are_no_labels_and_no_logits():
    method, params, state, *_ = after_a_step(classification=False)
    assert not method.labelled and made().labelled
    answer = jax.jit(method.predict)(params, state, BATCH)
    assert set(answer) == {'features'} and answer['features'].shape == (4, 8)


class Brightness(nn.Module):
    """A network whose features are a scan's brightness and 1, and whose logits are -30 to 30 by it."""

    @nn.compact
    def __call__(self, image, train=False, site=None, group=None):
        bright = jnp.mean(image, (1, 2, 3, 4)) + 0 * self.param('classifier', nn.initializers.ones, ())
        return 60 * jnp.stack([-bright, bright - 1], 1) + 30, {'features': jnp.stack([bright, 1 + 0 * bright], 1)}

    def trunk(self):
        return jnp.zeros(())


@pytest.mark.parametrize('classified, expected', [('both', 0.5), ('first', 1.0), ('clean', 0.0)])
def test_which_view_is_classified(monkeypatch, classified, expected):
    """The scans are told with certainty, their first views would be taken for the other class, their second ones not."""
    monkeypatch.setattr(cmt, 'build_network', lambda config, mesh: Brightness())
    bright = np.uint8(255 * BATCH['label']).reshape(-1, 1, 1, 1, 1)
    batch = {**BATCH, 'image': np.broadcast_to(bright, BATCH['image'].shape)}

    def views(view, key, batch):
        image = batch['image'] / np.float32(255)
        return jnp.stack([1 - image, image], 1).reshape(-1, *image.shape[1:])

    monkeypatch.setattr(cmt, 'two_views', views)
    monkeypatch.setattr(cmt, 'init_network', lambda net, key, image: ({'classifier': jnp.ones(())}, {}))
    method = made(classified=classified, latent=0)
    params, state = {'network': {'classifier': jnp.ones(())}}, {'network': {}}
    _, (_, scalars) = method.loss(params, state, batch, jax.random.key(0), 0)
    np.testing.assert_allclose(scalars['clf'] / 60, expected, atol=1e-6)


def test_running_statistics_of_the_clean_pass_are_those_of_the_scans():
    """With views of another brightness 'both' and 'clean' keep other statistics; the latter those of a pass of the scans."""
    config = cmt_config(classified='clean')
    config.views.name = 'cmc'
    method = methods.make(config, make_mesh(jax.devices()[:1]))
    params, state = jax.jit(method.init)(jax.random.key(0), BATCH)
    _, (after, _) = jax.jit(method.loss)(params, state, BATCH, jax.random.key(1), 3)
    variables = {'params': params['network'], **state['network']}
    _, expected = jax.jit(functools.partial(method.network.apply, train=True, mutable=['batch_stats']))(
        variables, BATCH['image'].astype('f') / 255)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after['network'], dict(expected))


def test_a_map_of_ones_leaves_the_network_unchanged(monkeypatch):
    method, params, state, *_ = after_a_step(attention=True)
    plain = made()
    open_gate = {**params['attention'], 'up2': {**params['attention']['up2'], 'bias': jnp.full(1, 50.0)}}
    given = {**params, 'attention': open_gate}
    without = {name: w for name, w in params.items() if name != 'attention'}
    gated = jax.jit(method.predict)
    ungated = jax.jit(plain.predict)(without, state, BATCH)
    for name in ('features', 'logits'):
        np.testing.assert_allclose(gated(given, state, BATCH)[name], ungated[name], rtol=1e-5)
    assert not np.allclose(gated(params, state, BATCH)['features'], ungated['features'], rtol=1e-2)


@pytest.mark.parametrize('shape, four', [((5, 6, 7), (20, 24, 28)), ((1, 6, 7), (1, 24, 28)),
                                         pytest.param((6, 7), (24, 28), marks=pytest.mark.slow)])
def test_the_attention_is_four_times_as_fine_as_the_map(rng, shape, four):
    x = rng.random((2, *shape, 9), np.float32)
    (gate, attention), variables = jax.jit(AttentionDecoder().init_with_output)(jax.random.key(0), x)
    assert gate.shape == (2, *shape, 1) and attention.shape == (2, *four, 1)
    blocks = [2, *(n for size in shape for n in (size, max(1, 4 if size > 1 else 1))), 1]
    pooled = np.asarray(attention).reshape(blocks).mean(tuple(range(2, 2 * len(shape) + 1, 2)))
    np.testing.assert_allclose(gate, pooled, rtol=1e-5)
    changed = AttentionDecoder().apply(variables, x[..., ::-1])[0]  # of the mean over channels alone
    np.testing.assert_allclose(gate, changed, rtol=1e-5)


@pytest.mark.parametrize('options, message', [
    ({'classified': 'last'}, 'both, first or clean'), ({'weight': -0.1}, 'at least 0'), ({'temperature': 0.0}, 'above 0')])
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        made(**options)


def test_one_scan_has_nothing_to_be_told_from():
    config = cmt_config()
    config.train.batch = 1
    with pytest.raises(UserError, match='at least 2'):
        methods.make(config, make_mesh(jax.devices()[:1]))


def test_a_step_learns():
    """Sanity of the whole: 40 steps on a class that brightness tells, by views that leave it."""
    method = made()
    tx = optax.adam(1e-2)
    step = jax.jit(run_state.train_step(method, tx))
    rng = np.random.default_rng(0)
    train = run_state.create(*jax.jit(method.init)(jax.random.key(0), BATCH), tx)
    for _ in range(40):
        label = rng.permutation(np.arange(4) % 2).astype(np.int32)
        image = rng.integers(0, 100, BATCH['image'].shape) + 120 * label.reshape(-1, 1, 1, 1, 1)
        train, scalars = step(train, {**BATCH, 'image': image.astype(np.uint8), 'label': label}, jax.random.key(1))
    assert scalars['clf'] < 0.3
