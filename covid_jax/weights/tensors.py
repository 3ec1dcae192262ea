"""Files of weights as arrays: .safetensors, and what torch saves (.pth, .pt, .bin), without torch, never run.

Every size in a file is checked against the file itself before memory is taken for it: by `safetensors`, or here.
"""

import io
import json
import math
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from covid_jax import UserError
from covid_jax.text import printable, some
from covid_jax.weights import pickled
from covid_jax.weights.pickled import Tensor, Unreadable

LIMIT = 2**32  # bytes of a file, and of the tensors in it
TENSORS = 2**16
HEADER = 2**23  # bytes of a safetensors header, or of a zip file's table of contents
SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin', '.pth.tar')
SAFETENSORS_DTYPES = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16,
                      'I64': np.int64, 'I32': np.int32, 'I16': np.int16, 'I8': np.int8, 'U64': np.uint64,
                      'U32': np.uint32, 'U16': np.uint16, 'U8': np.uint8, 'BOOL': np.bool_}
STATE_DICTS = ('state_dict', 'model', 'model_state_dict')  # where a training script keeps them among other things
LEGACY_MAGIC = 0x1950a86a20f9469cfc6c
DAMAGE = (ArithmeticError, EOFError, LookupError, RecursionError, RuntimeError, TypeError, ValueError, struct.error,
          zipfile.BadZipFile)  # what malformed bytes raise


def read(path: Path | str) -> dict[str, np.ndarray]:
    """{name: read-only array} of the tensors in the file at `path`; its other entries are left out.

    bfloat16 stays so (ml_dtypes). Of a training script's file it is the tensors in its state_dict or model; a 'module.'
    before every name is taken away. UserError of one line for a file that is absent, damaged, too large or of another
    kind, and for one that names anything but tensors: a torch file is a program, and no part of it is run.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'there is no file {path}: set --config.model.pretrained to a file of weights')
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise UserError(f'{path} is not read: weights are {", ".join(SUFFIXES)}')
    try:
        size = path.stat().st_size
        if size > LIMIT:
            raise Unreadable(f'has {size} bytes; at most {LIMIT} are read')
        tensors = _safetensors(path, size) if name.endswith('.safetensors') else _torch(path, size)
    except Unreadable as e:
        raise UserError(f'{path} {e}') from None
    except OSError as e:
        raise UserError(f'{path} cannot be read: {e.strerror or type(e).__name__}') from None
    except DAMAGE as e:
        raise UserError(f'{path} is damaged, or no {name.rpartition(".")[2]} file ({type(e).__name__})') from None
    if tensors and all(name.startswith('module.') for name in tensors):
        tensors = {name.removeprefix('module.'): tensor for name, tensor in tensors.items()}
    return tensors


def _checked(entries):
    """The name and the shape of every tensor, and how much they are together. entries: (name, shape, dtype)."""
    total = 0
    for count, (name, shape, dtype) in enumerate(entries, 1):
        if type(name) is not str or not name.isprintable() or len(name) > 256:
            raise Unreadable('holds a tensor whose name is no plain text of up to 256 characters')
        if len(shape) > 8 or any(type(n) is not int or not 0 <= n < 2**40 for n in shape):
            raise Unreadable(f'holds {name} with a shape that cannot be')
        total += math.prod(max(n, 1) for n in shape) * dtype.itemsize
        if total > LIMIT or count > TENSORS:
            raise Unreadable(f'holds more than {TENSORS} tensors or {LIMIT} bytes')


def _safetensors(path, size):
    """By Hugging Face's reader. It lets a name stand twice and a header take 100 MB, so the header is looked at here too."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], 'little')
    if size >= 8 and length > HEADER:
        raise Unreadable(f'is no safetensors file, or its header is longer than {HEADER} bytes')
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as e:
        raise Unreadable(printable(f'is damaged, or no safetensors file: {str(e)[:200]}')) from None
    json.loads(data[8:8 + length], object_pairs_hook=_no_duplicates)
    unknown = sorted({entry['dtype'] for _, entry in entries} - SAFETENSORS_DTYPES.keys())
    if unknown:
        raise Unreadable(f'holds tensors of a type that is not read: {some(unknown)}')
    described = [(name, tuple(entry['shape']), np.dtype(SAFETENSORS_DTYPES[entry['dtype']])) for name, entry in entries]
    _checked(described)
    return {name: np.ndarray(shape, dtype, memoryview(entry['data']).toreadonly())
            for (name, shape, dtype), (_, entry) in zip(described, entries, strict=True)}


def _no_duplicates(pairs):
    if len(dict(pairs)) < len(pairs):
        raise Unreadable('names a tensor twice')
    return dict(pairs)


def _torch(path, size):
    with _Bounded(path) as file:
        start = file.read(4)
        file.seek(0)
        return _zip(file, size) if start == b'PK\x03\x04' else _legacy(file, size)


class _Bounded(io.FileIO):
    """A file that reads at most `limit` bytes at once: zipfile believes what a file says of its table of contents."""

    limit = HEADER

    def read(self, n=-1):
        if self.limit and n > self.limit:
            raise Unreadable(f'has a table of contents longer than {HEADER} bytes')
        return super().read(n)


