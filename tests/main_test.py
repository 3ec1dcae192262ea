"""The real command in a real process: what a user sees, and what survives being killed."""

import csv
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

SMALL = ['--config.data.phantom.train=16', '--config.data.phantom.val=8', '--config.data.phantom.test=8',
         '--config.data.workers=1', '--config.prep.size=(8,16,16)', '--config.views.depth=6',
         '--config.cmc.projection=8', '--config.model.name=_ResNeStTiny', '--config.train.batch=8',
         '--config.train.epochs=6', '--config.eval.tta=2', '--config.eval.resamples=20']


def environment(devices=1):
    return {**os.environ, 'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}', 'JAX_PLATFORMS': 'cpu'}


def command(root, workdir, *args, config='configs/cmc.py'):
    return [sys.executable, '-m', 'covid_jax.main', f'--config={root / config}', f'--workdir={workdir}', *args]


def run(root, workdir, *args, devices=1, **kwargs):
    return subprocess.run(command(root, workdir, *SMALL, *args, **kwargs), env=environment(devices), text=True,
                          capture_output=True, timeout=400, cwd=root)


def rows(workdir):
    path = Path(workdir) / 'metrics.jsonl'
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def arrays(workdir):
    """Every array of the last checkpoint, by name."""
    folder = Path(workdir) / 'checkpoints'
    step = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
    with ocp.PyTreeCheckpointer() as reader:
        item = folder.resolve() / str(step) / 'state'
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(item).item_metadata.tree)
        tree = reader.restore(item, restore_args=as_numpy)
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(tree)}


def same_run(a, b):
    """Parameters, optimizer, state and predictions byte for byte; every step once."""
    left, right = arrays(a), arrays(b)
    assert left.keys() == right.keys() and len(left) > 50
    for name in left:
        assert left[name].tobytes() == right[name].tobytes(), name
    for name in ('predictions.csv', 'metrics.json', 'exams.csv', 'results.json', 'network.txt'):
        assert (Path(a) / name).read_bytes() == (Path(b) / name).read_bytes(), name
    assert rows(a) == rows(b)
    assert [r['step'] for r in rows(a)] == list(range(12))


@pytest.fixture(scope='module')
def uninterrupted(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    result = run(root, workdir)
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_what_a_run_leaves(uninterrupted):
    workdir, result = uninterrupted
    names = {p.name for p in workdir.iterdir()}
    assert {'config.json', 'metrics.jsonl', 'checkpoints', 'predictions.csv', 'metrics.json', 'roc.png',
            'confusion_test.png', 'confusion_val.png', 'exams.csv', 'network.txt', 'results.json', 'seconds.json'} <= names
    assert any(n.startswith('events.out') for n in names) and not [n for n in names if n.endswith('.tmp')]
    with open(workdir / 'predictions.csv', newline='') as f:
        table = list(csv.DictReader(f))
    assert list(table[0]) == ['id', 'patient', 'site', 'split', 'label', 'p_noncovid', 'p_covid']
    assert [r['split'] for r in table] == ['val'] * 8 + ['test'] * 8 and len({r['id'] for r in table}) == 16
    assert all(abs(float(r['p_noncovid']) + float(r['p_covid']) - 1) < 2e-6 for r in table)
    metrics = json.loads((workdir / 'metrics.json').read_text())
    accuracy = metrics['test']['all']['accuracy']
    right = sum((float(r['p_covid']) >= 0.5) == (r['label'] == 'covid') for r in table if r['split'] == 'test')
    assert accuracy['value'] == right / 8 and accuracy['low'] is None and '10' in accuracy['reason']
    assert 'accuracy' in result.stdout and str(workdir) in result.stdout and 'not a medical device' in result.stdout
    assert 'Traceback' not in result.stderr


def test_nothing_is_done_twice(root, uninterrupted):
    workdir, _ = uninterrupted
    stamps = {p: p.stat().st_mtime_ns for p in (workdir / 'checkpoints').rglob('*') if p.is_file()}
    before = (workdir / 'predictions.csv').read_bytes()
    assert run(root, workdir).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in (workdir / 'checkpoints').rglob('*') if p.is_file()} == stamps
    assert (workdir / 'predictions.csv').read_bytes() == before


