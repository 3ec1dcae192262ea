"""Ctrl-C and SIGTERM become a request to save and stop, looked at between two steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """A run that saved and stopped because it was asked to: args (signal number, step)."""


@contextmanager
def requests() -> Iterator[Callable[[], int]]:
    """Yields asked() -> the signal's number, or 0. A second Ctrl-C interrupts at once."""
    number = 0

    def remember(signum, frame):
        nonlocal number
        if number and signum == signal.SIGINT:
            raise KeyboardInterrupt
        number = signum

    before = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: number
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
