"""The header of a DICOM file, of which only what an image needs is read.

Privacy: the elements in TAGS, and no other, are parsed; those in PERSON become a hash at once, to tell people apart.
No message of pydicom or gdcm and no text of a file, its series UID apart, gets into an error; what either writes to a
log is held back.
"""

import hashlib
import logging
import mmap
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom import uid
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from covid_jax import UserError
from covid_jax.scans.scan import MACHINE, blame, check_size

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
    'PresentationIntentType', 'FrameOfReferenceUID', 'SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence')]
PERSON = [Tag('PatientID'), Tag('IssuerOfPatientID')]
NOBODY = ('anon', 'anonymised', 'anonymized', 'anonymous', 'deidentified', 'de-identified', 'n/a', 'na', 'nan',
          'no name', 'none', 'null', 'patient', 'redacted', 'removed', 'test', 'unknown', 'unspecified')
STORAGE = '1.2.840.10008.5.1.4.1.1.'  # what the SOP classes of the standard begin with
PLUGINS = {uid.JPEGBaseline8Bit: 'pillow', uid.JPEGExtended12Bit: 'pillow', uid.JPEG2000: 'pillow',
           uid.JPEG2000Lossless: 'pillow', uid.JPEGLossless: 'gdcm', uid.JPEGLosslessSV1: 'gdcm',
           uid.JPEGLSLossless: 'gdcm', uid.JPEGLSNearLossless: 'gdcm', uid.RLELossless: 'pydicom'}
NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)


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
    person: str  # see digest


def quiet() -> None:
    """From here on pydicom warns of nothing, logs nothing and validates nothing: all three quote what they are about."""
    logging.getLogger('pydicom').setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings('ignore', module='pydicom')
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE


quiet()  # for the whole process: around each file it would end in one thread while another still reads


@contextmanager
def own_words(path: Path, problem: str) -> Iterator[None]:
    """A foreign exception may quote any part of the file: only its type is told. What is the machine's fault stays."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE:
            raise
        raise UserError(f'{path}: {problem} ({type(error).__name__}): export or copy it again') from None


def parse(path: Path, keys: list) -> tuple[pydicom.Dataset, uid.UID, str, int, int | None]:
    """-> (the elements of a file named by keys, its transfer syntax, VR, first byte and number of bytes of its pixels).

    The number is 0 where there are no pixels (the VR is OF or OD where they are floats) and None where only reading
    tells. Memory is taken for what the file holds, never for what it claims, which is why it is mapped, and why
    deflated files are refused.
    """
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.seek(132 if data[128:132] == b'DICM' else 0)
        meta = read_dataset(data, False, True,  # type: ignore[arg-type]  # a map reads like a file
                            stop_when=lambda tag, vr, length: tag >> 16 != 2)
        syntax = uid.UID(meta.get('TransferSyntaxUID') or uid.ExplicitVRLittleEndian)
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            raise UserError(f'{path}: deflated DICOM is not read: export it uncompressed')
        little = syntax != uid.ExplicitVRBigEndian
        tags = read_dataset(data, syntax == uid.ImplicitVRLittleEndian, little, specific_tags=keys,  # type: ignore[arg-type]
                            stop_when=lambda tag, vr, length: tag >> 16 == 0x7FE0 and tag & 0xFFFF in (8, 9, 16))
        if not tags.get('SOPClassUID') and 'MediaStorageSOPClassUID' in meta:  # cut off before the first
            tags.SOPClassUID = meta.MediaStorageSOPClassUID
        order = '<' if little else '>'
        start = data.tell()
        head = data[start:start + 12]  # tag, VR and length of what comes next
        if head[:4] != struct.pack(order + 'HH', 0x7FE0, 0x0010):
            floats = {struct.pack(order + 'HH', 0x7FE0, element): vr for element, vr in ((8, 'OF'), (9, 'OD'))}
            return tags, syntax, floats.get(head[:4], ''), 0, 0
        if head[4:6] in (b'OB', b'OW', b'UN'):
            vr = head[4:6].decode()
            at = start + 12
            length, = struct.unpack(order + 'I', head[8:])
        else:  # no VR: the length is in its place
            vr = 'OW'
            at = start + 8
            length, = struct.unpack(order + 'I', head[4:8])
        left = max(len(data) - at, 0)
        return tags, syntax, vr, at, None if length == 2**32 - 1 else min(length, left)  # 2**32 - 1: up to a mark


def read_header(path: Path) -> Header:
    """What a file says before its pixels -> Header."""
    with own_words(path, 'cannot be read as DICOM'):
        tags, syntax, vr, at, size = parse(path, TAGS + PERSON)
        person = digest(tags)
        rows, columns, frames, allocated = (int(tags.get(key) or default) for key, default in (
            ('Rows', 0), ('Columns', 0), ('NumberOfFrames', 1), ('BitsAllocated', 16)))
        stored = int(tags.get('BitsStored') or allocated)
        high = int(tags.get('HighBit') or stored - 1)
        bits = allocated, stored, high, bool(tags.get('PixelRepresentation', 0))
        for key in ('SOPClassUID', 'Modality', 'ImageType', 'SeriesInstanceUID', 'SamplesPerPixel',
                    'PhotometricInterpretation', 'FrameOfReferenceUID', 'PresentationIntentType'):
            tags.get(key)  # parsed here, for here a foreign exception is caught; kept by pydicom
        return Header(path, tags, syntax, vr, at, size, rows, columns, frames, bits, person)


def digest(tags: pydicom.Dataset) -> str:
    """Takes the patient's id out of the elements -> its hash, '' where it is blank or stands for nobody."""
    raw = [tags.get_item(key) for key in PERSON if key in tags]
    found = {element.tag: bytes(element.value or b'').strip(b' \0') for element in raw}
    for tag in found:
        del tags[tag]
    patient, issuer = (found.get(key, b'') for key in PERSON)
    plain = patient.decode('latin-1').lower().strip(' 0x-_.*?')
    return hashlib.sha256(patient + b'\0' + issuer).hexdigest() if plain and plain not in NOBODY else ''


