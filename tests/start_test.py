"""A run before its first step: what it starts from, and how a finished one is opened again."""

import json

import jax
import numpy as np
import pytest
from conftest import small_config
from weight_files import write_safetensors

from covid_jax import UserError, evaluate, experiment, methods, start, warm
from covid_jax.data import pipeline
from covid_jax.models import resnet
from covid_jax.predictions import read
from covid_jax.runtime import checkpoint
from covid_jax.weights import pretrained

SIZES = {'2d': (1, 16, 16), '3d': (8, 16, 16)}


def config(size, **fields):
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.model.name = '_ResNetTiny'
        c.prep.size = SIZES[size]
        c.eval.tta = 0
        c.train.update(epochs=2.0, lr=1e-2)
        c.update_from_flattened_dict(fields)
    return c


@pytest.fixture(scope='module', params=['2d', pytest.param('3d', marks=pytest.mark.slow)])
def source(request, tmp_path_factory):
    """A trained run in two and in three dimensions: its folder and the size of its scans."""
    folder = tmp_path_factory.mktemp(request.param) / 'source'
    experiment.run(config(request.param, **{'eval.features': True}), folder)
    return folder, request.param


def probabilities(folder):
    return read(folder / 'predictions.csv', ('noncovid', 'covid')).probability


def still(size, **fields):
    """A config that trains for one step in which nothing moves."""
    return config(size, **{'train.epochs': 0.01, 'train.lr': 0.0, 'train.weight_decay': 0.0, 'supervised.frozen': True, **fields})


@pytest.mark.parametrize('field', ['init_from', pytest.param('model.pretrained', marks=pytest.mark.slow)])
def test_a_warm_start_answers_as_its_source(source, field, tmp_path, capsys):
    """At rate 0, on frozen statistics: parameters and running statistics are the source's."""
    folder, size = source
    experiment.run(still(size, **{field: str(folder)}), tmp_path / 'run')
    np.testing.assert_allclose(probabilities(tmp_path / 'run'), probabilities(folder), atol=1e-6)
    assert 'freshly initialised: nothing' in capsys.readouterr().out


def test_a_file_of_weights_answers_as_the_run_whose_weights_it_holds(source, tmp_path):
    folder, size = source
    state = start.load(folder)[1]
    tensors = {}
    variables = {'params': state.params['network'], **state.state['network']}
    for path, x in jax.tree_util.tree_leaves_with_path(variables):
        *modules, leaf = (k.key for k in path[1:])
        axes = {5: (4, 3, 0, 1, 2), 2: (1, 0)}.get(x.ndim, range(x.ndim))  # torch: out, in, then space
        tensors[f'{resnet.torch_name(modules)}.{pretrained.LEAVES[leaf]}'] = np.transpose(x, axes)
    write_safetensors(tmp_path / 'weights.safetensors', tensors)
    experiment.run(still(size, **{'model.pretrained': str(tmp_path / 'weights.safetensors')}), tmp_path / 'run')
    np.testing.assert_allclose(probabilities(tmp_path / 'run'), probabilities(folder), atol=1e-6)


def test_without_its_statistics_it_would_not():
    """The control: what the test above sees is not zero by itself."""
    c = config('3d')
    method = methods.make(start.begin(c, '/nowhere').config, start.make_mesh())
    batch = {'image': np.random.default_rng(0).integers(0, 256, (4, 8, 16, 16, 1), np.uint8), 'site': np.zeros(4, np.int32),
             'label': np.array([0, 1, 0, 1]), 'draw': np.arange(4, dtype=np.uint32)}
    params, state = jax.jit(method.init)(jax.random.key(0), batch)
    _, (moved, _) = jax.jit(method.loss)(params, state, batch, jax.random.key(0), 0)
    predict = jax.jit(method.predict)
    before, after = (predict(params, s, batch)['features'] for s in (state, moved))
    assert np.abs(before - after).max() > 1e-3


