"""Addresses of phantoms: each names one, and nothing else is taken for one."""

import numpy as np
import pytest

from covid_jax import UserError, phantom
from covid_jax.phantom import ct, slice, xray


@pytest.mark.parametrize('given, text', [
    ((3, 17, 'covid'), 'phantom:3:17:covid'),
    ((3, 17, 'covid', 'ct', 'site1'), 'phantom:3:17:covid:site1'),
    ((3, 17, 'normal', 'slice'), 'phantom:slice:3:17:normal'),
    ((0, 2, 'pneumonia', 'xray', 'site0'), 'phantom:xray:0:2:pneumonia:site0')])
def test_what_an_address_looks_like(given, text):
    assert phantom.address(*given) == text
    assert phantom.is_address(text)


@pytest.mark.parametrize('kind, made', [('ct', ct), ('slice', slice), ('xray', xray)])
def test_an_address_is_the_phantom_that_it_was_made_of(kind, made):
    voxels, hounsfield, spacing = phantom.from_address(phantom.address(3, 17, 'covid', kind, 'site1'))
    expected = made.phantom(3, 17, 'covid', site='site1')
    assert np.array_equal(voxels, expected[0]) and spacing == expected[1]
    assert hounsfield == (kind != 'xray')


@pytest.mark.parametrize('text', [
    '', 'phantom:3:17', 'phantom:a:1:covid', 'scan:3:17:covid', 'phantom:3:17:flu', 'phantom:3:-1:covid', 'phantom:3:17:covid ',
    'phantom:mri:3:17:covid', 'phantom:xray:3:17:covid:site99', 'phantom:slice:3:17:covid:', 'phantom:3:' + '9' * 5000 + ':covid'])
def test_what_is_no_phantom_is_a_user_error(text):
    with pytest.raises(UserError) as caught:
        phantom.from_address(text)
    assert len(str(caught.value).splitlines()) == 1


def test_a_path_is_no_address():
    assert not phantom.is_address('scans/phantom.npz')
    assert not phantom.is_address('/phantom:1:2:covid')


def test_the_version_of_a_ct_is_that_of_the_stores_that_there_are(monkeypatch):
    assert phantom.version('phantom:0:1:covid') == '1'
    before = phantom.version('phantom:slice:0:1:covid'), phantom.version('phantom:xray:0:1:covid')
    monkeypatch.setattr(ct, 'VERSION', 2)  # what is made of cts is then other pixels too
    assert phantom.version('phantom:slice:0:1:covid') != before[0]
    assert phantom.version('phantom:xray:0:1:covid') != before[1]
