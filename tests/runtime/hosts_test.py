"""What hosts have to agree on, as each of two sees it; tests/main_test.py has two real ones."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from covid_jax import UserError
from covid_jax.runtime import hosts


@pytest.fixture
def other(monkeypatch):
    """other(value): a second host, which gives this value where all are gathered."""
    def there(value):
        monkeypatch.setattr(jax, 'process_count', lambda: 2)
        monkeypatch.setattr(multihost_utils, 'process_allgather', lambda mine: np.stack([mine, np.asarray(value, np.asarray(mine).dtype)]))
    return there


def test_an_error_of_one_is_an_error_of_all(other):
    hosts.agree(None)
    with pytest.raises(UserError, match='mine'):
        hosts.agree(UserError('mine'))
    other(True)
    with pytest.raises(UserError, match='another host has stopped'):
        hosts.agree(None)
    with pytest.raises(UserError, match='mine'):
        hosts.agree(UserError('mine'))
    other(False)
    hosts.agree(None)


def test_the_highest_number(other):
    assert hosts.highest(3) == 3
    other(5)
    assert (hosts.highest(3), hosts.highest(7)) == (5, 7)


def test_other_exams_on_another_host(other):
    hosts.check_same('00ff')
    other([0, 255])
    hosts.check_same('00ff')
    with pytest.raises(UserError, match='the hosts have chosen other exams: give all of them the same --workdir'):
        hosts.check_same('00fe')
