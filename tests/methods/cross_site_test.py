"""Contrastive cross-site COVID-Net and its baselines: losses and gradients by hand, and what each row trains."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_refused, cross_site_config

from covid_jax import methods
from covid_jax.losses.contrastive import label_pairs
from covid_jax.methods import ms_net
from covid_jax.models.covidnet import Hidden
from covid_jax.runtime import optim
from covid_jax.runtime import state as run_state
from covid_jax.runtime.mesh import make_mesh

RNG = np.random.default_rng(0)
BATCH = {'image': RNG.integers(0, 256, (8, 1, 32, 32, 1), np.uint8), 'label': np.array([0, 1, 1, 0, 1, 0, 0, 0], np.int32),
         'site': np.tile([0, 1], 4).astype(np.int32), 'draw': np.arange(40, 48, dtype=np.uint32)}


def made(row='ours', **options):
    return methods.make(cross_site_config(row, **options), make_mesh(jax.devices()[:1]))


@functools.cache
def started(row='ours'):
    """The method, and parameters and state as it might start from. (To start it takes long to compile.)"""
    method = made(row)
    shapes = jax.eval_shape(method.init, jax.random.key(0), BATCH)
    return method, *jax.tree_util.tree_map_with_path(drawn, shapes)


def drawn(path, like):
    name = jax.tree_util.keystr(path)
    if 'adapter' in name and 'kernel' in name:
        return np.zeros(like.shape, 'f')
    if like.ndim > 1 and 'norm' not in name:
        rng = np.random.default_rng(zlib.crc32(name.encode()))  # rows alike have what they share alike
        return rng.normal(0, np.prod(like.shape[-4:-1]) ** -0.5, like.shape).astype('f')
    return np.full(like.shape, name.endswith(("['scale']", "['var']")), 'f')


@functools.cache
def learnt(row='ours', step=0):
    """Value, scalars and gradient of one batch."""
    method, params, state = started(row)
    of = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    (value, (_, scalars)), slope = of(params, state, BATCH, jax.random.key(1), step)
    return value, scalars, slope


def test_the_loss_is_eq_5():
    """Cross entropy, and alpha times the mean of Eq 4 over all pairs, by hand from what the network gives."""
    method, params, state = started()
    value, scalars, _ = learnt()
    variables = {'params': params['network'], **state['network']}
    apply = jax.jit(functools.partial(method.network.apply, train=True, mutable=['batch_stats']))
    (logits, out), _ = apply(variables, BATCH['image'].astype('f') / 255, site=BATCH['site'])
    hidden = params['embedding']
    h = np.maximum(out['features'] @ hidden['fc1']['kernel'] + hidden['fc1']['bias'], 0)
    z = np.asarray(h @ hidden['fc2']['kernel'] + hidden['fc2']['bias'])
    assert (z < 0).any()  # no ReLU after the last layer
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    values, pair = label_pairs(z, BATCH['label'], 0.05)
    np.testing.assert_allclose(scalars['con'], values.sum() / pair.sum(), rtol=1e-4)
    log_p = jax.nn.log_softmax(logits)
    np.testing.assert_allclose(scalars['clf'], -np.mean(log_p[np.arange(8), BATCH['label']]), rtol=1e-4)
    np.testing.assert_allclose(value, scalars['clf'] + scalars['con'], rtol=1e-6)
    half = jax.jit(made(alpha=0.5).loss)(params, state, BATCH, jax.random.key(1), 0)[0]
    np.testing.assert_allclose(half, scalars['clf'] + 0.5 * scalars['con'], rtol=1e-6)
    assert set(learnt('sepnorm')[1]) == {'clf'} and 'embedding' not in started('sepnorm')[1]


def test_the_contrastive_loss_alone_trains_the_embedding_and_moves_the_trunk():
    """The classifier's gradient is that of cross entropy alone."""
    with_it, without = learnt()[2], learnt('sepnorm')[2]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(with_it['embedding']))
    for head in ('hidden', 'classifier'):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7), with_it['network'][head],
                     without['network'][head])
    stems = [slope['network']['conv1']['kernel'] for slope in (with_it, without)]
    assert not np.allclose(*stems, rtol=0.1)


