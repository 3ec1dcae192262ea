"""The pickles that torch saves, read as data: nothing in them is called or imported but what stands in this file.

A pickle is a small program for a stack. Here only the opcodes that a file of weights needs are known, and a class or
function that it names is looked up in one dict of stand-ins of our own; any other ends the reading.
"""

import dataclasses
import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

BYTES = 2**24  # of one pickle; a network of 1000 tensors takes about 200 kB
OPCODES = 2**20


class Unreadable(Exception):
    """Why a file is not read: half a sentence, to stand behind the file's name."""


@dataclasses.dataclass(frozen=True, eq=False)
class Named:
    """A class or function that a pickle may name; call(args) gives what stands in for its result."""

    name: str
    call: Callable[[tuple], Any] | None = None
    dtype: np.dtype | None = None  # of a storage class


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A flat block of `size` numbers of one type, kept in the file under `key`."""

    dtype: np.dtype
    key: str
    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage: offset and strides in elements. As the file says it; unchecked."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


def _tensor(args):
    storage, offset, shape, strides = args[:4]
    if type(storage) is not Storage:
        raise Unreadable('holds a tensor without a storage')
    return Tensor(storage, offset, shape, strides)


def _ordered_dict(args):
    pairs = _of_type(args[0], list) if args else []  # as Python 2 wrote it
    items = [x for key, value in pairs for x in (key, value)]
    pairs.clear()  # so that no list in a small file becomes many large dicts
    return _set_items({}, items)


def _first(args):
    return args[0]


def _nothing(args):
    return None


STORAGES = {'Float': np.float32, 'Double': np.float64, 'Half': np.float16, 'BFloat16': ml_dtypes.bfloat16,
            'Long': np.int64, 'Int': np.int32, 'Short': np.int16, 'Char': np.int8, 'Byte': np.uint8, 'Bool': np.bool_}
DTYPES = ('float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool')
ALLOWED = {named.name: named for named in (
    Named('collections.OrderedDict', _ordered_dict),
    Named('torch._utils._rebuild_tensor', _tensor),
    Named('torch._utils._rebuild_tensor_v2', _tensor),
    Named('torch._utils._rebuild_parameter', _first),
    Named('torch.Size', _first),
    Named('torch.device', _nothing),
    *(Named(f'torch.{name}') for name in DTYPES),
    *(Named(f'torch.{name}Storage', dtype=np.dtype(dtype)) for name, dtype in STORAGES.items()),
)}

# What follows an opcode: a number, or a length and that many bytes.
NUMBERS = {b'\x80': '<B', b'\x95': '<Q', b'K': '<B', b'M': '<H', b'J': '<i', b'G': '>d', b'q': '<B', b'r': '<I',
           b'h': '<B', b'j': '<I'}
COUNTED = {b'X': '<I', b'\x8c': '<B', b'U': '<B', b'\x8a': '<B'}
CONSTANTS = {b'N': None, b'\x88': True, b'\x89': False, b')': ()}
EMPTY = {b'}': dict, b']': list}
TUPLES = {b'\x85': 1, b'\x86': 2, b'\x87': 3}


def load(data: bytes, start: int = 0) -> tuple[Any, int]:
    """The value of the pickle that begins at `start` of the bytes `data`, and where it ends.

    Values are None, bool, int, float, str, tuple, list, dict (an OrderedDict too), Named, Storage and Tensor.
    Unreadable where it holds anything else; a pickle cut short or malformed raises IndexError, KeyError, TypeError,
    ValueError or struct.error.
    """
    machine = _Machine(data, start)
    for _ in range(OPCODES):
        if machine.at - start > BYTES:
            break
        opcode = machine.take(1)
        if opcode == b'.':
            return machine.stack.pop(), machine.at
        machine.do(opcode)
    raise Unreadable('is too long for a file of weights')


class _Machine:
    def __init__(self, data, start):
        self.data = data
        self.at = start
        self.stack = []  # above the last mark
        self.below = []  # the stacks that marks set aside
        self.memo = {}

    def take(self, n):
        if n > len(self.data) - self.at:
            raise IndexError(n)
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self):
        end = self.data.index(b'\n', self.at)
        return self.take(end + 1 - self.at)[:-1].decode()

    def do(self, opcode):
        """Runs one opcode."""
        if opcode in NUMBERS:
            self._number(opcode, self.number(NUMBERS[opcode]))
        elif opcode in COUNTED:
            content = self.take(self.number(COUNTED[opcode]))
            self.stack.append(int.from_bytes(content, 'little', signed=True) if opcode == b'\x8a' else content.decode())
        elif opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode])
        elif opcode in EMPTY:
            self.stack.append(EMPTY[opcode]())
        elif opcode in TUPLES:
            last = [self.stack.pop() for _ in range(TUPLES[opcode])]
            self.stack.append((*last[::-1],))
        elif opcode == b'(':
            self.below.append(self.stack)
            self.stack = []
        elif opcode in b'tuea':
            self._gather(opcode)
        else:
            self._call(opcode)

    def _number(self, opcode, number):
        if opcode in b'KMJG':
            self.stack.append(number)
        elif opcode in b'qr':
            self.memo[number] = self.stack[-1]
        elif opcode in b'hj':
            self.stack.append(self.memo[number])  # \x80, \x95: the protocol and the length of a frame, neither needed

    def _gather(self, opcode):
        """Opcodes that take all that lies above the mark, or (a) one value."""
        items = [self.stack.pop()] if opcode == b'a' else self.stack
        if opcode != b'a':
            self.stack = self.below.pop()
        if opcode == b't':
            self.stack.append((*items,))
        elif opcode == b'u':
            _set_items(_of_type(self.stack[-1], dict), items)
        else:
            _of_type(self.stack[-1], list).extend(items)

    def _call(self, opcode):
        """Opcodes that in another reader would import, call or fill in something."""
        stack = self.stack
        if opcode == b'c':
            stack.append(_named(self.line(), self.line()))
        elif opcode == b'\x93':
            name = stack.pop()
            stack.append(_named(_of_type(stack.pop(), str), _of_type(name, str)))
        elif opcode == b'R':
            args = _of_type(stack.pop(), tuple)
            function = _of_type(stack.pop(), Named)
            if function.call is None:
                raise Unreadable(f'calls {function.name}, which is refused')
            stack.append(function.call(args))
        elif opcode == b'Q':
            stack.append(_storage(stack.pop()))
        elif opcode == b'b':  # attributes: those of a state dict are about versions
            stack.pop()
            _of_type(stack[-1], dict)
        elif opcode == b's':
            value = stack.pop()
            _set_items(_of_type(stack[-2], dict), [stack.pop(), value])
        elif opcode == b'\x94':
            self.memo[len(self.memo)] = stack[-1]
        else:
            raise Unreadable(f'holds the pickle opcode {opcode!r}, which no file of weights needs: refused')


def _named(module, name):
    full = f'{module}.{name}'
    if full not in ALLOWED:
        raise Unreadable(f'names {ascii(full[:80])}, which is refused: only tensors are read, no code is run')
    return ALLOWED[full]


def _storage(persistent_id):
    kind, cls, key, _, size, *view = _of_type(persistent_id, tuple)
    if kind != 'storage' or [type(x) for x in (cls, key, size)] != [Named, str, int] or cls.dtype is None:
        raise Unreadable('holds a reference that is no storage')
    if any(v is not None for v in view) or not 0 <= size < 2**40:
        raise Unreadable('holds a storage that is not read')
    return Storage(cls.dtype, key, size)


def _set_items(into, items):
    """Keys are plain: the hash of a tuple that is nested deeply enough ends the process."""
    if len(items) % 2 or any(type(key) not in (str, int, float, bool, type(None)) for key in items[::2]):
        raise Unreadable('holds a dict with keys that are neither text nor numbers')
    into.update(zip(items[::2], items[1::2], strict=True))
    return into


def _of_type(value, kind):
    if type(value) is not kind:
        raise TypeError(kind.__name__)
    return value
