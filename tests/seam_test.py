"""The seam between the loop and a method: a method of another kind (no logits, no labels, a queue and a key encoder in its
state), alone and before a second method that starts from it. The real command is tests/dummy.py."""

import json
import shutil
import signal
import subprocess
import sys
import time

import dummy
import pytest
from main_test import arrays, environment, rows

from covid_jax import UserError, experiment, methods


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(methods.METHODS, 'dummy', dummy)


def command(root, folder, *flags):
    script = root / 'tests' / 'dummy.py'
    return [sys.executable, str(script), f'--config={script}', f'--workdir={folder}', *flags]


def start(root, folder, *flags):
    env = environment() | {'PYTHONPATH': f'{root}:{root / "tests"}'}
    return subprocess.Popen(command(root, folder, *flags), env=env, cwd=root, text=True, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process):
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


FLAGS = '--config.folds=2',
PARTS = 'pretrain', 'finetune/fold0/seed0', 'finetune/fold1/seed0'


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
    """Two stages of two methods, two folds: the folder, and what was printed."""
    folder = tmp_path_factory.mktemp('whole') / 'run'
    code, out, error = finish(start(root, folder, *FLAGS))
    assert code == 0, error
    return folder, out


def test_the_first_stage_is_trained_once_and_found_by_all(whole):
    folder, out = whole
    assert sorted(str(p.parent.relative_to(folder)) for p in folder.rglob('config.json')) == sorted(PARTS)
    assert out.count('== pretrain\n') == 1
    for part in PARTS[1:]:
        config = json.loads((folder / part / 'config.json').read_text())
        assert config['method'] == 'supervised' and 'dummy' not in config
        assert config['init_from'] == '../../../pretrain'
    pretrained = arrays(folder / 'pretrain')
    assert any('queue' in name for name in pretrained) and any("['key']" in name for name in pretrained)


def test_a_method_without_logits_has_no_predictions_and_no_row(whole):
    folder, out = whole
    names = {p.name for p in (folder / 'pretrain').iterdir()}
    assert {'exams.csv', 'results.json', 'seconds.json', 'network.txt', 'metrics.jsonl'} <= names
    assert not names & {'predictions.csv', 'metrics.json', 'roc.png'}
    assert json.loads((folder / 'pretrain' / 'results.json').read_text())['metrics'] == {}
    assert ', 2 folds' in ' '.join(out.split()) and 'pretrain' not in out.split('metric')[-1]


def test_every_patient_is_tested_once_over_the_folds(whole):
    folder, _ = whole
    tested = [{line.split(',')[0] for line in (folder / part / 'predictions.csv').read_text().splitlines() if ',test,' in line}
              for part in PARTS[1:]]
    assert len(set.union(*tested)) == sum(map(len, tested)) == 24


@pytest.mark.parametrize('moment', [pytest.param(('pretrain', 2), marks=pytest.mark.slow), ('finetune/fold1/seed0', 2)])
def test_killed_in_the_middle_of_a_stage_and_resumed(root, whole, tmp_path, moment):
    """The same bytes as the run that was never killed, of every part."""
    stage, steps = moment
    folder = tmp_path / 'run'
    process = start(root, folder, *FLAGS)
    path = folder / stage / 'metrics.jsonl'
    deadline = time.monotonic() + 200
    while not (path.exists() and len(path.read_text().splitlines()) >= steps):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not (folder / stage / 'results.json').exists()
    code, _, error = finish(start(root, folder, *FLAGS))
    assert code == 0, error
    for part in PARTS:
        left, right = arrays(folder / part), arrays(whole[0] / part)
        assert left.keys() == right.keys() and all(left[k].tobytes() == right[k].tobytes() for k in left), part
        assert rows(folder / part) == rows(whole[0] / part)
        for name in ('results.json', 'exams.csv', *(['predictions.csv'] if part != 'pretrain' else [])):
            assert (folder / part / name).read_bytes() == (whole[0] / part / name).read_bytes(), (part, name)


def test_a_leak_is_refused_before_anything_trains(tmp_path):
    """The first stage on the same phantoms as the second: its patients are in the folds' tests."""
    c = dummy.two_stages(folds=3)
    c.pretrain.data.phantom.update(seed=0)
    with pytest.raises(UserError, match=r'exams are of patients that .*/pretrain learnt from.*--config.allow_leak=True'):
        experiment.run(c, tmp_path / 'run')
    assert not [*tmp_path.rglob('checkpoints')]