def test_a_batch_of_one_class_is_told_nothing_by_the_contrastive_loss():
    method, params, state = started()
    batch = {**BATCH, 'label': np.ones(8, np.int32)}
    (_, (_, scalars)), slope = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(params, state, batch, jax.random.key(1), 0)
    assert scalars['con'] == 0
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(slope['embedding']))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def shapes(**options):
    """Of the parameters."""
    return jax.eval_shape(made(**options).init, jax.random.key(0), BATCH)[0]


def test_what_the_paper_and_the_code_differ_in_is_a_choice():
    assert 'fc1_norm' not in shapes()['embedding'] and 'fc1_norm' not in shapes()['network']['hidden']
    normed = shapes(head_norm=True)
    assert normed['embedding']['fc2_norm']['scale'].shape == (2, 8) and 'fc2_norm' in normed['network']['hidden']
    assert shapes(pool=1)['embedding']['fc1']['kernel'].shape[0] * 4 == shapes()['embedding']['fc1']['kernel'].shape[0]


def test_a_last_relu_of_the_embedding_leaves_no_angle_above_a_right_one():
    """Two embeddings that point away from each other: with the code's reading they end at right angles."""
    x = np.array([[1., 0], [-1, 0]], 'f')
    identity = {f'fc{k}': {'kernel': np.eye(2, dtype='f'), 'bias': np.zeros(2, 'f')} for k in (1, 2)}
    identity['fc1']['bias'] = np.full(2, 2, 'f')  # the first ReLU cuts nothing
    identity['fc2']['bias'] = np.full(2, -2, 'f')
    np.testing.assert_array_equal(Hidden((2, 2), last_relu=False).apply({'params': identity}, x), x)
    np.testing.assert_array_equal(Hidden((2, 2)).apply({'params': identity}, x), [[1, 0], [0, 0]])
    _, params, state = started()
    con = [jax.jit(made(embedding_relu=relu).loss)(params, state, BATCH, jax.random.key(1), 0)[1][1]['con'] for relu in (False, True)]
    np.testing.assert_allclose(con[0], learnt()[1]['con'], rtol=1e-6)
    assert abs(con[1] - con[0]) > 1e-3


def test_a_site_changes_no_statistics_of_the_other():
    """The images of the second site are others: the first site's statistics stay, bit for bit, the second's do not."""
    method, params, state = started()
    other = BATCH['image'].copy()
    other[1::2] = 255 - other[1::2]
    of = jax.jit(lambda image: method.loss(params, state, {**BATCH, 'image': image}, jax.random.key(1), 0)[1][0])
    after, changed = (of(image)['network']['batch_stats'] for image in (BATCH['image'], other))
    for name, module in after.items():
        for statistic, mine in module.items():
            np.testing.assert_array_equal(mine[0], changed[name][statistic][0])
            assert (mine[1] != changed[name][statistic][1]).any()


def test_a_joint_row_has_one_set_of_statistics_for_both():
    """Its gradient does not know the sites."""
    method, params, state = started('joint_redesign')
    assert params['network']['conv1_norm']['scale'].shape == (1, 4)
    of = jax.jit(lambda site: method.loss(params, state, {**BATCH, 'site': site}, jax.random.key(1), 0)[0])
    assert of(BATCH['site']) == of(0 * BATCH['site'])
    _, bare = jax.eval_shape(made('joint_covidnet').init, jax.random.key(0), BATCH)
    assert 'batch_stats' not in bare['network']


