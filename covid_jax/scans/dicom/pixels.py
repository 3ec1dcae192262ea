"""The stored values of DICOM files -> Hounsfield units, or grey for X-rays, in whatever syntax they are compressed."""

import io
import os
import re
import struct
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from scipy import ndimage

from covid_jax import UserError
from covid_jax.scans.dicom.header import NATIVE, PLUGINS, own_words
from covid_jax.scans.dicom.planes import Plane
from covid_jax.scans.values import NO_GREY, check_hounsfield, tally

AIR = -1024  # Hounsfield units
GDCM = threading.Lock()  # stderr belongs to the whole process
# Markers of a JPEG (ITU T.81 Table B.1, T.87): the byte after 0xFF.
FRAMES = (0xC3, 0xF7)  # of a lossless JPEG, of JPEG-LS
HUFFMAN = 0xC4
SCAN = 0xDA  # the pixels come after it
COMMENT = 0xFE
APPLICATIONS = range(0xE0, 0xF0)
KEPT = (*FRAMES, HUFFMAN, SCAN, 0xDD, 0xF8)  # and restart intervals, and JPEG-LS parameters


def read_voxels(planes: Sequence[Plane], order: np.ndarray, orient: Callable[[np.ndarray], np.ndarray],
                hounsfield: bool) -> tuple[np.ndarray, bool]:
    """The planes, which lie file by file, -> ([depth, height, width]: int16 for whole Hounsfield units, else float32;
    Scan.tissue_padding).

    ValueError for what the headers call Hounsfield units and what cannot be, see values.py.
    """
    slice_of = np.argsort(order)  # where each plane comes to lie
    whole = hounsfield and all(value.is_integer() for plane in planes for value in plane.rescale)
    out = None
    at = 0
    tallies = {}
    tissue_padding = False
    for _, of_file in groupby(planes, key=lambda plane: id(plane.header)):
        frames = list(of_file)
        header = frames[0].header
        with own_words(header.path, 'its pixels cannot be decoded'):
            for plane, stored in zip(frames, _frames(header), strict=True):
                stored = orient(stored)
                hole = _padding(header, stored)
                if hounsfield and hole is not None and _is_tissue(stored, hole, *plane.rescale):
                    tissue_padding = True
                    hole = _outside(hole)
                voxels = _hounsfield(stored, hole, *plane.rescale) if hounsfield else _grey(stored, hole, plane)
                if out is None:
                    out = np.empty((len(planes), *voxels.shape), np.int16 if whole else np.float32)
                if out.dtype == np.int16 and voxels.dtype != np.int16:
                    out = out.astype(np.float32)
                out[slice_of[at]] = voxels
                measured = voxels if hole is None else voxels[~hole]
                if hounsfield and measured.size:
                    tallies[int(slice_of[at])] = tally(measured)
                at += 1
    if tallies:
        upward = sorted(tallies)
        check_hounsfield([tallies[k] for k in upward], names=[planes[order[k]].name for k in upward])
    return out, tissue_padding


def _frames(header):
    """Yields the stored values [rows, columns] of each frame, less the bits around them: old overlays live there."""
    allocated, stored, high, _ = header.bits
    with header.path.open('rb') as file:
        file.seek(header.at)
        if header.syntax in NATIVE:
            for values in _native(header, file):
                yield values if stored == allocated else values << (allocated - 1 - high) >> (allocated - stored)
            return
        data = file.read() if header.size is None else file.read(header.size)
    if data.rfind(b'\xfe\xff\xdd\xe0') < 0:  # the tag of the sequence delimitation item
        raise UserError(f'{header.path}: cut off, its compressed pixels have no end: copy it again')
    for values in _decompress(header, data):
        left = values.dtype.itemsize * 8 - stored
        yield values << left >> left if left > 0 else values


def _native(header, file):
    """Yields [rows, columns] of each frame of a file that stands at its first pixel."""
    allocated, _, _, signed = header.bits
    big = header.syntax == uid.ExplicitVRBigEndian
    dtype = np.dtype(f'{">" if big else "<"}{"i" if signed else "u"}{allocated // 8}')
    if big and allocated == 8 and header.vr == 'OW':  # bytes are swapped two by two, across frames
        data = file.read(header.size)
        file = io.BytesIO(np.frombuffer(data + bytes(len(data) % 2), '>u2').astype('<u2').tobytes())
    for _ in range(header.frames):
        data = file.read(header.rows * header.columns * dtype.itemsize)
        values = np.frombuffer(data, dtype).astype(dtype.newbyteorder('='), copy=False)
        yield values.reshape(header.rows, header.columns)


