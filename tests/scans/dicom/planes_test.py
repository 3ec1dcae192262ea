"""However the patient lies and the files are named: upright, in order, or refused by slice number."""


import numpy as np
import pytest
from dicoms import ct, enhanced, no_name_is_told, refused, series, table  # noqa: F401
from pydicom import uid

from covid_jax.scans.dicom.series import decode_dicom, find


def person():
    """[4, 6, 8]: from the feet to the head, from the front to the back, from the right to the left."""
    return np.random.default_rng(0).integers(0, 3000, (4, 6, 8)).astype('<u2')


def tilted(degrees, about='x'):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return [round(float(v), 6) for v in ([1, 0, 0, 0, c, s] if about == 'x' else [c, s, 0, -s, c, 0])]


@pytest.mark.parametrize('row, column', [
    ((1, 0, 0), (0, 1, 0)), ((-1, 0, 0), (0, -1, 0)), ((-1, 0, 0), (0, 1, 0)), ((1, 0, 0), (0, -1, 0)),
    ((0, 1, 0), (1, 0, 0)), ((0, -1, 0), (1, 0, 0)), ((0, -1, 0), (-1, 0, 0))])
def test_however_the_patient_lies_the_volume_is_the_same(tmp_path, row, column):
    volume = person()
    for k, plane in enumerate(volume):  # the slice as this orientation stores it
        plane = plane.T if row[0] == 0 else plane
        plane = plane[::sum(column), ::sum(row)]
        spacing = [0.5, 0.7] if row[0] == 0 else [0.7, 0.5]
        ct(tmp_path / f'{k}.dcm', plane, z=2.5 * k, number=9 - k, ImageOrientationPatient=[*row, *column],
           PixelSpacing=spacing)
    got = decode_dicom(find(tmp_path))
    np.testing.assert_array_equal(got.voxels, volume.astype(int) - 1024)
    assert got.spacing == (2.5, 0.7, 0.5)


@pytest.mark.parametrize('orientation, word', [
    ([1, 0, 0, 0, 0, -1], 'coronal'), ([0, 1, 0, 0, 0, -1], 'sagittal'),
    (tilted(30), 'oblique'), (tilted(12), 'oblique'),
    (tilted(15, 'z'), 'turned'), ([1, 0, 0, 1, 0, 0], 'right angles'), ([1, 0, 0, 0, 0, 0], 'right angles')])
def test_what_is_not_axial_is_refused(tmp_path, orientation, word):
    refused(series(tmp_path, ImageOrientationPatient=orientation), word, 'export')


@pytest.mark.parametrize('about', ['x', 'z'])
def test_a_tilt_of_5_degrees_is_axial(tmp_path, about):
    got = decode_dicom(series(tmp_path, ImageOrientationPatient=tilted(5, about)))
    assert got.spacing[0] == pytest.approx(2 * np.cos(np.radians(5)) if about == 'x' else 2, abs=1e-3)


def test_gaps_and_doubles_and_uneven_slices_are_named_by_number(tmp_path):
    assert decode_dicom(series(tmp_path / 'a', zs=(0, 2, 4.1, 6))).spacing[0] == pytest.approx(2.01)  # of the even grid
    refused(series(tmp_path / 'b', zs=(0, 2, 4, 10, 12)), 'slices 3 and 4 are 6.0 mm apart', 'the others 2.0 mm')
    refused(series(tmp_path / 'c', zs=(0, 2, 4, 6.5, 8.5)), 'slices 3 and 4 are 2.5 mm apart')
    refused(series(tmp_path / 'd', zs=(0, 2, 2, 4)), 'slices 2 and 3 are at the same position (z = 2.0 mm)', 'remove')
    text = refused(series(tmp_path / 'e', zs=[z for z in range(7) for _ in (0, 1)]), 'same position', '...')
    assert text.count(' and ') == 5


