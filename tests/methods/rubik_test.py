"""Rubik's cube Pro: what its network sees, its losses, and what it learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_refused, rubik_config

from covid_jax import methods
from covid_jax.augment import cubes
from covid_jax.methods.method import row_keys
from covid_jax.runtime.mesh import make_mesh

RNG = np.random.default_rng(0)
BATCH = {'image': RNG.integers(0, 256, (2, 8, 24, 24, 1), np.uint8), 'label': np.full(2, -1, np.int32), 'site': np.zeros(2, np.int32),
         'draw': np.arange(7, 9, dtype=np.uint32)}
KEY = jax.random.key(1)


@pytest.fixture(scope='module')
def made():
    method = methods.make(rubik_config(), make_mesh(jax.devices()[:1]))
    return method, *jax.jit(method.init)(jax.random.key(0), BATCH)


def test_before_it_learns_the_losses_are_those_of_chance(made):
    """log 100 and log 2."""
    method, params, state = made
    _, (_, scalars) = jax.jit(method.loss)(params, state, BATCH, KEY, 0)
    np.testing.assert_allclose([scalars['permutation'], scalars['rotation']], [np.log(100), np.log(2)], rtol=0.01)


def test_the_loss_by_hand(made):
    """Of the eight cubes of each scan by the network itself, features side by side in the order of their places."""
    method, params, state = made
    head = {axis: {'Dense_0': {'kernel': 30 * params[axis]['Dense_0']['kernel'], 'bias': params[axis]['Dense_0']['bias'] + 0.1}}
            for axis in ('order', 'about_z', 'about_y')}
    params = {**params, **head}
    found, (after, scalars) = jax.jit(method.loss)(params, state, BATCH, KEY, 0)
    scans = BATCH['image'].astype('f') / 255
    seen = [cubes.scramble(k, jnp.asarray(scan), (1, 2, 2), True) for k, scan in zip(row_keys(KEY, 'cubes', BATCH['draw']), scans, strict=True)]
    stacked = jnp.concatenate([s.cubes for s in seen])
    (_, out), collections = method.network.apply({'params': params['network'], **state['network']}, stacked, train=True,
                                                 mutable=['batch_stats'])
    octad = out['features'].reshape(2, -1)
    logits = {axis: octad @ dense['Dense_0']['kernel'] + dense['Dense_0']['bias'] for axis, dense in head.items()}
    of_order = optax.softmax_cross_entropy_with_integer_labels(logits['order'], jnp.array([s.permutation for s in seen])).mean()
    turned = jnp.stack([s.turned for s in seen])
    p = jax.nn.sigmoid(jnp.stack([logits['about_z'], logits['about_y']], -1))
    of_turns = -jnp.where(turned, jnp.log(p), jnp.log(1 - p)).mean()
    np.testing.assert_allclose(found, of_order + of_turns, rtol=1e-4)
    assert scalars['rotation_accuracy'] == jnp.mean((p > 0.5) == turned)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after['network'], dict(collections))


def test_without_masks_it_is_rubiks_cube(made):
    """The same order and turns, and of each voxel what it is or 0."""
    scan = jnp.asarray(1 + BATCH['image'][0].astype('f'))
    masked, plain = (cubes.scramble(KEY, scan, (1, 2, 2), masked) for masked in (True, False))
    assert masked.permutation == plain.permutation and (masked.turned == plain.turned).all()
    kept = masked.cubes != 0
    assert 0.5 < kept.mean() < 1 and (jnp.where(kept, masked.cubes, plain.cubes) == plain.cubes).all() and (plain.cubes != 0).all()
    method = methods.make(rubik_config(masking=False), make_mesh(jax.devices()[:1]))
    _, params, state = made
    assert jax.jit(method.loss)(params, state, BATCH, KEY, 0)[0] != jax.jit(made[0].loss)(params, state, BATCH, KEY, 0)[0]


def test_the_features_are_of_the_whole_scan(made):
    method, params, state = made
    found = jax.jit(method.predict)(params, state, BATCH)['features']
    _, out = method.network.apply({'params': params['network'], **state['network']}, BATCH['image'].astype('f') / 255)
    np.testing.assert_allclose(found, out['features'], rtol=1e-4, atol=1e-5)
    assert 'logits' not in jax.eval_shape(method.predict, params, state, BATCH)


def test_all_but_the_classifier_learns(made):
    method, params, state = made
    slope = jax.jit(jax.grad(lambda p: method.loss(p, state, BATCH, KEY, 0)[0]))(params)
    for (path, g), f in zip(jax.tree_util.tree_leaves_with_path(slope), jax.tree.leaves(method.frozen(params)), strict=True):
        name = jax.tree_util.keystr(path)
        assert f == ('classifier' in name) != bool(np.abs(g).max() > 0), name


@pytest.mark.parametrize('change, message', [
    ({'prep.size': (1, 24, 24)}, r'\(1, 24, 24\) voxels and --config.rubik.gap=\(1, 2, 2\) leave less'),
    ({'rubik.gap': (3, 2, 2)}, 'leave less than 2'), ({'rubik.gap': (1, 2)}, 'three whole numbers'),
    ({'rubik.gap': (1, -2, 2)}, 'three whole numbers of at least 0'), ({'rubik.gap': (1, 1.5, 2)}, 'three whole numbers')])
def test_what_has_no_cubes_is_one_line(change, message):
    assert_refused(rubik_config(), change, message)