@pytest.mark.parametrize('row', [pytest.param('series_adapter', marks=pytest.mark.slow), 'parallel_adapter'])
def test_an_adapted_row_starts_as_sepnorm(row):
    """So its first loss is that of sepnorm, and its adapters have a gradient."""
    np.testing.assert_allclose(learnt(row)[0], learnt('sepnorm')[0], rtol=1e-4)
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(learnt(row)[2]) if 'adapter' in jax.tree_util.keystr(path)
               and 'kernel' in jax.tree_util.keystr(path)]
    assert len(kernels) == 3 and all(np.abs(of_site).max() > 0 for kernel in kernels for of_site in kernel)


class TestMsNet:
    """MS-Net: each loss leaves the other's classifier alone, and both train the trunk."""

    @pytest.fixture(scope='class')
    @staticmethod
    def slopes():
        """{loss: its own gradient}"""
        method, params, state = started('ms_net')
        return {name: jax.jit(jax.grad(lambda p, n=name: method.loss(p, state, BATCH, jax.random.key(1), 500)[1][1][n]))(params)
                for name in ('teacher', 'student')}

    @pytest.mark.parametrize('loss, trained, left', [('teacher', 'teachers', 'classifier'), ('student', 'classifier', 'teachers')])
    def test_of_the_classifiers_a_loss_trains_its_own(self, slopes, loss, trained, left):
        def of(name):
            network = slopes[loss]['network']
            return slopes[loss]['teachers'] if name == 'teachers' else {key: network[key] for key in ('hidden', 'classifier')}

        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(of(trained)))
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(of(left)))
        assert np.abs(slopes[loss]['network']['conv1']['kernel']).max() > 0

    def test_a_teacher_learns_from_its_own_site(self):
        method, params, state = started('ms_net')
        batch = {**BATCH, 'site': np.zeros(8, np.int32)}
        slope = jax.jit(jax.grad(lambda p: method.loss(p, state, batch, jax.random.key(1), 0)[0]))(params)['teachers']
        assert all(np.abs(leaf[0]).max() > 0 and not np.asarray(leaf[1]).any() for leaf in jax.tree.leaves(slope))

    def test_each_teacher_starts_by_itself(self):
        kernel = jax.jit(lambda key: made('ms_net').init(key, BATCH)[0]['teachers']['classifier']['kernel'])(jax.random.key(0))
        assert kernel.shape[0] == 2 and (kernel[0] != kernel[1]).all()

    def test_with_one_set_for_all_there_is_one_teacher_of_all(self):
        config = cross_site_config('ms_net')
        config.model.sites = 1
        net = made_of(config).network
        x = np.random.default_rng(0).normal(size=(4, 4, 4, 32)).astype('f')
        params = jax.eval_shape(lambda key: ms_net.teachers(net, key, x, 1), jax.random.key(0))
        params = jax.tree_util.tree_map_with_path(drawn, params)
        logits = [ms_net.taught(net, params, x, site) for site in (np.array([0, 1, 1, 0]), np.zeros(4, np.int32))]
        np.testing.assert_array_equal(*logits)
        assert np.asarray(logits[0]).any(1).all()

    def test_the_student_learns_half_from_labels_and_half_from_the_teacher(self):
        logits = np.array([[2., 0], [0, 1], [1, 1]], 'f')
        teacher = np.array([[0., 3], [0, 3], [3, 0]], 'f')
        target = np.eye(2, dtype='f')[[0, 1, 1]]
        log_p = np.asarray(jax.nn.log_softmax(logits))
        expected = -0.5 * np.mean(log_p[[0, 1, 2], [0, 1, 1]]) - 0.5 * np.mean(log_p[[0, 1, 2], [1, 1, 0]])
        np.testing.assert_allclose(ms_net.student_loss(logits, teacher, target), expected, rtol=1e-6)
        assert not np.asarray(jax.grad(ms_net.student_loss, 1)(logits, teacher, target)).any()

    def test_the_student_starts_at_the_end_of_the_warm_up(self):
        """Until then its classifier is unchanged, bit for bit, by the row's own optimizer."""
        config = cross_site_config('ms_net')
        assert config.train.weight_decay == 0
        method, params, state = started('ms_net')
        value, scalars, _ = learnt('ms_net', 49)
        assert value == scalars['teacher']
        np.testing.assert_allclose(learnt('ms_net', 50)[0], scalars['teacher'] + scalars['student'], rtol=1e-6)
        tx = optim.make(config.train, 4)
        step = jax.jit(run_state.train_step(method, tx))
        train = run_state.create(*jax.tree.map(jnp.asarray, (params, state)), tx)
        after, _ = step(train, BATCH, jax.random.key(1))
        trained, _ = step(train.replace(step=jnp.int32(50)), BATCH, jax.random.key(1))
        for name in ('hidden', 'classifier'):
            jax.tree.map(np.testing.assert_array_equal, after.params['network'][name], params['network'][name])
            assert all((a != b).any() for a, b in zip(jax.tree.leaves(trained.params['network'][name]),
                                                      jax.tree.leaves(params['network'][name]), strict=True))
        assert (after.params['teachers']['classifier']['kernel'] != params['teachers']['classifier']['kernel']).any()
        assert (after.params['network']['conv1']['kernel'] != params['network']['conv1']['kernel']).any()