def _zip(file, size):
    """torch 1.6 and later: a zip file of data.pkl and one uncompressed entry for each storage."""
    with zipfile.ZipFile(file) as archive:
        file.limit = 0
        names = set(archive.namelist())
        folders = [n.removesuffix('/data.pkl') for n in names if n.endswith('/data.pkl') and n.count('/') == 1]
        if len(folders) != 1:
            raise Unreadable('is a zip file, but not one that torch saved')

        def entry(name, length=None):
            info = archive.getinfo(f'{folders[0]}/{name}')
            stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
            if not stored or info.file_size > size or length not in (None, info.file_size):
                raise Unreadable(f'holds {ascii(name[:80])} in another size than it should have, or compressed')
            if length is None and info.file_size > pickled.BYTES:
                raise Unreadable('is too long for a file of weights')
            return archive.read(info)

        if f'{folders[0]}/byteorder' in names and entry('byteorder') != b'little':
            raise Unreadable('was saved on a big-endian machine, which is not read')
        tree, _ = pickled.load(entry('data.pkl'))
        return _arrays(tree, size, lambda storage, length: entry(f'data/{storage.key}', length))


def _legacy(file, size):
    """Before torch 1.6: magic number, version, machine, the objects, the keys of the storages, the storages."""
    file.limit = 0
    head = file.read(pickled.BYTES)
    magic, at = pickled.load(head) if head[:1] == b'\x80' else (None, 0)
    if magic != LEGACY_MAGIC:
        raise Unreadable('is no file of weights that torch saved')
    version, at = pickled.load(head, at)
    machine, at = pickled.load(head, at)
    if version != 1001 or machine['little_endian'] is not True:
        raise Unreadable('was saved by a torch or on a machine that is not read')
    tree, at = pickled.load(head, at)
    keys, at = pickled.load(head, at)
    sizes = {t.storage.key: t.storage.size * t.storage.dtype.itemsize for t in _all_tensors(tree)}
    places = {}
    for key in keys:
        places[key] = at
        at += 8 + sizes[key]
        if at > size:
            raise Unreadable('is cut short')

    def fetch(storage, length):
        file.seek(places[storage.key])
        if struct.unpack('<q', file.read(8)) != (storage.size,):
            raise Unreadable('says two sizes of one storage')
        return file.read(length)

    return _arrays(tree, size, fetch)


def _all_tensors(tree):
    """Every tensor in nested dicts, lists and tuples, without recursion: a file may nest deeply."""
    seen = set()
    todo = [tree]
    while todo:
        x = todo.pop()
        if type(x) is Tensor:
            yield x
        elif type(x) in (dict, list, tuple) and id(x) not in seen:
            seen.add(id(x))
            todo.extend(x.values() if type(x) is dict else x)


def _arrays(tree, size, fetch):
    """The arrays of a state dict. fetch(storage, bytes): the content of a storage, or Unreadable."""
    tensors = _state_dict(tree)
    for name, t in tensors.items():
        if type(t.shape) is not tuple or type(t.strides) is not tuple or len(t.strides) != len(t.shape):
            raise Unreadable(f'holds {ascii(name)[:80]} with a shape that cannot be')
    _checked((name, t.shape, t.storage.dtype) for name, t in tensors.items())
    for name, t in tensors.items():
        if any(type(n) is not int or not 0 <= n < 2**40 for n in (t.offset, *t.strides)):
            raise Unreadable(f'holds {name} with strides that cannot be')
        last = t.offset + sum((n - 1) * stride for n, stride in zip(t.shape, t.strides, strict=True))
        if 0 not in t.shape and last >= t.storage.size:
            raise Unreadable(f'holds {name}, which is larger than its storage')
    used = {t.storage.key: t.storage for t in tensors.values() if 0 not in t.shape}
    if sum(s.size * s.dtype.itemsize for s in used.values()) > size:
        raise Unreadable('holds storages that are larger than the file')
    content = {key: fetch(s, s.size * s.dtype.itemsize) for key, s in used.items()}
    return {name: _view(t, used.get(t.storage.key), content.get(t.storage.key)) for name, t in tensors.items()}


def _view(t, storage, content):
    if 0 in t.shape:
        return np.zeros(t.shape, t.storage.dtype)
    if (t.storage.dtype, t.storage.size) != (storage.dtype, storage.size):
        raise Unreadable('says two sizes of one storage')
    item = storage.dtype.itemsize
    if len(content) != storage.size * item:
        raise Unreadable('is cut short')
    return np.ndarray(t.shape, storage.dtype, content, t.offset * item, [stride * item for stride in t.strides])


def _state_dict(tree):
    """The dict of tensors: what the object keeps under one of STATE_DICTS, or the object itself."""
    if type(tree) is dict:
        for candidate in (*(tree.get(key) for key in STATE_DICTS), tree):
            if type(candidate) is not dict:
                continue
            tensors = {name: x for name, x in candidate.items() if type(x) is Tensor}
            if tensors:
                return tensors
    held = some((ascii(key)[:40] for key in tree), 5) if type(tree) is dict else type(tree).__name__
    raise Unreadable(f'holds no tensors by name, alone or under {", ".join(STATE_DICTS)}, but {held or "nothing"}')