def moments(rng):
    """(what the moment is, is it reached?) in the order of a run; reached(workdir) is polled."""
    def prepared(n):
        return lambda w: len(list(w.glob('store/*/parts/*.npy'))) >= n

    def after(steps, seconds):
        seen = []

        def reached(w):
            if not seen and len(rows_quietly(w)) >= steps:
                seen.append(time.monotonic())
            return bool(seen) and time.monotonic() - seen[0] >= seconds
        return reached

    def saving(step):
        return lambda w: bool(list((w / 'checkpoints').glob(f'{step}*tmp*')))

    yield 'preparing', prepared(rng.randrange(2, 8))
    yield 'preparing', prepared(rng.randrange(12, 30))
    yield 'packing or starting', lambda w: bool(list(w.glob('store/*/packing')) or list(w.glob('store/*/table.json')))
    yield 'before the first checkpoint', lambda w: (w / 'metrics.jsonl').exists()
    yield 'during a save', saving(2)
    yield 'after some steps', after(4, rng.uniform(0, 0.2))
    yield 'during a save', saving(8)
    yield 'after some steps', after(8, rng.uniform(0, 0.3))
    yield 'around the last save', after(12, 0.0)
    yield 'during evaluation', lambda w: (w / 'checkpoints' / '12').is_dir() and len(rows_quietly(w)) == 12


def rows_quietly(workdir):
    try:
        return (workdir / 'metrics.jsonl').read_text().splitlines()
    except OSError:
        return []


def kill_at(root, workdir, reached):
    """Starts the command and kills it, with all that it started, at the moment; False if it ended before."""
    process = subprocess.Popen(command(root, workdir, *SMALL), env=environment(), cwd=root, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 200
        while process.poll() is None:
            assert time.monotonic() < deadline
            if reached(workdir):
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.001)
        return False
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_killed_ten_times_and_still_the_same_run(root, uninterrupted, tmp_path):
    """One run, killed at ten seeded moments in turn, each time followed by the same command."""
    workdir = tmp_path / 'run'
    killed = [kill_at(root, workdir, reached) for _, reached in moments(random.Random(2))]
    assert all(killed), killed
    result = run(root, workdir)
    assert result.returncode == 0, result.stderr
    same_run(workdir, uninterrupted[0])


@pytest.mark.slow
@pytest.mark.parametrize('moment', range(10))
def test_killed_once_at_each_moment(root, uninterrupted, tmp_path, moment):
    name, reached = list(moments(random.Random(moment)))[moment]
    assert kill_at(root, tmp_path / 'run', reached), name
    result = run(root, tmp_path / 'run')
    assert result.returncode == 0, result.stderr
    same_run(tmp_path / 'run', uninterrupted[0])