def _decode(header, data):
    """One encapsulated frame -> [rows, columns]."""
    allocated, stored, _, signed = header.bits
    return get_decoder(header.syntax).as_array(
        data, index=0, raw=True, decoding_plugin=PLUGINS[header.syntax], rows=header.rows, columns=header.columns,
        number_of_frames=1, samples_per_pixel=1, bits_allocated=allocated, bits_stored=stored,
        photometric_interpretation='MONOCHROME2', pixel_representation=int(signed), pixel_keyword='PixelData',
        pixel_vr=header.vr)[0]


def _decompress(header, data):
    """Yields [rows, columns] of each frame of encapsulated pixels, whose own headers must say what the file says."""
    parts = list(generate_frames(data, number_of_frames=header.frames))
    if len(parts) < header.frames:
        raise UserError(f'{header.path}: cut off, {len(parts)} frames of {header.frames}: copy it again')
    for part in parts[:header.frames]:
        if PLUGINS[header.syntax] == 'gdcm':
            part = _bare_jpeg(part, header)
        elif PLUGINS[header.syntax] == 'pillow':
            with Image.open(io.BytesIO(part), formats=('JPEG', 'JPEG2000')) as image:
                if image.size != (header.columns, header.rows):
                    raise ValueError('another size')
        with _guarded_gdcm(header.path) if PLUGINS[header.syntax] == 'gdcm' else nullcontext():
            values = _decode(header, encapsulate([part]))
        yield values


def _bare_jpeg(data, header):
    """A lossless JPEG or JPEG-LS without comments. ValueError for what would take gdcm, and so this process, down.

    gdcm ends the process at whatever libjpeg warns of, and reads out of bounds at a Huffman code or precision over 16.
    """
    kept = [data[:2]]
    at = 2
    mark = 0
    while mark != SCAN:  # segment by segment: 0xFF, a mark, the length of what follows, which counts itself
        mark = data[at + 1]
        length = int.from_bytes(data[at + 2:at + 4], 'big')
        segment = data[at:at + 2 + length]
        if data[at] != 0xFF or length < 2 or len(segment) < 2 + length:
            raise ValueError('no segment')
        if mark in FRAMES:
            precision, *size = struct.unpack('>BHHB', segment[4:10])
            if size != [header.rows, header.columns, 1] or not header.bits[0] - 8 < precision <= header.bits[0]:
                raise ValueError('another size')
        if mark == HUFFMAN:
            _check_tables(segment[4:])
        if mark in KEPT:
            kept.append(segment)
        elif mark != COMMENT and mark not in APPLICATIONS:  # these two are left out: they may name the patient
            raise ValueError('no lossless JPEG')
        at += 2 + length
    frames = [segment[1] for segment in kept[1:] if segment[1] in FRAMES]
    # The pixels end at the first mark: in a JPEG at 0xFF and not 0, in JPEG-LS at 0xFF and a byte whose first bit is
    # set.
    end = re.compile(rb'\xff[\x80-\xff]' if FRAMES[1] in frames else rb'\xff[^\x00]').search(data, at)
    if data[:2] != b'\xff\xd8' or len(frames) != 1 or not end or end.group() != b'\xff\xd9':
        raise ValueError('no JPEG')
    return b''.join(kept) + data[at:end.end()]


def _check_tables(tables):
    """ValueError for Huffman tables that gdcm would read beyond: each is its number, 16 counts of codes, and the
    codes."""
    while tables:
        end = 17 + sum(tables[1:17])
        if tables[0] > 3 or max(tables[17:end], default=0) > 16 or len(tables) < end:
            raise ValueError('no Huffman table')
        tables = tables[end:]


@contextmanager
def _guarded_gdcm(path):
    """What libjpeg says to stderr and to nobody else, that the data is damaged, is held back and becomes an error."""
    import gdcm
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    with GDCM, tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        if os.lseek(said.fileno(), 0, os.SEEK_CUR):
            raise UserError(f'{path}: its compressed pixels are damaged: copy it again')


def _padding(header, stored):
    """Where stored values stand for no measurement: bool like stored, or None."""
    allocated, bits, _, signed = header.bits
    found = [header.tags[key].value for key in ('PixelPaddingValue', 'PixelPaddingRangeLimit') if key in header.tags]
    found = [int.from_bytes(value, 'big' if header.syntax == uid.ExplicitVRBigEndian else 'little')
             if isinstance(value, bytes) else int(value) for value in found if value not in (None, b'')]
    if not found or 'PixelPaddingValue' not in header.tags:
        return None
    ends = []
    for value in found:  # the same bits, whichever sign they were written with
        value %= 2**allocated
        ends.append(value - 2**allocated if signed and value >= 2**(allocated - 1) else
                    value - 2**bits if signed and 2**(bits - 1) <= value < 2**bits else value)
    hole = (stored >= min(ends)) & (stored <= max(ends)) if len(ends) > 1 else stored == ends[0]
    return hole if hole.any() else None