@pytest.mark.parametrize('change, message', [
    ({'model.name': 'ResNet18'}, 'cross_site trains a COVID-Net, not ResNet18'),
    ({'model.name': 'COVID'}, "no network is called 'COVID'"),
    ({'cross_site.adapter': 'both'}, "adapter=both must be series, parallel or ''"),
    ({'cross_site.temperature': 0.0}, 'temperature=0.0 must be above 0'), ({'cross_site.alpha': -1.0}, 'alpha=-1.0 must be at least 0'),
    ({'cross_site.embedding': ()}, 'embedding'), ({'model.name': 'COVIDNet', 'cross_site.adapter': 'series'}, 'COVIDNet has no'),
    ({'cross_site.teachers': True, 'cross_site.head_norm': True}, 'head_norm=False'),
    ({'cross_site.teachers': True, 'eval.select': 'loss'}, 'eval.select to a metric')])
def test_what_cannot_be_is_one_line(change, message):
    assert_refused(cross_site_config(), change, message)


def test_the_authors_whole_network_has_its_number_of_parameters():
    import runpy

    from conftest import ROOT

    from covid_jax.methods.method import abstract_batch
    config = runpy.run_path(str(ROOT / 'configs' / 'cross_site.py'))['get_config']('ours,bna=on')
    params = jax.eval_shape(made_of(config).init, jax.random.key(0), abstract_batch(config, 1))[0]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 48_688_018


def made_of(config):
    return methods.make(config, make_mesh(jax.devices()[:1]))


def test_training_parts_the_sites():
    """Five steps on sites of other brightness, from three starts with other images: the running means of the sites are further
    apart than that differs from start to start, in every layer."""
    method, params, state = started('sepnorm')
    tx = optax.sgd(0.01)
    step = jax.jit(run_state.train_step(method, tx))
    apart = []
    for seed in range(3):
        draw = np.random.default_rng(seed)
        own = jax.tree.map(lambda x, d=draw: d.permutation(x.ravel()).reshape(x.shape) if x.ndim > 1 else x, params)
        train = run_state.create(*jax.tree.map(jnp.asarray, (own, state)), tx)
        for _ in range(5):
            image = draw.integers(0, 100, BATCH['image'].shape, np.uint8)
            image[1::2] += 100
            train, _ = step(train, {**BATCH, 'image': image}, jax.random.key(seed))
        apart.append({name: np.abs(np.subtract(*m['mean'])).mean() for name, m in train.state['network']['batch_stats'].items()})
    for name in apart[0]:
        of = [one[name] for one in apart]
        assert np.mean(of) > 2 * np.std(of), (name, of)