def check_whole(header: Header) -> None:
    """UserError for a file without image that is none of the objects that have none: the rest of it is missing."""
    with own_words(header.path, 'cannot be read as DICOM'):
        said = uid.UID(str(header.tags.get('SOPClassUID') or ''))
        cut = not said.is_valid or STORAGE.startswith(said)
        if not header.rows and modality(header) not in OBJECTS and ('Image Storage' in said.name if said.type else cut):
            problem = 'cut off before its pixels' if said else 'no DICOM file or cut off'
            raise UserError(f'{header.path}: {problem}: copy it again or remove it')


def check_pixels(header: Header) -> None:
    """UserError for pixels that cannot be read or are not all there, before memory is taken for them."""
    allocated, stored, high, _ = header.bits
    need = header.frames * header.rows * header.columns * allocated // 8
    photometric = header.tags.get('PhotometricInterpretation')
    problem = ''
    if header.vr in ('OF', 'OD'):
        problem = 'float pixels are not read: export it with whole numbers'
    elif header.size == 0:
        problem = 'cut off before its pixels: copy it again'
    elif header.tags.get('SamplesPerPixel') in (None, '', 1) and not photometric:
        problem = 'does not say whether its pixels are grey (no PhotometricInterpretation): export it again'
    elif header.tags.get('SamplesPerPixel') not in (None, '', 1) or photometric not in ('MONOCHROME1', 'MONOCHROME2'):
        problem = 'in colours, Hounsfield units and X-rays are grey: export the original series'
    elif allocated not in (8, 16) or not 0 < stored <= high + 1 <= allocated:
        problem = f'{stored} bits up to bit {high} of {allocated}: only values of 8 and 16 bits can be read'
    elif header.syntax not in (*NATIVE, *PLUGINS) or header.syntax == uid.JPEGExtended12Bit and stored > 8:
        name = header.syntax.name if header.syntax.type else 'an unknown syntax'
        problem = f'compressed as {name}, which is not read: export it uncompressed'
    elif header.syntax not in NATIVE and high != stored - 1:
        problem = f'compressed, and {stored} bits up to bit {high}: export it uncompressed'
    elif header.syntax in NATIVE and (header.size is None or header.size < need):
        problem = f'cut off, {header.size or 0} bytes of pixels of {need}: copy it again'
    if problem:
        raise UserError(f'{header.path}: {problem}')
    with blame(header.path):
        check_size((header.frames, header.rows, header.columns))


def modality(header: Header) -> str:
    """As the file says, '?' for what is none: this gets into errors."""
    said = str(header.tags.get('Modality') or '')
    return said if said in ('CT', *XRAY, *OBJECTS, *OTHERS) else '?'


def kind(header: Header) -> str:
    """What an object is, in the words of the standard."""
    with own_words(header.path, 'cannot be read as DICOM'):
        said = uid.UID(str(header.tags.get('SOPClassUID')))
        return said.name if said.type else f'object of modality {modality(header)}'


def numbers(value: object) -> np.ndarray | None:
    """An element of one or more numbers -> float64 array, None where absent or blank. ValueError for no numbers."""
    if value is None or isinstance(value, str) and not value.strip():
        return None
    value = np.atleast_1d(np.asarray(value, np.float64))
    if not np.isfinite(value).all():
        raise ValueError('not finite')
    return value if value.size else None
