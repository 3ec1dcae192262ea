"""numpy's own files -> Scan: .npz and .npy, never unpickled, their headers judged before memory is taken."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from covid_jax.scans.scan import BYTES, VOXELS, Scan, check_spacing
from covid_jax.scans.values import NO_GREY, check_hounsfield, tally
from covid_jax.text import some

PICTURE = (1, 3, 4)  # the last axis of a picture: grey, RGB, RGBA
SIDE = 16  # pixels that a picture has at least; no volume is so narrow
KEYS = ('hu', 'volume', 'image')  # the first that is there is the scan


def decode_npy(path: Path) -> Scan:
    """The one array of a .npy file as a Scan; see `as_scan` for its units."""
    with path.open('rb') as stream:
        return as_scan(_slices(_array(stream, path.stat().st_size)), False, None)


def decode_npz(path: Path) -> Scan:
    """The array 'hu' (Hounsfield units), 'volume' or 'image', or the only one, and spacing_mm (z, y, x) if it is there."""
    with zipfile.ZipFile(path) as archive:
        keys = [name.removesuffix('.npy') for name in archive.namelist()]
        arrays = [key for key in keys if key != 'spacing_mm']
        key = next((key for key in KEYS if key in keys), arrays[0] if len(arrays) == 1 else None)
        if key is None:
            raise ValueError(f"no array named 'hu', 'volume' or 'image' (found: {some(keys, 10) or 'nothing'})")
        spacing = None
        if 'spacing_mm' in keys:
            lengths = tuple(float(mm) for mm in member(archive, 'spacing_mm', ndims=(1,), limit=3))
            if len(lengths) != 3 or not all(0 < mm < math.inf for mm in lengths):
                raise ValueError(f'spacing_mm must be three positive numbers (z, y, x), not {lengths}')
            check_spacing(lengths)
            if math.isclose(lengths[0], lengths[1], rel_tol=.01) and not math.isclose(lengths[1], lengths[2], rel_tol=.01):
                raise ValueError(f'spacing_mm is {lengths}, but pixels are square: its order is (z, y, x), that of [depth, height, width]')
            spacing = lengths[0], lengths[1], lengths[2]
        return as_scan(_slices(member(archive, key)), key == 'hu', spacing)


def member(archive: zipfile.ZipFile, key: str, kinds: str = 'iuf', ndims: Sequence[int] = (2, 3),
           limit: int = VOXELS) -> np.ndarray:
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
    try:
        shape, _, dtype = read_header(stream)
    except MemoryError:  # of Python's parser, where brackets are deeper than it goes
        raise ValueError('its header is broken') from None
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


def as_scan(array: np.ndarray, hounsfield: bool, spacing: tuple[float, float, float] | None) -> Scan:
    """[depth, height, width] or [height, width] of any real dtype -> Scan.

    Hounsfield units if the caller says so or the minimum is below -200; otherwise it must be grey: in [0, 255], or floats
    in [0, 1], which are multiplied by 255. ValueError for values that are neither (see values.py), or not finite.
    """
    array = array[None] if array.ndim == 2 else array
    _check_colours(array)
    low = float(array.min())
    high = float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError('some values are not finite')
    if hounsfield or low < NO_GREY:
        check_hounsfield(map(tally, array), hounsfield)
        dtype = np.float32 if array.dtype.kind == 'f' else np.int16
        return Scan(array.astype(dtype, copy=False), True, spacing)
    scale = 255 if array.dtype.kind == 'f' and high <= 1 else 1
    if low < 0 or high * scale > 255:
        raise ValueError(f'values from {low:g} to {high:g} are not grey (0 to 255); '
                         "if they are Hounsfield units, save them in an .npz under the key 'hu'")
    if array.dtype.kind != 'f':
        return Scan(array.astype(np.uint8, copy=False), False, spacing)
    return Scan(array.astype(np.float32) * np.float32(scale), False, spacing)


def _check_colours(array):
    """ValueError for 3 slices, or 4, of which the first three are one and the same: grey that was saved as colours."""
    if len(array) in (3, 4) and min(array.shape[1:]) >= SIDE and np.ptp(array[0]) and all((array[0] == plane).all() for plane in array[1:3]):
        raise ValueError('three slices that are one and the same: the colours of one picture in the place of the depth, no scan: save it as one slice')


def _slices(array):
    """The array as `_grey` has it. ValueError for [height, width, depth]: slices are square, and nothing else says which axis is which."""
    array = _grey(array)
    if array.ndim == 3 and min(array.shape[:2]) >= SIDE and array.shape[0] == array.shape[1] != array.shape[2]:
        raise ValueError(f'shape {list(array.shape)} seems to be [height, width, depth]: save it as [depth, height, width]; where it is '
                         'that, save it as NIfTI, which says what its axes are')
    return array


def _grey(array):
    """The array, but of a picture [height, width, 1, 3 or 4] the one slice that it is: of colours the luma, as of any image."""
    if array.ndim == 2 or array.shape[2] not in PICTURE or min(array.shape[:2]) < SIDE:
        return array
    if array.shape[2] == 1:
        return array[..., 0]
    if array.dtype != np.uint8:
        raise ValueError(f'shape {list(array.shape)} of {array.dtype}: a picture in colours, which are read as uint8 alone; save '
                         'a slice as [height, width], a volume as [depth, height, width]')
    return np.asarray(Image.fromarray(np.ascontiguousarray(array[..., :3])).convert('L'))