def test_a_leak_that_is_wanted_is_said_in_every_output(tmp_path, capsys):
    c = dummy.two_stages()
    c.allow_leak = True
    c.train.epochs = 1.0
    c.pretrain.data.phantom.update(seed=0, train=0, val=0, test=16)  # of the seed of the second stage's tests
    c.pretrain.data.update(split='drawn', val=0.0, test=0.0)
    results = experiment.run(c, tmp_path / 'run')
    seen = results['finetune']['test']['all']['seen_before']
    assert seen['value'] == 4 and 'learnt from' in seen['reason']
    assert 'these numbers are no test of new patients' in ' '.join(capsys.readouterr().out.split())
    header, *lines = (tmp_path / 'run' / 'finetune' / 'predictions.csv').read_text().splitlines()
    assert header.endswith(',seen') and all(line.endswith(',1') == (',test,' in line) for line in lines)
    assert json.loads((tmp_path / 'run' / 'finetune' / 'metrics.json').read_text())['test']['all']['seen_before'] == seen


def alone(**fields):
    """The dummy by itself, on phantoms that the second stage above is tested on."""
    c = dummy.two_stages()
    with c.unlocked():
        del c.pretrain, c.finetune
        c.stages = ()
        c.train.epochs = 1.0
        c.data.phantom.update(train=0, val=0, test=16)
        c.data.update(split='drawn', val=0.0, test=0.0)
        c.update_from_flattened_dict(fields)
    return c


def test_a_leak_from_a_finished_run(tmp_path):
    """Its table of exams says what it learnt from; without one nobody knows, and that is an error too."""
    experiment.run(alone(), tmp_path / 'first')
    c = alone(**{'method': 'supervised', 'init_from': str(tmp_path / 'first'), 'data.split': 'source', 'data.phantom.train': 8})
    with pytest.raises(UserError, match='16 test exams are of patients that .*/first learnt from'):
        experiment.run(c, tmp_path / 'second')
    c.init_from, c.model.pretrained = '', str(tmp_path / 'first')
    with pytest.raises(UserError, match='16 test exams are of patients that .*/first learnt from'):
        experiment.run(c, tmp_path / 'second')
    (tmp_path / 'first' / 'exams.csv').unlink()
    with pytest.raises(UserError, match='first holds no exams.csv, so nobody knows what it learnt from'):
        experiment.run(c, tmp_path / 'second')
    assert not (tmp_path / 'second' / 'checkpoints').exists()


@pytest.mark.parametrize('field', ['init_from', pytest.param('model.pretrained', marks=pytest.mark.slow)])
def test_what_a_run_knows_of_its_source_outlives_it(tmp_path, field):
    """The same command again, once the run that it started from is deleted."""
    experiment.run(alone(), tmp_path / 'first')
    c = alone(**{'method': 'supervised', field: str(tmp_path / 'first'), 'data.phantom.seed': 5, 'data.phantom.test': 8})
    experiment.run(c, tmp_path / 'second')
    table = (tmp_path / 'second' / 'exams.csv').read_bytes()
    assert table.count(b'../first') == 16
    shutil.rmtree(tmp_path / 'first')
    experiment.run(c, tmp_path / 'second')
    assert (tmp_path / 'second' / 'exams.csv').read_bytes() == table


def test_the_last_checkpoint_may_be_the_one_that_counts(tmp_path):
    c = alone(**{'method': 'supervised', 'eval.select': 'last', 'train.epochs': 3.0, 'data.val': 0.5})
    experiment.run(c, tmp_path / 'run')
    assert [row['step'] for row in rows(tmp_path / 'run') if 'val/macro_f1' in row] == [0, 1, 2]
    steps = {int(p.name) for p in (tmp_path / 'run' / 'checkpoints').iterdir() if p.name.isdigit()}
    assert steps == {2, 3}  # the last, and the one before it, and no best


def test_the_score_may_be_a_scalar_of_the_loss(tmp_path):
    """Judged by its own loss on val by default, or by another of its scalars; with patience it ends when that no longer rises."""
    c = dummy.two_stages()
    with c.unlocked():
        del c.pretrain, c.finetune
        c.stages = ()
        c.train.epochs = 4.0
        c.data.phantom.update(val=8)
    experiment.run(c, tmp_path / 'loss')
    validated = [row for row in rows(tmp_path / 'loss') if 'val/loss' in row]
    assert len(validated) == 4 and all('val/nearest' in row for row in validated)
    kept = {int(p.name) for p in (tmp_path / 'loss' / 'checkpoints').iterdir() if p.name.isdigit()}
    best = min(validated, key=lambda row: (row['val/loss'], -row['step']))['step'] + 1
    assert kept == {best, 6, 8}
    c.eval.select, c.train.patience, c.train.lr = 'nearest', 2, 0.0
    c.train.epochs = 50.0
    experiment.run(c, tmp_path / 'patience')
    assert len(rows(tmp_path / 'patience')) == 2 * 3  # at rate 0 the first score is never bettered: two more, and it ends
    experiment.run(c, tmp_path / 'patience')  # and stays ended
    assert len(rows(tmp_path / 'patience')) == 2 * 3
