"""Ctrl-C and SIGTERM: in the training a request to save and stop, looked at between two steps; elsewhere the end, soon."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPS = signal.SIGINT, signal.SIGTERM
SECONDS_TO_EXIT = 5


class Interrupted(Exception):
    """A run that saved and stopped because it was asked to: args (signal number, step)."""


@contextmanager
def leave(end: Callable[[int], int]) -> Iterator[Callable[[], int]]:
    """Until the block is left, a signal raises KeyboardInterrupt. Yields left() -> its number, or 0.

    The exception may be lost in a library, and an exit waits for threads and processes, of which one may not end. So the process is gone
    SECONDS_TO_EXIT later at most, with what `end` of the number says and returns: all files are whole at any time. A library that is being
    loaded aborts at an exception: then it is gone at once. A signal that the process was started to ignore is ignored.
    """
    number = 0

    def gone():
        os._exit(end(number))

    def stop(signum, frame):
        nonlocal number
        first = not number
        number = number or signum
        if _is_loading(frame):
            gone()
        if first:
            forced = threading.Timer(SECONDS_TO_EXIT, gone)
            forced.daemon = True
            forced.start()
        raise KeyboardInterrupt

    before = {s: signal.getsignal(s) for s in STOPS}
    for s, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(s, stop)
    try:
        yield lambda: number
    finally:
        if not number:
            for s, handler in before.items():
                signal.signal(s, handler)


def _is_loading(frame):
    """Whether a frame of Python is below an import."""
    while frame is not None and not frame.f_code.co_filename.startswith('<frozen importlib'):
        frame = frame.f_back
    return frame is not None


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
