"""Prepared scans on disk: every exam is decoded and prepared once, in parallel, and packed for random access.

A store is a folder named after what is in it (source hashes and Prep). While it is made, each prepared exam is a file of
its own, renamed into place (parts.py): that is what a killed run finds again. A finished store has `table.json`, written last; where
lungs were looked for it says of each exam what tells a mask that went wrong (scans/lungs.py: Quality).
"""

import dataclasses
import fcntl
import hashlib
import io
import json
import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

import numpy as np

from covid_jax import UserError, phantom
from covid_jax.data import parts
from covid_jax.data.prep import Prep
from covid_jax.scans import decode, scan
from covid_jax.scans.lungs import Quality
from covid_jax.sources.exams import Exam

READERS = 8  # threads that hash files: they wait for the disk


class Store(NamedTuple):
    """path: the folder; row: exam id -> row of `images`; digest: exam id -> sha256 of what was prepared; broken: exam id ->
    why it could not be prepared; images: random access, images[i]['image'] uint8 [depth, height, width, 1],
    each of its own height and width where Prep.keep_aspect; lungs: exam id -> what tells a mask that went wrong, where lungs
    were looked for; seen: exam id -> what its scan was, empty of a store that was made before it was kept."""

    path: Path
    row: dict[str, int]
    digest: dict[str, str]
    broken: dict[str, str]
    images: Any
    lungs: dict[str, Quality]
    seen: dict[str, parts.Seen]


def build(exams: list[Exam], hashes: list[str], prep: Prep, root: Path | str, workers: int = 0) -> Store:
    """The store of these exams below `root`, made now or found finished.

    hashes: as from `content_hashes`; workers: processes, 0 for one a core. A second process that wants the same store
    waits for the first. UserError where not one exam can be prepared.
    """
    hashes = prepared_hashes(exams, hashes, prep)
    content = sorted(zip([e.id for e in exams], hashes, strict=True))
    key = hashlib.sha256(json.dumps([prep.hash, content]).encode()).hexdigest()
    path = Path(root) / key[:16]
    path.mkdir(parents=True, exist_ok=True)
    with _lock(path / 'lock'):
        if not (path / 'table.json').exists():
            try:
                _make(path, exams, hashes, prep, workers)
            except UserError:
                _forget_empty(path)
                raise
    table = _read_table(path)
    if table['prep'] != prep.hash:
        raise UserError(f'{path} was prepared with {table["prep"]}, this run asks for {prep.hash}: delete the folder')
    import tensorflow_datasets as tfds  # slow to import

    images = tfds.builder_from_directory(path / 'packed').as_data_source('scans')
    row = {name: i for i, name in enumerate(table['ids'])}
    digest = dict(zip(table['ids'], table['digests'], strict=True))
    lungs = dict(zip(table['ids'], (Quality(**of) for of in table['lungs']), strict=True)) if 'lungs' in table else {}
    seen = dict(zip(table['ids'], (parts.Seen(*of) for of in table['seen']), strict=True)) if 'seen' in table else {}
    return Store(path, row, digest, table['broken'], images, lungs, seen)


def content_hashes(exams: list[Exam], root: Path | str, see: Callable[[Exam, list[Path]], None] | None = None) -> list[str]:
    """sha256 of each exam's bytes, in order. Files that did not change since the last call below `root` are not re-read.

    see: is called, in any order, with each exam and its files, of a phantom none: folders are walked once.
    """
    cache = Path(root) / 'hashes.json'
    known = _read_cache(cache)
    before = len(known)
    look = see or _nothing

    def of_file(path):
        try:
            stat = path.stat()
            if not S_ISREG(stat.st_mode):
                return f'{path} is no file'  # a pipe or a device, which is never opened; decoding says so
            if not stat.st_size:
                return f'{path} is empty'  # which makes it no copy of another
            stamp = f'{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}'
            if stamp not in known:
                with open(path, 'rb') as f:
                    known[stamp] = hashlib.file_digest(f, 'sha256').hexdigest()
        except OSError as e:  # decoding will say so, and set the exam aside
            return f'{path}: {e.strerror}'
        return known[stamp]

    def of_exam(exam):
        digest = hashlib.sha256()
        path = exam.path
        if phantom.is_address(path):
            digest.update(f'{path} version {phantom.version(path)}'.encode())
            look(exam, [])
            return digest.hexdigest()
        whole, part = decode.split_address(path)
        digest.update(f'{scan.VERSION} {whole.suffix.lower()}\0'.encode())  # the suffix chooses the decoder
        files = decode.files_of(path)
        look(exam, files)
        if not files:  # a folder in which nothing is read is a copy of no other
            digest.update(f'{path} is empty\0'.encode())
        for file in files:
            name = '' if file == whole else os.path.relpath(file, whole)
            digest.update(f'{name}\0{of_file(file)}\0'.encode())
        chosen = {key: value for key, value in part.items() if key != 'lungs'}  # a scan is the same with a mask and without
        digest.update(json.dumps(chosen).encode() if chosen else b'')
        return digest.hexdigest()

    with ThreadPoolExecutor(READERS) as pool:
        hashes = list(pool.map(of_exam, exams))
    if len(known) > before:
        Path(root).mkdir(parents=True, exist_ok=True)
        _write(cache, json.dumps(known))
    return hashes


