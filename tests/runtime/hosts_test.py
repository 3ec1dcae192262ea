"""What hosts have to agree on, as each of two sees it; tests/main_test.py has two real ones."""

import json

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


def test_hosts_that_are_given_different_things_are_told_which(monkeypatch):
    """As the second of two hosts sees it; the first sees no difference, and hears of one."""
    first = {'train.lr': 0.1, 'jax': '0.10.2', 'prep.size': (1, 2, 3), 'seed': 0}
    text = np.frombuffer(json.dumps(first).encode(), np.uint8)
    sent = iter([np.int32(len(text)), text] * 2)
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    monkeypatch.setattr(multihost_utils, 'broadcast_one_to_all', lambda mine: next(sent))
    monkeypatch.setattr(multihost_utils, 'process_allgather', lambda mine: np.stack([mine, mine]))
    hosts.check_equal(first)
    with pytest.raises(UserError, match=r'host 1 was given another run \(jax is 0.11.0 here, 0.10.2 on the first; new is 1 here, None on the '
                       r'first; train.lr is 0.2 here, 0.1 on the first\): give all hosts the same'):
        hosts.check_equal(first | {'train.lr': 0.2, 'jax': '0.11.0', 'new': 1})