@pytest.mark.parametrize('step, digits', [(.625, 1), (1.25, 1), (.3125, 1), (5.4, 0)])
def test_positions_that_are_rounded_lie_on_an_even_grid(tmp_path, step, digits):
    heights = [round(-100 + step * k, digits) for k in range(17)]
    got = decode_dicom(series(tmp_path / 'a', heights, SliceThickness=9))
    assert got.spacing[0] == pytest.approx(step, rel=.01) and len(got.voxels) == 17
    told = decode_dicom(series(tmp_path / 'b', heights, SpacingBetweenSlices=step)).spacing[0]
    assert told == pytest.approx(step, rel=1e-6)  # the header decides what the rounding leaves open
    wrong = decode_dicom(series(tmp_path / 'c', heights, SpacingBetweenSlices=step * 1.1)).spacing[0]
    assert wrong == pytest.approx(step, rel=.01)
    for gap in (1, 8):
        there = heights[:gap] + heights[gap + 1:]
        refused(series(tmp_path / f'{gap}', there), f'slices {gap} and {gap + 1} are', 'missing')


@pytest.mark.parametrize('step, digits', [(2.5, 6), (2.5, 2), (.625, 1), (1, 6)])
@pytest.mark.parametrize('draw', ['normal', 'uniform'])
def test_steps_that_vary_by_chance_add_up_and_are_sound(tmp_path, step, digits, draw):
    """By 3 %, so that the positions wander off any even grid; one slice that is missing among them is found."""
    rng = np.random.default_rng(0)
    draws = rng.normal(0, .03, 160) if draw == 'normal' else rng.uniform(-.05, .05, 160)
    heights = np.round(-100 + np.cumsum(step * (1 + draws)), digits).tolist()
    paths = [ct(tmp_path / f's{n}.dcm', z=z, number=n, SliceThickness=9, RescaleIntercept=-900) for n, z in enumerate(heights, 1)]
    got = decode_dicom(paths)
    assert got.spacing[0] == pytest.approx(step, rel=.01) and len(got.voxels) == 160
    refused(paths[:70] + paths[71:], 'slices 70 and 72 are', 'missing')


@pytest.mark.parametrize('zs', [(0, 1, 4, 5, 8), (0, 3, 4, 7, 8), (0, 2, 4, 5.5, 7.5, 9.5), [k + .3 * (k % 2) for k in range(40)]])
def test_steps_that_differ_are_no_chance(tmp_path, zs):
    refused(series(tmp_path, zs, SliceThickness=None), 'mm apart', 'the others')


def test_a_gap_of_whole_millimetres_is_no_rounding(tmp_path):
    for number, zs in enumerate(((0, 1, 3, 4, 5), (0, 1, 3), (0, 2, 3, 4))):
        refused(series(tmp_path / f'{number}', zs, SliceThickness=None), 'missing')


def test_slices_whose_distance_changes_are_refused(tmp_path):
    heights = [k * 1.0 for k in range(12)] + [12 + k * 1.09 for k in range(12)]
    refused(series(tmp_path / 'a', heights), 'lies', 'beside an even grid of 1.04 mm')


def test_slices_without_number_are_named_by_file(tmp_path):
    refused(series(tmp_path / 'a', zs=(0, 2, 2, 4), InstanceNumber=None), 's2.dcm and s3.dcm')
    paths = series(tmp_path / 'b', zs=(0, 2, 2, 4), InstanceNumber=7)
    refused(paths, 'slices 7 (s2.dcm) and 7 (s3.dcm)')


def test_the_odd_slice_is_named(tmp_path):
    for key, value, word in (('Rows', None, '4 x 8 pixels'), ('PixelSpacing', [0.8, 0.8], 'another pixel spacing'),
                             ('ImageOrientationPatient', [-1, 0, 0, 0, 1, 0], 'another orientation'),
                             ('ImagePositionPatient', None, 'where it is'),
                             ('PixelSpacing', None, 'another pixel spacing')):
        paths = series(tmp_path / f'{key}{word[0]}')
        if key == 'Rows':
            ct(paths[2], np.zeros((4, 8), '<u2'), z=4, number=3)
        else:
            ct(paths[2], z=4, number=3, **{key: value})
        refused(paths, 'slice 3', word)


