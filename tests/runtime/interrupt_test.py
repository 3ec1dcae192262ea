import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest

from covid_jax.runtime.interrupt import STOPS, leave, requests


def test_a_signal_is_a_request_and_a_second_ctrl_c_is_not():
    before = signal.getsignal(signal.SIGINT)
    with requests() as asked:
        assert asked() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            asked()
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize('steps, more', [(0, '; the first step is still being compiled'), (1, '')])
def test_the_first_signal_is_answered_while_python_waits_for_c(tmp_path, steps, more):
    """As it is while a step is compiled: no handler of Python is run. The file of stderr is copied before C returns."""
    stderr = os.dup(2)
    file = os.open(tmp_path / 'stderr', os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 2)
    try:
        with requests() as asked:
            for _ in range(steps):
                asked()
            kill = f'kill -TERM {os.getpid()}'
            ctypes.CDLL(None).system(f'{kill}; sleep 0.5; cp {tmp_path}/stderr {tmp_path}/then; {kill}; sleep 0.1'.encode())
            assert asked() == signal.SIGTERM
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(file)
    assert (tmp_path / 'then').read_text() == (tmp_path / 'stderr').read_text() == f'covid_jax: stopping after this step{more}\n'
    assert signal.set_wakeup_fd(-1) == -1


LEAVING = """
import os, signal, sys, time
from covid_jax.runtime import interrupt
interrupt.SECONDS_TO_EXIT = 0.5

def end(number):
    print('ended by', number, flush=True)
    return 128 + number

with interrupt.leave(end) as left:
    try:
        print('ready', flush=True)
        {}
    except BaseException as e:
        sys.exit(end(left()))
"""
LOST = """while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                pass"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('what', ['time.sleep(60)', LOST, 'import loads_for_ever', 'sys.exit(print("not an exit", time.sleep(60)))'])
def test_a_signal_ends_the_process_whatever_it_is_at(tmp_path, what, number):
    """Also where a library loses the exception, and where one is being loaded, which nothing may be raised in."""
    (tmp_path / 'loads_for_ever.py').write_text('import time\ntry:\n    time.sleep(60)\nexcept BaseException:\n    print("raised")\n')
    process = started(LEAVING.format(what), tmp_path)
    time.sleep(0.2)
    process.send_signal(number)
    said, error = process.communicate(timeout=20)
    assert (process.returncode, said, error) == (128 + number, f'ended by {int(number)}\n', '')


def started(script, folder):
    heeding = f'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{script}'  # a shell's background jobs ignore it
    process = subprocess.Popen([sys.executable, '-c', heeding], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == 'ready\n'
    return process


def test_a_signal_that_is_to_be_ignored_is_ignored(tmp_path):
    ignoring = LEAVING.replace('with interrupt', 'signal.signal(signal.SIGINT, signal.SIG_IGN)\nwith interrupt')
    process = started(ignoring.format('time.sleep(0.5); sys.exit(print("done"))'), tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0].startswith('done')


def test_the_handlers_are_those_of_before():
    before = [signal.getsignal(s) for s in STOPS]
    with leave(lambda number: 0) as left:
        assert left() == 0 and signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(s) for s in STOPS] == before
