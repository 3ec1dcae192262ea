"""A system from end to end: its stages by one command, and its paper's table of what they left."""

import contextlib
import itertools
import runpy
import signal
from collections import Counter

import jax
import numpy as np
import pytest
from conftest import cross_site_config

from covid_jax import experiment, paired, papers, phantom, start, train
from covid_jax.data import lineage
from covid_jax.predictions import of_run
from covid_jax.report import gradcam
from covid_jax.runtime import checkpoint
from covid_jax.runtime.interrupt import Interrupted


@pytest.mark.slow  # 80 s, of which most is compiling
def test_the_three_losses_of_cmt_cnn_and_their_rows(tmp_path, root, capsys):
    """On phantom X-rays of 32 x 32, with the attention decoder: three trainings and a probe, of which the tables know three."""
    module = runpy.run_path(str(root / 'configs' / 'cmt.py'))
    config = module['get_config']('xray_r50_all_tern,size=small')
    with config.unlocked():
        config.data.phantom.update(train=24, val=12, test=12)
        config.data.workers = 1
        config.prep.size = (1, 32, 32)
        config.views.name = 'none'  # whose law takes longest to compile
        config.model.name = '_ResNetTiny'
        config.train.update(epochs=2.0, batch=8)
        config.cmt.update(latent=8, attention=True)
        config.contrastive.eval.features = True
    experiment.run(config.lock(), tmp_path)
    full, cls, cst = (f'xray_r50_{loss}_tern' for loss in ('full', 'cls', 'cst'))
    assert {path.parent.name for path in tmp_path.rglob('results.json')} == {full, cls, cst, 'contrastive'}
    assert not (tmp_path / 'contrastive' / 'predictions.csv').exists()
    with np.load(tmp_path / 'contrastive' / 'features.npz') as kept:
        assert kept['features'].shape == (48, 8) and np.isfinite(kept['features']).all()
    told = capsys.readouterr().out
    assert 'linear probe' in told and 'nearest neighbours' in told and 'thumbnail' in told
    stages = papers.finished(tmp_path)
    tables = module['TABLES'][1], module['TABLES'][2], module['TABLES'][3]
    for table, row in zip(tables, (full, cls, cst), strict=True):
        lines = {line.row: line for line in papers.shown(table, 'cmt', stages, lambda stage: {}).lines if line.metric == 'accuracy'}
        assert 0 <= float(lines[row].ours) <= 100 and lines[row].paper == table.rows[row][0]
    weights = start.load(tmp_path / full)[1].params
    assert {'attention', 'latent', 'classifier', 'network'} == {*weights}


@pytest.mark.slow  # of which most is compiling
def test_rows_of_cross_site_learning_and_their_tables(tmp_path, root):
    """Two folds of three phantom sites: the contrastive row, one set for all, and one site alone, on the same folds."""
    module = runpy.run_path(str(root / 'configs' / 'cross_site.py'))
    for row in ('ours', 'joint_redesign', 'single_redesign'):
        config = cross_site_config(row)
        with config.unlocked():
            config.folds = 2
            config.data.phantom.update(sites=3, train=36, val=12, test=12)
            config.train.batch = 24  # 8 of each site
            config.prep.update(size=(1, 40, 40), keep_aspect=True)
            config.views.update(name='cross_site', plane=32)
        experiment.run(config.lock(), tmp_path / row)
    answers = {row: [of_run(tmp_path / row / f'fold{fold}/seed0').of('test') for fold in (0, 1)]
               for row in ('ours', 'joint_redesign', 'single_redesign')}
    assert answers['ours'][0].sites == ('site0', 'site1', 'site2') and answers['single_redesign'][0].sites == ('site0',)
    for fold in (0, 1):
        mine = [exam.id for exam in answers['ours'][fold].exams if exam.site == 'site0']
        assert mine == [exam.id for exam in answers['single_redesign'][fold].exams] != []
    run, state = start.load(tmp_path / 'ours/fold0/seed0')
    assert run.config.model.sites == 3 and state.params['network']['conv1_norm']['scale'].shape[0] == 3
    assert state.params['embedding']['fc2']['kernel'].shape == (16, 8)
    assert gradcam.explain(run, state, phantom.address(0, 17, 'covid', 'slice', 'site1'), site='site1').heat.shape[0] == 1
    stages = papers.finished(tmp_path)
    table = module['TABLES'][0]._replace(group='site site0')
    lines = {line.row: line.ours for line in papers.shown(table, 'cross_site', stages, lambda stage: {}).lines if line.metric == 'auc'}
    assert {row for row, ours in lines.items() if ours != '-'} == {'ours', 'joint_redesign', 'single_redesign'}
    tests = module['PAIRED_TESTS'][0]._replace(rows={'single_redesign': {'site site0': '0.002'}, 'joint_redesign': {'site site0': '0.007'}})
    assert all(line.difference != '-' for line in paired.tested(tests, 'cross_site', stages, lambda stage: {}).lines)


