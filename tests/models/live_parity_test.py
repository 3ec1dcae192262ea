"""What is recorded is what timm, and the torch modules written for it, give today: pip install -e '.[parity]'; pytest -m
parity."""

import importlib.util
import sys

import numpy as np
import pytest
from parity import rule

pytestmark = pytest.mark.parity

@pytest.fixture(scope='module')
def recorder(root):
    if not all(map(importlib.util.find_spec, ('torch', 'timm'))):
        pytest.skip('torch and timm are not installed')
    sys.path.insert(0, str(root / 'scripts'))
    import record_parity

    return record_parity


def test_every_network_is_here(recorder):
    assert {*rule.IMAGES} == {*recorder.STAGES}


@pytest.mark.filterwarnings('default')
@pytest.mark.parametrize('name', rule.IMAGES)
def test_recorded_again(recorder, root, name):
    with np.load(root / 'tests' / 'parity' / f'{name}.npz', allow_pickle=False) as file:
        kept = dict(file)
    again = recorder.record(name, rule)
    assert again.keys() == kept.keys() and again['parameters'] == kept['parameters']
    np.testing.assert_array_equal(again['train/modules'], kept['train/modules'])
    for key in kept.keys() - {'parameters', 'versions', 'train/modules', 'train/statistics'}:
        np.testing.assert_allclose(again[key], kept[key], rtol=0, atol=1e-4 * np.abs(kept[key]).max(), err_msg=key)
    for name, ours, theirs in zip(kept['train/modules'], again['train/statistics'], kept['train/statistics'], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max(), err_msg=name)
