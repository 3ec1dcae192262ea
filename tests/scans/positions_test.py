"""Every format as another library writes it: each voxel has the value of the place in the body where it lies.

The body has one value at each place, which grows by 1 HU a mm to the left, 3 to the back and 7 to the head: no two
neighbours, mirrored or exchanged axes or steps are alike.
"""

import locale

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from scan_files import zipped

from covid_jax.scans import geometry
from covid_jax.scans.decode import decode

SIZE = (6, 5, 7)  # z, y, x
STEP = (2.5, 1.5, .5)  # mm
ORIGIN = (-110., -60., -40.)  # of the first voxel: the feet, the front, the right of the patient
TURNS = {  # of what a file calls i, j, k: the patient's axis (0 left, 1 back, 2 head), and whether it grows that way
    'axial': ((0, 1), (1, 1), (2, 1)), 'upside down': ((0, 1), (1, 1), (2, -1)), 'mirrored': ((0, -1), (1, -1), (2, 1)),
    'sagittal': ((1, 1), (2, -1), (0, 1)), 'coronal': ((0, -1), (2, -1), (1, 1))}


def value(place):
    """HU at x, y, z mm towards the left, the back and the head."""
    x, y, z = place
    return 1 * x + 3 * y + 7 * z


def stored(turn):
    """-> ([i, j, k] values, the place of the first in mm, the step of each index in mm), where x, y, z are left, back, head."""
    first = np.array(ORIGIN[::-1])
    steps = np.zeros((3, 3))
    count = [SIZE[2 - axis] for axis, _ in turn]
    for index, (axis, sign) in enumerate(turn):
        steps[index, axis] = sign * STEP[2 - axis]
        if sign < 0:
            first[axis] += (SIZE[2 - axis] - 1) * STEP[2 - axis]
    grid = np.stack(np.meshgrid(*map(np.arange, count), indexing='ij'), -1)
    return value(np.moveaxis(first + grid @ steps, -1, 0)).astype(np.float32), first, steps


def check(scan, spacing=STEP, placed=True):
    """Every voxel lies where its value is: slices from the feet, rows from the front, columns from the patient's right; and, where the file
    says it (placed), where its affine says, in mm to the right, the front and the head."""
    assert scan.hounsfield and scan.voxels.shape == SIZE
    assert (scan.affine is not None) == placed
    affine = geometry.of_voxels(scan.affine, SIZE) if placed else None
    for index in np.ndindex(*SIZE):
        z, y, x = np.array(ORIGIN) + np.array(index) * STEP
        assert scan.voxels[index] == pytest.approx(value((x, y, z)), abs=1e-3), index
        if placed:
            np.testing.assert_allclose(affine @ (*index[::-1], 1), (-x, -y, z, 1), atol=1e-3)
    assert scan.spacing == (None if spacing is None else pytest.approx(spacing, rel=1e-6))


@pytest.mark.parametrize('turn', TURNS)
@pytest.mark.parametrize('name', ['a.mha', 'a.mhd', 'a.nrrd', 'a.nhdr', 'a.nii', 'a.nii.gz'])
def test_simpleitk(tmp_path, turn, name):
    values, first, steps = stored(TURNS[turn])
    image = SimpleITK.GetImageFromArray(values.T)
    lengths = np.linalg.norm(steps, axis=1)
    image.SetSpacing(lengths.tolist())
    image.SetDirection((steps.T / lengths).ravel().tolist())
    image.SetOrigin(first.tolist())
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((1, 2, 3)), first + np.array([1, 2, 3]) @ steps)
    SimpleITK.WriteImage(image, str(tmp_path / name), useCompression=name == 'a.mha')
    check(decode(tmp_path / name))


@pytest.mark.parametrize('turn', TURNS)
def test_nibabel_and_pynrrd(tmp_path, turn):
    values, first, steps = stored(TURNS[turn])
    affine = np.diag([-1, -1, 1, 1]) @ nibabel.affines.from_matvec(steps.T, first)  # of which x and y are right and front
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / 'a.nii.gz')
    check(decode(tmp_path / 'a.nii.gz'))
    nrrd.write(str(tmp_path / 'a.nrrd'), values, {'space': 'right-anterior-superior', 'space directions': steps * [-1, -1, 1],
                                                  'space origin': first * [-1, -1, 1], 'space units': ['mm'] * 3})
    check(decode(tmp_path / 'a.nrrd'))


