"""The header of a DICOM file, of which only what an image needs is read.

Privacy: the elements in TAGS, and no other, are parsed. No message of pydicom or gdcm and no text of a file, its series UID
apart, gets into an error; what either writes to a log is held back.
"""

import logging
import mmap
import struct
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom import uid
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from covid_jax import UserError

XRAY = ('CR', 'DX', 'RG')
OBJECTS = ('DOC', 'KO', 'PR', 'REG', 'RTDOSE', 'RTPLAN', 'RTSTRUCT', 'SEG', 'SR')  # none is a scan
OTHERS = ('ES', 'IO', 'MG', 'MR', 'NM', 'OT', 'PT', 'RF', 'SC', 'SM', 'US', 'XA', 'XC')
MACROS = {'ImagePositionPatient': 'PlanePositionSequence', 'ImageOrientationPatient': 'PlaneOrientationSequence',
          'PixelSpacing': 'PixelMeasuresSequence', 'SliceThickness': 'PixelMeasuresSequence',
          'SpacingBetweenSlices': 'PixelMeasuresSequence', 'RescaleSlope': 'PixelValueTransformationSequence',
          'RescaleIntercept': 'PixelValueTransformationSequence', 'RescaleType': 'PixelValueTransformationSequence',
          'WindowCenter': 'FrameVOILUTSequence', 'WindowWidth': 'FrameVOILUTSequence',
          'VOILUTFunction': 'FrameVOILUTSequence'}
TAGS = [Tag(keyword) for keyword in (
    *MACROS, 'SOPClassUID', 'Modality', 'ImageType', 'SeriesInstanceUID', 'InstanceNumber', 'Rows', 'Columns',
    'NumberOfFrames', 'SamplesPerPixel', 'PhotometricInterpretation', 'BitsAllocated', 'BitsStored', 'HighBit',
    'PixelRepresentation', 'PixelPaddingValue', 'PixelPaddingRangeLimit', 'ModalityLUTSequence', 'VOILUTSequence',
    'SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence')]


class Header(NamedTuple):
    """A file up to its pixels, which are `size` bytes from byte `at` (size None: not known before they are read)."""

    path: Path
    tags: pydicom.Dataset
    syntax: uid.UID
    vr: str
    at: int
    size: int | None
    rows: int
    columns: int
    frames: int
    bits: tuple[int, int, int, bool]  # allocated, stored, the highest, whether signed


@contextmanager
def quiet():
    """Nothing is warned of, logged or validated: all three quote what they are about."""
    logger = logging.getLogger('pydicom')
    level = logger.level
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter('ignore')
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def own_words(path, problem):
    """A foreign exception may quote any part of the file: only its type is told."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'{path}: {problem} ({type(error).__name__}): export or copy it again') from None


def parse(path, keys):
    """-> (the elements of a file named by keys, its transfer syntax, VR, first byte and number of bytes of its pixels).

    The number is 0 where there are no pixels and None where only reading tells. Memory is taken for what the file
    holds, never for what it claims, which is why it is mapped, and why deflated files are refused.
    """
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.seek(132 if data[128:132] == b'DICM' else 0)
        meta = read_dataset(data, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        syntax = uid.UID(meta.get('TransferSyntaxUID') or uid.ExplicitVRLittleEndian)
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            raise UserError(f'{path}: deflated DICOM is not read: export it uncompressed')
        little = syntax != uid.ExplicitVRBigEndian
        tags = read_dataset(data, syntax == uid.ImplicitVRLittleEndian, little, specific_tags=keys,
                            stop_when=lambda tag, vr, length: tag >> 16 == 0x7FE0 and tag & 0xFFFF in (8, 9, 16))
        head, order = data[data.tell():data.tell() + 12], '<' if little else '>'
        if head[:4] != struct.pack(order + 'HH', 0x7FE0, 0x0010):
            return tags, syntax, '', 0, 0
        long = head[4:6] in (b'OB', b'OW', b'UN')  # otherwise there is no VR, and the length is where it would be
        at, length = data.tell() + (12 if long else 8), struct.unpack(order + 'I', head[8:] if long else head[4:8])[0]
        left = max(len(data) - at, 0)
        size = None if length == 2**32 - 1 else min(length, left)
        return tags, syntax, head[4:6].decode() if long else 'OW', at, size


def read_header(path):
    """What a file says before its pixels -> Header."""
    with own_words(path, 'cannot be read as DICOM'):
        tags, syntax, vr, at, size = parse(path, TAGS)
        rows, columns, frames, allocated = (int(tags.get(key) or default) for key, default in (
            ('Rows', 0), ('Columns', 0), ('NumberOfFrames', 1), ('BitsAllocated', 16)))
        stored = int(tags.get('BitsStored') or allocated)
        high = int(tags.get('HighBit') or stored - 1)
        bits = allocated, stored, high, bool(tags.get('PixelRepresentation', 0))
        for key in ('SOPClassUID', 'Modality', 'ImageType', 'SeriesInstanceUID', 'SamplesPerPixel',
                    'PhotometricInterpretation'):
            tags.get(key)  # parsed here, for here a foreign exception is caught; kept by pydicom
        return Header(path, tags, syntax, vr, at, size, rows, columns, frames, bits)


def modality(header):
    """As the file says, '?' for what is none: this gets into errors."""
    said = str(header.tags.get('Modality') or '')
    return said if said in ('CT', *XRAY, *OBJECTS, *OTHERS) else '?'


def kind(header):
    """What an object is, in the words of the standard."""
    with own_words(header.path, 'cannot be read as DICOM'):
        kind = uid.UID(str(header.tags.get('SOPClassUID')))
        return kind.name if kind.type else f'object of modality {modality(header)}'


def numbers(value):
    """An element of one or more numbers -> float64 array, None where absent or blank. ValueError for no numbers."""
    if value is None or isinstance(value, str) and not value.strip():
        return None
    value = np.atleast_1d(np.asarray(value, np.float64))
    if not np.isfinite(value).all():
        raise ValueError('not finite')
    return value if value.size else None
