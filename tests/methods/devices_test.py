"""One device and eight do the same arithmetic, and nothing of image size travels between them."""

import math
import re
from functools import partial

import dummy
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import cmt_config, cross_site_config, moco_config, rubik_config, small_config

from covid_jax import methods, plan
from covid_jax.runtime import state as run_state
from covid_jax.runtime.mesh import by_batch, make_mesh, put, replicated

CROSS_SITE = ('ours', 'sepnorm', 'ms_net', 'parallel_adapter', 'series_adapter', 'joint_redesign', 'joint_covidnet', 'single_redesign',
              'single_covidnet')
# one of each method, with a queue and a key encoder, and of cross-site learning all of its table, for each has other layers
ROWS = 'model4,size=small', 'baseline,size=small', 'ohem', 'cmt', 'cmt of all views', 'moco', 'rubik', 'dummy', *CROSS_SITE
QUICK = 'model4,size=small', 'ohem', 'cmt', 'moco', 'rubik', 'ours'  # the others take six minutes
# equal to one device: a loss over the pairs of all rows, and one that chooses among the rows of all devices
EQUAL = [pytest.param(row, marks=() if row in ('model4,size=small', 'ohem') else pytest.mark.slow) for row in ROWS]
SIZE, BATCH = (8, 32, 32), 16
OF_IMAGES, PLANE = (1, 40, 40), 36  # of which 36 x 36 are seen


def batches(steps, name):
    rng = np.random.default_rng(5)
    size = SIZE
    more = {}
    if name in CROSS_SITE:  # images of their own aspect, on a canvas
        least = OF_IMAGES[1]
        size = 1, 2 * least, 2 * least
        more['extent'] = np.stack([np.full(BATCH, least), rng.integers(least, 2 * least + 1, BATCH)], 1).astype(np.int32)
    for i in range(steps):
        image = rng.integers(0, 256, (BATCH, *size, 1), np.uint8)
        yield {'image': image, **more, 'label': rng.integers(0, 2, BATCH).astype(np.int32), 'site': np.arange(BATCH, dtype=np.int32) % 2,
               'draw': np.arange(i * BATCH, (i + 1) * BATCH, dtype=np.uint32)}


def compiled(name, devices):
    """The mesh, the step as a program and the state it starts from. The trunk computes in float64: in float32 the order of a
    sum moves some activation across the kink of its ReLU, and one of 10^5 terms of a gradient then comes or goes."""
    own = {'dummy': dummy.two_stages, **{row: partial(cmt_config, attention=True) for row in ROWS if 'cmt' in row},
           'moco': partial(moco_config, queue=48), 'rubik': rubik_config, 'ohem': partial(small_config, 'baseline,size=small'),
           **{row: partial(cross_site_config, row) for row in CROSS_SITE}}
    config = own.get(name, partial(small_config, name))()
    with config.unlocked():
        config.prep.size = SIZE
        config.train.batch = BATCH
        config.model.dtype = 'float64'
        if name == 'ohem':
            config.supervised.loss = 'ohem'
        if name in ('cmt', 'cmt of all views', 'moco'):
            config.views.name = name.partition(' ')[0]
        if name == 'cmt':
            config.views.ops = ('rotation', 'shuffle')  # which move pixels about
        if name in CROSS_SITE:
            config.prep.update(size=OF_IMAGES, keep_aspect=True)
            config.views.update(name='cross_site', plane=PLANE)
            config.cross_site.warm_up = 1  # the student joins the teachers
    mesh = make_mesh(jax.devices()[:devices])
    method, tx = methods.make(config, mesh), optax.sgd(0.1, momentum=0.0)  # keeps the gradients in its state
    batch, rep = next(batches(1, name)), replicated(mesh)
    train = jax.jit(lambda k: run_state.create(*method.init(k, batch), tx), out_shardings=rep)(jax.random.key(0))
    step = jax.jit(run_state.train_step(method, tx), in_shardings=(rep, by_batch(mesh), rep), out_shardings=rep)
    return mesh, step.lower(train, put(mesh, batch), jax.random.key(7)).compile(), train


