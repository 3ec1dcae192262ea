"""How many sites a network normalises by, which of them are held out, and how what is by site goes from run to run."""

import csv
import runpy
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config

from covid_jax import UserError, evaluate, experiment, methods, models, sites, stages, start, trainings, warm
from covid_jax.data import lineage, pipeline
from covid_jax.methods import supervised
from covid_jax.runtime import checkpoint, digests, workdir
from covid_jax.runtime.state import TrainState


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """(names of sites) -> a manifest of 8 images of each, two in val and two in test."""
    folder = tmp_path_factory.mktemp('images')

    def table(*names):
        path = folder / f'{"".join(names)}.csv'
        rows = ['path,label,site,split']
        for at, site in enumerate(f'{name}{i}' for name in names for i in range(8)):
            np.save(folder / f'{site}.npy', np.random.default_rng(list(site.encode())).integers(0, 255, (1, 16, 16), np.uint8))
            split = ('train', 'train', 'val', 'test')[at % 8 // 2]
            rows.append(f'{site}.npy,{("normal", "covid")[at % 2]},{site[0]},{split}')
        path.write_text('\n'.join(rows))
        return path

    return table


def config(table, **fields):
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.data.source = 'manifest'
        c.data.root = str(table)
        c.model.name = '_COVIDNetRedesignTiny'
        c.prep.size = (1, 16, 16)
        c.eval.tta = 0
        c.train.update(epochs=1.0, lr=1e-2)
        c.update_from_flattened_dict(fields)
    return c


def settled(c, folder):
    """The run of a config before its first step, its data surveyed, and what is said of both."""
    said = []
    run = start.begin(c, folder)
    survey = pipeline.survey(run.config, folder, say=said.append)
    run = start.settle(run, survey.exams)
    start.check_survey(run, survey, [], said.append)
    return run, survey, said


def trained(c, folder):
    """A run that has a checkpoint of numbers that are all different, as if it had been trained: its tree by name."""
    run, survey, _ = settled(c, folder)
    params, state = jax.eval_shape(run.method.init, jax.random.key(0), methods.method.abstract_batch(run.config, 1))
    leaves, structure = jax.tree.flatten((params, state))
    made = jax.tree.unflatten(structure, [2 + np.random.default_rng(i).random(x.shape, 'f') for i, x in enumerate(leaves)])
    workdir.keep(workdir.fields(run.config), folder, dataset=survey.digest, sites=[*run.sites, 'tested'])
    lineage.write(folder, lineage.own(survey.exams, survey.hashes))
    with checkpoint.manager(folder / 'checkpoints') as checkpoints:
        checkpoint.save(checkpoints, TrainState(np.int32(1), made[0], (), made[1], np.int32(-1)))
    return by_name({'params': made[0], 'state': made[1]})


def by_name(tree):
    return {digests.name_of(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def test_each_site_gets_what_is_of_its_name(tmp_path, images):
    """Sites b, c and d become c, a and b: their numbers are others, a is new and d is gone."""
    source = trained(config(images('b', 'c', 'd')), tmp_path / 'source')
    run, _, _ = settled(config(images('a', 'b', 'c'), init_from=str(tmp_path / 'source')), tmp_path / 'run')
    said = []
    state, _ = warm.initial_state(run, 2.0, jax.random.key(5), said.append)
    ours = by_name({'params': state.params, 'state': state.state})
    normalised = [name for name in ours if '_norm/' in name]
    assert len(normalised) == 4 * 3  # scale, bias, mean and variance of the stem and of two levels
    for name, value in ours.items():
        if name in normalised:
            np.testing.assert_array_equal(value[[1, 2]], source[name][[0, 1]], err_msg=name)
            assert (value[0] == (1 if name.endswith(('scale', 'var')) else 0)).all()
        else:
            np.testing.assert_array_equal(value, source[name], err_msg=name)
    assert said[0].endswith('freshly initialised: nothing; normalisation by site: b and c carried, a afresh, d left out')


@pytest.mark.parametrize('theirs, fields, here, number, taken, told', [
    # by shape alone both would be carried, each to the other
    ('bc', {}, 'ab', 0, [None, 0], '; normalisation by site: b carried, a afresh, c left out'),
    ('bc', {}, 'c', 0, [1], '; normalisation by site: c carried, b left out'),
    ('bc', {}, 'bc', 0, [0, 1], '; normalisation by site: b and c carried'),
    ('bc', {'model.sites': 1}, 'abc', 0, [0, 0, 0], '; normalisation: its one set of statistics starts every site'),
    ('bc', {'model.sites': 1}, 'ab', 1, [0], '; normalisation: its one set of statistics starts every site'),
    ('bc', {}, 'ab', 1, [None], '; normalisation: afresh, for it is by site there (b, c) and one for all here'),
    ('b', {}, 'ab', 0, [0, 0], '; normalisation: its one set of statistics starts every site'),
    ('bc', {'model.name': '_COVIDNetTiny'}, 'bc', 0, [None, None], ''),
])
def test_from_which_row_a_site_starts(tmp_path, images, theirs, fields, here, number, taken, told):
    """None: from its own."""
    source = trained(config(images(*theirs), **fields), tmp_path / 'source')
    run, _, _ = settled(config(images(*here), **{'model.sites': number, 'model.pretrained': str(tmp_path / 'source')}), tmp_path / 'r')
    params, state = jax.eval_shape(run.method.init, jax.random.key(0), methods.method.abstract_batch(run.config, 1))
    like = jax.tree.map(lambda x: np.full(x.shape, 7.0), {'params': params, 'state': state})
    saved, words = sites.carried(run, checkpoint.read(tmp_path / 'source')[1], like, workdir.read(tmp_path / 'source'))
    found, unchanged = checkpoint.put(saved, jax.tree.map(jnp.asarray, like))
    assert words == told and bool(unchanged) == (not told)
    for name in ('params/network/c2_norm/bias', 'state/network/batch_stats/conv1_norm/mean'):
        rows = [np.full_like(source[name][0], 7.0) if row is None else source[name][row] for row in taken] if told else 7.0
        np.testing.assert_array_equal(by_name(found)[name], rows)


def made(c, mesh):
    """Plain classification, with an array of its own that is by site along its second axis."""
    method = supervised.make(c, mesh)
    count = models.sites(c.model.name, c.model.sites)

    def init(key, batch, start=None):
        params, state = jax.jit(method.init)(key, batch)
        params = {**params, 'adapter': jnp.zeros((4, count, count + 7)), 'other': jnp.zeros((3, 4))}
        params, collections = start or (params, state['network'])
        return params, {'network': collections}

    return method._replace(init=init)


def test_what_is_by_site_is_found_in_any_method_along_any_axis(tmp_path, images, monkeypatch):
    """Not by name, and not by shape: `other` has as many rows as there are sites, and is carried whole."""
    monkeypatch.setitem(methods.METHODS, 'supervised', SimpleNamespace(make=made, DEFAULTS=supervised.DEFAULTS))
    run, _, _ = settled(config(images('a', 'b', 'c')), tmp_path / 'three')
    axes = sites.axes(run.config, run.mesh)
    assert axes['params/adapter'] == 1 and {name for name in axes if '_norm/' not in name} == {'params/adapter'}
    monkeypatch.setattr(sites, 'axes', lambda config, mesh: {'params/adapter': 1})
    like = {'params': {'adapter': np.zeros((2, 3)), 'other': np.zeros((3, 4))}}
    saved = {'params': {'adapter': np.array([[1, 2], [3, 4]]), 'other': np.ones((3, 4))}}
    theirs = {'model.name': run.config.model.name, 'model.sites': 0, 'sites': ['c', 'a']}
    found, _ = sites.carried(run, saved, like, theirs)
    assert found['params']['adapter'].tolist() == [[2, 0, 1], [4, 0, 3]] and found['params']['other'].all()
    found, told = sites.carried(run, {'params': {'adapter': np.ones((5, 2))}}, like, theirs)
    assert found == {'params': {'adapter': None}} and told == ''  # of another form


@pytest.mark.parametrize('names, fields, sets, lines', [
    ('abc', {}, 3, ['_COVIDNetRedesignTiny normalises by 3 sets of statistics: a, b, c are trained on']),
    ('ab', {}, 0, []),
    ('ab', {'data.held_out_sites': ('b',)}, 1, [
        '_COVIDNetRedesignTiny normalises by 1 set of statistics: a alone is trained on',
        'no scan of b is trained on: there the answer is that at a']),
    ('abc', {'data.held_out_sites': ('b',)}, 0, [
        'no scan of b is trained on: there the answer is the average of the answers at a, c']),
    ('abc', {'model.sites': 1}, 1, []),
    ('abc', {'model.name': '_COVIDNetTiny'}, 0, []),
])
def test_there_are_as_many_sets_as_sites_are_trained_on(tmp_path, images, names, fields, sets, lines):
    run, _, said = settled(config(images(*names), **fields), tmp_path)
    assert run.config.model.sites == sets and [line for line in said if 'statistics' in line or 'trained on' in line] == lines
    params, _ = jax.eval_shape(run.method.init, jax.random.key(0), methods.method.abstract_batch(run.config, 1))
    norms = {x.shape[0] for path, x in jax.tree_util.tree_leaves_with_path(params) if '_norm' in jax.tree_util.keystr(path)}
    assert norms == ({sets or 2} if 'name' not in ''.join(fields) else set())


def test_a_number_of_sites_that_there_are_not_is_refused(tmp_path, images):
    with pytest.raises(UserError, match=r'normalises 2 sites, not the 3 to train on \(a, b, c\): set --config.model.sites=3$'):
        settled(config(images('a', 'b', 'c'), **{'model.sites': 2}), tmp_path)


def test_a_run_of_three_sites_goes_on(tmp_path, images):
    """With the same command, in which no number of sites is set; then a site that it does not know is asked of it."""
    def again(*names, **fields):
        c = config(images(*names), **fields)
        (run, _), = trainings.prepare(stages.parts(c, tmp_path), tmp_path, lambda line: None).values()
        return run

    trained(again('a', 'b', 'c').config, tmp_path)
    run = again('a', 'b', 'c')
    assert run.config.model.sites == 3 and run.sites == ('a', 'b', 'c')
    with pytest.raises(UserError, match='model.sites: 3 there, 1 now'):
        again('a', 'b', 'c', **{'model.sites': 1})
    with pytest.raises(UserError, match='was started with other scans'):
        again('a', 'b')
    (tmp_path / 'results.json').write_text('{}')  # it has finished
    answers, _ = evaluate.on(start.load(tmp_path), 'manifest', images('b', 'z'))
    assert {(e.site, n) for e, n in zip(answers.exams, answers.columns['sites'], strict=True)} == {('b', 1), ('z', 3)}


def test_a_run_leaves_a_site_out(tmp_path, root, capsys):
    """Of three scanners one is the test alone. Its answers are the mean of two."""
    c = runpy.run_path(str(root / 'configs' / 'supervised.py'))['get_config']('slice,size=small')
    with c.unlocked():
        c.data.phantom.update(sites=3, train=12, val=6, test=6)
        c.data.held_out_sites = ('site1',)
        c.model.name = '_COVIDNetRedesignTiny'
        c.prep.size = (1, 16, 16)
        c.train.update(epochs=1.0, batch=8)
    experiment.run(c, tmp_path / 'run')
    said = ' '.join(capsys.readouterr().out.split())
    assert 'no scan of site1 is trained on: there the answer is the average of the answers at site0, site2' in said
    assert 'test is what is held out: 4 other exams, of site0, site2, are not used' in said
    with open(tmp_path / 'run' / 'predictions.csv', newline='') as f:
        rows = [(row['split'], row['site'], row['sites']) for row in csv.DictReader(f)]
    assert len(rows) == 4 + 8 and set(rows) == {('val', 'site0', '1'), ('val', 'site2', '1'), ('test', 'site1', '2')}
    with open(tmp_path / 'run' / 'exams.csv', newline='') as f:
        assert {row['split'] for row in csv.DictReader(f) if row['site'] == 'site1'} == {'test'}
