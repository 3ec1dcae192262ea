"""What all methods draw on."""

import jax
import numpy as np
import pytest
from conftest import small_config
from PIL import Image

from covid_jax import UserError, methods
from covid_jax.data.prep import together
from covid_jax.methods.method import (
    abstract_batch,
    build_network,
    see,
    seen_in_test,
    to_float,
    training_view,
    two_views,
)
from covid_jax.plan import collectives
from covid_jax.runtime.mesh import make_mesh, put


@pytest.mark.parametrize('slices, depth, seen', [(8, 6, 6), (8, 0, 8), (8, 8, 8), (1, 6, 1), (1, 0, 1)])
def test_a_view_has_as_many_slices_as_the_config_says(slices, depth, seen):
    """0: all; a scan of one slice has views of one, whatever it says."""
    c = small_config()
    c.prep.size, c.views.depth = (slices, 16, 16), depth
    view = jax.eval_shape(training_view(c), jax.random.key(0), np.zeros((slices, 16, 16, 1), np.float32))
    assert view.shape == (seen, 16, 16, 1)


def test_a_view_of_more_slices_than_there_are():
    c = small_config()
    c.views.depth = 9
    with pytest.raises(UserError, match='--config.views.depth=9 must be from 1 to the depth of a prepared scan, 8'):
        training_view(c)
    c.views.depth, c.views.name = 6, 'cmcc'
    with pytest.raises(UserError, match="no views are called 'cmcc'"):
        training_view(c)


def test_a_network_sees_images_by_the_mean_and_deviation_of_the_authors():
    net = build_network(small_config(), make_mesh())
    image = np.float32([0.3529, 0.3529 + 0.2983]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(net.compute.volume(image).ravel(), [0, 1], atol=1e-6)


def aspect_config(network='_ResNetTiny', plane=0, law='cross_site'):
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.prep.update(size=(1, 24, 24), keep_aspect=True)
        c.views.update(name=law, depth=0, plane=plane)
        c.model.name = network
        c.eval.tta = 0
    return c


def batch_of(c, extents, value=None):
    """A batch of noise, with the extents of its scans."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (1, *extent, 1), np.uint8) for extent in extents]
    n = len(extents)
    return {**together(images, 48), 'label': np.arange(n, dtype=np.int32) % 2, 'site': np.zeros(n, np.int32),
            'draw': np.arange(n, dtype=np.uint32)}


EXTENTS = [(24, 24), (24, 40), (48, 24), (31, 24)]


@pytest.mark.parametrize('aspect', [False, True])
def test_a_batch_as_shapes(aspect):
    c = aspect_config()
    c.prep.keep_aspect = aspect
    real = batch_of(c, EXTENTS)
    if not aspect:
        real = {name: x[:, :, :24, :24] if name == 'image' else x for name, x in real.items() if name != 'extent'}
    shapes = {name: (x.shape, x.dtype) for name, x in abstract_batch(c, 4).items()}
    assert shapes == {name: (x.shape, x.dtype) for name, x in real.items()}


@pytest.mark.parametrize('plane, seen', [(0, 24), (16, 16)])
def test_what_is_seen_of_scans_of_their_own_aspect(plane, seen):
    """In evaluation the whole scan, squashed; in training as large a part of it."""
    c = aspect_config(plane=plane)
    batch = batch_of(c, EXTENTS)
    whole = jax.jit(lambda batch: seen_in_test(c)(batch, None))(batch)
    assert whole.shape == (4, 1, seen, seen, 1)
    for row, image, (height, width) in zip(whole, batch['image'], EXTENTS, strict=True):
        expected = Image.fromarray(image[0, :height, :width, 0]).resize((seen, seen), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(255 * row[0, ..., 0], expected, atol=1.01)
    key = jax.random.key(1)
    one = see(training_view(c), key, batch)
    assert one.shape == whole.shape
    np.testing.assert_array_equal(seen_in_test(c)(batch, key), one)  # the law of test-time augmentation is the same
    assert two_views(training_view(c), key, batch).shape == (8, *one.shape[1:])
    backwards = see(training_view(c), key, {name: x[::-1] for name, x in batch.items()})
    np.testing.assert_array_equal(backwards[::-1], one)


def test_a_plane_of_scans_of_one_size():
    """The view and the whole are of that plane; where it is that of the scans, and where it is 0, nothing is resized."""
    c = aspect_config(plane=16, law='none')
    c.prep.keep_aspect = False
    batch = {'image': np.random.default_rng(0).integers(0, 256, (2, 1, 24, 24, 1), np.uint8), 'draw': np.arange(2, dtype=np.uint32)}
    for image in (seen_in_test(c)(batch, None), see(training_view(c), jax.random.key(0), batch)):
        expected = [Image.fromarray(x[0, ..., 0]).resize((16, 16), Image.Resampling.BILINEAR) for x in batch['image']]
        np.testing.assert_allclose(255 * image[:, 0, ..., 0], expected, atol=1.01)
    for plane in (0, 24):
        c.views.plane = plane
        np.testing.assert_array_equal(seen_in_test(c)(batch, None), to_float(batch['image']))
        text = jax.jit(lambda batch: seen_in_test(c)(batch, None)).lower(batch).as_text()
        assert 'dot_general' not in text


def test_a_plane_larger_than_the_scans():
    c = aspect_config(plane=25)
    for make in (training_view, seen_in_test):
        with pytest.raises(UserError, match='--config.views.plane=25 must be at most the height and the width of a prepared scan, here 24'):
            make(c)


@pytest.mark.parametrize('law', ['cross_site', 'cmc'])
def test_nothing_of_a_scan_crosses_rows(law):
    """On eight devices a view and the whole of each row are made where the row is, the same as on one."""
    c = aspect_config(plane=16, law=law)
    batch = batch_of(c, EXTENTS * 2)

    def seen(batch):
        return see(training_view(c), jax.random.key(1), batch), seen_in_test(c)(batch, None)

    mesh = make_mesh()
    apart = jax.jit(seen).lower(put(mesh, batch)).compile()
    assert mesh.size == 8 and collectives(apart.as_text()) == []
    for one, other in zip(jax.jit(seen)(batch), apart(put(mesh, batch)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_flattened_head_starts_on_the_plane():
    """The dense layer of COVID-Net is of the plane that is seen, and takes views and whole scans alike."""
    c = aspect_config('_COVIDNetTiny', plane=16)
    method = methods.make(c, make_mesh(jax.devices()[:1]))
    batch = batch_of(c, EXTENTS)
    params, state = jax.eval_shape(method.init, jax.random.key(0), batch)
    loss, _ = jax.eval_shape(method.loss, params, state, batch, jax.random.key(1), 0)
    assert loss.shape == () and jax.eval_shape(method.predict, params, state, batch)['logits'].shape == (4, 2)
    small = jax.tree.leaves_with_path(params['network']['hidden'])[1][1].shape
    c.views.plane = 24
    large = jax.eval_shape(methods.make(c, make_mesh(jax.devices()[:1])).init, jax.random.key(0), batch)[0]
    assert jax.tree.leaves_with_path(large['network']['hidden'])[1][1].shape != small
