"""The header of a MetaImage (.mha, .mhd): its fields, its axes, and the file beside it. volumes.py reads the voxels."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from covid_jax.scans.scan import check_spacing

HEADER = 2**16  # bytes of a MetaImage that its header may take
MATRICES = ('TransformMatrix', 'Rotation', 'Orientation')
SPACINGS = ('ElementSpacing', 'ElementSize')
ORIGINS = ('Offset', 'Position', 'Origin')
ORDERS = ('ElementByteOrderMSB', 'BinaryDataByteOrderMSB')
YES = ('true', 't', '1')
NO = ('false', 'f', '0')


def geometry(path: Path) -> tuple[float, float, int]:
    """(z of the first slice, z between slices, slices) of a MetaImage, in mm towards the head. Reads its header only.

    ValueError where the slices do not lie across the body from the feet to the head, or where mm are not given.
    """
    fields, _ = read_fields(path)
    axes, spaced = directions(fields)
    depth = numbers(fields, 'DimSize', 3, int)[2]
    if not spaced:
        raise ValueError('no ElementSpacing of three numbers in the header')
    if axes[2, :2].any() or axes[:2, 2].any() or axes[2, 2] <= 0:  # x and y may be mirrored
        raise ValueError('the slices are not axial from the feet to the head: by TransformMatrix and ElementSpacing in '
                         f'steps of {axes[2, 2]:g} mm')
    check_spacing(np.linalg.norm(axes, axis=0))
    origin = numbers(fields, next((key for key in ORIGINS if key in fields), ORIGINS[0]), 3)
    return origin[2], float(axes[2, 2]), depth


def first_voxel(fields: dict[str, str]) -> list[float]:
    """mm of the middle of the first voxel to the left, back and head; 0 where the file does not say, as ITK reads it."""
    key = next((key for key in ORIGINS if key in fields), '')
    return numbers(fields, key, 3) if key else [0.0, 0.0, 0.0]


def directions(fields: dict[str, str]) -> tuple[np.ndarray, bool]:
    """-> ([3, 3] of which column i is the step of index i in mm to the left, back and head, whether mm are known)."""
    matrix = next((key for key in MATRICES if key in fields), '')
    spacing = next((key for key in SPACINGS if key in fields), '')
    if not matrix and fields.get('AnatomicalOrientation', 'RAI') not in ('RAI', '???'):
        raise ValueError(f'AnatomicalOrientation = {fields["AnatomicalOrientation"][:60]!r} without a TransformMatrix')
    axes = np.reshape(numbers(fields, matrix, 9), (3, 3)).T if matrix else np.eye(3)
    lengths = np.linalg.norm(axes, axis=0)
    if np.abs(lengths - 1).max() > 1e-2:
        raise ValueError(f'the rows of {matrix} are no directions, their length is not 1')
    return axes / lengths * (numbers(fields, spacing, 3) if spacing else 1), bool(spacing)


def read_fields(path: Path) -> tuple[dict[str, str], int]:
    """-> ({key: value} of a MetaImage's header, the byte behind it). The last field is ElementDataFile."""
    with path.open('rb') as file:
        block = file.read(HEADER)
    fields = {}
    at = 0
    while 'ElementDataFile' not in fields:
        end = block.find(b'\n', at)
        line = block[at:end if end >= 0 else None]
        key, mark, value = line.decode('latin-1').partition('=')
        at += len(line) + 1
        if end >= 0 and not line.strip():
            continue
        if not mark or end < 0 and len(block) == HEADER:
            raise ValueError('no MetaImage: lines of KEY = VALUE that end in ElementDataFile are expected')
        fields[key.strip()] = value.strip()
    return fields, at


def beside(path: Path, name: str, field: str = 'ElementDataFile') -> Path:
    """The file of that name in path's folder, which field names. ValueError for a name that leads anywhere else, and for
    several files."""
    if not name or re.search(r'[/\\:\0]|^\.+$|^LIST\b', name):
        raise ValueError(f'{field} = {name[:60]!r} must be the name of one file in the same folder')
    if not (path.parent / name).is_file():
        raise ValueError(f'its voxels are in {name[:60]!r}, which is not beside it')
    return path.parent / name


def numbers(fields: dict[str, str], key: str, count: int, kind: Callable[[str], Any] = float) -> list:
    """The count finite numbers of a field."""
    try:
        values = [kind(word) for word in fields.get(key, '').split()]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(np.array(values, float)).all():
        raise ValueError(f'{key} must be {count} numbers, not {fields.get(key, "")[:60]!r}')
    return values


def flag(fields: dict[str, str], key: str) -> bool:
    """A field that is True or False; False where it is not there."""
    value = fields.get(key, 'False')
    if value.lower() not in (*YES, *NO):
        raise ValueError(f'{key} must be True or False, not {value[:60]!r}')
    return value.lower() in YES
