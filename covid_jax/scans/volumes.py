"""NIfTI, MetaImage and NRRD -> Scan: the axes of the file turned into the patient's, or refused where the file does not say.

A scan may be stored in any order and direction of its axes (sagittal, flipped, ...): the result is cut across the body.
Axes that are more than 10 degrees off the patient's are refused, for only resampling could straighten them.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation

from covid_jax.scans import geometry, nrrds
from covid_jax.scans.arrays import as_scan
from covid_jax.scans.metaimage import ORDERS, YES, beside, directions, first_voxel, flag, numbers, read_fields
from covid_jax.scans.scan import BYTES, Scan, check_size, check_spacing
from covid_jax.scans.values import NO_GREY

SUFFIXES = ('.nii', '.nii.gz', '.mha', '.mhd', *nrrds.SUFFIXES)
EXTENSIONS = 2**24  # bytes between the header and the voxels of a NIfTI
CHUNK = 2**22  # bytes that are read or inflated at a time
OBLIQUE = 10  # degrees off an axis of the body that are too many
DEFLATE = 1032  # how many bytes one byte can be inflated to
TYPES = {'MET_CHAR': 'i1', 'MET_UCHAR': 'u1', 'MET_SHORT': 'i2', 'MET_USHORT': 'u2', 'MET_INT': 'i4', 'MET_UINT': 'u4',
         'MET_FLOAT': 'f4', 'MET_DOUBLE': 'f8'}
MILLIMETRES = {0: 1, 1: 1000, 2: 1, 3: .001}  # a NIfTI that does not say its unit (0) has millimetres
ONLY = {'ObjectType': ('image',), 'NDims': ('3',), 'BinaryData': YES, 'ElementNumberOfChannels': ('1',),  # what is read
        'HeaderSize': ('0',), 'ElementToIntensityFunctionSlope': ('1', '1.0'),
        'ElementToIntensityFunctionOffset': ('0', '0.0')}


def decode_volume(path: Path) -> Scan:
    """.nii, .nii.gz, .mha, .mhd, .nrrd or .nhdr -> Scan: Hounsfield units where the minimum is below -200, else grey, see
    as_scan.

    ValueError for a header that promises more than the file holds or more than any scan has, more than one volume or
    channel, axes that are oblique or not given, values that are neither Hounsfield units nor grey, and a .mhd or
    .nhdr whose voxels are not in one file beside it.
    """
    if path.name.lower().endswith(nrrds.SUFFIXES):
        return _nrrd(path)
    if path.name.lower().endswith(('.nii', '.nii.gz')):
        return _nifti(path)
    return _metaimage(path)


def companions(path: Path) -> list[Path]:
    """The other files that decoding path reads: where a MetaImage or NRRD keeps its voxels, if that is a file. Never raises."""
    source = path
    try:
        if path.name.lower().endswith(('.mha', '.mhd')):
            fields, _ = read_fields(path)
            source = path if fields['ElementDataFile'] == 'LOCAL' else beside(path, fields['ElementDataFile'])
        if path.name.lower().endswith(nrrds.SUFFIXES):
            source = nrrds.voxels_of(nrrds.read_fields(path)[0], path)
    except (OSError, ValueError):  # decoding says what is wrong
        pass
    return [source] if source != path else []


def _nifti(path):
    """NIfTI-1 or -2 in one file, gzip or not as its first bytes say. The axes are those of sform, or else of qform."""
    with path.open('rb') as file:
        zipped = file.read(2) == b'\x1f\x8b'
    with gzip.open(path) if zipped else path.open('rb') as file:
        header = _nifti_header(file.read(540))
        shape = [int(n) for n in header.get_data_shape()]
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        if len(shape) != 3:
            raise ValueError(f'{" x ".join(map(str, shape))} voxels: one volume of 3 dimensions is expected')
        if header['sform_code'] == header['qform_code'] == 0:
            raise ValueError('neither sform nor qform says where left, front and head are: set one of them')
        header['pixdim'][0] = header['pixdim'][0] or 1  # the standard reads 0 as 1
        if header['sform_code'] and header['qform_code'] and not _agree(header):
            raise ValueError('sform and qform disagree on where left, front and head are: set the code of the wrong one to 0')
        if int(header['datatype']) not in nibabel.nifti1.data_type_codes:
            raise ValueError(f'the type of its values has the code {header["datatype"]}, which NIfTI does not know')
        unit = int(header['xyzt_units']) & 7
        if unit not in MILLIMETRES:
            raise ValueError(f'the unit of length has the code {unit}, which NIfTI does not know')
        where = np.diag([-1, -1, 1]) @ header.get_best_affine()[:3] * MILLIMETRES[unit]
        slope, inter = header.get_slope_inter()
        offset = header.get_data_offset()
        if not int(header['sizeof_hdr']) < offset <= EXTENSIONS:
            raise ValueError(f'its voxels are said to start at byte {offset}')
        size = path.stat().st_size * (DEFLATE if zipped else 1) - offset
        dtype = _checked(shape, header.get_data_dtype(), size)
        file.seek(offset)
        values, _ = _voxels(iter(lambda: file.read(CHUNK), b''), dtype, shape)
    return _scan(_scaled(values, slope, inter), where[:, :3], where[:, 3])


def _agree(header):
    """Whether sform and qform say of every axis of the file which axis of the body it is near to, and in which direction. A qform that
    says nothing, as one of no rotation or without distances, disagrees with none."""
    sform = header.get_sform()
    try:
        qform = header.get_qform()
    except ValueError:
        return True
    if not np.isfinite(qform).all() or not np.linalg.det(qform[:3, :3]):
        return True
    return np.array_equal(nibabel.io_orientation(sform), nibabel.io_orientation(qform))


def _nifti_header(block):
    """nibabel's header of the first bytes of a file; ValueError for what is no NIfTI of one file."""
    for order in '<>':
        size, = struct.unpack(order + 'i', block[:4].ljust(4, b'\0'))
        if size in (348, 540) and len(block) >= size:
            known = nibabel.Nifti1Header if size == 348 else nibabel.Nifti2Header
            header = known(block[:size], endianness=order, check=False)
            if header['magic'].item() in (b'n+1', b'n+2'):
                return header
    raise ValueError('no NIfTI of one file (.nii or .nii.gz)')


