"""Exams decoded and prepared in parallel, one file each: what cannot be read is set aside, what the machine does stops
all."""

import errno
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rich.progress

from covid_jax import UserError
from covid_jax.data.prep import Prep, place, prepare
from covid_jax.scans import decode, scan
from covid_jax.scans.lungs import quality
from covid_jax.sources.exams import Exam

SECONDS_BETWEEN_LINES = 20  # of progress where there is no terminal
SEEN = '.scan.json'  # in place of a part's '.npy': the Seen of its scan
LUNGS = '.lungs.json'  # in place of a part's '.npy': the quality of the mask that it was made with


class Seen(NamedTuple):
    """What a scan was before it was prepared. shape: voxels (depth, height, width); spacing: (z, y, x) mm or None;
    hounsfield: whether its values are Hounsfield units, else grey; low, high: the least and the greatest;
    tissue_padding: as in Scan, False in stores of before it was kept."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    hounsfield: bool
    low: float
    high: float
    tissue_padding: bool = False


def make(exams: list[Exam], part: dict[str, Path], prep: Prep, workers: int = 0, alone: bool = False) -> dict[str, str]:
    """Writes part[exam id] for each exam, and beside it where lungs were looked for the quality of their mask (LUNGS),
    with so many processes (0: one a core); {exam id: reason} of those that could not be prepared. `part` names those
    too that are there already, which are counted and not made. alone: each scan is asked about for itself, so that one
    that its disk cannot read is broken as any other. UserError where it is the machine's fault: the parts that are
    there then stay."""
    broken: dict[str, str] = {}
    left = {e.id: e for e in exams}
    with _progress(len(part), len(part) - len(exams)) as advance:
        def done(exam, reason):
            del left[exam.id]
            if reason is not None:
                broken[exam.id] = reason
            advance()

        while left:
            try:
                _in_parallel(list(left.values()), part, prep, workers, alone, done)
            except BrokenProcessPool:  # a scan that crashes its decoder, or too little memory: find out which
                begun = [e for e in left.values() if _is_begun(part[e.id])]
                if not begun:
                    raise UserError('the preparing processes die before they begin, of too little memory perhaps: run '
                                    'the same command with --config.data.workers=1; what is prepared is kept') from None
                print('a preparing process died: what was begun is prepared one scan at a time', flush=True)
                for exam in begun:
                    try:
                        _in_parallel([exam], part, prep, 1, alone, done)
                    except BrokenProcessPool:
                        done(exam, f'{exam.path}: the process that prepared it died, of the file or of too little '
                                   f'memory; to try again delete {part[exam.id].parents[1]}')
    return {e.id: broken[e.id] for e in exams if e.id in broken}


@contextmanager
def _progress(total, there):
    """Yields advance(), of one scan more: a live line on a terminal, now and then a line elsewhere. there: how many of
    all are made."""
    columns = [rich.progress.TextColumn('preparing scans'), rich.progress.BarColumn(),
               rich.progress.MofNCompleteColumn(), rich.progress.TimeRemainingColumn()]
    bar = rich.progress.Progress(*columns, disable=there == total or not sys.stdout.isatty())
    plain = there < total and bar.disable
    done = there
    printed = time.monotonic()
    if there and there < total:
        print(f'{there} of {total} scans are prepared already', flush=True)
    elif plain:
        print(f'preparing scans 0/{total}', flush=True)
    with bar:
        task = bar.add_task('', total=total, completed=there)

        def advance():
            nonlocal done, printed
            done += 1
            bar.advance(task)
            now = time.monotonic()
            if plain and (now - printed > SECONDS_BETWEEN_LINES or done == total):
                printed = now
                print(f'preparing scans {done}/{total}', flush=True)

        yield advance


def is_made(part: Path, prep: Prep) -> bool:
    """Whether a part, and all that belongs to it, is there."""
    return part.exists() and part.with_suffix(SEEN).exists() and (not prep.lungs or part.with_suffix(LUNGS).exists())


def _in_parallel(exams, part, prep, workers, alone, done):
    """Calls done(exam, None or why it could not be prepared) as they end. BrokenProcessPool where a process dies."""
    with _pool(min(workers or os.cpu_count(), len(exams))) as pool:
        exam_of = {pool.submit(_prepare_one, e.path, prep, part[e.id], alone): e for e in exams}
        for job in as_completed(exam_of):
            done(exam_of[job], job.result())


def _is_begun(part):
    """Whether the part is being made, by this process or by one that died."""
    return any(part.parent.glob(f'{part.stem}.*.tmp'))


@contextmanager
def _pool(workers):
    """Preparing processes; when the block is left, what has not begun is dropped, and at Ctrl-C all of it."""
    context = multiprocessing.get_context('spawn')  # a fork of a process that runs jax can hang
    pool = ProcessPoolExecutor(workers, context, initializer=_die_with_parent)
    try:
        yield pool
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():  # one that waits for work may never hear that it is to end
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown(wait=True)


def _die_with_parent():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _seen(scan):
    low = float(scan.voxels.min())
    high = float(scan.voxels.max())
    return Seen(scan.voxels.shape, scan.spacing, bool(scan.hounsfield), low, high, scan.tissue_padding)


def _prepare_one(source, prep, target, alone):
    """Makes one part, or returns why not. UserError where it is not the file's fault: that stops all."""
    temporary = target.with_suffix(f'.{os.getpid()}.tmp')
    temporary.touch()  # says, if this process dies, what it was at
    try:
        decoded = decode.decode(source, target.parent)
        where = place(decoded, prep) if prep.lungs else None
        array = prepare(decoded, prep, where)
        if where is not None:
            target.with_suffix(LUNGS).write_text(json.dumps(quality(where.lungs, decoded)))
        target.with_suffix(SEEN).write_text(json.dumps(_seen(decoded)))
        with open(temporary, 'wb') as f:
            np.save(f, array)
        os.replace(temporary, target)
    except UserError as e:
        return str(e) if source in str(e) else f'{source}: {e}'
    except MemoryError:
        raise UserError(f'not enough memory to prepare {source}: run the same command with '
                        '--config.data.workers=1') from None
    except OSError as e:
        if e.errno in scan.MACHINE and not (alone and e.errno == errno.EIO):
            raise UserError(f'{source} cannot be prepared here: {e.strerror}; what is prepared is kept') from None
        return f'{source}: {e.strerror}'
    except Exception as e:  # whatever a broken file does to a decoder, the other exams go on
        return f'{source}: {type(e).__name__}: {e}'
    finally:
        temporary.unlink(missing_ok=True)
    return None
