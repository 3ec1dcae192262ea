"""A path in, voxels out: the bytes of one scan read as data, never as code, and checked against limits first.

A path is an array (.npz, .npy), one image (.png, .jpg), a folder of such images, or a 'phantom:...' address. Every
failure is a UserError of one line that names the file.
"""

import math
import re
import warnings
import zipfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from covid_jax import UserError
from covid_jax.data import phantom

IMAGES = ('.png', '.jpg', '.jpeg')
ARRAYS = ('.npz', '.npy')
FORMATS = ('PNG', 'JPEG', 'BMP', 'GIF')  # what the bytes of an image may be, whatever its name says
KEYS = ('hu', 'volume', 'image')
VOXELS = 2**30
BYTES = 2**32
PIXELS = 2**26
SLICES = 4096


class Scan(NamedTuple):
    """What a file holds.

    voxels:     [depth, height, width], int16 or float32; one slice has depth 1
    hounsfield: True: the values are Hounsfield units. False: they are grey, float32 in [0, 255]
    spacing:    (z, y, x) mm between voxel centres, None where the file does not say
    """

    voxels: np.ndarray
    hounsfield: bool
    spacing: tuple[float, float, float] | None


def decode(path):
    """The Scan at a path; see the module for what a path may be.

    An array is in Hounsfield units if its key is 'hu' or its minimum is below -200. Otherwise it must be grey: in
    [0, 255], or floats in [0, 1], which are multiplied by 255. Of an image's colours the luma is taken, its alpha is
    ignored, and 16 bits are divided by 257. The slices of a folder are in the natural order of their names.
    """
    if str(path).startswith('phantom:'):
        hu, spacing, _ = phantom.from_address(str(path))
        return Scan(hu, True, spacing)
    path = Path(path)
    with blame(path):
        if path.is_dir():
            return Scan(_folder(path), False, None)
        if not path.is_file():
            raise ValueError('no such file or folder')
        match path.suffix.lower():
            case '.npz':
                return _npz(path)
            case '.npy':
                with path.open('rb') as stream:
                    return _scan(_array(stream, path.stat().st_size), False, None)
            case suffix if suffix in IMAGES:
                return Scan(_grey(path)[None], False, None)
        raise ValueError(f'not a scan: expected {", ".join(ARRAYS + IMAGES)} or a folder of slices')


