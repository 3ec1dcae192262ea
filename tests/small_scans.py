"""Scans prepared in the process of a test: to start others, and to draw phantoms of their own size, takes longer than all else."""

import functools
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest


@functools.cache
def small_phantom(address):
    """The scan at the address of a phantom, with fewer voxels than it has for users: they take longer to draw than a test to learn."""
    from covid_jax.phantom import KINDS, ct
    from covid_jax.scans.decode import decode

    module = KINDS.get(address.split(':')[1], ct)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'phantom', functools.partial(module.phantom, size=(8, 32, 32)))
        scan = decode(address)
    scan.voxels.flags.writeable = False
    return scan


def decode_here(address, scratch=None):
    """decode, but of a phantom a small one, drawn once."""
    from covid_jax.phantom import is_address
    from covid_jax.scans.decode import decode

    return small_phantom(address) if is_address(address) else decode(address, scratch)


def prepare_here(patch):
    """No process is started to prepare scans, and phantoms are small."""
    from covid_jax.data import parts

    patch.setattr(parts, '_pool', lambda workers: ThreadPoolExecutor(1))
    patch.setattr(parts, 'decode', SimpleNamespace(decode=decode_here))
