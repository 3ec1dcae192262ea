import jax
import numpy as np
import pytest

from covid_jax.runtime import mesh


@pytest.mark.parametrize('devices,batch', [(1, 8), (2, 8), (3, 12), (4, 8), (5, 10), (8, 16), (256, 512)])
def test_default_batch(devices, batch):
    assert mesh.default_batch(devices) == batch


def test_devices_stand_by_host_and_number_whatever_their_order():
    """The global batch is the rows of device 0, then of device 1."""
    devices = mesh.make_mesh(jax.devices()[::-1])
    assert [d.id for d in devices.devices.flat] == list(range(8))
    rows = mesh.put(devices, {'row': np.arange(16)})['row']
    cut = {shard.device.id: shard.data.tolist() for shard in rows.addressable_shards}
    assert cut == {i: [2 * i, 2 * i + 1] for i in range(8)}