@pytest.fixture(scope='module', params=[pytest.param(row, marks=() if row in QUICK else pytest.mark.slow) for row in ROWS])
def on_eight(request):
    """A row, and what is compiled of it for eight devices."""
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setitem(methods.METHODS, 'dummy', dummy)
        yield request.param, compiled(request.param, 8)


def collective_sizes(program):
    """Elements of every array that a collective of the compiled program gives."""
    return [math.prod(shape) for _, _, shape in plan.collectives(program.as_text())]


def before_a_normalisation(row, name):
    """Whether a parameter is a bias before a normalisation, which takes it out again: its gradient is zero but for rounding. A series
    adapter has two normalisations, and what the first adds the second takes out."""
    if row in CROSS_SITE:
        return 'covidnet' not in row and bool(re.search(r"\['network'\]\['(conv1|c\d)(_norm'\]\['adapter_norm)?'\]\['bias'\]$", name))
    return name.endswith("['conv2']['fc1']['bias']")


@pytest.mark.parametrize('on_eight', EQUAL, indirect=True)
def test_one_device_equals_eight(on_eight):
    row, eight = on_eight
    runs = []
    for mesh, step, train in (compiled(row, 1), eight):
        key = jax.device_put(jax.random.key(7), replicated(mesh))
        losses, grads = [], []
        for batch in batches(3, row):
            train, scalars = step(train, put(mesh, batch), key)
            losses.append(float(scalars['loss']))
            grads.append(jax.device_get(train.opt_state[0].trace))
        runs.append((losses, grads, jax.device_get(train.state)))
    (loss1, *trees1), (loss8, *trees8) = runs
    np.testing.assert_allclose(loss1, loss8, atol=1e-5)
    # what is not normalised hardly learns in three steps
    assert len(set(np.round(loss1, 6 if 'covidnet' in row else 4))) == 3
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(trees1), jax.tree.leaves(trees8), strict=True):
        name = jax.tree_util.keystr(path)
        if before_a_normalisation(row, name):
            assert max(np.abs(a).max(), np.abs(b).max()) < 1e-7, name
        elif name.endswith("['attention']['up1']['bias']"):  # one number in float32, of terms that cancel to 2e-7
            np.testing.assert_allclose(a, b, atol=1e-9)
        else:
            np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max(), rtol=0, err_msg=name)


def test_nothing_of_image_size_travels(on_eight):
    """What is larger than the similarities of all views is a parameter, and none of those is as large as all images."""
    name, (_, step, train) = on_eight
    sizes = collective_sizes(step)
    parameters = {x.size for x in jax.tree.leaves(train.params)}
    voxels = BATCH * PLANE**2 if name in CROSS_SITE else 6 * 32 * 32  # of the images; of one view of a volume
    assert sizes and voxels not in parameters and (voxels > max(parameters) or name in (*CROSS_SITE, 'rubik'))
    large = {size for size in sizes if size > 2 * BATCH * 2 * BATCH}
    assert large <= parameters, sorted(large - parameters)


def test_the_similarity_of_views_stays_where_its_rows_are(on_eight):
    """Of 2 x 16 views a device has the rows of 4, and nowhere is the whole square."""
    name, (_, step, _) = on_eight
    if 'cmt' in name:
        products = set(re.findall(r'= f\d+(\[[0-9,]*\])\S* dot\(', step.as_text()))
        assert '[4,32]' in products and '[32,32]' not in products, products


def test_the_measure_sees_an_exchange_of_volumes():
    mesh = make_mesh()
    x = put(mesh, next(batches(1, 'dummy')))['image'].astype(jnp.float32)
    shuffled = jax.jit(lambda x: x[jax.random.permutation(jax.random.key(0), len(x))], out_shardings=by_batch(mesh))
    assert max(collective_sizes(shuffled.lower(x).compile())) >= 8 * 32 * 32