def test_slices_lie_on_a_line_and_the_one_beside_it_is_named(tmp_path):
    paths = series(tmp_path / 'a', zs=range(9))
    for n, aside in ((7, 204), (1, 204), (9, -204), (5, 0.3)):
        whole = paths[n - 1].read_bytes()
        ct(paths[n - 1], z=n - 1, number=n, ImagePositionPatient=[aside - 4, -3, n - 1])
        refused(paths, f'slice {n} lies {abs(aside):.1f} mm beside the others')
        ct(paths[n - 1], z=n - 1, number=n, ImagePositionPatient=[-4, -2.9, n - 1])  # less than half a pixel
        assert len(decode_dicom(paths).voxels) == 9
        paths[n - 1].write_bytes(whole)
    for count in (3, 2):
        some = paths[:count]
        ct(some[-1], z=count - 1, number=count, ImagePositionPatient=[-4, 201, count - 1])
        refused(some, f'slice {count} lies 20', 'beside the others')


@pytest.mark.parametrize('lean', [0, -np.tan(np.radians(9))])  # along the table, along the normal
def test_the_lean_of_a_tilted_gantry_is_a_line(tmp_path, lean):
    for k in range(40):  # rounded as scanners do
        ct(tmp_path / f'{k}.dcm', z=2.5 * k, number=k, RescaleIntercept=-900, ImageOrientationPatient=tilted(9),
           ImagePositionPatient=[-4, round(2.5 * k * lean, 1), 2.5 * k])
    assert len(decode_dicom(find(tmp_path)).voxels) == 40


def test_slices_of_several_frames_of_reference_are_refused(tmp_path):
    paths = series(tmp_path, FrameOfReferenceUID='1.1')
    ct(paths[1], z=2, number=2)
    assert len(decode_dicom(paths).voxels) == 4
    ct(paths[2], z=4, number=3, FrameOfReferenceUID='1.2')
    refused(paths, 'slices 1 and 3', 'frames of reference')


def test_two_or_three_slices_may_not_be_far_apart(tmp_path):
    for zs in ((0, 300), (0, 9.1), (0, 10, 20)):
        refused(series(tmp_path / f'{zs}', zs), 'slices 1 and 2', f'{zs[1]:.1f} mm apart', '3 mm thick', 'missing')
    assert decode_dicom(series(tmp_path / 'a', zs=(0, 9))).spacing[0] == 9
    assert decode_dicom(series(tmp_path / 'b', zs=(0, 10, 20, 30), SliceThickness=1)).spacing[0] == 10
    assert decode_dicom(series(tmp_path / 'c', zs=(0, 10), SliceThickness=1, SpacingBetweenSlices=10)).spacing[0] == 10
    refused(series(tmp_path / 'd', zs=(0, 4), SpacingBetweenSlices=2), 'slices 1 and 2 are 4.0 mm apart', '2 mm')
    assert decode_dicom(series(tmp_path / 'e', zs=(0, 50), SliceThickness=None)).spacing[0] == 50


@pytest.mark.parametrize('pixel', [[0, 0.5], [-0.7, -0.7], [500, 500]])
def test_a_spacing_that_no_chest_has_is_refused(tmp_path, pixel):
    refused(series(tmp_path, PixelSpacing=pixel), 'wrong unit')
    refused([ct(tmp_path / 'a.dcm', PixelSpacing=pixel)], 'wrong unit')
    refused([ct(tmp_path / 'b.dcm', SliceThickness=3000)], 'wrong unit')


