"""A run exported: what its files answer in a process without this package, beside what the run answers of the same scans."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import cross_site_config, moco_config, single_image_config, small_config

from covid_jax import UserError, cli, experiment, export, methods, predictions, start
from covid_jax.data.prep import prepare
from covid_jax.methods.method import abstract_batch
from covid_jax.metrics.calibration import tempered
from covid_jax.runtime.mesh import make_mesh
from covid_jax.runtime.state import TrainState
from covid_jax.sources import parts_of

WITHOUT = importlib.util.find_spec('jax2onnx') is None or importlib.util.find_spec('onnxruntime') is None
needs_onnx = pytest.mark.skipif(WITHOUT, reason='jax2onnx and onnxruntime are of the extra [onnx]')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """The folder of a run that answered its test exams plain."""
    folder = tmp_path_factory.mktemp('export') / 'run'
    c = single_image_config(epochs=1.0)
    c.data.phantom.update(train=8, val=8, test=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('builtins.print', lambda *words, **_: None)
        experiment.run(c, folder)
    return folder


@pytest.fixture(scope='module')
def scans(finished):
    """The test exams of the run as they were prepared, and what the run answered of them."""
    from small_scans import decode_here

    run, _ = start.load(finished)
    own = predictions.of_run(finished).of('test')
    path_of = {exam.id: exam.path for exam in parts_of(run.config.data)[0]}
    return np.stack([prepare(decode_here(path_of[exam.id]), run.prep) for exam in own.exams]), own.probability


def untrained(config, rng):
    """A run of a config with weights and statistics that are drawn, those of the classifier too, which starts from zeros."""
    config = methods.resolve(config)
    with config.unlocked():
        config.eval.batch = 4
    mesh = make_mesh(jax.devices()[:1])
    method = methods.make(config, mesh)
    made = jax.eval_shape(method.init, jax.eval_shape(jax.random.key, 0), abstract_batch(config, 1))
    params, state = jax.tree.map_with_path(lambda path, x: drawn(path[-1].key, x, rng), made)
    run = start.Run(config, 'runs/drawn', mesh, method, start.pipeline.prep_of(config), sites=('ulm', 'oslo'))
    return run, TrainState(0, params, (), state, -1)


def drawn(name, like, rng):
    if name in ('scale', 'var'):
        return rng.uniform(0.5, 1.5, like.shape).astype('f')
    width = np.prod(like.shape[:-1]) if name == 'kernel' else 100
    return rng.normal(0, width ** -0.5, like.shape).astype('f')


def test_its_example_answers_as_the_run_where_the_package_cannot_be_imported(finished, scans, tmp_path, capsys):
    """Of the run's own prepared scans, more than there are in the example."""
    image, own = scans
    out = tmp_path / 'out'
    cli.run(['export', str(finished), f'--out={out}'])
    assert 'model.json, model.stablehlo and example.py' in capsys.readouterr().out
    assert (out / 'example.py').read_text().count('\n') <= 25
    np.savez(tmp_path / 'mine.npz', image=image)
    (tmp_path / 'covid_jax.py').write_text('raise ImportError("it was asked for")')
    env = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    result = subprocess.run([sys.executable, out / 'example.py', 'mine.npz'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    np.testing.assert_allclose([line['probability'] for line in lines], own, atol=1e-5)
    value = start.load(finished)[0].temperature
    np.testing.assert_allclose([line['calibrated'] for line in lines], tempered(own, value), atol=1e-5)


def test_what_its_json_says(finished, tmp_path):
    run, state = start.load(finished)
    export.write(tmp_path, run, state, say=lambda line: None)
    told = json.loads((tmp_path / 'model.json').read_text())
    assert told['classes'] == ['noncovid', 'covid'] and told['positive'] == 'covid'
    assert told['threshold'] == json.loads((finished / 'metrics.json').read_text())['test']['all']['threshold_frozen']['value']
    assert told['temperature'] == run.temperature
    assert told['inputs'] == [{'name': 'image', 'shape': ['batch', 1, 16, 16, 1], 'dtype': 'uint8'}]
    assert told['prep']['window'] == [-1000.0, 400.0] and told['prep']['size'] == [1, 16, 16] and told['prep']['hash'] == run.prep.hash
    assert 'once and plain, as by the run' in told['views'] and 'not a medical device' in told['note']
    assert {path.name for path in tmp_path.iterdir()} == {'model.stablehlo', 'model.json', 'example.py', 'example.npz'}


@pytest.mark.parametrize('config', [lambda: small_config('baseline,size=small'), cross_site_config], ids=['volume', 'sites'])
def test_other_networks_are_answered_as_by_the_run(config, rng):
    """Of volumes, which a run on a CPU convolves in another form; and by the site of each row, known or not."""
    run, state = untrained(config(), rng)
    network = jax.export.deserialize(export.stablehlo(run, state))
    assert network.platforms == ('cpu', 'cuda', 'tpu')
    batch = {name: rng.integers(0, 256 if name == 'image' else 2, (3, *shape)).astype(dtype)
             for name, (shape, dtype) in export.inputs(run).items()}
    if 'site' in batch:
        batch['site'][0] = export.UNKNOWN_SITE
    own = export.own_answer(run, state, batch)
    assert np.ptp(own[:, 1]) > 1e-3
    np.testing.assert_allclose(network.call(*batch.values()), own, atol=1e-5)


def test_a_scan_of_its_own_aspect_is_told_its_extent(rng):
    c = cross_site_config()
    with c.unlocked():
        c.prep.keep_aspect = True
        c.views.plane = 32
    run, _ = untrained(c, rng)
    assert export.inputs(run) == {'image': ((1, 64, 64, 1), 'uint8'), 'extent': ((2,), 'int32'), 'site': ((), 'int32')}
    example = export.example(run)
    assert example['extent'].tolist() == [[64, 64]] * 2 and example['site'].tolist() == [-1, -1]


def test_what_cannot_be_exported_is_one_line(rng, finished, monkeypatch):
    run, state = untrained(moco_config(), rng)
    with pytest.raises(UserError, match='runs/drawn does not classify'):
        export.answering(run, state)
    with pytest.raises(UserError, match='--out=.*is no folder'):
        cli.run(['export', str(finished), f'--out={__file__}'])
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='--onnx needs jax2onnx, which is not installed'):
        export.onnx(run, state)


@needs_onnx
@pytest.mark.filterwarnings('default')  # of its own imports
def test_onnxruntime_answers_as_jax(finished, scans, tmp_path):
    import onnxruntime

    image, own = scans
    cli.run(['export', str(finished), f'--out={tmp_path}', '--onnx'])
    session = onnxruntime.InferenceSession((tmp_path / 'model.onnx').read_bytes(), providers=['CPUExecutionProvider'])
    np.testing.assert_allclose(session.run(['probability'], {'image': image})[0], own, atol=1e-5)


@needs_onnx
@pytest.mark.filterwarnings('default')
def test_onnxruntime_answers_of_volumes_as_jax_or_the_reason_is_said(rng):
    """Of a network with dense and with depthwise convolutions in 3D; jax2onnx does not know how to begin a GRU of any batch."""
    import onnxruntime

    for name in ('_EfficientNetTiny', '_ResNetGRUTiny'):
        c = small_config('baseline,size=small')
        with c.unlocked():
            c.model.name = name
        run, state = untrained(c, rng)
        if name == '_ResNetGRUTiny':
            with pytest.raises(UserError, match='jax2onnx .* does not convert _ResNetGRUTiny: TypeError: Shapes'):
                export.onnx(run, state)
            continue
        batch = {'image': rng.integers(0, 256, (3, 8, 16, 16, 1), np.uint8)}
        own = export.own_answer(run, state, batch)
        session = onnxruntime.InferenceSession(export.onnx(run, state), providers=['CPUExecutionProvider'])
        assert np.ptp(own) > 1e-3
        np.testing.assert_allclose(session.run(None, batch)[0], own, atol=1e-5)
