"""The real command: what a user sees of it, what survives being killed, and the same run on two hosts."""

import csv
import hashlib
import itertools
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
from conftest import QUICK, ROOT, single_image_config, small_config
from PIL import Image
from small_scans import hasten

from covid_jax import UserError, experiment, flags, main
from covid_jax.config import base, set_stages
from covid_jax.data import lineage, negatives, pipeline
from covid_jax.data import order as orders
from covid_jax.predictions import of_run, read
from covid_jax.ranking import select
from covid_jax.report import evidence

SMALL = ['--config.data.phantom.train=16', '--config.data.phantom.val=8', '--config.data.phantom.test=8',
         '--config.data.workers=1', '--config.prep.size=(8,16,16)', '--config.views.depth=6',
         '--config.cmc.projection=8', '--config.model.name=_ResNetTiny', '--config.train.batch=8',
         '--config.train.epochs=6', '--config.eval.tta=2']


def environment(devices=1):
    return {**os.environ, 'XLA_FLAGS': f'{QUICK} --xla_force_host_platform_device_count={devices}', 'JAX_PLATFORMS': 'cpu'}


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
    for name in ('predictions.csv', 'metrics.json', 'exams.csv', 'results.json', 'network.txt', 'report.json'):
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
            'confusion_test.png', 'confusion_val.png', 'exams.csv', 'network.txt', 'results.json', 'seconds.json', 'report.html', 'report.json', 'looks.npz'} <= names
    assert any(n.startswith('events.out') for n in names) and not [n for n in names if n.endswith('.tmp')]
    with open(workdir / 'predictions.csv', newline='') as f:
        table = list(csv.DictReader(f))
    assert list(table[0]) == ['id', 'patient', 'site', 'split', 'label', 'p_noncovid', 'p_covid']
    assert [r['split'] for r in table] == ['val'] * 8 + ['test'] * 8 and len({r['id'] for r in table}) == 16
    assert all(abs(float(r['p_noncovid']) + float(r['p_covid']) - 1) < 2e-6 for r in table)
    metrics = json.loads((workdir / 'metrics.json').read_text())
    accuracy = metrics['test']['all']['accuracy']
    right = sum((float(r['p_covid']) >= 0.5) == (r['label'] == 'covid') for r in table if r['split'] == 'test')
    assert accuracy['value'] == right / 8 and accuracy['low'] <= right / 8 <= accuracy['high'] and accuracy['level'] == 0.95
    assert accuracy['note'].startswith('interval: 8 patients') and accuracy['note'] in result.stdout
    assert 'accuracy' in result.stdout and str(workdir) in result.stdout and 'not a medical device' in result.stdout
    assert result.stdout.count('compiling the first step') == 1 and result.stderr == ''


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


