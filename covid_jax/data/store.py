"""Prepared scans on disk: every exam is decoded and prepared once, in parallel, and packed for random access.

A store is a folder named after what is in it (source hashes and Prep). While it is made, each prepared exam is a file of
its own, renamed into place: that is what a killed run finds again. A finished store has `table.json`, written last.
"""

import dataclasses
import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import socket
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rich.progress

from covid_jax import UserError, phantom
from covid_jax.data.prep import prepare
from covid_jax.scans import decode, scan


class Store(NamedTuple):
    """path: the folder; row: exam id -> row of `images`; digest: exam id -> sha256 of what was prepared; broken: exam id -> why it could not be prepared;
    images: random access, images[i]['image'] uint8 [depth, height, width, 1]."""

    path: Path
    row: dict[str, int]
    digest: dict[str, str]
    broken: dict[str, str]
    images: object


def build(exams, hashes, prep, root, workers=0):
    """The store of these exams below `root`, made now or found finished.

    hashes: as from `content_hashes`; workers: processes, 0 for one a core. A second process that wants the same store
    waits for the first. UserError where not one exam can be prepared.
    """
    key = hashlib.sha256(json.dumps([prep.hash, sorted(zip([e.id for e in exams], hashes, strict=True))]).encode())
    path = Path(root) / key.hexdigest()[:16]
    path.mkdir(parents=True, exist_ok=True)
    with _lock(path / 'lock'):
        if not (path / 'table.json').exists():
            _make(path, exams, hashes, prep, workers)
    table = json.loads((path / 'table.json').read_text())
    if table['prep'] != prep.hash:
        raise UserError(f'{path} was prepared with {table["prep"]}, this run asks for {prep.hash}: delete the folder')
    import tensorflow_datasets as tfds  # slow to import

    images = tfds.builder_from_directory(path / 'packed').as_data_source('scans')
    digests = dict(zip(table['ids'], table['digests'], strict=True))
    return Store(path, {name: i for i, name in enumerate(table['ids'])}, digests, table['broken'], images)


def content_hashes(exams, root):
    """sha256 of each exam's bytes, in order. Files that did not change since the last call below `root` are not re-read."""
    cache = Path(root) / 'hashes.json'
    known = json.loads(cache.read_text()) if cache.exists() else {}
    before = len(known)

    def of_file(path):
        try:
            stat = path.stat()
        except OSError as e:  # decoding will say so, and set the exam aside
            return str(e.strerror)
        stamp = f'{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}'
        if stamp not in known:
            try:
                with open(path, 'rb') as f:
                    known[stamp] = hashlib.file_digest(f, 'sha256').hexdigest()
            except OSError as e:
                return str(e.strerror)
        return known[stamp]

    def of_exam(exam):
        digest = hashlib.sha256()
        path = exam.path
        if phantom.is_address(path):
            digest.update(f'{path} version {phantom.version(path)}'.encode())
            return digest.hexdigest()
        whole, part = decode.split_address(path)
        digest.update(f'{scan.VERSION} {whole.suffix.lower()}\0'.encode())  # the suffix chooses the decoder
        for file in decode.files_of(path):
            name = '' if file == whole else os.path.relpath(file, whole)
            digest.update(f'{name}\0{of_file(file)}\0'.encode())
        digest.update(json.dumps(part).encode() if part else b'')
        return digest.hexdigest()

    with ThreadPoolExecutor(8) as pool:
        hashes = list(pool.map(of_exam, exams))
    if len(known) > before:
        Path(root).mkdir(parents=True, exist_ok=True)
        _write(cache, json.dumps(known))
    return hashes


def _make(path, exams, hashes, prep, workers):
    parts = path / 'parts'
    parts.mkdir(exist_ok=True)
    for left in (p for p in parts.iterdir() if p.suffix != '.npy'):  # by a process that died
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    _write(path / 'prep.json', json.dumps(dataclasses.asdict(prep)))
    part = {exam.id: parts / f'{digest}.npy' for exam, digest in zip(exams, hashes, strict=True)}
    broken = _prepare_all([e for e in exams if not part[e.id].exists()], part, prep, workers)
    good = [e for e in exams if e.id not in broken]
    if not good:
        reasons = list(broken.values())
        raise UserError(f'none of {len(exams)} exams could be prepared; the first: {reasons[0]}')
    _pack(path / 'packed', [part[e.id] for e in good], prep)
    digests = [hashlib.sha256(part[e.id].read_bytes()).hexdigest() for e in good]
    table = {'prep': prep.hash, 'ids': [e.id for e in good], 'digests': digests, 'broken': broken}
    _write(path / 'table.json', json.dumps(table, indent=1))
    shutil.rmtree(parts)


