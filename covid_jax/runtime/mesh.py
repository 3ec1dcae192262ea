"""One mesh axis, 'data': the state is on every device, the batch is cut over them."""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

LEAST_BATCH = 8  # scans


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of all hosts (or those given) in one row, host by host. Auto axes: losses are for the global batch.

    `jax.make_mesh` would order a TPU's devices by their place in the torus, and the global batch would no longer be the
    rows of host 0, then of host 1.
    """
    devices = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(devices), ('data',), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """The first axis cut over the devices."""
    return NamedSharding(mesh, PartitionSpec('data'))


def put(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """This host's rows -> arrays of the global batch, cut over the devices."""
    sharding = by_batch(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}


def default_batch(devices: int) -> int:
    """The least multiple of twice the device count that is at least LEAST_BATCH.

    Twice, so that each device holds whole pairs of scans: a mixup partner on another device would be an exchange of
    volumes.
    """
    pairs = 2 * devices
    return pairs * math.ceil(LEAST_BATCH / pairs)


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """XLA's options for a training step on these devices. On a CPU: convolutions stay with XLA, whose own run on all cores
    (those of YNNPACK on one); products and sums go to YNNPACK."""
    if mesh.devices.flat[0].platform != 'cpu':
        return {}
    return {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE'}
