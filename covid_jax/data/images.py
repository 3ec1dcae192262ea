"""PNG, JPEG and TIFF -> Scan: the bytes decide what a file is, whatever its name says, and all end as the same grey."""

import math
from collections import Counter
from contextlib import contextmanager

import numpy as np
from PIL import Image

from covid_jax import UserError
from covid_jax.data import scan
from covid_jax.data.scan import Scan, blame, natural

SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff')
FORMATS = ('PNG', 'JPEG', 'TIFF', 'BMP', 'GIF')  # what the bytes of an image may be
PIXELS = 2**26


def decode_image(path):
    """One image -> Scan of one slice; the pages of a TIFF are its slices."""
    return decode_slices([path])


def decode_slices(paths):
    """Images of one size, one slice each, in the natural order of their names -> Scan.

    Of colours the luma is taken, alpha is ignored, 16 bits are divided by 257. UserError that names the file for a slice of
    another size, a broken one, values that are no grey, and 16 bits of which none of the highest four is ever set.
    """
    paths = sorted(paths, key=natural)
    if len(paths) > scan.FILES:
        raise ValueError(f'{len(paths)} slices are more than {scan.FILES}')
    headers = [_header(path) for path in paths]
    width, height = size = Counter(header[:2] for header in headers).most_common(1)[0][0]
    for path, (*other, pages, _) in zip(paths, headers, strict=True):
        if tuple(other) != size:
            raise UserError(f'{path}: this slice is {other[0]} x {other[1]} pixels, the others are {width} x {height}')
        if pages > 1 and len(paths) > 1:
            raise UserError(f'{path}: {pages} pages in one of {len(paths)} slices: put each scan into a folder of its own')
    depth = sum(header[2] for header in headers)
    if depth * width * height > scan.VOXELS:
        raise ValueError(f'{depth} slices of {width} x {height} pixels are more than {scan.VOXELS} voxels')
    deep = [header[3] for header in headers]
    voxels = np.empty((depth, height, width), np.float32 if any(deep) else np.uint8)
    planes = iter(voxels)
    for path in paths:
        _fill(path, planes)
    if all(deep) and 0 < voxels.max() < 2**12 / 257:
        raise UserError(f'{paths[0]}: 16 bits that hold no value above 4095: Hounsfield units or a 12-bit scanner value, '
                        "not grey; save them in an .npz under the key 'hu', or rescale them to 0..65535")
    return Scan(voxels, False, None)


@contextmanager
def _open(path):
    """An image whose header was read and whose pixels were not."""
    with blame(path), Image.open(path, formats=FORMATS) as image:
        if math.prod(image.size) > PIXELS:
            raise ValueError(f'{image.width} x {image.height} pixels are more than {PIXELS}')
        yield image


def _header(path):
    """(width, height, pages, whether it has 16 bits)."""
    with _open(path) as image:
        if image.mode == 'F':
            raise ValueError('floating-point pixels have no known range: save them as .npy or .npz')
        return *image.size, getattr(image, 'n_frames', 1) if image.format == 'TIFF' else 1, image.mode.startswith('I')


def _fill(path, planes):
    """Writes each page of an image of any mode to the next of planes [height, width], in [0, 255]."""
    with _open(path) as image:
        for page in range(getattr(image, 'n_frames', 1) if image.format == 'TIFF' else 1):
            if page:
                image.seek(page)
            plane = next(planes)
            if image.size != plane.shape[::-1]:
                raise ValueError(f'page {page} is {image.width} x {image.height} pixels, the first is '
                                 f'{plane.shape[1]} x {plane.shape[0]}')
            if image.mode == 'F' or image.mode.startswith('I') and plane.dtype == np.uint8:
                kind = 'floating-point' if image.mode == 'F' else '16 bits or more'
                raise ValueError(f'page {page} is {kind}, the first is not: save them all alike')
            if image.mode.startswith('I'):
                values = np.asarray(image)
                if values.min() < 0 or values.max() > 2**16 - 1:
                    raise ValueError(f"values from {values.min()} to {values.max()} are no grey; if they are Hounsfield "
                                     "units, save them in an .npz under the key 'hu'")
                plane[:] = values / np.float32(257)
            else:
                plane[:] = np.asarray(image if image.mode == 'L' else image.convert('L'))