def _read_table(path):
    try:
        table = json.loads((path / 'table.json').read_text())
        return dict(table, **{name: table[name] for name in ('prep', 'ids', 'digests', 'broken')})
    except (ValueError, KeyError, TypeError):
        raise UserError(f'{path}/table.json is damaged: delete {path}, and the same command prepares its scans again') from None


def _read_cache(path):
    """What is known of files that were hashed before; nothing where that is damaged."""
    try:
        known = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _nothing(exam, files):
    pass


def prepared_hashes(exams: list[Exam], hashes: list[str], prep: Prep) -> list[str]:
    """What tells one prepared scan from another, in order: the hashes of their contents, as from `content_hashes`, and of the masks of
    their lungs, where these are looked at."""
    def with_mask(exam, content):
        mask = decode.mask_of(exam.path)
        if mask is None or not (prep.lungs or prep.blank) or mask.exists() and not mask.is_file():
            return content
        try:
            return hashlib.sha256(content.encode() + mask.read_bytes()).hexdigest()
        except OSError as e:  # decoding will say so, and set the exam aside
            return hashlib.sha256(f'{content} {e.strerror}'.encode()).hexdigest()

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(with_mask, exams, hashes))


def _make(path, exams, hashes, prep, workers):
    folder = path / 'parts'
    folder.mkdir(parents=True, exist_ok=True)  # who held the lock before may have left nothing
    for leftover in (p for p in folder.iterdir() if not p.name.endswith(('.npy', parts.LUNGS, parts.SEEN))):  # of a process that died
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    _write(path / 'prep.json', json.dumps(dataclasses.asdict(prep)))
    part = {exam.id: folder / f'{digest}.npy' for exam, digest in zip(exams, hashes, strict=True)}
    broken = parts.make([e for e in exams if not parts.is_made(part[e.id], prep)], part, prep, workers)
    good = [e for e in exams if e.id not in broken]
    if not good:
        raise UserError(f'none of {len(exams)} exams could be prepared; the first: {next(iter(broken.values()))}')
    _pack(path / 'packed', [part[e.id] for e in good], prep)
    digests = [hashlib.sha256(part[e.id].read_bytes()).hexdigest() for e in good]
    seen = [json.loads(part[e.id].with_suffix(parts.SEEN).read_text()) for e in good]
    table = {'prep': prep.hash, 'ids': [e.id for e in good], 'digests': digests, 'broken': broken, 'seen': seen}
    if prep.lungs:
        qualities = [part[e.id].with_suffix(parts.LUNGS) for e in good]
        table['lungs'] = [Quality(*json.loads(file.read_text()))._asdict() for file in qualities]
    _write(path / 'table.json', json.dumps(table, indent=1))
    shutil.rmtree(folder)


def _forget_empty(path):
    """Deletes a store in which nothing is prepared, and the folder of stores if it holds nothing else."""
    if not any((path / 'parts').glob('*.npy')):
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            path.parent.rmdir()


def _pack(path, files, prep):
    """Writes the prepared scans, in this order, as an array_record data set in the folder."""
    import tensorflow_datasets as tfds

    shutil.rmtree(path, ignore_errors=True)  # what a killed run left
    depth, *plane = prep.size
    shape = (depth, None, None, 1) if prep.keep_aspect else (depth, *plane, 1)
    image = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding='bytes')

    class Scans(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version('1.0.0')

        def _info(self):
            features = tfds.features.FeaturesDict({'image': image})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {'scans': self._generate_examples()}

        def _generate_examples(self):
            for i, file in enumerate(files):
                yield i, {'image': np.load(file)}

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
    """Waits until no other process holds the file, and holds it."""
    with open(path, 'w') as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'another process prepares {path.parent}: waiting for it', flush=True)
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _write(path, text):
    """Writes a file whole; the temporary name is the process's own, for several may write hashes.json at once."""
    temporary = path.with_suffix(f'.{socket.gethostname()}-{os.getpid()}.tmp')
    temporary.write_text(text)
    os.replace(temporary, path)
