"""Where a voxel lies in the patient, as nibabel and ITK say of the same file, in every order of axes and every format."""

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK
from dicoms import series
from nibabel.orientations import axcodes2ornt
from volumes import RAS, image, meta, person

from covid_jax.scans import geometry
from covid_jax.scans.decode import decode
from covid_jax.scans.dicom import find, slices_of

OFFSET = np.array([[1, 0, 0, 12.5], [0, 1, 0, -30], [0, 0, 1, 101], [0, 0, 0, 1.0]])
LPS = np.diag([-1, -1, 1, 1])


def stored(path, codes):
    """One person in this order of axes; returns the NIfTI."""
    hu = person()
    first = nibabel.Nifti1Image(hu.transpose(2, 1, 0), OFFSET @ image(hu).affine)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(first.affine), axcodes2ornt(codes))
    turned = first.as_reoriented(turn)
    nibabel.save(turned, path)
    return turned


def places(array, affine):
    """{value of a voxel: its place}, of an array [i, j, k] of values that are all different."""
    index = np.indices(array.shape).reshape(3, -1)
    where = affine[:3, :3] @ index + affine[:3, 3:]
    return dict(zip(array.ravel().tolist(), where.T.round(4).tolist(), strict=True))


@pytest.mark.parametrize('codes', RAS)
def test_every_voxel_lies_where_nibabel_says_however_it_is_stored(tmp_path, codes):
    source = stored(tmp_path / 'a.nii', codes)
    scan = decode(tmp_path / 'a.nii')
    np.testing.assert_allclose(scan.affine, source.affine, atol=1e-5)
    values = np.asarray(source.dataobj)
    np.testing.assert_array_equal(geometry.as_stored(scan.voxels, scan.affine), values)
    expected = places(values, source.affine)
    found = places(scan.voxels.T, geometry.of_voxels(scan.affine, scan.voxels.shape))
    np.testing.assert_allclose([found[value] for value in expected], list(expected.values()), atol=1e-3)
    for at in (0, 2):
        part = decode(f'{tmp_path / "a.nii"}::slice={at}')
        one = places(geometry.as_stored(part.voxels, part.affine), part.affine)
        assert len(one) == 20
        np.testing.assert_allclose(list(one.values()), [expected[value] for value in one], atol=1e-3)


def test_other_formats_lie_where_itk_says(tmp_path):
    values = person().transpose(2, 1, 0)
    meta(tmp_path / 'a.mha', values, TransformMatrix='0 1 0 -1 0 0 0 0 1', Offset='3 -4 5.5')
    nrrd.write(str(tmp_path / 'a.nrrd'), values, {'space': 'right-anterior-superior', 'space origin': [7.0, 8, -9],
                                                  'space directions': [[0, 0.8, 0], [0.7, 0, 0], [0, 0, -2.5]]})
    files = series(tmp_path / 'dicom', (6, 2, 4, 0), ImageOrientationPatient=[0, -1, 0, 1, 0, 0])
    upward = sorted(files, key=lambda path: decode(path).affine[2, 3])
    assert slices_of(find(tmp_path / 'dicom')) == upward
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in upward])
    of_itk = {tmp_path / name: SimpleITK.ReadImage(str(tmp_path / name)) for name in ('a.mha', 'a.nrrd')}
    for path, itk in {**of_itk, tmp_path / 'dicom': reader.Execute()}.items():
        scan = decode(path)
        for index in ((0, 0, 0), (1, 2, 1), (3, 1, 2)):
            expected = LPS[:3, :3] @ itk.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose(scan.affine @ (*index, 1), (*expected, 1), atol=1e-5)
        np.testing.assert_array_equal(geometry.as_stored(scan.voxels, scan.affine), SimpleITK.GetArrayFromImage(itk).T)


def test_slices_under_a_tilted_gantry_are_sheared(tmp_path):
    """Each lies 2 mm above the other, and none beside."""
    tilt = np.radians(8)
    series(tmp_path / 'dicom', ImageOrientationPatient=[1, 0, 0, 0, np.cos(tilt), np.sin(tilt)])
    affine = decode(tmp_path / 'dicom').affine
    np.testing.assert_allclose(affine[:3, 2], (0, 0, 2), atol=1e-6)
    np.testing.assert_allclose(affine[:3, 1], np.multiply(0.7, (0, -np.cos(tilt), np.sin(tilt))), atol=1e-6)


def test_what_does_not_say_where_it_lies_has_no_affine(tmp_path):
    np.save(tmp_path / 'a.npy', person())
    meta(tmp_path / 'a.mha', person().transpose(2, 1, 0), ElementSpacing=None)
    assert decode(tmp_path / 'a.npy').affine is decode(tmp_path / 'a.mha').affine is None
    assert geometry.of_slice(None, (3, 4, 5), 1) is None
    assert geometry.as_stored(np.zeros((3, 4, 5)), None).shape == (5, 4, 3)


@pytest.mark.parametrize('origin', [(1, 2), (1, 2, np.nan)])
def test_a_broken_origin_is_refused(origin):
    with pytest.raises(ValueError, match='three finite numbers'):
        geometry.affine_of(np.eye(3), origin)
