"""What a tracker hears of a training, with a module of its name that writes it down; and the real ones, where they are installed."""

import importlib.util
import json
from types import ModuleType, SimpleNamespace

import pytest
from conftest import small_config

from covid_jax import UserError, start
from covid_jax.ranges import CHOICES
from covid_jax.runtime import track
from covid_jax.runtime.writers import Writer

ROWS = [{'step': 0, 'loss': 0.7}, {'step': 1, 'loss': 0.6, 'val/auc': 0.5}]


def config(name):
    c = small_config()
    with c.unlocked():
        c.track = name
        c.seed = 3
        c.data.update(root='scans/anna', held_out=('anna',), sites=('oslo',), exclude='anna.txt')
    return c


@pytest.fixture(params=['trackio', 'wandb', 'mlflow'])
def heard(request, monkeypatch):
    """The name of a tracker whose module writes down what it hears: heard.started, .rows, .ended; heard.fail, at which call it fails."""
    heard = SimpleNamespace(name=request.param, started=[], config={}, rows=[], ended=0, fail=-1)

    def log(metrics, step):
        if len(heard.rows) == heard.fail:
            raise ConnectionError('no network\nat all')
        heard.rows.append({'step': step, **metrics})

    def end(*_):
        heard.ended += 1

    def init(project, name, config, **_):
        heard.started.append((project, name))
        heard.config = config
        return SimpleNamespace(log=log, finish=end)

    client = SimpleNamespace(get_experiment_by_name=lambda name: None, create_experiment=lambda name: name, set_terminated=end,
                             log_param=lambda run, name, value: heard.config.update({name: value}),
                             log_metric=lambda run, name, value, step: log({name: value}, step),
                             create_run=lambda of, run_name: heard.started.append((of, run_name)) or SimpleNamespace(info=SimpleNamespace(run_id='r')))
    module = ModuleType(heard.name)
    module.__dict__.update(init=init, Settings=dict, MlflowClient=lambda: client)
    monkeypatch.setitem(track.importlib.sys.modules, heard.name, module)
    return heard


def together(rows):
    """Rows of one step in one."""
    found = {}
    for row in rows:
        found.setdefault(row['step'], {}).update(row)
    return list(found.values())


def test_a_tracker_hears_the_rows_and_the_scalars_of_the_config(heard, tmp_path):
    writer = Writer(tmp_path, 0, track.tracker(config(heard.name)))
    writer.write(ROWS)
    writer.close()
    assert heard.started == [('covid_jax', 'cmc:model4,size=small,encoder=paper fold 0 seed 3')] and heard.ended == 1
    assert together(heard.rows) == ROWS == [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert heard.config['train.lr'] == 6e-4 and heard.config['model.name'] == '_ResNetTiny' and heard.config['seed'] == 3
    told = f'{heard.config}{heard.started}'
    assert not [word for word in ('anna', 'oslo', str(tmp_path)) if word in told]


def test_one_that_fails_is_one_line_and_the_training_goes_on(heard, tmp_path):
    heard.fail = 1
    lines = []
    writer = Writer(tmp_path, 0, track.tracker(config(heard.name), lines.append))
    writer.write(ROWS)
    writer.write([{'step': 2, 'loss': 0.5}])
    writer.close()
    assert lines == [f'{heard.name} hears no more of this training, which goes on: ConnectionError: no network at all']
    assert len(heard.rows) == 1 and len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 3


def test_one_that_cannot_begin_is_one_line(heard, monkeypatch):
    def refuse(title, fields):
        raise TimeoutError('nobody answers')

    monkeypatch.setitem(track.OPEN, heard.name, refuse)
    lines = []
    tracker = track.tracker(config(heard.name), lines.append)
    tracker.log(ROWS)
    tracker.close()
    assert len(lines) == 1 and 'nobody answers' in lines[0] and not heard.rows


def test_one_that_is_not_installed_is_said_before_a_run_begins(monkeypatch):
    there = {'wandb': SimpleNamespace(origin=None), 'mlflow': None}  # a folder that it left, and nothing
    monkeypatch.setattr(importlib.util, 'find_spec', there.get)
    for name in ('wandb', 'mlflow'):
        with pytest.raises(UserError, match=f'--config.track={name} needs {name}, which is not installed'):
            start.check_fields(config(name))
    start.check_fields(config('none'))
    with pytest.raises(UserError, match='--config.track=tracker must be none, trackio, wandb or mlflow'):
        start.check_fields(config('tracker'))


@pytest.mark.parametrize('name', [name for name in CHOICES['track'] if name != 'none'])
@pytest.mark.filterwarnings('default')  # of their own imports
def test_the_real_one_keeps_the_rows_on_this_machine(name, tmp_path, monkeypatch):
    """Without a network."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f'{name} is of the extra [{name}]')
    monkeypatch.chdir(tmp_path)
    for variable, value in (('WANDB_MODE', 'offline'), ('WANDB_DIR', str(tmp_path)), ('MLFLOW_TRACKING_URI', f'sqlite:///{tmp_path}/mlflow.db'),
                            ('TRACKIO_DIR', str(tmp_path)), ('HF_HUB_OFFLINE', '1')):
        monkeypatch.setenv(variable, value)
    lines = []
    tracker = track.tracker(config(name), lines.append)
    tracker.log(ROWS)
    tracker.close()
    assert not lines
    written = [path for path in tmp_path.rglob('*') if path.is_file() and path.stat().st_size]
    assert written
    held = b''.join(path.read_bytes() for path in written)
    assert b'loss' in held and b'anna' not in held and b'oslo' not in held
