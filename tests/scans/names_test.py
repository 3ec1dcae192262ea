"""Numbers in the names of slices, with signs and decimals; masks that lie beside their scans."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scan_files import refused, zipped

from covid_jax import UserError
from covid_jax.scans.decode import SUFFIXES, decode
from covid_jax.scans.names import in_order, scan_of_mask


@pytest.mark.parametrize('before, numbers', [
    ('slice_', '-7.5 -5.25 -5.0 -2.5 0.0 2.5 5.0 10.0'), ('z=', '-12 -3 0 7 11'), ('', '-3 -2 2 11'),
    ('p_', '\u221210 \u22129 1'),
    ('a (', '-1,5) -1,25) 0,5) 10,5)'), ('', '1.25mm_-2 1.25mm_-1 1.5mm_-2'), ('ct ', '1.05 1.10 1.50 2.00'), ('a-', '2.5 10.5'),
    ('IM-', '0001-0002 0001-0010 0002-0001'), ('IM--', '1 2 10'), ('1.2.840.', '9 10 113.4'), ('', '2-9 2-10 10-1'),
    ('ct ', '1.1 1.2 1.9 1.10 1.11'), ('2020.02.22.9-', 'p2 p10'),
    ('scan ', ' '.join(f'-{n}' for n in range(1, 11))), ('(', '-0) -1) -2) -10)'), ('', '-1_1 -1_2 -2_1 -3_1 -3_10'),
    ('z ', '-300 -100 -005'), ('z ', '-10 -9 -8 -1 0 1'), ('z ', '-300 -290 -280'), ('z ', '-2.0 -1.5 -1.0'), ('z ', '-10 -5 -1'),
    ('', '-1.5mm_-3 -1.5mm_-2 -1.5mm_-1'), ('z ', '\u22123 \u22122 \u22121'),
    ('scan(1)-', '12 13 39 40'), ('ct[a]-', '1 2 10'), ('z_', '-40 -39 -38 -2 -1'), ('z=', '-3 -2 -1'), ('z = ', '-14 -13 -12'), ('z_', '-003 -002 -001'),
    ('1.', ' '.join(map(str, range(1, 60, 2)))), ('', '1.7 1.8 1.9 1.11 1.12'), ('', '1.8 1.9 1.11 2.9 2.11 2.13'), ('s', '5_1.9 6_1.11'),
    ('s', ' '.join(str(0.75 * k) for k in range(20))), ('s', ' '.join(str(100.1 + 1.25 * k) for k in range(20))), ('s', '0.05 0.1 0.15 0.7'),
    ('s', '0.05 0.3 0.31'), ('ct ', '1.1 1.3 1.10'),
    ('', '8 9 10 998 999 1,000 1,001 12,000'), ('s', '999 1.000 1.001 1.002'), ('s', '0,125 1 1,875 2,75'), ('s', '2,125 3'),
    ('s', '900 1,000 1,100'), ('s ', '5.5e-17 0.5 1.5 2.25'), ('s ', '-0.5 -1.8e-15 0.5'), ('s_', '-1.5 +0.5 2.0 +10.5'), ('z ', '-98 -96 -94 -92 -90'), ('z ', '-2 -1'),
])
def test_slices_are_in_the_order_of_their_numbers(before, numbers):
    """A sign stands behind no letter, digit, dash or closing bracket, and none of a count; a fraction is no part of a longer chain, and no
    two counters."""
    paths = [Path(f'{before}{number}.png') for number in numbers.split()]
    assert in_order(paths[::-1]) == paths


def test_a_folder_of_slices_that_are_called_by_their_height(tmp_path):
    heights = (-12.5, -7.5, -5.25, 0.0, 2.5, 100.0)
    for grey, height in enumerate(heights):
        Image.new('L', (4, 4), grey * 20).save(tmp_path / f'slice_{height}.png')
    assert decode(tmp_path).voxels[:, 0, 0].tolist() == [0, 20, 40, 60, 80, 100]


@pytest.mark.parametrize('names, words', [
    ('slice -12,slice -13,slice -14', "-12, -13, -14: the dash may be a sign"), ('-12,-13,-14', 'the dash may be a sign'),
    ('z(mm)-5,z(mm)0', 'z(mm)-5.png and z(mm)0.png: the dash may be a sign'), ('1.5,1.7,1.25', '1.25, 1.5, 1.7: these may be fractions, or two numbers')])
def test_names_that_leave_the_order_open_are_refused(names, words):
    with pytest.raises(UserError) as caught:
        in_order(Path(f'{name}.png') for name in names.split(','))
    assert words in str(caught.value)


def test_a_dash_that_may_be_a_sign_or_none_is_refused(tmp_path):
    for name in ('z-5.png', 'z-10.png', 'z5.png'):
        Image.new('L', (4, 4)).save(tmp_path / name)
    with pytest.raises(UserError, match='z-5.png and z5.png: the dash may be a sign or none'):
        decode(tmp_path)


@pytest.mark.parametrize('mask, scan', [
    ('A-0001_seg.nii.gz', 'A-0001_ct.nii.gz'), ('a_mask.nii', 'a.nii.gz'), ('a-label.mha', 'a.mha'), ('a.seg.nrrd', 'a.nrrd'),
    ('A_LUNG.npy', 'a.npz'), ('a_ct_seg.nii', 'a_ct.nii'), ('p_masks.nii', 'p_0000.nii.gz'), ('mask_7.png', '7.png'),
    ('7_seg.png', 'slice 7.png'), ('coronacases_001_Lung_Mask.nii', 'coronacases_001.nii'), ('a_infection-mask.nii', 'a.nii'),
    ('a_lungmask.nii', 'a.nii'),
])
def test_a_mask_is_known_by_the_scan_beside_it(tmp_path, mask, scan):
    for name in (mask, scan):
        (tmp_path / name).write_bytes(b'')
    assert scan_of_mask(tmp_path / mask, SUFFIXES) == tmp_path / scan
    assert scan_of_mask(tmp_path / scan, SUFFIXES) is None


@pytest.mark.parametrize('name, beside', [
    ('A-0001_seg.nii.gz', 'A-0002_ct.nii.gz'), ('a_mask.nii', 'a.txt'), ('a_segment.nii', 'a.nii'), ('seg.nii', 'a.nii'), ('a_b.nii', 'a.nii'),
    ('maskx_7.png', '7.png'), ('mask_7.png', '8.png'), ('lung_001.png', 'ct_001.png'), ('label_studio_1.png', 'studio_1.png'),
    ('Lung-Dx-A0001.nii.gz', 'Dx-A0001.nii.gz'),
])
def test_what_is_called_otherwise_is_no_mask(tmp_path, name, beside):
    for each in (name, beside):
        (tmp_path / each).write_bytes(b'')
    assert scan_of_mask(tmp_path / name, SUFFIXES) is None


def test_a_folder_of_a_lung_kernel_is_no_mask(tmp_path):
    for name in ('a', 'a_lung', 'a_mask'):
        (tmp_path / name).mkdir()
    assert scan_of_mask(tmp_path / 'a_lung', SUFFIXES) is None
    assert scan_of_mask(tmp_path / 'a_mask', SUFFIXES) == tmp_path / 'a'


@pytest.mark.parametrize('form', ['{}_mask', '{}-label', '{}_seg', '{}.lung', 'mask_{}'])
@pytest.mark.parametrize('packed', [False, True])
def test_masks_among_the_slices_of_a_scan_are_no_slices(tmp_path, rng, form, packed):
    """By their names alone, for these are full of values."""
    (tmp_path / 'scan').mkdir()
    names = [f'{k:03d}' for k in range(1, 5)]
    for name in (*names, *map(form.format, names)):
        Image.fromarray(rng.integers(0, 256, (24, 24), np.uint8)).save(tmp_path / 'scan' / f'{name}.png')
    scan = tmp_path / 'scan'
    if packed:
        scan = zipped(tmp_path / 'a.zip', {file.name: file for file in scan.iterdir()})
    refused(scan, f'4 of its slices are masks by their names, as {form.format("001")}.png of 001.png: move the masks')
    for name in names:
        (tmp_path / 'scan' / f'{name}.png').unlink()
    assert len(decode(tmp_path / 'scan').voxels) == 4


def test_segmentations_beside_their_scans_are_refused_and_the_scans_are_read(tmp_path, rng):
    """As COVID-19-20 has them; by their names alone, for these are full of values."""
    for i in range(3):
        hu = rng.integers(-1000, 300, (16, 16, 8)).astype(np.int16)
        for name, values in (('ct', hu), ('seg', hu)):
            nibabel.save(nibabel.Nifti1Image(values, np.diag([-2., -2, 5, 1])), tmp_path / f'volume-A-{i:04d}_{name}.nii.gz')
        refused(tmp_path / f'volume-A-{i:04d}_seg.nii.gz', f'the mask of volume-A-{i:04d}_ct.nii.gz')
        np.testing.assert_array_equal(decode(tmp_path / f'volume-A-{i:04d}_ct.nii.gz').voxels, hu.T)
