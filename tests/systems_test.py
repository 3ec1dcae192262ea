"""A system from end to end: its stages by one command, and its paper's table of what they left."""

import runpy

import numpy as np
import pytest

from covid_jax import experiment, papers, start


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
