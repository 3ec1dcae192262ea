"""PNG, JPEG, TIFF, BMP, GIF and WebP -> Scan: the bytes decide what a file is, whatever its name says, and all end as the same grey.

Orientation tags (EXIF, TIFF) are obeyed in every format; PhotometricInterpretation of a TIFF in every depth.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from covid_jax import UserError
from covid_jax.scans import scan
from covid_jax.scans.grey import check_deep
from covid_jax.scans.names import in_order
from covid_jax.scans.scan import Scan, blame

PREVIEWS = ('.bmp', '.gif', '.webp')  # formats in which a picture of a scan lies beside its slices
SUFFIXES = ('.png', '.jpg', '.jpeg', '.jfif', '.tif', '.tiff', *PREVIEWS)
FORMATS = ('PNG', 'JPEG', 'TIFF', 'BMP', 'GIF', 'WEBP')  # what the bytes of an image may be
MOVING = ('GIF', 'PNG', 'WEBP')  # whose frames need not be slices: only a TIFF has pages
PIXELS = 2**26  # of one slice
ORIENTATION = 274  # a tag of TIFF and of EXIF; those below are TIFF's alone
PHOTOMETRIC = 262
WIDTH = 256
LENGTH = 257
SUBFILE = 254
PART = 5  # bits of it: a smaller copy of another page, or its mask
DESCRIPTION = 270
SAMPLES = 277
DEPTH = 32997  # slices on one page
BITS = 258
PIECES = ((273, 279), (324, 325))  # where the strips, or tiles, of a page begin, and how many bytes each has
TABLES = 1024  # bytes that what a page says of itself may take behind its pixels, beside
ENTRY = 16  # for each strip or tile, where it begins and how many bytes it has
BIG_ENDIAN = b'MM\0\x2b'  # how a BigTIFF begins that Pillow does not know
STACK = re.compile(r'ImageJ=.*^images=([0-9]+)', re.S | re.M)  # how ImageJ says how many slices there are
SHAPE = re.compile(r'\{"shape": \[([0-9, ]+)\]')  # how tifffile says it
MORE = (re.compile(r'^(channels|frames)=([0-9]+)', re.M), re.compile('Size(C|T)="([0-9]+)"'))  # how ImageJ, and OME, say that pages are more than slices
TURN = Image.Transpose
TURNS = {2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM, 5: TURN.TRANSPOSE, 6: TURN.ROTATE_270,
         7: TURN.TRANSVERSE, 8: TURN.ROTATE_90}


class Header(NamedTuple):
    """What an image says before its pixels."""

    size: tuple[int, int]  # (width, height) once it is upright
    pages: int
    deep: bool  # whether it has 16 bits


def decode_image(path: Path) -> Scan:
    """One image -> Scan of one slice; the pages of a TIFF are its slices."""
    return decode_slices([path])


def decode_slices(paths: Iterable[Path]) -> Scan:
    """Images of one size, one slice each, in the natural order of their names -> Scan.

    Of colours the luma is taken, alpha is ignored, 16 bits are divided by 257. UserError that names the file for a slice
    of another size or depth, a broken one, two of one name, values that are no grey, and 16 bits that do not use their range.
    """
    paths = in_order(paths)
    if len(paths) > scan.FILES:
        raise ValueError(f'{len(paths)} slices are more than {scan.FILES}')
    _check_names(paths)
    headers = [_header(path) for path in paths]
    deep = _check_alike(paths, headers)
    width, height = headers[0].size
    depth = sum(header.pages for header in headers)
    if depth * width * height > scan.VOXELS:
        raise ValueError(f'{depth} slices of {width} x {height} pixels are more than {scan.VOXELS} voxels')
    voxels = np.empty((depth, height, width), np.float32 if deep else np.uint8)
    planes = iter(voxels)
    for path in paths:
        _fill(path, planes)
    if deep:
        with blame(paths[0]):
            check_deep(voxels)
    return Scan(voxels, False, None)


def _check_names(paths):
    """UserError for two files of one stem, such as 1.png and 1.jpg: one is likely a copy of the other."""
    seen = {}
    for path in paths:
        other = seen.setdefault(path.stem.casefold(), path)
        if other is not path:
            raise UserError(f'{other} and {path.name} would be two slices: keep one of them, or rename one')


def _check_alike(paths, headers):
    """Whether the slices have 16 bits. UserError for one of another size or depth, and for pages in one of several."""
    width, height = Counter(header.size for header in headers).most_common(1)[0][0]
    usual = Counter(header.deep for header in headers).most_common(1)[0][0]
    for path, (size, pages, deep) in zip(paths, headers, strict=True):
        if size != (width, height):
            raise UserError(f'{path}: this slice is {size[0]} x {size[1]} pixels, the others are {width} x {height}: a folder is one scan, so '
                            "where each image is an exam, give each a row of a manifest, or move them into the class's folder itself")
        if pages > 1 and len(paths) > 1:
            raise UserError(f'{path}: {pages} pages in one of {len(paths)} slices: put each scan into a folder of its '
                            'own')
        if deep != usual:
            raise UserError(f'{path}: this slice has {16 if deep else 8} bits, the others have {16 if usual else 8}: save '
                            'them all alike')
    return usual


@contextmanager
def _open(path):
    """An image whose header was read and whose pixels were not."""
    with blame(path):
        try:
            with Image.open(path, formats=FORMATS) as image:
                if math.prod(image.size) > PIXELS:
                    raise ValueError(f'{image.width} x {image.height} pixels are more than {PIXELS}')
                image.filename = ''  # or Pillow maps the file, and garbles a TIFF that is to be turned by 90 degrees
                yield image
        except Image.DecompressionBombError:
            raise ValueError(f'more than {PIXELS} pixels') from None
        except UnidentifiedImageError:
            with path.open('rb') as file:
                big = file.read(4) == BIG_ENDIAN
            raise ValueError('a BigTIFF whose bytes are in big-endian order, which is not read: save it as a TIFF' if big else
                             f'broken, or none of {", ".join(FORMATS)}: save it anew') from None


def _header(path):
    with _open(path) as image:
        if image.mode == 'F':
            raise ValueError('floating-point pixels have no known range: save them as .npy or .npz')
        _check_colours(image)
        if image.format in MOVING and getattr(image, 'n_frames', 1) > 1:
            raise ValueError(f'a moving picture of {image.n_frames} frames: save each slice as a picture of its own')
        # of a TIFF, image.size is that of the image already turned
        width, height = (image.tag_v2[WIDTH], image.tag_v2[LENGTH]) if image.format == 'TIFF' else image.size
        lies = _orientation(image) > 4  # 5 to 8 are quarter turns
        return Header((height, width) if lies else (width, height), _pages(image), image.mode.startswith('I'))


def _check_colours(image):
    """ValueError for colours, or transparency, of 16 bits: Pillow keeps 8 of them, which hides what they held."""
    bits = max(_whole(image, BITS), default=1) if image.format == 'TIFF' else 16 if any('16' in str(tile[3]) for tile in image.tile) else 8
    if bits > 8 and image.mode[0] not in 'IF':
        raise ValueError(f'colours or transparency of {bits} bits: save it as grey of 16 bits, or in 8 bits')


def _pages(image):
    """How many slices an image has. ValueError for a TIFF with more slices than pages: the others lie behind the first. What a page that was
    cut out of a stack still says of it counts for nothing."""
    if image.format != 'TIFF':
        return 1
    pages = image.n_frames
    size = math.prod(image.size) * int(image.tag_v2.get(SAMPLES, 1))
    said = str(image.tag_v2.get(DESCRIPTION, ''))
    stack = STACK.match(said)
    shape = SHAPE.match(said)
    told = max(int(stack[1]) if stack else 1, math.prod(map(int, shape[1].split(','))) // size if shape else 1)
    if told > pages == 1 and not _has_room(image, size):
        told = 1
    several = [f'{kind}={count}' for form in MORE for kind, count in form.findall(said) if int(count) > int(image.tag_v2.get(SAMPLES, 1))]
    if several and max(pages, told) > 1 or shape and pages > 1 and _grids(shape, size) > 1:
        raise ValueError(f'pages of a TIFF that are not the slices of one volume ({", ".join(several) or f"shape {shape[1]}"}): save one channel '
                         'of one time alone')
    slices = max(int(image.tag_v2.get(DEPTH, 1)) * pages, told)
    if slices > pages:
        raise ValueError(f'{slices} slices on {pages} page{"s" * (pages > 1)} of a TIFF: save each slice on a page of its own')
    return pages


def _grids(shape, size):
    """How many axes longer than 1 tifffile's shape has in front of those of a page of size values."""
    lengths = [int(length) for length in shape[1].split(',')]
    return sum(length > 1 and math.prod(lengths[i + 1:]) >= size for i, length in enumerate(lengths))


