"""The header of an NRRD (.nrrd, .nhdr): its fields, its axes, and the file beside it. volumes.py reads the voxels.

pynrrd parses the header, of which it is given no more than HEADER bytes. It does not read the voxels: it would open any path
that the header names, and inflate without a limit.
"""

import io
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from covid_jax.scans.metaimage import HEADER, beside

SUFFIXES = ('.nrrd', '.nhdr')
SPACES = {'left-posterior-superior': (1, 1, 1), 'lps': (1, 1, 1), 'right-anterior-superior': (-1, -1, 1),
          'ras': (-1, -1, 1), 'left-anterior-superior': (1, -1, 1), 'las': (1, -1, 1)}  # towards left, back and head
TYPES = {'i1': ('signed char', 'int8', 'int8_t'), 'u1': ('uchar', 'unsigned char', 'uint8', 'uint8_t'),
         'i2': ('short', 'short int', 'signed short', 'signed short int', 'int16', 'int16_t'),
         'u2': ('ushort', 'unsigned short', 'unsigned short int', 'uint16', 'uint16_t'),
         'i4': ('int', 'signed int', 'int32', 'int32_t'), 'u4': ('uint', 'unsigned int', 'uint32', 'uint32_t'),
         'f4': ('float',), 'f8': ('double',)}
DTYPES = {name: dtype for dtype, names in TYPES.items() for name in names}
ENCODINGS = {'raw': False, 'gzip': True, 'gz': True}  # and whether it is compressed
SKIPS = ('line skip', 'lineskip', 'byte skip', 'byteskip')
DETACHED = ('data file', 'datafile')


def read_fields(path: Path) -> tuple[dict[str, Any], int]:
    """-> ({field: value, parsed} of an NRRD's header, the byte behind it). ValueError for what is no such header."""
    with path.open('rb') as file:
        block = file.read(HEADER)
    ends = [at for at in (block.find(b'\n\n'), block.find(b'\r\n\r\n')) if at >= 0]
    size = min(ends, default=len(block))
    if not block.startswith(b'NRRD') or not ends and len(block) == HEADER:
        raise ValueError('no NRRD: NRRD000 and a number, lines of FIELD: VALUE and a blank line are expected')
    try:
        fields = nrrd.read_header(io.BytesIO(block[:size]))
    except Exception as error:  # of any kind, for a field that is no number or no vector
        raise ValueError(f'the header of this NRRD cannot be read ({error or type(error).__name__})') from None
    return dict(fields), size + (4 if block[size:size + 1] == b'\r' else 2)


def voxels_of(fields: dict[str, Any], path: Path) -> Path:
    """The file that holds the voxels, path itself or one beside it. ValueError for a name that leads anywhere else."""
    named = [fields[key] for key in DETACHED if key in fields]
    return beside(path, named[0], 'data file') if named else path


def directions(fields: dict[str, Any]) -> np.ndarray:
    """[3, 3] of which column i is the step of index i in mm to the left, back and head. ValueError where that is not said."""
    space = str(fields.get('space', '')).lower()
    vectors = fields.get('space directions')
    if space not in SPACES or vectors is None:
        raise ValueError('space and space directions do not say where left, front and head are: save it as '
                         'left-posterior-superior, with directions')
    units = fields.get('space units', ['mm'] * 3)
    if any(unit not in ('mm', '') for unit in units):
        raise ValueError(f'space units are {" ".join(units)[:60]!r}, not mm')
    vectors = np.array(vectors, float)
    if vectors.shape != (3, 3) or not np.isfinite(vectors).all():
        raise ValueError('space directions must be three vectors of three numbers')
    return (vectors * SPACES[space]).T


def first_voxel(fields: dict[str, Any]) -> np.ndarray:
    """mm of the middle of the first voxel to the left, back and head; 0 where the file does not say, as ITK reads it."""
    origin = np.array(fields.get('space origin', np.zeros(3)), float)
    if origin.shape != (3,):
        raise ValueError('space origin must be three numbers')
    return origin * SPACES[str(fields['space']).lower()]


def layout(fields: dict[str, Any]) -> tuple[list[int], np.dtype, bool]:
    """-> (sizes of the three axes, the fastest first, how a value is stored, whether all are compressed). ValueError for what
    is not read: other dimensions, kinds of value and encodings, and skipped lines or bytes."""
    if fields.get('dimension') != 3 or len(fields.get('sizes', ())) != 3:
        raise ValueError(f'dimension is {fields.get("dimension")}: one volume of 3 dimensions, and 3 sizes, are expected')
    dtype = DTYPES.get(str(fields.get('type')))
    if dtype is None:
        raise ValueError(f'type {str(fields.get("type"))[:60]!r} is not read')
    encoding = str(fields.get('encoding')).lower()
    if encoding not in ENCODINGS:
        raise ValueError(f'encoding {encoding[:60]!r} is not read, only {" and ".join(ENCODINGS)}')
    if any(fields.get(key) for key in SKIPS):
        raise ValueError('lines or bytes in front of the voxels are not skipped: save it anew')
    order = str(fields.get('endian', '')).lower()
    if order not in ('little', 'big') and dtype[1] != '1':
        raise ValueError(f'endian is {order[:60]!r}, not little or big')
    return [int(size) for size in fields['sizes']], np.dtype(('>' if order == 'big' else '<') + dtype), ENCODINGS[encoding]