def test_one_slice_needs_no_position(tmp_path):
    path = ct(tmp_path / 'a', ImagePositionPatient=None, ImageOrientationPatient=None)
    assert decode_dicom([path]).spacing is None
    assert decode_dicom([ct(tmp_path / 'b')]).spacing == (3.0, 0.7, 0.5)
    assert decode_dicom([ct(tmp_path / 'c', SliceThickness=None)]).spacing is None
    assert decode_dicom([ct(tmp_path / 'd', SpacingBetweenSlices=2)]).spacing == (2.0, 0.7, 0.5)
    assert decode_dicom(series(tmp_path / 'e', PixelSpacing=None)).spacing is None


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_frames_of_an_enhanced_ct_are_sorted_and_scaled_one_by_one(tmp_path, syntax):
    path = enhanced(tmp_path / 'a', (4, 0, 6, 2), (1, 1, 1, 5), syntax=syntax)
    got = decode_dicom([path])
    assert got.voxels[:, 0, 0].tolist() == [-8, 10, -9, -7] and got.spacing == (2.0, 0.7, 0.5) and got.hounsfield
    refused([enhanced(tmp_path / 'b', (4, 0, 4, 2), (1,) * 4)], 'slices 1 and 3 are at the same')
    refused([enhanced(tmp_path / 'c', (4, 0, 6, 2), (1,) * 4, PerFrameFunctionalGroupsSequence=None)], '4 frames', '0')


@pytest.mark.parametrize('at', range(4))
def test_of_four_slices_the_one_that_differs_is_blamed(tmp_path, at):
    """Wherever it lies, and whether it lacks what the others say or says what the others lack."""
    lacks = {'RescaleIntercept': 'how its values become', 'PixelSpacing': 'another pixel spacing',
             'ImageOrientationPatient': 'does not say where it is', 'ImagePositionPatient': 'does not say where it is'}
    for key, words in lacks.items():
        paths = series(tmp_path / key)
        ct(paths[at], z=2 * at, number=at + 1, **{key: None})
        refused(paths, f'slice {at + 1} ', words)
    window = {'WindowCenter': 150.5, 'WindowWidth': 101}
    says = {'RescaleIntercept': -1024, 'PixelSpacing': [.7, .5], 'WindowWidth': 99}
    for key, value in says.items():
        fewer = {'PixelSpacing': None} if key == 'PixelSpacing' else {'RescaleIntercept': None, **window}
        paths = series(tmp_path / f'{key}+', **fewer)
        ct(paths[at], z=2 * at, number=at + 1, **{**fewer, key: value})
        refused(paths, f'{at + 1} says' if key == 'RescaleIntercept' else f' {at + 1} ')


@pytest.mark.parametrize('center, width, rest, lost', [
    (40, 400, {}, True), (-600, 1500, {}, True), (50, 350, {'RescaleSlope': 1}, True), (40, 400, {'PixelRepresentation': 1}, False),
    (250, 500, {}, False), (127.5, 255, {}, False), (2000, 4096, {}, False), (40, 106, {}, False), (40, 107, {}, True)])
def test_a_window_of_hounsfield_units_over_values_that_lost_theirs_is_refused(tmp_path, center, width, rest, lost):
    """It reaches further below 0 than an eighth of it, and what is stored without a sign begins there."""
    paths = series(tmp_path, **{'RescaleSlope': None, 'RescaleIntercept': None, **rest, 'WindowCenter': center, 'WindowWidth': width})
    if lost:
        refused(paths, f'the window of slice 1 reaches down to {center - width / 2:g}', 'the RescaleIntercept was lost')
    else:
        assert not decode_dicom(paths).hounsfield


def test_grey_slices_are_shown_alike_or_refused(tmp_path):
    window = {'WindowCenter': 150.5, 'WindowWidth': 101}
    plain = {'RescaleSlope': None, 'RescaleIntercept': None}
    paths = series(tmp_path, **plain, **window)
    assert not decode_dicom(paths).hounsfield
    ct(paths[2], z=4, number=3, **window)
    refused(paths, 'slice 3 says how', 'unlike slice 1', 'Hounsfield', 'original CT')
    ct(paths[2], z=4, number=3, **plain, **window | {'WindowWidth': 99})
    refused(paths, 'slices have windows of their own', '3 another than 1', 'original CT')
    ct(paths[2], z=4, number=3, VOILUTSequence=table([0, 255], 0, 8), **plain, **window)
    refused(paths, 'slices have windows of their own')
    paths = series(tmp_path, **window)
    ct(paths[2], z=4, number=3, RescaleType='OD', **window)
    refused(paths, 'slice 3 does not say how', 'unlike slice 1', 'Hounsfield')