@pytest.mark.parametrize('number,code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_goes_on(root, uninterrupted, tmp_path, number, code):
    workdir = tmp_path / 'run'
    process = subprocess.Popen(command(root, workdir, *SMALL), env=environment(), cwd=root, text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and len(rows_quietly(workdir)) < 2:
        time.sleep(0.001)
    process.send_signal(number)
    error = process.communicate(timeout=100)[1]
    assert process.returncode == code, error
    assert re.search(r'saved at step \d+: the same command goes on', error) and 'Traceback' not in error
    step = int(re.search(r'saved at step (\d+)', error)[1])
    assert (workdir / 'checkpoints' / str(step)).is_dir() and len(rows(workdir)) == step < 12
    assert run(root, workdir).returncode == 0
    same_run(workdir, uninterrupted[0])


@pytest.mark.parametrize('args,message', [
    (['--config.data.source=manifest', '--config.data.root=nowhere.csv'], 'nowhere.csv'),
    (['--config.data.source=foldr'], 'folder'),
    (['--config.data.root=scans'], '--config.data.source'),
    (['--config.train.lrr=1'], 'no field --config.train.lrr: did you mean --config.train.lr'),
    (['--config.epochs=1'], 'did you mean --config.train.epochs'),
    (['--config.method.depth=6'], 'did you mean --config.views.depth'),
    (['--config.train.lr=fast'], 'train.lr'),
    (['--config.train.batch=9'], 'even'),
    (['--config.method=cmcc'], 'cmc|supervised'),
    (['--config.ensemble.runs=runs/nowhere,runs/neither'], 'folders of finished runs'),
    (['--config.model.name=ResNest14small'], 'ResNeSt14Small'),
    (['--wrokdir=x'], 'wrokdir'),
    (['workdir=x'], 'not a flag'),
    (['--config.views.depth=99'], 'depth'),
    (['--config.eval.tta=-1'], 'tta'),
    (['--config.seeds=0'], 'seeds'),
    (['--num_processes=2'], 'go together'),
    (["--config.data.classes=('covid',)"], 'two or more'),
])
def test_a_mistake_is_one_helpful_line(root, tmp_path, args, message):
    result = run(root, tmp_path / 'run', *args)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert result.stderr.count('\n') == 1 and 'Traceback' not in result.stderr + result.stdout
    assert not (tmp_path / 'run' / 'config.json').exists()


@pytest.mark.parametrize('config,message', [('configs/cmcc.py', 'configs/cmcc.py'), ('configs/cmc.py:modle4', 'modle4'),
                                            ('configs/cmc.py:size=huge', 'size=small'),
                                            ('configs/cmc.py:model5,size=small', 'set --config.model1.views.depth')])
def test_a_mistyped_config_or_row(root, tmp_path, config, message):
    result = run(root, tmp_path / 'run', config=config)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count('\n') == 1, result.stderr


def test_another_run_in_the_same_folder_is_refused(root, uninterrupted):
    result = run(root, uninterrupted[0], '--config.train.lr=0.5')
    assert result.returncode == 2 and 'train.lr: 0.0006 there, 0.5 now' in result.stderr, result.stderr


def test_a_loss_that_is_not_finite_stops_the_run(root, tmp_path):
    result = run(root, tmp_path / 'run', '--config.train.lr=1e30', '--config.train.lr_steps=()')
    assert result.returncode == 2 and 'Traceback' not in result.stderr
    step = int(re.search(r'not finite at step (\d+)', result.stderr)[1])
    saved = [int(p.name) for p in (tmp_path / 'run' / 'checkpoints').iterdir() if p.name.isdigit()]
    assert all(s <= step for s in saved)
    assert all(np.isfinite(v) for r in rows(tmp_path / 'run') for v in r.values())


def test_a_folder_of_text_files(root, tmp_path):
    for name in ('covid', 'normal'):
        folder = tmp_path / 'data' / name / 'scan1'
        folder.mkdir(parents=True)
        (folder / 'notes.txt').write_text('hello')
    result = run(root, tmp_path / 'run', '--config.data.source=folder', f'--config.data.root={tmp_path / "data"}')
    assert result.returncode == 2 and 'notes.txt' in result.stderr and result.stderr.count('\n') == 1, result.stderr


def test_ctrl_c_while_scans_are_prepared(root, tmp_path):
    """A terminal sends it to the preparing processes, too: the command ends soon and keeps what was prepared."""
    # a shell's background jobs, and what they start, ignore it
    heeding = ['-c', 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])']
    args = command(root, tmp_path / 'run', *SMALL, '--config.data.workers=2', '--config.data.phantom.train=400')
    process = subprocess.Popen([sys.executable, *heeding, *args], env=environment(), cwd=root, text=True,
                               start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 200
        while len(list(tmp_path.glob('run/store/*/parts/*.npy'))) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 130 and error.startswith('covid_jax: interrupted: the same command goes on\n'), error
    assert 'Traceback' not in error
    assert len(list(tmp_path.glob('run/store/*/parts/*.npy'))) >= 3


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def test_two_processes_equal_one(root, tmp_path):
    """Two hosts on loopback against one with as many devices: the same losses, parameters and predictions."""
    extra = ['--config.train.optimizer=sgd', '--config.train.lr=0.01', '--config.train.epochs=2',
             '--config.train.log_every=1']
    single = run(root, tmp_path / 'one', *extra, devices=2)
    assert single.returncode == 0, single.stderr
    port = free_port()
    hosts = [subprocess.Popen(command(root, tmp_path / 'two', *SMALL, *extra, f'--coordinator=127.0.0.1:{port}',
                                      '--num_processes=2', f'--process_id={i}'), env=environment(1), cwd=root, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) for i in range(2)]
    outputs = [p.communicate(timeout=300) for p in hosts]
    assert [p.returncode for p in hosts] == [0, 0], outputs
    one, two = rows(tmp_path / 'one'), rows(tmp_path / 'two')
    assert [r['step'] for r in two] == [0, 1, 2, 3]
    np.testing.assert_allclose([r['loss'] for r in one], [r['loss'] for r in two], atol=1e-5)
    a, b = arrays(tmp_path / 'one'), arrays(tmp_path / 'two')
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-4 * max(np.abs(a[name]).max(), 1e-6), rtol=0, err_msg=name)
    tables = [(tmp_path / w / 'predictions.csv').read_text().splitlines() for w in ('one', 'two')]
    assert [line.rsplit(',', 2)[0] for line in tables[0]] == [line.rsplit(',', 2)[0] for line in tables[1]]
    probability = [[float(line.rsplit(',', 1)[1]) for line in t[1:]] for t in tables]
    np.testing.assert_allclose(*probability, atol=1e-4)


ROWS_OF_A_HOST = """
import sys
from pathlib import Path
import numpy as np
import jax
from covid_jax.config import base
from covid_jax.data import order as orders
from covid_jax.data import pipeline
if __name__ == '__main__':
    port, hosts, host, start, count, out = sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6]
    if hosts > 1:
        jax.distributed.initialize(f'127.0.0.1:{port}', hosts, host)
    c = base()
    c.data.phantom.update(train=11, val=2, test=2)
    c.data.workers = 1
    c.prep.size = (4, 8, 8)
    store = Path(out).parent / 'store'
    d = pipeline.prepare(pipeline.survey(c, store), store, 1)
    order = orders.make(d, 'shuffle', 8, 0)
    with pipeline.train_batches(d, order, 8, start, jax.process_index(), jax.process_count()) as batches:
        steps = [next(batches) for _ in range(count)]
    np.savez(out, **{k: np.stack([s[k] for s in steps]) for k in steps[0]})
"""


def test_rows_of_two_real_hosts_equal_those_of_one(root, tmp_path):
    """Steps 0 to 9, and a run of one host that goes on at step 6 on two."""
    script = tmp_path / 'rows.py'
    script.write_text(ROWS_OF_A_HOST)

    def start(hosts, host, first, count, port):
        args = [sys.executable, script, port, hosts, host, first, count, tmp_path / f'{hosts}-{host}-{first}.npz']
        return subprocess.Popen(list(map(str, args)), env=environment(), cwd=root)

    def both(first, count):
        port = free_port()
        processes = [start(2, h, first, count, port) for h in range(2)]
        assert [p.wait(200) for p in processes] == [0, 0]
        parts = [np.load(tmp_path / f'2-{h}-{first}.npz') for h in range(2)]
        return {k: np.concatenate([p[k] for p in parts], 1) for k in parts[0]}

    assert start(1, 0, 0, 10, 0).wait(200) == 0
    one = np.load(tmp_path / '1-0-0.npz')
    whole, rest = both(0, 10), both(6, 4)
    for name in one:
        np.testing.assert_array_equal(whole[name], one[name])
        np.testing.assert_array_equal(rest[name], one[name][6:])
    assert len({hashlib.sha256(x.tobytes()).hexdigest() for x in one['image'].reshape(80, -1)}) == 11
