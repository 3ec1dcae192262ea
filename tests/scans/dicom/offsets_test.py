"""A slice that lost its intercept is known beside any neighbour, however far it is away, and one that was stored otherwise is none."""

import numpy as np
import pytest
from dicoms import ct, no_name_is_told, refused  # noqa: F401

from covid_jax import phantom
from covid_jax.scans.dicom import decode_dicom


@pytest.fixture(scope='module')
def body():
    """Slices of a chest, 16 mm apart, from the feet on: every one is another."""
    hu = phantom.from_address('phantom:ct:0:1:covid')[0]
    return np.clip(hu[::-5, ::2, ::2], -1024, 3000).astype(np.int16)


def written(folder, hu, stored, said):
    """stored, said: intercept of each slice, as its values are stored by it, and as its header says."""
    folder.mkdir(exist_ok=True)
    return [ct(folder / f'{k}.dcm', (hu[k] - stored[k]).astype('<i2'), z=16. * k, number=k + 1, SliceThickness=16, RescaleIntercept=said[k])
            for k in range(len(hu))]


@pytest.mark.parametrize('count, at, lost', [(8, 0, 0), (8, 7, 0), (2, 0, 0), (2, 1, 0), (8, 0, -500)])
def test_a_slice_of_another_intercept_that_does_not_fit_its_neighbours_is_named(tmp_path, body, count, at, lost):
    said = [-1024 if k != at else lost for k in range(count)]
    line = refused(written(tmp_path, body[:count], [-1024] * count, said), 'would be alike under one: one of the two is wrong, export')
    first = max(at, 1)
    assert f'slices {first} and {first + 1} have a RescaleIntercept of {said[first - 1]} and of {said[first]},' in line


@pytest.mark.parametrize('intercepts', [[-1024] * 4 + [0] * 4, [0, -1024] * 4, [-1024, *[-524] * 7]])
def test_a_series_that_was_stored_in_two_ways_is_read(tmp_path, body, intercepts):
    assert np.array_equal(decode_dicom(written(tmp_path, body[:8], intercepts, intercepts)).voxels, body[:8])


def test_what_a_small_difference_leaves_open_is_read(tmp_path, body):
    assert len(decode_dicom(written(tmp_path, body[:8], [-1024] * 8, [-525, *[-1024] * 7])).voxels) == 8
