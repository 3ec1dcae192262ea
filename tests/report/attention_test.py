"""The attention that a run has learnt, on the grid of the scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import cmt_config
from PIL import Image

from covid_jax import UserError, start
from covid_jax.models.attention import AttentionDecoder
from covid_jax.report import attention as report
from covid_jax.report.gradcam import overlay_png
from covid_jax.runtime.state import TrainState


def opened(tmp_path, **options):
    config = cmt_config(**options)
    config.prep.size = (1, 32, 64)
    run = start.build(config, tmp_path, jax.devices()[:1])
    batch = {'image': np.zeros((1, *run.prep.size, 1), np.uint8), 'label': np.int32([0]), 'site': np.int32([0]),
             'draw': np.uint32([0])}
    params, state = jax.jit(run.method.init)(jax.random.key(0), batch)
    return run, TrainState(jnp.int32(0), params, (), state, jnp.int32(-1))


def test_the_attention_lies_where_the_map_lies(tmp_path, rng):
    """A decoder that lets everything through attends to all. The map has 8 x 16 cells, the attention 32 x 64."""
    grey = rng.integers(0, 256, (70, 50), np.uint8)
    Image.fromarray(grey).save(tmp_path / 'scan.png')
    run, state = opened(tmp_path, attention=True)
    seen = report.attention(run, state, tmp_path / 'scan.png')
    assert seen.heat.shape == (1, 70, 50) and 0 < seen.heat.min() and seen.heat.max() < 1
    state.params['attention']['up2']['bias'] = jnp.full(1, 50.0)
    np.testing.assert_allclose(report.attention(run, state, tmp_path / 'scan.png').heat, 1, atol=1e-6)
    assert seen.cell == (1.0, 70 / 32, 50 / 64)
    np.testing.assert_allclose(seen.probability.sum(), 1, rtol=1e-5)
    overlay_png(tmp_path / 'seen.png', seen)


@pytest.mark.parametrize('row, column', [(0, 0), (0, 50), (69, 0), (69, 50), (35, 20)])
def test_a_bright_spot_of_the_map_is_found_at_its_place(tmp_path, monkeypatch, rng, row, column):
    """A network whose map is the image in cells of 4 x 4: of a decoder that follows the map the maximum lies on the spot."""
    grey = rng.integers(0, 100, (70, 51)).astype(np.uint8)  # black alone would be no scan
    grey[max(row - 4, 0):row + 5, max(column - 2, 0):column + 3] = 255
    Image.fromarray(grey).save(tmp_path / 'scan.png')
    run, state = opened(tmp_path, attention=True)
    state.params['attention'].update(up1={'kernel': jnp.ones((1, 4, 4, 1, 1)), 'bias': jnp.zeros(1)},
                                     up2={'kernel': jnp.ones((1, 4, 4, 1, 1)), 'bias': jnp.full(1, -8.0)})

    def predict(params, state, batch, key=None):
        cells = batch['image'].astype(jnp.float32).reshape(1, 1, 8, 4, 16, 4, 1).mean((3, 5)) / 255
        AttentionDecoder().apply({'params': params['attention']}, cells)
        return {'logits': jnp.zeros((1, 3))}

    seen = report.attention(run._replace(method=run.method._replace(predict=predict)), state, tmp_path / 'scan.png')
    _, y, x = np.unravel_index(seen.heat.argmax(), seen.heat.shape)
    assert abs(y - row) <= 70 / 8 + 1 and abs(x - column) <= 51 / 16 + 1  # a cell of the map


def test_a_run_without_the_decoder_is_told_how_to_get_one(tmp_path, rng):
    Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).save(tmp_path / 'scan.png')
    run, state = opened(tmp_path)
    with pytest.raises(UserError, match='config.cmt.attention=True'):
        report.attention(run, state, tmp_path / 'scan.png')
