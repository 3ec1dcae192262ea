"""What the processes of a run over several hosts have to agree on. Of a run on one host each is what it was given."""

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