def test_the_classifier_of_another_task_is_not_carried(source, tmp_path, capsys):
    """Of other classes, or of another method: it starts afresh, unless it is asked for."""
    folder, size = source
    other = ('noncovid|normal|pneumonia', 'covid|nodule')
    assert warm.skipped(start.begin(config(size), '/nowhere').config, {'method': 'supervised', 'data.classes': other}) == ()
    c = start.begin(config(size, **{'data.classes': ('benign|normal|pneumonia', 'covid')}), '/nowhere').config
    theirs = {'method': 'supervised', 'data.classes': other}
    assert warm.skipped(c, theirs) == ('classifier',)
    assert warm.skipped(c, {**theirs, 'method': 'cmc', 'data.classes': c.data.classes}) == ('classifier',)
    c.init_skip = ''
    assert warm.skipped(c, theirs) == ()
    experiment.run(still(size, **{'init_from': str(folder), 'init_skip': 'classifier,layer1_0'}), tmp_path / 'run')
    out = capsys.readouterr().out
    assert 'network/classifier/Dense_0/kernel' in out and 'network/layer1_0/conv1/kernel' in out and 'conv1/kernel,' in out
    assert 'network/bn1' not in out


def test_a_frozen_trunk_and_its_statistics_stay_bit_for_bit(source, tmp_path):
    """Its classifier moves."""
    folder, size = source
    experiment.run(config(size, **{'init_from': str(folder), 'supervised.frozen': True, 'train.weight_decay': 0.1}),
                   tmp_path / 'probe')
    (_, before), (_, after) = checkpoint.read(folder), checkpoint.read(tmp_path / 'probe')
    for part in ('params', 'state'):
        leaves = jax.tree_util.tree_leaves_with_path(before[part]['network'])
        for (path, a), b in zip(leaves, jax.tree.leaves(after[part]['network']), strict=True):
            same = a.tobytes() == b.tobytes()
            assert same != ('classifier' in jax.tree_util.keystr(path)), jax.tree_util.keystr(path)


def test_what_is_derived_comes_after_the_start(source, tmp_path, monkeypatch):
    """A key encoder that a method copies from its query is equal to it, whatever the query starts from."""
    import dummy

    monkeypatch.setitem(methods.METHODS, 'dummy', dummy)
    folder, size = source
    c = config(size, method='dummy', init_from=str(folder))
    run = start.begin(c, tmp_path)
    state, _ = warm.initial_state(run, 2.0, jax.random.key(0), say=lambda line: None)
    trained = checkpoint.read(folder)[1]
    for query, key, source_leaf in zip(*map(jax.tree.leaves, (
            state.params['network']['layer1_0'], state.state['key']['network']['layer1_0'],
            trained['params']['network']['layer1_0'])), strict=True):
        np.testing.assert_array_equal(query, key)
        np.testing.assert_array_equal(query, source_leaf)
        buffers = [x.addressable_shards[0].data.unsafe_buffer_pointer() for x in (query, key)]
        assert buffers[0] != buffers[1]  # a copy: the training step gives both away
    jax.tree.map(np.testing.assert_array_equal, state.state['network'], trained['state']['network'])
    jax.tree.map(np.testing.assert_array_equal, state.params, state.state['key'])


def test_a_finished_run_is_opened_again(source, tmp_path):
    """It answers as it did, with all that its answers mean; also where its folder was moved to."""
    folder, size = source
    moved = tmp_path / 'moved'
    moved.symlink_to(folder)
    run, state = start.load(moved)
    assert run.classes == ('noncovid', 'covid') and run.sites == ('phantom',) and run.prep.size == SIZES[size]
    assert run.versions['jax'] == jax.__version__ and run.versions['covid-jax']
    threshold = json.loads((folder / 'metrics.json').read_text())['val']['all']['threshold_frozen']['value']
    assert run.threshold == threshold == run.thresholds['patients']
    kept = json.loads((folder / 'calibration.json').read_text())['test']['temperature']['value']
    assert run.temperature == kept and 0.1 <= kept <= 10
    data = pipeline.prepare(pipeline.survey(run.config, run.config.data.store), run.config.data.store, 1)
    answers = evaluate.collect(run, evaluate.predictor(run.method, run.mesh, features=True), state, data, ('val', 'test'))
    np.testing.assert_allclose(answers.probability, probabilities(folder), atol=1e-6)
    assert [e.id for e in answers.exams] == [e.id for e in read(folder / 'predictions.csv', run.classes).exams]
    kept = np.load(folder / 'features.npz')
    assert kept['split'].tolist() == ['val'] * 8 + ['test'] * 8 + ['train'] * 16
    np.testing.assert_allclose(kept['features'][:16], answers.features, atol=1e-5)


