"""What the processes of a run over several hosts have to agree on. Of a run on one host each is what it was given."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from covid_jax import UserError


def agree(error: UserError | None) -> None:
    """Raises the error on every host where one host has met one."""
    if jax.process_count() > 1 and multihost_utils.process_allgather(np.bool_(error is not None)).any():
        error = error or UserError('another host has stopped: its line says why')
    if error:
        raise error


def highest(number: int) -> int:
    """The highest number, of 32 bits, that any host has."""
    return int(multihost_utils.process_allgather(np.int32(number)).max()) if jax.process_count() > 1 else number


def check_same(digest: str) -> None:
    """UserError on every host where not all have the same exams to learn from, as of a folder that they do not share. digest: of them,
    hexadecimal."""
    mine = np.frombuffer(bytes.fromhex(digest), np.uint8)
    if jax.process_count() > 1 and (multihost_utils.process_allgather(mine) != mine).any():
        raise UserError('the hosts have chosen other exams: give all of them the same --workdir, on a disk that they share')


def check_equal(mine: Mapping[str, Any]) -> None:
    """UserError on every host where not all are given the same, {name: what JSON keeps}; it says what differs."""
    if jax.process_count() == 1:
        return
    first = json.loads(_of_first(json.dumps(mine)))
    here = json.loads(json.dumps(mine))
    differ = [f'{name} is {here.get(name)} here, {first.get(name)} on the first' for name in sorted({*first, *here})
              if here.get(name) != first.get(name)]
    agree(UserError(f'host {jax.process_index()} was given another run ({"; ".join(differ[:5])}): give all hosts the same command and the '
                    'same installation') if differ else None)


def _of_first(text):
    """The text that the first host has."""
    mine = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(mine))))
    return multihost_utils.broadcast_one_to_all(np.resize(mine, length)).tobytes().decode()