def _metaimage(path):
    """The voxels behind the header or in the file that it names; there are exactly as many as it says."""
    fields, start = read_fields(path)
    for key, values in ONLY.items():
        if fields.get(key, values[0]).lower() not in values:
            raise ValueError(f'{key} = {fields[key][:60]!r} is not read, only {values[0]}')
    element = fields.get('ElementType', '')
    if element not in TYPES:
        raise ValueError(f'ElementType = {element[:60]!r} is not one of {", ".join(TYPES)}')
    shape = numbers(fields, 'DimSize', 3, int)
    axes, spaced = directions(fields)
    orders = {flag(fields, key) for key in ORDERS if key in fields}
    if len(orders) > 1:
        raise ValueError(f'{" and ".join(ORDERS)} say different things')
    zipped = flag(fields, 'CompressedData')
    source = path
    if fields['ElementDataFile'] != 'LOCAL':
        source = beside(path, fields['ElementDataFile'])
        start = 0
    values = _stored(source, start, np.dtype(('>' if True in orders else '<') + TYPES[element]), shape, zipped)
    scan = _scan(_scaled(values), axes, first_voxel(fields))
    return scan if spaced else scan._replace(spacing=None, affine=None)


def _nrrd(path):
    """The voxels behind the header or in the file that it names; there are exactly as many as it says."""
    fields, start = nrrds.read_fields(path)
    shape, dtype, zipped = nrrds.layout(fields)
    axes = nrrds.directions(fields)
    source = nrrds.voxels_of(fields, path)
    values = _stored(source, start if source == path else 0, dtype, shape, zipped)
    return _scan(_scaled(values), axes, nrrds.first_voxel(fields))


