"""What takes a tiny run the longest is left out of tests that are of something else: processes that prepare, large phantoms, plots."""

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


def hasten(patch):
    """Scans are prepared in this process, phantoms are small, and of plots there are the files. Returns what a user has instead, by module
    and name."""
    from covid_jax.data import parts
    from covid_jax.report import looks, plots, written
    from covid_jax.runtime import files

    instead = {(parts, '_pool'): lambda workers: ThreadPoolExecutor(1), (parts, 'decode'): SimpleNamespace(decode=decode_here),
               (plots, 'save'): lambda path, *_: files.write(path, b'not drawn'), (looks, 'write'): lambda *_: None,
               (written, 'write'): lambda folder: None, (written, 'write_whole'): lambda folder, parts: None}
    own = {(module, name): getattr(module, name) for module, name in instead}
    for (module, name), other in instead.items():
        patch.setattr(module, name, other)
    return own