@contextmanager
def blame(path):
    """Whatever a parser raises on foreign bytes becomes a UserError that names the file; its warnings are not ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(' '.join(f'{path}: {str(error) or type(error).__name__}'.splitlines())) from error


def natural(path):
    """The sort key of a slice: its whole stem with numbers as numbers ('ct 2' before 'ct 10'), then its name."""
    parts = re.split('([0-9]+)', path.stem.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _folder(folder):
    """A folder of slices in natural order -> grey [depth, height, width]. Other files in it are ignored."""
    entries = sorted((entry for entry in folder.iterdir() if not entry.name.startswith('.')), key=natural)
    paths = [entry for entry in entries if entry.suffix.lower() in IMAGES and entry.is_file()]
    if not paths:
        names = [entry.name for entry in entries]
        found = ', '.join(names[:5] + ['...'] * (len(names) > 5)) or 'nothing'
        raise UserError(f'no PNG or JPG slices in {folder} (found: {found})')
    if len(paths) > SLICES:
        raise ValueError(f'{len(paths)} slices are more than {SLICES}')
    sizes = [_size(path) for path in paths]
    width, height = size = Counter(sizes).most_common(1)[0][0]
    for path, other in zip(paths, sizes, strict=True):
        if other != size:
            raise UserError(f'{path}: this slice is {other[0]} x {other[1]} pixels, the others are {width} x {height}')
    if len(paths) * width * height > VOXELS:
        raise ValueError(f'{len(paths)} slices of {width} x {height} pixels are more than {VOXELS} voxels')
    voxels = np.empty((len(paths), height, width), np.float32)
    for grey, path in zip(voxels, paths, strict=True):
        grey[:] = _grey(path)
    return voxels


@contextmanager
def _open(path):
    """An image whose header was read and whose pixels were not."""
    with blame(path), Image.open(path, formats=FORMATS) as image:
        if math.prod(image.size) > PIXELS:
            raise ValueError(f'{image.width} x {image.height} pixels are more than {PIXELS}')
        yield image


def _size(path):
    with _open(path) as image:
        return image.size


def _grey(path):
    """One image of any mode -> float32 [height, width] in [0, 255]."""
    with _open(path) as image:
        if image.mode.startswith('I'):
            return np.clip(np.asarray(image, np.float32) / 257, 0, 255)
        return np.asarray(image.convert('L'), np.float32)


def _npz(path):
    with zipfile.ZipFile(path) as archive:
        keys = [name.removesuffix('.npy') for name in archive.namelist()]
        arrays = [key for key in keys if key != 'spacing_mm']
        key = next((key for key in KEYS if key in keys), arrays[0] if len(arrays) == 1 else None)
        if key is None:
            raise ValueError(f"no array named 'hu', 'volume' or 'image' (found: {', '.join(keys[:10]) or 'nothing'})")
        spacing = None
        if 'spacing_mm' in keys:
            spacing = tuple(float(mm) for mm in member(archive, 'spacing_mm', ndims=(1,), limit=3))
            if len(spacing) != 3 or not all(0 < mm < math.inf for mm in spacing):
                raise ValueError(f'spacing_mm must be three positive numbers (z, y, x), not {spacing}')
        return _scan(member(archive, key), key == 'hu', spacing)


def member(archive, key, kinds='iuf', ndims=(2, 3), limit=VOXELS):
    """One array of an open .npz archive. ValueError unless its dtype is of the kinds (numpy's letters), its rank one of
    ndims and its size at most limit."""
    info = archive.getinfo(key + '.npy')
    with archive.open(info) as stream:
        return _array(stream, info.file_size, kinds, ndims, limit)


def _array(stream, size, kinds='iuf', ndims=(2, 3), limit=VOXELS):
    """The .npy bytes of a stream of size bytes; the header is judged before memory is taken for what it promises."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f'.npy format {version} is not known')
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError('the array holds Python objects, which are never unpickled')
    if dtype.kind not in kinds:
        raise ValueError(f'values of type {dtype} are not expected here')
    if len(shape) not in ndims or any(length < 1 for length in shape):
        raise ValueError(f'shape {list(shape)} is empty or has not {" or ".join(map(str, ndims))} dimensions')
    count = math.prod(shape)
    if count > limit or count * dtype.itemsize > BYTES:
        raise ValueError(f'shape {list(shape)} of {dtype} is over the limit of {limit} values or {BYTES} bytes')
    if count * dtype.itemsize > size - stream.tell():
        raise ValueError(f'cut off: shape {list(shape)} of {dtype} is more than the {size} bytes that are here')
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def _scan(array, hounsfield, spacing):
    """[depth, height, width] or [height, width], any real dtype -> Scan."""
    array = array[None] if array.ndim == 2 else array
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError('some values are not finite')
    if hounsfield or low < -200:
        if low < -2**15 or high >= 2**15:
            raise ValueError(f'values from {low:g} to {high:g} are not Hounsfield units')
        dtype = np.float32 if array.dtype.kind == 'f' else np.int16
        return Scan(array.astype(dtype, copy=False), True, spacing)
    scale = 255 if array.dtype.kind == 'f' and high <= 1 else 1
    if low < 0 or high * scale > 255:
        raise ValueError(f'values from {low:g} to {high:g} are not grey (0 to 255); '
                         "if they are Hounsfield units, save them in an .npz under the key 'hu'")
    return Scan(array.astype(np.float32) * np.float32(scale), False, spacing)