def _stored(source, start, dtype, shape, zipped):
    """[k, j, i] of what a file holds from byte start on, and nothing more."""
    size = (source.stat().st_size - start) * (DEFLATE if zipped else 1)
    _checked(shape, dtype, size)
    with source.open('rb') as file:
        file.seek(start)
        values, more = _voxels(_inflated(file) if zipped else iter(lambda: file.read(CHUNK), b''), dtype, shape)
    if more:
        raise ValueError(f'{source.name} holds more than {" x ".join(map(str, shape))} values of {dtype.itemsize} bytes')
    return values


def _checked(shape, dtype, size):
    """The dtype, if so many values of it are a scan and may be in size bytes."""
    check_size(shape)
    if dtype.kind not in 'iuf':
        raise ValueError(f'values of type {dtype} are not read')
    need = math.prod(shape) * dtype.itemsize
    if need > BYTES:
        raise ValueError(f'{" x ".join(map(str, shape))} values of {dtype.itemsize} bytes are more than {BYTES} bytes')
    if need > size:
        raise ValueError(f'cut off: {" x ".join(map(str, shape))} values of {dtype.itemsize} bytes are not all here')
    return dtype


def _inflated(file):
    """Yields what a zlib or gzip stream holds, at most CHUNK bytes at a time."""
    inflate = zlib.decompressobj(47)  # 15 for the largest window, 32 for: zlib or gzip as its first bytes say
    while not inflate.eof and (data := inflate.unconsumed_tail or file.read(CHUNK)):
        yield inflate.decompress(data, CHUNK)
    yield inflate.flush()
    if not inflate.eof:
        raise ValueError('cut off: its compressed voxels have no end')


def _voxels(pieces, dtype, shape):
    """-> ([k, j, i] of the bytes in pieces, where i is shape's first index and the fastest, whether pieces go on)."""
    values = np.empty(shape[::-1], dtype)
    rest = memoryview(values.reshape(-1).view(np.uint8))
    more = b''
    for piece in pieces:
        more = piece[len(rest):]
        rest[:len(piece)] = piece[:len(rest)]
        rest = rest[len(piece):]
        if more:
            break
    if len(rest):
        raise ValueError(f'cut off: {len(rest)} of {values.nbytes} bytes are missing')
    return values, bool(more)


def _scaled(values, slope=None, inter=None):
    """values * slope + inter as float32, or int16 where all are whole and some below grey; integers as they are stored.

    Plane by plane: memory is taken for the result and not for its float64.
    """
    if values.dtype.kind != 'f' and slope in (None, 1) and not inter:
        return values
    out = np.empty(values.shape, np.float32)
    whole = True
    for plane, stored in zip(out, values, strict=True):
        plane[:] = stored if slope is None else stored * np.float64(slope) + np.float64(inter)
        whole = whole and bool((plane == np.rint(plane)).all())
    return out.astype(np.int16) if whole and -2**15 <= out.min() < NO_GREY and out.max() < 2**15 else out


def _scan(values, axes, origin):
    """[k, j, i]; [3, 3], of which column i is the step of index i in mm to the left, back and head; the first voxel there -> Scan."""
    spacing = np.linalg.norm(axes, axis=0)
    check_spacing(spacing)
    cosines = axes / spacing
    near = np.abs(cosines).argmax(axis=0)  # the patient's axis of each index
    off = np.degrees(np.arccos(np.minimum(np.abs(cosines).max(axis=0), 1)))
    if off.max() > OBLIQUE:
        raise ValueError(f'oblique, an axis is {off.max():.0f} degrees off: resample it to axial')
    if sorted(near) != [0, 1, 2]:
        raise ValueError('two of its axes have one direction')
    # nibabel takes [i, j, k], and for each of them its axis of the body and 1 or -1
    values = apply_orientation(values.T, np.stack([near, np.sign(cosines[near, range(3)])], 1)).T
    x, y, z = (float(mm) for mm in spacing[near.argsort()])
    scan = as_scan(values, False, (z, y, x))
    return scan._replace(voxels=np.ascontiguousarray(scan.voxels), affine=geometry.affine_of(axes, origin))
