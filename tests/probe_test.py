"""The probe on finished runs of a tiny network, through the real experiment."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, small_config
from ml_collections import ConfigDict
from PIL import Image

from covid_jax import UserError, experiment, flags, stages
from covid_jax.data import lineage
from covid_jax.predictions import of_run
from covid_jax.report import evidence

KINDS = {evidence.SELF, 'nearest neighbours', 'random trunk', 'no lungs', 'thumbnail', 'border', 'file'}


def images(folder, seed, n=40):
    """A folder of noise: n images, half of each class."""
    for i in range(n):
        path = folder / ('covid' if i % 2 else 'normal') / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng([seed, i]).integers(0, 255, (20, 20), np.uint8)).save(path)
    return str(folder)


def of_images(c, root):
    with c.unlocked():
        c.prep.size = (1, 16, 16)
        c.data.update(source='folder', root=root)
        c.train.epochs = 1.0
        c.eval.tta = 0
    return c


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A finished run of a tiny network on images."""
    folder = tmp_path_factory.mktemp('trained')
    experiment.run(of_images(small_config(), images(folder / 'data', 0)), folder / 'run')
    return folder / 'run'


def config_of(run, **data):
    c = flags.load(str(ROOT / 'configs' / 'probe.py'))
    c.init_from = str(run)
    c.data.workers = 1
    c.data.update(data)
    return c


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(Path(folder).rglob('*')) if p.is_file() and 'store' not in p.parts}


def test_a_run_on_its_own_data(trained, tmp_path, capsys):
    """The run's folder is as it was, byte for byte: its checkpoints too. The same command again changes nothing."""
    before = contents(trained)
    metrics = experiment.run(config_of(trained), tmp_path / 'probed')['.']
    assert contents(trained) == before and any('checkpoints' in path.parts for path in before)
    answers, notes = evidence.read(tmp_path / 'probed')
    assert {*answers} == KINDS and any('central 70 % blacked' in note for note in notes)
    own = of_run(trained)
    for table in (of_run(tmp_path / 'probed'), *answers.values()):
        assert [(e.id, e.split, e.label) for e in table.exams] == [(e.id, e.split, e.label) for e in own.exams]
    np.testing.assert_allclose(answers[evidence.SELF].probability, own.probability, atol=2e-6)
    table = json.loads((tmp_path / 'probed' / 'probes.json').read_text())
    assert {*table['test']} == {'linear probe', *KINDS} and table['site']['value'] is None
    assert table['test']['linear probe']['auc']['value'] == pytest.approx(metrics['test']['all']['auc']['value'])
    printed = ' '.join(capsys.readouterr().out.split())
    assert 'what simpler evidence reaches: test' in printed and 'random trunk' in printed
    assert 'the site from the features: -, for there is one site alone' in printed
    assert 'no lungs' in (tmp_path / 'probed' / 'probes.md').read_text()
    first = contents(tmp_path / 'probed')
    experiment.run(config_of(trained), tmp_path / 'probed')
    assert contents(tmp_path / 'probed') == first


def test_other_data_must_not_be_what_was_learnt_from(trained, tmp_path):
    """Other images, of two sites; and the very same, dealt anew."""
    roots = ','.join(images(tmp_path / name, seed) for seed, name in enumerate(('oslo', 'rome'), 1))
    experiment.run(config_of(trained, source='folder,folder', root=roots), tmp_path / 'other')
    answers, _ = evidence.read(tmp_path / 'other')
    assert len(answers['border'].of('test').exams) == 16 and evidence.SELF in answers
    site = json.loads((tmp_path / 'other' / 'probes.json').read_text())['site']
    assert site['chance'] == 0.5 and 0 <= site['low'] <= site['value'] <= site['high'] <= 1
    same = config_of(trained, source='folder', root=str(trained.parent / 'data'), split_seed=1)
    with pytest.raises(UserError, match='learnt from or chose its checkpoint on'):
        experiment.run(same, tmp_path / 'same')
    same.allow_leak = True
    metrics = experiment.run(same, tmp_path / 'same')['.']
    assert metrics['test']['all']['seen_before']['value'] > 0


def test_as_a_stage_after_one_that_learns_without_labels(tmp_path, monkeypatch, capsys):
    """Its row of a table is the linear probe's, and the sentence is about it; in folds each has its own."""
    import dummy

    from covid_jax import methods

    monkeypatch.setitem(methods.METHODS, 'dummy', dummy)
    c = of_images(dummy.two_stages(), images(tmp_path / 'data', 3))
    with c.unlocked():
        same = {'source': 'folder', 'root': str(tmp_path / 'data')}
        c.pretrain = ConfigDict({'data': same, 'train': {'epochs': 1.0}})
        c.finetune = ConfigDict({'kind': 'probe', 'init_from': 'pretrain', 'data': same})
    results = experiment.run(c, tmp_path / 'run')
    assert list(results) == ['finetune'] and results['finetune']['test']['all']['accuracy']['n'] == 8
    answers, _ = evidence.read(tmp_path / 'run' / 'finetune')
    assert {*answers} == KINDS - {evidence.SELF}
    printed = ' '.join(capsys.readouterr().out.split())
    assert 'of linear probe is' in printed
    assert any(row.run and Path(row.run).name == 'pretrain' for row in lineage.read(tmp_path / 'run' / 'finetune'))


def test_folds_and_seeds_of_a_run_are_found():
    c = config_of('w/run')
    c.folds, c.seeds = 2, 2
    assert [part.config.init_from for part in stages.parts(c, 'p')] == [f'w/run/fold{f}/seed{s}' for f in (0, 1) for s in (0, 1)]
    c.folds, c.seeds = 1, 1
    assert [part.config.init_from for part in stages.parts(c, 'p')] == ['w/run']


def test_what_cannot_be_probed(tmp_path):
    with pytest.raises(UserError, match='which run is to be probed'):
        experiment.run(config_of(''), tmp_path / 'a')
    with pytest.raises(UserError, match='holds no run that trained a network'):
        experiment.run(config_of(tmp_path), tmp_path / 'a')
    with pytest.raises(UserError, match="no data source 'phantoms'"):
        experiment.run(config_of(tmp_path, source='phantoms'), tmp_path / 'a')
