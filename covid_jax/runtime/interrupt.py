"""Ctrl-C and SIGTERM become a request to save and stop, looked at between two steps."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPS = signal.SIGINT, signal.SIGTERM


class Interrupted(Exception):
    """A run that saved and stopped because it was asked to: args (signal number, step)."""


@contextmanager
def requests() -> Iterator[Callable[[], int]]:
    """Yields asked() -> the signal's number, or 0; the first call says that a step has ended. A second Ctrl-C interrupts at once.

    The first signal is answered on stderr at once, also while a step is compiled, when Python's own handlers wait for minutes.
    """
    number = 0
    compiled = False

    def remember(signum, frame):
        nonlocal number
        if number and signum == signal.SIGINT:
            raise KeyboardInterrupt
        number = signum

    def asked():
        nonlocal compiled
        compiled = True
        return number

    before = {s: signal.signal(s, remember) for s in STOPS}
    try:
        with _told_at_once(lambda: 'stopping after this step' + ('' if compiled else '; the first step is still being compiled')):
            yield asked
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@contextmanager
def _told_at_once(text):
    """Prints text() on stderr when the first of STOPS arrives, from a thread: it does not wait for what the main thread is at."""
    heard, rung = os.pipe()
    os.set_blocking(rung, False)

    def answer():
        while numbers := os.read(heard, 1):
            if numbers[0] in STOPS:
                os.write(2, f'covid_jax: {text()}\n'.encode())
                return

    before = signal.set_wakeup_fd(rung, warn_on_full_buffer=False)
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(rung)
        thread.join()
        os.close(heard)