def test_a_run_of_the_same_method_carries_all_that_the_method_trains(tmp_path):
    """CMC's projector and sigmas too, and the statistics; another method takes the network alone."""
    c = small_config('model4,size=small')
    run = start.begin(c, tmp_path / 'first')
    state, _ = warm.initial_state(run, 2.0, jax.random.key(0))
    start.workdir.keep(start.workdir.fields(run.config), run.folder, dataset='x')
    with checkpoint.manager(run.folder / 'checkpoints') as checkpoints:
        checkpoint.save(checkpoints, jax.tree.map(lambda x: x + 1, state))
    trained = checkpoint.read(run.folder)[1]
    c.init_from = str(tmp_path / 'first')
    state, _ = warm.initial_state(start.begin(c, tmp_path / 'second'), 2.0, jax.random.key(9), lambda line: None)
    assert {'network', 'projector', 'log_sigma'} == state.params.keys()
    jax.tree.map(np.testing.assert_array_equal, dict(state.params), trained['params'])
    jax.tree.map(np.testing.assert_array_equal, state.state['network'], trained['state']['network'])
    said = []
    c.method = 'supervised'
    state, _ = warm.initial_state(start.begin(c, tmp_path / 'third'), 2.0, jax.random.key(9), said.append)
    trunk = {name: w for name, w in state.params['network'].items() if name != 'classifier'}
    jax.tree.map(np.testing.assert_array_equal, trunk, {name: trained['params']['network'][name] for name in trunk})
    assert 'freshly initialised: network/classifier/Dense_0/bias, network/classifier/Dense_0/kernel' in said[0]


def test_what_is_no_finished_run_is_one_line(tmp_path, source):
    with pytest.raises(UserError, match='holds no run'):
        start.load(tmp_path)
    folder, _ = source
    (tmp_path / 'cut').mkdir()
    for name in ('config.json', 'checkpoints'):
        (tmp_path / 'cut' / name).symlink_to(folder / name)
    with pytest.raises(UserError, match='has not finished'):
        start.load(tmp_path / 'cut')
    start.workdir.keep(start.workdir.fields(start.begin(config('3d'), tmp_path).config), tmp_path, dataset='x')
    with pytest.raises(UserError, match='no checkpoints'):
        start.load(tmp_path)


@pytest.mark.parametrize('fields, line', [
    ({'eval.select': 'macro_f2'}, 'eval.select=macro_f2 must be one of auto, last, loss, accuracy, macro_f1'),
    ({'train.patience': 3, 'eval.select': 'last'}, 'patience needs a score'),
    ({'supervised.forzen': True}, "no field 'forzen': did you mean 'frozen'"),
    ({'init_skip': 'clasifier'}, "no module is called 'clasifier'"),
    ({'train.order': 'by_sites'}, 'train.order=by_sites must be shuffle, by_site or balanced'),
    ({'method': 'cmcc'}, 'no method is called .*cmc|supervised'),
])
def test_what_a_method_does_not_have_is_one_line(tmp_path, fields, line):
    with pytest.raises(UserError, match=line):
        start.trace(start.begin(config('3d', **fields), tmp_path))


def test_another_method_by_a_flag_has_its_own_defaults(tmp_path):
    """Its section is whole, and that of the config's own method goes."""
    c = small_config()
    c.method = 'supervised'
    run = start.begin(c, tmp_path)
    assert run.config.supervised.frozen is False and 'cmc' not in run.config
    assert c.method == 'supervised' and 'cmc' in c  # the config given is not changed