def _prepare_all(exams, part, prep, workers):
    """{exam id: reason} of those that could not be prepared."""
    broken, left = {}, {e.id: e for e in exams}
    columns = [rich.progress.TextColumn('preparing scans'), rich.progress.BarColumn(),
               rich.progress.MofNCompleteColumn(), rich.progress.TimeRemainingColumn()]
    with rich.progress.Progress(*columns, disable=not exams) as progress:
        bar = progress.add_task('', total=len(exams))

        def prepare_in_parallel(some, workers):
            with _pool(min(workers or os.cpu_count(), len(some))) as pool:
                jobs = {pool.submit(_prepare_one, e.path, prep, part[e.id]): e for e in some}
                for job in as_completed(jobs):
                    if (reason := job.result()) is not None:
                        broken[jobs[job].id] = reason
                    del left[jobs[job].id]
                    progress.advance(bar)

        while left:
            try:
                prepare_in_parallel(list(left.values()), workers)
            except BrokenProcessPool:  # a scan that crashes its decoder, or too little memory: find out which
                begun = [e for e in left.values() if list(_temporaries(part[e.id]))]
                if not begun:
                    raise UserError('the preparing processes die before they begin, of too little memory perhaps: run the '
                                    'same command with --config.data.workers=1; what is prepared is kept') from None
                progress.print(f'a preparing process died: {len(begun)} scans are prepared one at a time')
                for exam in begun:
                    try:
                        prepare_in_parallel([exam], 1)
                    except BrokenProcessPool:
                        del left[exam.id]
                        broken[exam.id] = (f'{exam.path}: the process that prepared it died, of the file or of too '
                                           f'little memory; to try again delete {part[exam.id].parents[1]}')
                        progress.advance(bar)
    return {e.id: broken[e.id] for e in exams if e.id in broken}


def _temporaries(part):
    """What stands where a part is being made, by this process or by one that died."""
    return part.parent.glob(f'{part.stem}.*.tmp')


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


def _prepare_one(source, prep, target):
    """Makes one part, or returns why not. UserError where it is not the file's fault: that stops all."""
    temporary = target.with_suffix(f'.{os.getpid()}.tmp')
    temporary.touch()  # says, if this process dies, what it was at
    try:
        array = prepare(decode.decode(source, target.parent), prep)
        with open(temporary, 'wb') as f:
            np.save(f, array)
        os.replace(temporary, target)
    except UserError as e:
        return str(e) if source in str(e) else f'{source}: {e}'
    except MemoryError:
        raise UserError(f'not enough memory to prepare {source}: run the same command with --config.data.workers=1') from None
    except OSError as e:
        if e.errno in scan.MACHINE:
            raise UserError(f'{source} cannot be prepared here: {e.strerror}; what is prepared is kept') from None
        return f'{source}: {e.strerror}'
    except Exception as e:  # whatever a broken file does to a decoder, the other exams go on
        return f'{source}: {type(e).__name__}: {e}'
    finally:
        temporary.unlink(missing_ok=True)


def _pack(path, parts, prep):
    import tensorflow_datasets as tfds

    shutil.rmtree(path, ignore_errors=True)  # what a killed run left
    image = tfds.features.Tensor(shape=(*prep.size, 1), dtype=np.uint8, encoding='bytes')

    class Scans(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version('1.0.0')

        def _info(self):
            features = tfds.features.FeaturesDict({'image': image})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {'scans': self._generate_examples()}

        def _generate_examples(self):
            for i, part in enumerate(parts):
                yield i, {'image': np.load(part)}

    tfds.disable_progress_bar()
    made = path.with_name('packing')
    shutil.rmtree(made, ignore_errors=True)
    builder = Scans(data_dir=made, file_format='array_record')
    with redirect_stdout(io.StringIO()):  # it speaks of downloads
        builder.download_and_prepare()
    os.replace(builder.data_path, path)
    shutil.rmtree(made)


@contextmanager
def _lock(path):
    with open(path, 'w') as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'another process prepares {path.parent}: waiting for it', flush=True)
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _write(path, text):
    temporary = path.with_suffix(f'.{socket.gethostname()}-{os.getpid()}.tmp')
    temporary.write_text(text)
    os.replace(temporary, path)
