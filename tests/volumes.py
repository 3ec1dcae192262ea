"""One small person of whom every voxel is another, written as NIfTI and as MetaImage."""

import itertools
import tracemalloc

import nibabel
import numpy as np
import pytest

SPACING = (2.5, .8, .7)  # z, y, x in mm
RAS = [''.join(sign) for axes in itertools.permutations(('RL', 'AP', 'SI')) for sign in itertools.product(*axes)]


def person():
    """[z, y, x], every value another, to the head, the back and the left."""
    return np.random.default_rng(0).permutation(np.arange(-900, -840, dtype=np.int16)).reshape(3, 4, 5)


def image(hu, affine=(-.7, -.8, 2.5, 1), kind=nibabel.Nifti1Image):
    """The NIfTI of [z, y, x] whose indices grow to the left, back and head; NIfTI's own axes are right, front, head."""
    return kind(hu.transpose(2, 1, 0), np.diag(affine) if np.ndim(affine) == 1 else affine)


def meta(path, values, raw=None, **fields):
    """[i, j, k] as a MetaImage: a field of None is left out, others replace; data is raw, or the values, i fastest."""
    fields = {'ObjectType': 'Image', 'NDims': 3, 'BinaryData': True, 'BinaryDataByteOrderMSB': False,
              'CompressedData': False, 'TransformMatrix': '1 0 0 0 1 0 0 0 1', 'Offset': '0 0 0',
              'ElementSpacing': '0.7 0.8 2.5', 'DimSize': ' '.join(map(str, values.shape)), 'ElementType': 'MET_SHORT',
              **fields}
    raw = values.tobytes(order='F') if raw is None else raw
    name = fields.pop('ElementDataFile', 'LOCAL')
    text = ''.join(f'{key} = {value}\n' for key, value in fields.items() if value is not None)
    path.write_bytes(f'{text}ElementDataFile = {name}\n'.encode() + (raw if name == 'LOCAL' else b''))
    if name not in ('LOCAL', ''):
        (path.parent / name).write_bytes(raw)
    return path


def assert_is(scan, hu, spacing=SPACING):
    np.testing.assert_array_equal(scan.voxels, hu)
    assert scan.voxels.dtype == np.int16 and scan.hounsfield and scan.voxels.flags.c_contiguous
    assert scan.spacing == pytest.approx(spacing, rel=1e-6)


def peak(run):
    """Bytes that were taken at once."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
