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