def _is_tissue(stored, hole, slope, intercept):
    """Whether padding has a value that tissue has too, such as 0 where 0 is water."""
    return slope * float(stored[hole].max()) + intercept >= NO_GREY


def _outside(hole):
    """Of such padding only what reaches the edge of the slice: the rest is tissue of that value. bool, or None."""
    parts, _ = ndimage.label(hole)
    edges = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    outside = np.isin(parts, edges[edges > 0])
    return outside if outside.any() else None


def _hounsfield(stored, hole, slope, intercept):
    """Stored values -> Hounsfield units: int16 where these are whole and fit, else float32. AIR in holes."""
    if hole is not None:
        stored = np.where(hole, stored[~hole][0] if not hole.all() else 0, stored)
    ends = [slope * value + intercept for value in (int(stored.min()), int(stored.max()))]
    if slope.is_integer() and intercept.is_integer() and -2**15 <= min(ends) and max(ends) < 2**15 and max(
            abs(slope), abs(intercept)) < 2**15:
        values = stored.astype(np.int16)  # what wraps around here wraps back below, for the end fits
        if slope != 1:
            values *= np.int16(slope)
        values += np.int16(intercept)
    else:
        values = (stored * slope + intercept).astype(np.float32)
    if hole is not None:
        values[hole] = AIR
    return values


def _grey(stored, hole, plane):
    """Stored values -> [0, 255] float32 as a screen shows them: modality, table or window, MONOCHROME1 turned over."""
    tags = plane.header.tags
    values = stored.astype(np.int32)
    hole = np.zeros(stored.shape, bool) if hole is None else hole
    if tags.get('ModalityLUTSequence'):
        values = _lookup(values, tags, 'ModalityLUTSequence')[0].astype(np.int32)
    elif plane.rescale is not None:
        values = values * plane.rescale[0] + plane.rescale[1]
    if tags.get('VOILUTSequence'):
        values, top = _lookup(np.rint(values).astype(np.int64), tags, 'VOILUTSequence')
        shown = values / top
    elif plane.window is not None:
        center, width, function = plane.window
        if function not in WINDOWS or not (width >= 1 if function == 'LINEAR' else width > 0):
            raise UserError(f'{plane.header.path}: its window, {width:g} wide, is not valid: export it again')
        shown = WINDOWS[function](values, center, width)
    else:
        inside = values[~hole] if not hole.all() else values
        shown = (values - inside.min()) / max(inside.max() - inside.min(), 1e-12)
    if tags.get('PhotometricInterpretation') == 'MONOCHROME1':
        shown = 1 - shown
    return np.where(hole, 0, 255 * np.clip(shown, 0, 1)).astype(np.float32)


def _lookup(values, tags, keyword):
    """Whole numbers through the first table of a sequence -> (its entries, the largest entry there may be).

    Not pydicom's: in 3.0 its apply_voi wraps the values around at 256 where entries have 8 bits, and its
    apply_modality_lut knows entries of 8 and 16 bits alone.
    """
    item = tags[keyword].value[0]
    entries, start, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries % 2**16 or 2**16  # 0 stands for 65,536, and some writers have it signed
    data = item.LUTData
    if isinstance(data, bytes):
        order = '<' if item.original_encoding[1] is not False else '>'
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else order + 'u2')
    table = np.asarray(data, np.int64)[:entries] % 2**16
    start -= 2**16 if start >= 2**15 and values.min() < 0 else 0
    return table[np.clip(values - start, 0, len(table) - 1)], 2**(bits % 2**16) - 1


def _linear(values, center, width):
    """Brightness, of which [0, 1] is to be kept; so in the two below."""
    return (values - (center - 0.5)) / (width - 1) + 0.5 if width > 1 else (values > center - 0.5).astype(float)


def _linear_exact(values, center, width):
    return (values - center) / width + 0.5


def _sigmoid(values, center, width):
    return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -80, 80)))  # beyond 80 exp may overflow


WINDOWS = {'LINEAR': _linear, 'LINEAR_EXACT': _linear_exact, 'SIGMOID': _sigmoid}  # PS3.3 C.11.2.1
