"""What a run writes while it trains, on the first host alone: metrics.jsonl, TensorBoard events, progress, seconds."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import rich.progress

from covid_jax import UserError
from covid_jax.runtime.files import write
from covid_jax.runtime.track import SILENT, Tracker

SECONDS_BETWEEN_LINES = 20  # of progress where there is no terminal
COMPILING = 'compiling the first step'


class Writer:
    """Rows of scalars by step: metrics.jsonl holds each step once, also when a run goes on from an earlier step. A tracker hears the
    rows too."""

    def __init__(self, workdir: str | Path, start: int, tracker: Tracker = SILENT):
        from tensorboardX import SummaryWriter

        path = Path(workdir) / 'metrics.jsonl'
        earlier = [line for n, line in enumerate(_whole_lines(path), 1) if _step(path, n, line) < start]
        write(path, ''.join(earlier))
        self.file = open(path, 'a')
        self.tracker = tracker
        self.events = SummaryWriter(str(workdir), purge_step=start if start else None)

    def write(self, rows: Sequence[Mapping[str, float]]) -> None:
        """rows: dicts with 'step' and finite numbers, in order."""
        for row in rows:
            self.file.write(json.dumps(row) + '\n')
            for name, value in row.items():
                if name != 'step':
                    self.events.add_scalar(name, value, row['step'])
        self.file.flush()
        self.events.flush()
        self.tracker.log(rows)

    def close(self) -> None:
        """Both files are whole after it."""
        self.file.close()
        self.events.close()
        self.tracker.close()


def _step(path, n, line):
    try:
        return int(json.loads(line)['step'])
    except (ValueError, KeyError, TypeError):
        raise UserError(f'{path} is damaged in line {n}: delete this line, and give the same command again') from None


def _whole_lines(path):
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith('\n')]


@contextmanager
def progress(total: int, start: int, batch: int, shown: bool = True) -> Iterator[Callable[[int, str, bool], None]]:
    """Yields say(step, text, compiled): a live line with scans/s and time to go on a terminal, now and then a line elsewhere. Until
    the first call it says that the first step is compiled.

    Both are measured from the last call with `compiled` on, so that compilation does not count: true after the first step and after
    the first validation.
    """
    columns = [rich.progress.TextColumn('training'), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(),
               rich.progress.TextColumn('{task.fields[text]}')]
    bar = rich.progress.Progress(*columns, disable=not (shown and sys.stdout.isatty()))
    printed = time.monotonic()
    since = start, printed  # the step and the time from which is measured
    if shown and bar.disable:
        print(COMPILING, flush=True)
    with bar:
        task = bar.add_task('', total=total, completed=start, text=COMPILING)

        def say(step, text, compiled):
            nonlocal since, printed
            now = time.monotonic()
            if compiled:
                since = step, now
            text = text + _pace(step - since[0], now - since[1], total - step, batch)
            bar.update(task, completed=step, text=text)
            if shown and bar.disable and (now - printed > SECONDS_BETWEEN_LINES or step == total):
                printed = now
                print(f'step {step}/{total}  {text}', flush=True)

        yield say


def _pace(steps, seconds, left, batch):
    """Scans/s and time to go after this many steps in so many seconds; nothing before the first."""
    if not steps or not seconds:
        return ''
    return f'  {steps * batch / seconds:.1f} scans/s  {seconds / steps * left:.0f} s to go'


def stopwatch(workdir: str | Path) -> Callable[[], None]:
    """Starts to count the seconds of training, on top of those that an earlier process of the same run has saved.

    Returns save(), which writes workdir/seconds.json, {"training": seconds}. UserError where that file is damaged.
    """
    path = Path(workdir) / 'seconds.json'
    try:
        earlier = float(json.loads(path.read_text())['training']) if path.exists() else 0.0
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} is damaged: delete it, and the seconds of training count from here') from error
    began = time.monotonic()

    def save():
        write(path, json.dumps({'training': round(earlier + time.monotonic() - began, 3)}) + '\n')

    return save
