"""What a run writes while it trains, on the first host alone: metrics.jsonl, TensorBoard events, progress, seconds."""

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import rich.progress

from covid_jax import UserError
from covid_jax.runtime.files import write


class Writer:
    """Rows of scalars by step: metrics.jsonl holds each step once, also when a run goes on from an earlier step."""

    def __init__(self, workdir, start):
        from tensorboardX import SummaryWriter

        path = Path(workdir) / 'metrics.jsonl'
        kept = [line for line in _whole_lines(path) if json.loads(line)['step'] < start]
        write(path, ''.join(kept))
        self.file = open(path, 'a')
        self.events = SummaryWriter(str(workdir), purge_step=start if start else None)

    def write(self, rows):
        """rows: dicts with 'step' and finite numbers, in order."""
        for row in rows:
            self.file.write(json.dumps(row) + '\n')
            for name, value in row.items():
                if name != 'step':
                    self.events.add_scalar(name, value, row['step'])
        self.file.flush()
        self.events.flush()

    def close(self):
        self.file.close()
        self.events.close()


def _whole_lines(path):
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith('\n')]


@contextmanager
def progress(total, start, batch, shown=True):
    """Yields tell(step, text): a live line with scans/s and time to go on a terminal, now and then a line elsewhere.

    Both are measured from the first call on, so that compilation does not count; make it after the first step.
    """
    columns = [rich.progress.TextColumn('training'), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(),
               rich.progress.TextColumn('{task.fields[text]}')]
    bar = rich.progress.Progress(*columns, disable=not (shown and sys.stdout.isatty()))
    first = None  # step and time of the first call
    printed = time.monotonic()
    with bar:
        task = bar.add_task('', total=total, completed=start, text='')

        def tell(step, text):
            nonlocal first, printed
            now = time.monotonic()
            first = first or (step, now)
            text = text + _pace(step - first[0], now - first[1], total - step, batch)
            bar.update(task, completed=step, text=text)
            if shown and bar.disable and (now - printed > 20 or step == total):
                printed = now
                print(f'step {step}/{total}  {text}', flush=True)

        yield tell


def _pace(steps, seconds, left, batch):
    """Scans/s and time to go after this many steps in so many seconds; nothing before the first."""
    if not steps or not seconds:
        return ''
    return f'  {steps * batch / seconds:.1f} scans/s  {seconds / steps * left:.0f} s to go'


def stopwatch(workdir):
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
