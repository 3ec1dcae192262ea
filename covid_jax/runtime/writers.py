"""What a run writes while it trains: metrics.jsonl, TensorBoard events, a progress line. On the first host alone."""

import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import rich.progress


class Writer:
    """Rows of scalars by step: metrics.jsonl holds each step once, also when a run goes on from an earlier step."""

    def __init__(self, workdir, start):
        from tensorboardX import SummaryWriter

        path = Path(workdir) / 'metrics.jsonl'
        kept = [line for line in _whole_lines(path) if json.loads(line)['step'] < start]
        temporary = path.with_suffix('.tmp')
        temporary.write_text(''.join(kept))
        os.replace(temporary, path)
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
    """Yields tell(step, text): a live line with scans/s and time to go on a terminal, now and then a line elsewhere."""
    columns = [rich.progress.TextColumn('training'), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(),
               rich.progress.TextColumn('{task.fields[text]}'), rich.progress.TimeRemainingColumn()]
    bar = rich.progress.Progress(*columns, disable=not (shown and sys.stdout.isatty()))
    began, last = time.monotonic(), 0.0
    with bar:
        task = bar.add_task('', total=total, completed=start, text='')

        def tell(step, text):
            nonlocal last
            seconds = time.monotonic() - began
            rate = (step - start) * batch / max(seconds, 1e-9)
            text = f'{text}  {rate:.1f} scans/s'
            bar.update(task, completed=step, text=text)
            if shown and bar.disable and (seconds - last > 20 or step == total):
                last = seconds
                left = seconds / max(step - start, 1) * (total - step)
                print(f'step {step}/{total}  {text}  {left:.0f} s to go', flush=True)

        yield tell
