"""Finished runs asked about data that are not theirs: against what they answered of their own test, and numbers made by hand."""

import csv
import json

import numpy as np
import pytest
from conftest import single_image_config

from covid_jax import UserError, cli, evaluate, experiment, external, predictions, shortcuts, start
from covid_jax.data import familiar, pipeline
from covid_jax.metrics.classification import frozen_threshold
from covid_jax.metrics.prevalence import predictive_values
from covid_jax.sources.exams import Exam
from covid_jax.sources.files import Facts

OWN = '--phantom=train=0,val=0,test=16'  # the test exams of the run below alone


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The folder of a run of two seeds, with test-time augmentation."""
    folder = tmp_path_factory.mktemp('external') / 'run'
    c = single_image_config(epochs=1.0)
    c.data.phantom.update(train=8, val=8, test=16)
    c.seeds = 2
    c.eval.tta = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('builtins.print', lambda *words, **_: None)
        experiment.run(c, folder)
    return folder


@pytest.fixture(scope='module')
def opened(folder):
    return [start.load(folder / f'fold0/seed{seed}') for seed in range(2)]


def asked(opened, store, prevalence=None, **phantom):
    config = evaluate.data_of(opened[0][0], 'phantom', '')
    config.data.phantom.update(phantom)
    return external.validate(opened, config, store, prevalence, lambda line: None)


def test_of_its_own_test_exams_it_reaches_what_it_reached(opened, tmp_path):
    """To the last bit, views of test-time augmentation and intervals too; n of the threshold aside, which is frozen on none of these."""
    outcome = asked(opened[:1], tmp_path, train=0, val=0, test=16)
    run, _ = opened[0]
    kept = json.loads((run.folder / 'metrics.json').read_text())['test']['all']
    for name, entry in kept.items():
        if name != 'threshold_frozen':
            assert outcome.metrics['all'][name] == entry == outcome.own['all'][name], name
    assert outcome.metrics['all']['threshold_frozen']['value'] == kept['threshold_frozen']['value'] is not None
    after = json.loads((run.folder / 'calibration.json').read_text())['test']['after']
    assert outcome.metrics['all']['brier_tempered']['value'] == pytest.approx(after['brier']['value'], rel=1e-6)
    assert 'ppv' not in outcome.metrics['all'] and external.NEW not in outcome.metrics


def test_several_runs_are_judged_as_their_mean(opened, tmp_path):
    """Mean answers, at the threshold of the mean of val; the own numbers are of the mean, too."""
    outcome = asked(opened, tmp_path, 0.05, train=0, val=0, test=16)
    tables = [predictions.of_run(run.folder) for run, _ in opened]
    mean = np.mean([table.of('test').probability for table in tables], 0)
    np.testing.assert_allclose(outcome.answers.probability, mean, atol=1e-6)
    val = np.mean([table.of('val').probability for table in tables], 0)
    assert outcome.metrics['all']['threshold_frozen']['value'] == pytest.approx(frozen_threshold(tables[0].of('val').label, val))
    for name in ('auc', 'sensitivity_frozen', 'ppv'):
        assert outcome.own['all'][name]['value'] == outcome.metrics['all'][name]['value'], name
    of = outcome.metrics['all']
    assert of['ppv'] == predictive_values(of['sensitivity_frozen'], of['specificity_frozen'], 0.05)['ppv']


def test_patients_that_a_run_learnt_from_are_told_and_left_out_apart(opened, tmp_path):
    outcome = asked(opened[:1], tmp_path, train=2, val=2, test=16)
    assert outcome.metrics['all']['seen_before']['value'] == 4 and outcome.metrics['all']['auc']['n'] == 20
    new = outcome.metrics[external.NEW]
    assert new['auc']['n'] == 16 and 'seen_before' not in new
    with pytest.raises(UserError, match='each of the 8 labelled exams'):
        asked(opened[:1], tmp_path, train=8, val=0, test=0)


def test_what_one_fold_or_another_learnt_from_is_nothing_new(opened, tmp_path, monkeypatch):
    """Each of two runs learnt from half of the exams: of both no exam is left."""
    halves = iter([range(4), range(4, 8)])
    monkeypatch.setattr(external.lineage, 'leaks', lambda exams, hashes, before: {exams[i].id: 'learnt from' for i in next(halves)})
    with pytest.raises(UserError, match='each of the 8 labelled exams: give data that are new to them'):
        asked(opened, tmp_path, train=8, val=0, test=0)


def test_images_given_to_a_run_of_volumes_are_said_to_be_of_another_kind(opened, tmp_path, monkeypatch):
    said = []
    config = evaluate.data_of(opened[0][0], 'phantom', '')
    config.data.phantom.update(train=0, val=0, test=16)
    external.validate(opened[:1], config, tmp_path, say=said.append)
    assert not any('another kind' in line for line in said)
    known = familiar.read(opened[0][0].folder)
    monkeypatch.setattr(familiar, 'read', lambda folder: known._replace(hounsfield=~known.hounsfield))
    external.validate(opened[:1], config, tmp_path, say=said.append)
    (line,) = [line for line in said if 'another kind' in line]
    assert line.startswith('16 exams are of another kind') and 'its values are' in line and str(opened[0][0].folder) in line


@pytest.fixture
def eleven(monkeypatch):
    """A data set of 22 exams of 11 patients; what each fold of a probe learnt from and was asked about is noted."""
    exams = [Exam(f'e{i}', f'p{i // 2}', 'oslo' if i < 12 else 'rome', ('normal', 'covid')[i // 2 % 2], 'test', '') for i in range(22)]
    images = [{'image': np.full((1, 16, 16, 1), 10 * i, np.uint8)} for i in range(22)]
    dataset = pipeline.Dataset(exams, np.array([i // 2 % 2 for i in range(22)], np.int32), np.zeros(22, np.int32), np.arange(22), images,
                               {}, '', [], ('oslo', 'rome'), [Facts('PNG', 'L', 8, 8, i) for i in range(22)])
    folds = []
    linear = shortcuts.linear
    monkeypatch.setattr(shortcuts, 'linear', lambda split, *rest: folds.append(split) or linear(split, *rest))
    return dataset, folds


def test_a_probe_answers_patients_that_it_did_not_learn_from(eleven):
    dataset, folds = eleven
    config = single_image_config(1.0)
    config.data.update(split='source', held_out=('p3',))  # of the run's own data
    told, _ = external._probes(dataset, {'e21': 'cut off'}, config.data, ('noncovid', 'covid'))
    assert set(told) == {'thumbnail', 'border', 'file', 'site'} and len(folds) == 15
    for split in folds:
        patients = [{dataset.exams[i].patient for i in np.flatnonzero(split == name)} for name in ('train', 'val', 'test')]
        assert len(split) == 21 and sum(map(len, patients)) == len(set.union(*patients)) == 11
    assert (sum(split == 'test' for split in folds) == 3).all()  # each exam once by each of three probes
    for table in told.values():
        assert [exam.id for exam in table.exams] == [f'e{i}' for i in range(21)]
        np.testing.assert_allclose(table.probability.sum(1), 1)
    few = dataset._replace(exams=dataset.exams[:6], label=dataset.label[:6], row=dataset.row[:6], facts=dataset.facts[:6])
    assert external._probes(few, {}, config.data, ('noncovid', 'covid'))[1][0].startswith('no probe: ')


def test_the_command_leaves_tables_and_what_is_not_read(folder, opened, tmp_path, capsys, monkeypatch):
    """Of images of two sites, called otherwise than the run calls its classes; one is cut off."""
    monkeypatch.setattr(start, 'load', lambda part: opened[int(part.name == 'seed1')])
    rng = np.random.default_rng(0)
    rows = ['path,label,site']
    for i in range(12):
        np.save(tmp_path / f'{i}.npy', rng.integers(0, 255, (1, 20, 20), np.uint8))
        rows.append(f'{i}.npy,{("healthy person", "<script>")[i % 2]},{"oslo" if i < 6 else "=rome"}')
    (tmp_path / '11.npy').write_bytes(b'\x93NUMPY')
    (tmp_path / 'table.csv').write_text('\n'.join(rows) + '\n')
    command = ['evaluate', f'--run={folder}', f'--root={tmp_path / "table.csv"}', '--prevalence=0.1', f'--out={tmp_path / "out"}', '--workers=1']
    with pytest.raises(UserError, match='healthy person.*--classes='):
        cli.run(command)
    cli.run([*command, '--classes=noncovid|healthy person,covid|<script>'])
    out = capsys.readouterr().out
    assert 'at the frozen threshold' in out and 'PPV at 10 %' in out and '1 are not answered (11.npy)' in out and 'own test: ' not in out
    found = json.loads((tmp_path / 'out/metrics.json').read_text())
    assert set(found['test']) == {'all', 'site oslo', 'site =rome'} and found['test']['all']['auc']['n'] == 11
    assert set(found['shortcuts']) == {'thumbnail', 'border', 'file', 'site'} and found['own test']['all']['auc']['n'] == 16
    assert 'site oslo' in (tmp_path / 'out/results.md').read_text()
    with (tmp_path / 'out/quarantine.csv').open(newline='') as f:
        assert [row['id'] for row in csv.DictReader(f)] == ['11.npy']


@pytest.mark.parametrize('options, line', [
    (['--prevalence=5'], '--prevalence=5 must be above 0'), ([OWN.replace('test', 'tset')], "'tset=16' is no field, as seed=0"),
    (['--source=phantom', '--root=x'], 'the phantom is made, not read: --root=x'), ([], 'give --root'), (['--root=nowhere'], 'there is nothing at nowhere'),
    ([OWN, '--classes=covid,noncovid'], 'has the classes noncovid, covid, not covid, noncovid'), ([OWN, '--workers=-1'], '--workers=-1')])
def test_what_cannot_be_asked_is_one_line(folder, tmp_path, options, line):
    with pytest.raises(UserError) as e:
        cli.run(['evaluate', f'--run={folder}', f'--out={tmp_path / "out"}', *options])
    assert line in str(e.value) and '\n' not in str(e.value) and not (tmp_path / 'out').exists()


def test_the_folder_of_a_run_is_not_written_into(folder):
    before = (folder / 'fold0/seed0/predictions.csv').read_bytes()
    with pytest.raises(UserError, match='is the folder of a run'):
        cli.run(['evaluate', f'--run={folder}', f'--out={folder / "fold0/seed0"}', OWN])
    assert (folder / 'fold0/seed0/predictions.csv').read_bytes() == before