def self_trans():
    """Its three stages with the least there is of everything: 4, 8 and 4 steps."""
    config = runpy.run_path('configs/self_trans.py')['get_config']('self_trans_r18,size=small')
    with config.unlocked():
        config.model.name = '_ResNetTiny'
        config.prep.size = (1, 40, 40)
        config.views.plane = 32
        config.data.workers = 1
        config.data.phantom.update(train=32, val=8, test=8)
        config.luna.data.phantom.update(train=32)
        for stage in (config.luna, config.covid_ct):
            stage.train.update(batch=16, epochs=2.0, eval_every=1.0)
            stage.moco.update(queue=32, projection=8)
        config.covid_ct.train.epochs = 4.0
        config.finetune.train.epochs = 2.0
    return config.lock()


def never_stopped_and_stopped(config, tmp_path, monkeypatch, stops):
    """Runs the config in tmp_path/whole, and in tmp_path/stopped with a stop asked for at these steps, counted over all stages."""
    experiment.run(config, tmp_path / 'whole')
    steps = itertools.count(1)

    @contextlib.contextmanager
    def asked():
        yield lambda: signal.SIGTERM if next(steps) in stops else 0

    stopped = 0
    with monkeypatch.context() as m:
        m.setattr(train, 'requests', asked)
        while True:
            try:
                experiment.run(config, tmp_path / 'stopped')
                break
            except Interrupted:
                stopped += 1
    assert stopped == len(stops)


def assert_same(tmp_path, trained, files):
    """Both runs have the same weights of all that is trained, and the same bytes in these files, all of them bit for bit."""
    for stage in trained:
        whole, stopped = (checkpoint.read(tmp_path / name / stage) for name in ('whole', 'stopped'))
        jax.tree.map(np.testing.assert_array_equal, whole, stopped)
    for file in files:
        assert (tmp_path / 'whole' / file).read_bytes() == (tmp_path / 'stopped' / file).read_bytes()


@pytest.mark.slow  # of which most is compiling
def test_the_stages_of_self_trans_stopped_in_each_and_between(tmp_path, root, monkeypatch):
    """Every stage starts from the one before; with stops in the middle of the second, at its end and in the third all is that of the run
    that was never stopped: network, queue, key encoder and answers."""
    monkeypatch.chdir(root)
    never_stopped_and_stopped(self_trans(), tmp_path, monkeypatch, stops=(4 + 3, 4 + 8, 4 + 8 + 1))  # after the 4 of the first
    assert_same(tmp_path, ('luna', 'covid_ct', 'finetune'), ['finetune/predictions.csv'])
    started = checkpoint.read(tmp_path / 'whole' / 'covid_ct')[1]
    assert {'queue', 'encoder'} < {*started['state']} and started['state']['queue'].shape == (32, 8)


@pytest.mark.slow  # of which most is compiling
def test_the_stages_of_dual_track_ranking_stopped_in_each_and_between(tmp_path, root, monkeypatch):
    """Cubes, the ranking by their features, and what is learnt from its choice: with stops in the first stage, at its end and in the
    last all is that of the run that was never stopped. Table III and VI then have the row."""
    module = runpy.run_path(str(root / 'configs' / 'rubik.py'))
    config = module['get_config']('joint_56_ohem,size=small')
    with config.unlocked():
        config.model.name = '_ResNetTiny'
        config.prep.size = (8, 16, 16)
        config.data.workers = 1
        config.data.phantom.update(train=36, val=9, test=9, covid=1 / 3)
        config.train.epochs = 2.0
        config.rubik.update(rubik={'masking': True, 'gap': (1, 1, 1)})
        config.rubik.train.epochs = 4.0  # of 12 with COVID: 6 steps of 8
    never_stopped_and_stopped(config.lock(), tmp_path, monkeypatch, stops=(3, 6, 6 + 1))
    assert_same(tmp_path, ('rubik', 'joint_56_ohem'), ['rank/ranking.csv', 'rank/spearman.json', 'joint_56_ohem/predictions.csv'])
    chosen = [row.exam for row in lineage.read(tmp_path / 'whole' / 'joint_56_ohem') if row.exam.split == 'train' and not row.run]
    assert Counter(exam.label == 'covid' for exam in chosen) == {True: 12, False: round(24 * 1000 / 1785)}
    table = papers.shown(module['TABLES'][3], 'rubik', papers.finished(tmp_path / 'whole'), lambda stage: {})
    found = {line.metric: line for line in table.lines if line.row == 'joint_56_ohem'}
    assert found['hours'].paper == '9.5' and 0 < float(found['hours'].ours) < 1 and found['f1_covid'].ours != '-'
