"""Several hosts become one run, and the end of one is soon the end of all, in one line."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from covid_jax import UserError
from covid_jax.runtime.interrupt import STOPS

LOST = 75  # exit code where another host is gone: the same command on all hosts goes on
GONE = 'another host has ended, or is not heard of: its lines say why; the same command on all hosts goes on'
SECONDS_TO_MEET = 600  # in which all hosts have to come
SECONDS_OF_SILENCE = 60  # after which a host is taken for gone
ABOVE = 'COVID_JAX_SUPERVISOR'  # the process that watches over this one
LOOPBACK = 'localhost', '127.0.0.1', '[::1]'
OF_LOST_HOSTS = 'Gloo', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'coordination service', 'heartbeat'  # words of errors of jax


def check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """UserError for hosts by hand that cannot be. All three are None where jax finds them by itself."""
    given = coordinator, num_processes, process_id
    if given == (None, None, None):
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise UserError('--coordinator, --num_processes and --process_id go together')
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f'--coordinator={coordinator} must be HOST:PORT of process 0, as 10.0.0.1:1234')
    if num_processes < 1:
        raise UserError(f'--num_processes={num_processes} must be at least 1')
    if not 0 <= process_id < num_processes:
        raise UserError(f'--process_id={process_id} must be from 0 to {num_processes - 1}, for --num_processes={num_processes}')


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of the hosts of a run, which all meet here. UserError where that cannot be."""
    import jax

    bind = coordinator if coordinator and coordinator.rpartition(':')[0] in LOOPBACK else None
    if coordinator and process_id == 0:
        _check_free(bind or f'[::]:{coordinator.rpartition(":")[2]}')
    _end_with(os.environ.get(ABOVE))
    jax.config.update('jax_enable_preemption_service', False)  # it would take SIGTERM from interrupt.py
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, initialization_timeout=SECONDS_TO_MEET,
                                   heartbeat_timeout_seconds=SECONDS_OF_SILENCE, coordinator_bind_address=bind)
    except ValueError:
        raise UserError('--distributed finds no TPU pod, no SLURM job and no other cluster here: leave it, or give --coordinator, '
                        '--num_processes and --process_id') from None
    _connect()


def _connect():
    """Connects all devices, as a training step does. A first exchange waits for half a minute alone, and later ones for as long as it
    takes: now all hosts are here, and later one may still compile."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from covid_jax.runtime.mesh import by_batch, make_mesh, replicated

    mesh = make_mesh()
    ones = jax.make_array_from_callback((mesh.size,), by_batch(mesh), lambda part: np.ones(1, np.float32))
    jax.jit(jnp.sum, out_shardings=replicated(mesh))(ones).block_until_ready()


def is_lost(error: BaseException) -> bool:
    """Whether an error of jax says that another host is gone."""
    import jax

    return jax.process_count() > 1 and any(word in str(error) for word in OF_LOST_HOSTS)


def supervised(say: Callable[[str], None]) -> int:
    """Runs the command of this process in one below it, for jax aborts a process whose peers are gone, in lines of its own. Returns its
    exit code; LOST in place of an abort, which is said. Signals go on to it."""
    below = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env={**os.environ, ABOVE: str(os.getpid())}, process_group=0)
    for number in STOPS:
        signal.signal(number, lambda signum, frame: below.send_signal(signum))
    code = below.wait()
    if code == -signal.SIGABRT:
        say(GONE)
        return LOST
    if code == -signal.SIGKILL:
        say('the process was killed, of too little memory perhaps; the same command on all hosts goes on')
    return 128 - code if code < 0 else code


def is_supervised() -> bool:
    """Whether this process is one below."""
    return ABOVE in os.environ


def _check_free(address):
    host, _, port = address.rpartition(':')
    family = socket.AF_INET6 if host.startswith('[') else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host.strip('[]'), int(port)))
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise UserError(f'port {port} of this host is in use: give all hosts another port in --coordinator') from None


def _end_with(above):
    """Ends this process when the one above it is gone."""
    def watch():
        while os.getppid() == int(above):
            time.sleep(1)
        os._exit(LOST)

    if above:
        threading.Thread(target=watch, daemon=True).start()