def _has_room(image, size):
    """Whether more than what a page says of itself lies behind the pixels of a TIFF's one page, which are of size values."""
    ends = [at + count for starts, counts in PIECES
            for at, count in zip(_whole(image, starts), _whole(image, counts), strict=True)]
    here = image.fp.tell()
    last = image.fp.seek(0, 2)
    image.fp.seek(here)
    plane = size * max(_whole(image, BITS), default=1) // 8
    return not ends or last - max(ends) >= min(TABLES + ENTRY * len(ends), max(plane, 1))


def _whole(image, tag):
    """The numbers of a tag of a TIFF, none where it has none."""
    found = image.tag_v2.get(tag, ())
    return [int(number) for number in (found if isinstance(found, tuple) else (found,))]


def _orientation(image):
    """1 to 8 as EXIF counts them, 1 where the image does not say or says it in a broken way. Reads no pixels."""
    try:
        orientation = Image.Image.getexif(image).get(ORIENTATION, 1)
    except Exception:  # whatever its parser makes of broken EXIF
        return 1
    return orientation if orientation in TURNS else 1


def _upright(image):
    """The image as its orientation tag says, its pixels read."""
    image.load()
    orientation = 1 if image.format == 'TIFF' else _orientation(image)  # Pillow itself turns a TIFF when it loads it
    return image.transpose(TURNS[orientation]) if orientation > 1 else image


