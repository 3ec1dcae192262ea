import ctypes
import os
import signal

import pytest

from covid_jax.runtime.interrupt import requests


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