def stop_at(root, workdir, reached, number, *args, group=False):
    """Starts the command and sends it, or with it all that it started, a signal at the moment. (exit code, what it said), or
    None where it ended before."""
    # a shell's background jobs, and what they start, ignore SIGINT
    heeding = ['-c', 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])']
    process = subprocess.Popen([sys.executable, *heeding, *command(root, workdir, *SMALL, *args)], env=environment(), cwd=root,
                               text=True, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 200
        while process.poll() is None:
            assert time.monotonic() < deadline
            if reached(workdir):
                (os.killpg if group else os.kill)(process.pid, number)
                error = process.communicate(timeout=100)[1]
                return process.returncode, error
            time.sleep(0.001)
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_stopped_in_every_way_and_still_the_same_run(root, uninterrupted, tmp_path):
    """One run: Ctrl-C and kill -9 while scans are prepared, kill -9 during a save, SIGTERM and Ctrl-C between steps, each
    followed by the same command."""
    workdir = tmp_path / 'run'

    def prepared(n):
        return lambda w: len(list(w.glob('store/*/parts/*.npy'))) >= n

    # a terminal sends it to the preparing processes, too: the command ends soon and keeps what was prepared
    code, error = stop_at(root, workdir, prepared(3), signal.SIGINT, '--config.data.workers=2', group=True)
    assert code == 130 and error.startswith('covid_jax: interrupted: the same command goes on\n') and 'Traceback' not in error
    assert prepared(3)(workdir) and not prepared(32)(workdir)
    for reached in (prepared(12), lambda w: list(w.glob('checkpoints/2*tmp*'))):
        code, _ = stop_at(root, workdir, reached, signal.SIGKILL)
        assert code == -signal.SIGKILL
    before = 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        ended, error = stop_at(root, workdir, lambda w, n=before: len(rows_quietly(w)) > max(n, 2), number)
        assert ended == code and 'Traceback' not in error, error
        step = int(re.search(r'saved at step (\d+): the same command goes on', error)[1])
        assert (workdir / 'checkpoints' / str(step)).is_dir() and before < len(rows(workdir)) == step < 12
        before = step
    result = run(root, workdir)
    assert result.returncode == 0 and f'{workdir} goes on from step {before}\n' in result.stdout, result.stderr
    same_run(workdir, uninterrupted[0])


@pytest.mark.slow
@pytest.mark.parametrize('seeds', [[2] * 10, *([seed] for seed in range(10))], ids=['one after another', *map(str, range(10))])
def test_killed_at_each_moment_and_still_the_same_run(root, uninterrupted, tmp_path, seeds):
    """Ten seeded moments in turn, or one alone."""
    workdir = tmp_path / 'run'
    for moment, seed in enumerate(seeds, start=seeds[0] if len(seeds) == 1 else 0):
        name, reached = list(moments(random.Random(seed)))[moment]
        assert stop_at(root, workdir, reached, signal.SIGKILL), name
    result = run(root, workdir)
    assert result.returncode == 0, result.stderr
    same_run(workdir, uninterrupted[0])


TALKATIVE = """
import logging
from absl import logging as absl_logging
from covid_jax import main

def command(arguments):
    import jax

    @jax.jit
    def slow(x):  # XLA works out a constant for more than a second, and says so at its level of errors
        row = jax.lax.broadcasted_iota('float32', (4, 400), 1)
        return x + jax.lax.reduce_window(row, 0.0, jax.lax.add, (1, 399), (1, 1), 'SAME').sum()

    logging.getLogger('jax._src.xla_bridge').info('no TPU')
    logging.getLogger('jax._src.xla_bridge').warning('a GPU is there, and is not used')
    absl_logging.warning('a step was saved')
    slow(1.0)
    jax.numpy.zeros(2**50).block_until_ready()

main.run_and_exit(command)
"""


def test_libraries_are_silent_and_what_they_raise_is_told(root):
    """A missing TPU, saves and a slow compilation are not told; a processor that is not used is, and so is what cannot be had."""
    env = {name: value for name, value in environment().items() if name not in ('TF_CPP_MIN_LOG_LEVEL', 'JAX_PLATFORMS')}
    env['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
    result = subprocess.run([sys.executable, '-c', TALKATIVE], env=env, cwd=root, text=True, capture_output=True, timeout=200)
    said, _, raised = result.stderr.partition('Traceback')
    assert len(said.splitlines()) == 1 and 'a GPU is there, and is not used' in said and result.stdout == ''
    assert result.returncode == 1 and 'RESOURCE_EXHAUSTED' in raised


def refused(root, workdir, *args):
    """What the same command says, in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as e:
        patch.chdir(root)
        main.train(command(root, workdir, *SMALL, *args)[3:])
    assert '\n' not in str(e.value)
    return str(e.value)


@pytest.mark.parametrize('args, message', [
    (['--config.data.source=manifest', '--config.data.root=nowhere.csv'], 'nowhere.csv'),
    (['--config.data.source=foldr'], 'folder'),
    (['--config.data.root=scans'], '--config.data.source'),
    (['--config.method=cmcc'], 'cmc|cmt|cross_site|moco|rubik|supervised'),
    (['--config.ensemble.runs=runs/nowhere,runs/neither'], 'give the folder of a finished run'),
    (['--config.model.name=ResNest14small'], 'ResNeSt14Small'),
    (['--config.views.depth=99'], 'depth'),
    (['--config.seeds=0'], 'seeds'),
    (['--num_processes=2'], 'go together'),
    (["--config.data.classes=('covid',)"], 'two or more'),
])
def test_a_mistake_is_one_helpful_line(root, tmp_path, args, message):
    assert message in refused(root, tmp_path / 'run', *args)
    assert not (tmp_path / 'run').exists()


def test_a_mistake_ends_the_process_with_its_code(root, tmp_path):
    """No config, which needs no heavy import, and no network."""
    for config, *args, message in (('nowhere.py', 'nowhere.py'), ('configs/cmc.py', '--config.model.name=Resnet', 'ResNet')):
        result = run(root, tmp_path / 'run', *args, config=config)
        assert result.returncode == 2 and message in result.stderr and not result.stdout, result.stderr
        assert result.stderr.startswith('covid_jax: ') and result.stderr.count('\n') == 1


def test_who_reads_the_output_may_stop_reading(root):
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([sys.executable, '-m', 'covid_jax.main', '--help'], cwd=root, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (result.returncode, result.stderr) == (main.NOBODY_READS, b'')


def test_another_run_in_the_same_folder_is_refused(root, uninterrupted):
    assert 'train.lr: 0.0006 there, 0.5 now' in refused(root, uninterrupted[0], '--config.train.lr=0.5')


def test_a_folder_of_text_files(root, tmp_path):
    for name in ('covid', 'normal'):
        folder = tmp_path / 'data' / name / 'scan1'
        folder.mkdir(parents=True)
        (folder / 'notes.txt').write_text(f'hello {name}')
    assert 'notes.txt' in refused(root, tmp_path / 'run', '--config.data.source=folder', f'--config.data.root={tmp_path / "data"}')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.mark.parametrize('row', ['baseline,size=small', pytest.param('model4,size=small', marks=pytest.mark.slow)])
def test_two_processes_equal_one(root, tmp_path, row):
    """Two hosts on loopback against one with as many devices: the same losses, parameters and predictions."""
    config = f'configs/cmc.py:{row}'
    extra = ['--config.train.optimizer=sgd', '--config.train.lr=0.01', '--config.train.epochs=4', '--config.train.log_every=1',
             '--config.data.phantom.train=8', '--config.data.phantom.val=4', '--config.data.phantom.test=4',
             f'--config.data.store={tmp_path / "store"}', '--config.eval.tta=0']
    single = run(root, tmp_path / 'one', *extra, devices=2, config=config)
    assert single.returncode == 0, single.stderr
    port = free_port()
    hosts = [subprocess.Popen(command(root, tmp_path / 'two', *SMALL, *extra, f'--coordinator=127.0.0.1:{port}',
                                      '--num_processes=2', f'--process_id={i}', config=config), env=environment(1), cwd=root, text=True,
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


def rows_of_a_host(store, start, count):
    """{field: [steps, rows, ...]} that this host reads."""
    c = base()
    c.data.phantom.update(train=11, val=2, test=2)
    c.data.workers = 1
    c.prep.size = (4, 8, 8)
    d = pipeline.prepare(pipeline.survey(c, store), store, 1)
    order = orders.make(d, 'shuffle', 8, 0)
    with pipeline.train_batches(d, order, 8, start, jax.process_index(), jax.process_count()) as batches:
        steps = [next(batches) for _ in range(count)]
    return {k: np.stack([s[k] for s in steps]) for k in steps[0]}


ONE_OF_TWO_HOSTS = """
import os
import sys
from pathlib import Path
import jax
import numpy as np
from main_test import parts_of_a_host, rows_of_a_host
if __name__ == '__main__':
    port, host, folder = sys.argv[1:]
    os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0'  # one device
    jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(host))
    for start, count in (0, 10), (6, 4):
        np.savez(Path(folder, f'{host}-{start}.npz'), **rows_of_a_host(Path(folder, 'store'), start, count))
    parts_of_a_host(folder)
"""


def all_kinds():
    """A training on a few images, what it answers about all of them, a probe of it, a ranking by it, and a training on a choice from that."""
    c = single_image_config(epochs=1.0)
    with c.unlocked():
        c.data.phantom.update(train=8, val=4, test=4)
        set_stages(c, {
            'one': {'kind': 'train'}, 'matrix': {'kind': 'cross', 'cross': {'runs': 'one', 'sources': 'phantom'}},
            'probed': {'kind': 'probe', 'init_from': 'one'},
            'ranks': {'kind': 'rank', 'init_from': 'one'},
            'chosen': {'data': {'negatives': {'ranking': 'ranks', 'count': 2}}}})
    return c


def parts_of_a_host(folder):
    """All parts, the first host slow to leave its results; then what it finds out alone."""
    leave = experiment.write_results

    def late(*args):
        time.sleep(2)
        leave(*args)

    experiment.write_results = late
    hasten(pytest.MonkeyPatch())
    experiment.run(all_kinds(), Path(folder, 'run'))
    c = single_image_config(epochs=1.0)
    c.ensemble.runs = f'{folder}/run/one,{folder}/run/nowhere'
    with pytest.raises(UserError) as error:
        experiment.run(c, Path(folder, 'mean'))
    print('refused:', error.value)
    c = single_image_config(epochs=1.0)  # with a ranking that one host does not find
    c.data.phantom.update(train=8, val=4, test=4)
    c.data.negatives.update(ranking=f'{folder}/run/ranks', count=2)
    read = negatives.read
    calls = itertools.count()
    negatives.read = lambda path: read('nowhere' if next(calls) and jax.process_index() else path)
    with pytest.raises(UserError) as error:
        experiment.run(c, Path(folder, 'chosen'))
    print('refused:', error.value)


@pytest.fixture(scope='module')
def two_hosts(root, tmp_path_factory):
    """(the folder of both, rows of one host, what each of two said)."""
    folder = tmp_path_factory.mktemp('hosts')
    one = rows_of_a_host(folder / 'store', 0, 10)
    script = folder / 'hosts.py'
    script.write_text(ONE_OF_TWO_HOSTS)
    env = environment() | {'PYTHONPATH': f'{root}:{root / "tests"}'}
    port = free_port()
    hosts = [subprocess.Popen([sys.executable, script, str(port), str(host), folder], env=env, cwd=root, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) for host in range(2)]
    try:
        outputs = [p.communicate(timeout=500) for p in hosts]
    finally:  # of a host that waits in vain
        for process in hosts:
            process.kill()
    assert [p.returncode for p in hosts] == [0, 0], outputs
    return folder, one, [said for said, _ in outputs]


def test_rows_of_two_real_hosts_equal_those_of_one(two_hosts):
    """Steps 0 to 9, and a run of one host that goes on at step 6 on two."""
    folder, one, _ = two_hosts
    for start in (0, 6):
        parts = [np.load(folder / f'{host}-{start}.npz') for host in range(2)]
        for name in one:
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts], 1), one[name][start:])
    assert len({hashlib.sha256(x.tobytes()).hexdigest() for x in one['image'].reshape(80, -1)}) == 11


def test_all_kinds_of_parts_on_two_real_hosts(two_hosts):
    """The network answers the matrix and the probe as it answered its own exams, the matrix is printed once, both learn from the same
    choice of a ranking that one has written, and what one host finds out stops both."""
    folder, _, (first, second) = two_hosts
    assert first.count('rows: learnt from') == 1 and 'nowhere holds no predictions.csv' in first
    told = [line for line in second.splitlines() if line.startswith('refused: ')]
    assert told[0] == 'refused: another host has stopped: its line says why' and 'nowhere holds no ranking.csv' in told[1]
    assert 'refused: another host has stopped: its line says why' in first and 'rows:' not in second

    own = of_run(folder / 'run/one')
    asked = read(folder / 'run/matrix/one_on_phantom.csv')
    of_exam = {exam.id: p for exam, p in zip(asked.exams, asked.probability, strict=True)}
    assert len(of_exam) == 16 and asked.columns['seen'].sum() == 12
    np.testing.assert_allclose([of_exam[exam.id] for exam in own.exams], own.probability, atol=1e-5)
    answers, _ = evidence.read(folder / 'run/probed')
    np.testing.assert_allclose(answers[evidence.SELF].probability, own.probability, atol=1e-5)
    assert of_run(folder / 'run/probed').splits == ('val', 'test')

    ranking = negatives.read(folder / 'run/ranks')
    taken = select.choose(np.arange(1, 5), 2, 'long-tail', 0)
    learnt = {row.exam.id for row in lineage.read(folder / 'run/chosen') if row.exam.split == 'train' and row.exam.label != 'covid' and not row.run}
    assert learnt == {ranking.exams[i].id for i in taken}
    run, _ = first.split('refused: ', 1)
    assert run.count('of 4 exams of train without COVID 2 are learnt from') == 1


def test_slices_of_their_own_aspect_from_training_to_a_probe(tmp_path):
    """Noise of four shapes, of which the brighter is covid: seen and answered in crops, then probed."""
    for i in range(40):
        path = tmp_path / 'data' / ('covid' if i % 2 else 'normal') / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = ((20, 33), (40, 25), (30, 30), (12, 60))[i // 2 % 4]
        noise = np.random.default_rng(i).integers(120 * (i % 2), 135 + 120 * (i % 2), (height, width), np.uint8)
        Image.fromarray(noise).save(path)
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.data.update(source='folder', root=str(tmp_path / 'data'), store=str(tmp_path / 'store'))
        c.prep.update(size=(1, 24, 24), keep_aspect=True)
        c.views.update(name='cross_site', depth=0, plane=16)
        c.model.name = '_COVIDNetTiny'
        c.train.update(epochs=4.0, lr=1e-2)
    experiment.run(c, tmp_path / 'run')
    own = of_run(tmp_path / 'run')
    assert (own.probability.argmax(1) == own.label).mean() > 0.9
    assert 'thumbnail' in json.loads((tmp_path / 'run' / 'shortcuts.json').read_text())['test']
    c = flags.load(str(ROOT / 'configs' / 'probe.py'))
    c.init_from = str(tmp_path / 'run')
    c.data.store = str(tmp_path / 'store')
    experiment.run(c, tmp_path / 'probed')
    answers, notes = evidence.read(tmp_path / 'probed')
    np.testing.assert_array_equal(answers[evidence.SELF].probability, own.probability)
    assert any('central 70 % blacked in 40 scans' in note for note in notes)
