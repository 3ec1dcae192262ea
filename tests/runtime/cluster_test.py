"""Real processes as hosts: what becomes of the others where one is given something else, is late, hangs, dies or never comes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from covid_jax import UserError
from covid_jax.runtime import cluster

HOST = """
import os, signal, sys, time
from covid_jax.runtime import cluster
cluster.SECONDS_TO_MEET, cluster.SECONDS_OF_SILENCE = 5, 10
address, number, host = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def say(line):
    print('said:', line, flush=True)

if not cluster.is_supervised():
    sys.exit(cluster.supervised(say))
cluster.join(address, number, host)
print('met', os.getpid(), flush=True)
from jax.experimental import multihost_utils
from covid_jax.runtime import hosts
try:
    {}
    for step in range(10**6):
        hosts.highest(step)
        time.sleep(0.05)
except (RuntimeError, ValueError) as e:
    if not cluster.is_lost(e):
        raise
    say(cluster.GONE)
    os._exit(cluster.LOST)
"""


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


LATE = """
    import jax, numpy as np
    from covid_jax.runtime.mesh import by_batch, make_mesh, replicated
    mesh = make_mesh()
    if host:
        time.sleep(45)
    ones = jax.make_array_from_callback((mesh.size, 3), by_batch(mesh), lambda part: np.ones((1, 3), np.float32))
    print('sum', float(jax.jit(lambda x: (2 * x).sum(), out_shardings=replicated(mesh))(ones)), flush=True)
    os._exit(0)
"""


@pytest.fixture
def start(tmp_path):
    """start(host, of, address, what it does): a host, as a process that is gone when the test ends."""
    started = []

    def begin(host, of, address, then='pass', flags=''):
        script = tmp_path / f'host{host}.py'
        script.write_text(HOST.format(then))
        env = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags, 'TF_CPP_MIN_LOG_LEVEL': '3'}
        started.append(subprocess.Popen([sys.executable, script, address, str(of), str(host)], env=env, text=True, start_new_session=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        return started[-1]

    yield begin
    for process in started:
        for line in subprocess.run(['ps', '-o', 'pid=', '--ppid', str(process.pid)], capture_output=True, text=True, check=False).stdout.split():
            os.kill(int(line), signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdout.close()


def met(process):
    """The pid of the host itself, once all have met."""
    for line in process.stdout:
        if line.startswith('met'):
            return int(line.split()[1])
    raise AssertionError('it ended before it met the others')


@pytest.mark.parametrize('victim', [0, 1])
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
def test_a_host_that_dies_or_hangs_ends_the_others_in_a_line(start, victim, number):
    """The first, which all others hang on, and another."""
    address = f'127.0.0.1:{free_port()}'
    processes = [start(host, 2, address) for host in range(2)]
    pids = [met(process) for process in processes]
    os.kill(pids[victim], number)
    began = time.monotonic()
    said, _ = processes[1 - victim].communicate(timeout=60)
    assert processes[1 - victim].returncode == cluster.LOST and said.splitlines()[-1] == f'said: {cluster.GONE}', said
    assert time.monotonic() - began < 45


def test_a_host_that_never_comes_is_waited_for_and_said(start):
    alone = start(0, 2, f'127.0.0.1:{free_port()}')
    said, _ = alone.communicate(timeout=60)
    assert alone.returncode == cluster.LOST and said.splitlines()[-1] == f'said: {cluster.GONE}', said


@pytest.mark.slow  # a minute: connections are waited for no longer than 30 s
def test_a_host_that_compiles_for_long_is_waited_for(start):
    """Two hosts of two devices, the first exchange of all four of them after 45 s."""
    address = f'127.0.0.1:{free_port()}'
    processes = [start(host, 2, address, LATE, '--xla_force_host_platform_device_count=2') for host in range(2)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0] and all('sum 24.0' in lines for lines in said), said


def test_the_host_goes_with_the_process_above_it(start):
    address = f'127.0.0.1:{free_port()}'
    processes = [start(host, 2, address) for host in range(2)]
    pid, _ = [met(process) for process in processes]
    processes[0].kill()
    said, _ = processes[1].communicate(timeout=60)
    assert processes[1].returncode == cluster.LOST, said
    stat = Path(f'/proc/{pid}/stat')
    assert not stat.exists() or stat.read_text().rpartition(')')[2].split()[0] == 'Z'


def test_a_signal_goes_on_to_the_host(start):
    first = start(0, 1, f'127.0.0.1:{free_port()}')
    met(first)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=30) == 128 + signal.SIGTERM


def test_a_port_in_use_is_one_line(monkeypatch):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f'^port {port} of this host is in use: give all hosts another port in --coordinator$'):
            cluster.join(f'127.0.0.1:{port}', 2, 0)


def test_no_cluster_is_one_line(monkeypatch):
    for name in ('SLURM_JOB_ID', 'OMPI_MCA_orte_hnp_uri', 'KUBERNETES_SERVICE_HOST', 'JAX_COORDINATOR_ADDRESS'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('jax.distributed.initialize', lambda *args, **rest: (_ for _ in ()).throw(ValueError('coordinator_address')))
    with pytest.raises(UserError, match='--distributed finds no TPU pod, no SLURM job and no other cluster here'):
        cluster.join(None, None, None)


@pytest.mark.parametrize('given, message', [
    (('10.0.0.1:1234', 2, None), 'go together'), (('10.0.0.1', 2, 0), 'must be HOST:PORT'), (('host:99999', 2, 0), 'must be HOST:PORT'),
    ((':1234', 2, 0), 'must be HOST:PORT'), (('host:1234', 0, 0), '--num_processes=0 must be at least 1'),
    (('host:1234', 2, 2), '--process_id=2 must be from 0 to 1'), (('host:1234', 2, -1), '--process_id=-1 must be from 0 to 1')])
def test_hosts_by_hand_that_cannot_be_are_one_line(given, message):
    cluster.check('host:1234', 2, 1)
    cluster.check(None, None, None)
    with pytest.raises(UserError, match=message):
        cluster.check(*given)