@pytest.mark.parametrize('turn', ['axial', 'upside down', 'mirrored'])
def test_pydicom(tmp_path, turn):
    values, first, steps = stored(TURNS[turn])
    (i, rightwards), (j, downwards), _ = TURNS[turn]
    for k in range(SIZE[0]):
        data = Dataset()
        data.SOPClassUID = uid.CTImageStorage
        data.SOPInstanceUID = f'1.2.{k + 1}'
        data.SeriesInstanceUID = '1.2.3'
        data.Modality = 'CT'
        data.InstanceNumber = SIZE[0] - k
        data.ImagePositionPatient = (first + k * steps[2]).tolist()
        data.ImageOrientationPatient = [*(rightwards * np.eye(3)[i]), *(downwards * np.eye(3)[j])]
        data.PixelSpacing = [STEP[1], STEP[2]]
        data.RescaleSlope = .5
        data.RescaleIntercept = -1024
        data.BitsAllocated = 16
        data.PhotometricInterpretation = 'MONOCHROME2'
        data.SamplesPerPixel = 1
        data.BitsStored = 16
        data.HighBit = 15
        data.PixelRepresentation = 0
        data.Rows = SIZE[1]
        data.Columns = SIZE[2]
        data.PixelData = ((values[:, :, k].T + 1024) * 2).astype('<u2').tobytes()  # every value is a multiple of a half
        data['PixelData'].VR = 'OW'
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        pydicom.dcmwrite(tmp_path / f'IM{k}', data, enforce_file_format=True)
    check(decode(tmp_path))
    files = {f'scan/{k}/{path.name}': path for k, path in enumerate(sorted(tmp_path.iterdir()))}
    check(decode(zipped(tmp_path / 'a.zip', files)))


def test_numpy(tmp_path):
    values = stored(TURNS['axial'])[0].T
    np.savez(tmp_path / 'a.npz', hu=values, spacing_mm=STEP)
    check(decode(tmp_path / 'a.npz'), placed=False)
    np.save(tmp_path / 'a.npy', values)
    check(decode(tmp_path / 'a.npy'), None, placed=False)


@pytest.mark.parametrize('turn', TURNS)
def test_a_zip_of_a_volume_lies_where_the_volume_does(tmp_path, turn):
    values, first, steps = stored(TURNS[turn])
    affine = np.diag([-1, -1, 1, 1]) @ nibabel.affines.from_matvec(steps.T, first)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / 'a.nii.gz')
    check(decode(zipped(tmp_path / 'a.zip', {'scans/a.nii.gz': tmp_path / 'a.nii.gz'})))


@pytest.mark.parametrize('suffix', ['png', 'tif', 'jpg', 'bmp', 'gif', 'webp'])
def test_pillow_and_tifffile_say_nothing_of_the_body_but_each_pixel_stays_where_it_is(tmp_path, suffix):
    """Of images no library says where left is: row, column and number are those of the file."""
    z, y, x = np.meshgrid(*map(np.arange, (6, 24, 40)), indexing='ij')
    grey = (10 * z + 4 * y + 2 * x).astype(np.uint8)
    for k, plane in enumerate(grey):
        if suffix == 'tif':
            tifffile.imwrite(tmp_path / f'ct {k + 8}.tif', plane, photometric='minisblack', compression='deflate')
        else:
            options = {'lossless': True} if suffix == 'webp' else {'quality': 100}
            Image.fromarray(plane).save(tmp_path / f'ct {k + 8}.{suffix}', **options)
    for scan in (decode(tmp_path), decode(zipped(tmp_path / 'a.zip', {path.name: path for path in tmp_path.iterdir()}))):
        assert not scan.hounsfield and scan.spacing is scan.affine is None
        np.testing.assert_allclose(scan.voxels, grey.astype(float), atol=2 if suffix == 'jpg' else 0)


@pytest.mark.parametrize('options', [{}, {'compression': 'deflate'}, {'bigtiff': True}, {'byteorder': '>'}, {'tile': (16, 16)}])
@pytest.mark.parametrize('deep', [False, True])
def test_pages_of_tifffile_are_slices_in_their_order(tmp_path, options, deep):
    z, y, x = np.meshgrid(*map(np.arange, (6, 24, 40)), indexing='ij')
    grey = 10 * z + 4 * y + 2 * x
    stored = (grey * 257).astype(np.uint16) if deep else grey.astype(np.uint8)
    tifffile.imwrite(tmp_path / 'a.tif', stored, photometric='minisblack', **options)
    scan = decode(tmp_path / 'a.tif')
    assert not scan.hounsfield and scan.spacing is None
    np.testing.assert_allclose(scan.voxels, grey, atol=1e-4)


@pytest.fixture
def own_locale():
    """SimpleITK's writer of DICOM leaves the whole process in the locale C, in which text is ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.mark.parametrize('turn', ['axial', 'upside down', 'mirrored'])
def test_simpleitk_writes_a_series_of_dicom(tmp_path, own_locale, turn):
    """Its own header, slices named against their order, twice the values, which are whole."""
    values, first, steps = stored(TURNS[turn])
    rightwards, downwards, _ = steps / np.linalg.norm(steps, axis=1)[:, None]
    for k in range(SIZE[0]):
        image = SimpleITK.GetImageFromArray(np.rint(values[:, :, k].T * 2).astype(np.int16)[None])
        image.SetSpacing((STEP[2], STEP[1], STEP[0]))
        place = '\\'.join(f'{mm:g}' for mm in first + k * steps[2])
        directions = '\\'.join(f'{cosine:g}' for cosine in (*rightwards, *downwards))
        for tag, text in (('0008|0060', 'CT'), ('0020|000e', '1.2.3'), ('0020|0013', str(k + 1)), ('0020|0032', place), ('0020|0037', directions)):
            image.SetMetaData(tag, text)
        writer = SimpleITK.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(tmp_path / f'{9 - k}.dcm'))
        writer.Execute(image)
    scan = decode(tmp_path)
    check(scan._replace(voxels=scan.voxels / 2))