def _fill(path, planes):
    """Writes each page of an image of any mode to the next of planes [height, width], in [0, 255]."""
    with _open(path) as image:
        for page in range(_pages(image)):
            if page:
                image.seek(page)
            if image.format == 'TIFF' and int(image.tag_v2.get(SUBFILE, 0)) & PART:
                raise ValueError(f'page {page} is a thumbnail or a mask of another: save the slices alone')
            _check_colours(image)
            plane = next(planes)
            inverted = image.format == 'TIFF' and image.tag_v2.get(PHOTOMETRIC) == 0  # of 8 bits Pillow knows
            if math.prod(image.size) > PIXELS:
                raise ValueError(f'page {page}: {image.width} x {image.height} pixels are more than {PIXELS}')
            upright = _upright(image)
            if upright.size != plane.shape[::-1]:
                raise ValueError(f'page {page} is {upright.width} x {upright.height} pixels, the first is '
                                 f'{plane.shape[1]} x {plane.shape[0]}')
            deep = upright.mode.startswith('I')
            if upright.mode == 'F':
                raise ValueError(f'page {page} is floating-point, the first is not: save them all alike')
            if deep != (plane.dtype != np.uint8):
                bits = '16 bits or more' if deep else '8 bits or less'
                raise ValueError(f'page {page} is {bits}, the first is not: save them all alike')
            if deep:
                plane[:] = _grey16(upright, inverted)
            else:
                plane[:] = np.asarray(upright if upright.mode == 'L' else upright.convert('L'))


def _grey16(image, inverted):
    """The pixels of an image of 16 bits, in [0, 255]."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 2**16 - 1:
        raise ValueError(f"values from {values.min()} to {values.max()} are no grey; if they are Hounsfield units, save "
                         "them in an .npz under the key 'hu'")
    return (2**16 - 1 - values if inverted else values) / np.float32(257)  # 65535 / 257 = 255
