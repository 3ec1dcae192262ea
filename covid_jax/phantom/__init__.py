"""Made-up scans, and the addresses that stand where other exams have a path.

An address is 'phantom:SEED:INDEX:LABEL' for a ct. KIND, for the others, goes before the seed, and SITE, where a site's
scanner made it, after the label: 'phantom:slice:0:17:covid:site1'. No other package knows this form.
"""

import re

import numpy as np

from covid_jax import UserError
from covid_jax.phantom import ct, scanner, slice, xray

SITES = tuple(scanner.SITES)
KINDS = {'ct': ct, 'slice': slice, 'xray': xray}
FORM = re.compile('phantom:(?:(ct|slice|xray):)?([0-9]{1,18}):([0-9]{1,18}):([a-z]+)(?::([a-z0-9]+))?')


def address(seed: int, index: int, label: str, kind: str = 'ct', site: str = '') -> str:
    """Where the phantom of these is: a text that from_address takes."""
    return ':'.join(['phantom', *[kind] * (kind != 'ct'), str(seed), str(index), label, *[site] * bool(site)])


def is_address(text: str) -> bool:
    """Whether a text is meant as an address of a phantom, well-formed or not."""
    return text.startswith('phantom:')


def from_address(text: str) -> tuple[np.ndarray, bool, tuple[float, float, float]]:
    """The phantom at an address: (voxels [depth, height, width], whether they are Hounsfield units, spacing in mm).

    UserError where the text is no address, or names a label or a site that there is not.
    """
    kind, seed, index, label, site = _parts(text)
    voxels, spacing, _ = KINDS[kind].phantom(seed, index, label, site=site)
    return voxels, kind != 'xray', spacing


def version(text: str) -> str:
    """What changes whenever an address gives other voxels. UserError where the text is no address."""
    kind = _parts(text)[0]
    return f'{ct.VERSION}' if kind == 'ct' else f'{ct.VERSION}.{KINDS[kind].VERSION}'


def _parts(text):
    found = FORM.fullmatch(text)
    if not found:
        raise UserError(f'{text!r} is not a phantom: write phantom:SEED:INDEX:LABEL, as in phantom:0:17:covid, or '
                        f'phantom:KIND:SEED:INDEX:LABEL:SITE, as in phantom:slice:0:17:covid:site1')
    kind, seed, index, label, site = found.groups()
    return kind or 'ct', int(seed), int(index), label, site or ''
