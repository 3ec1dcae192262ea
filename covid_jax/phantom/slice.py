"""Axial slices of the ct phantoms, in Hounsfield units.

Every slice is cut where patches of ground glass and the consolidation of its body are both large, whatever the label. As
in the cts each label has the same voxel values, here within the slice: what the label does not show of them is laid out
anew in the slice itself. Row 0 is the front of the chest, column 0 the patient's right.
"""

import numpy as np

from covid_jax.phantom import ct
from covid_jax.phantom.anatomy import Size
from covid_jax.phantom.scanner import AIR, check_site, in_view, scan

SIZE = (24, 128, 128)  # of the ct: the thicker its slices, the less it costs
VERSION = 1  # raised whenever the same address gives other pixels, and the ct's is not


def phantom(seed: int, index: int, label: str, size: Size = SIZE, site: str = '') -> ct.Phantom:
    """One slice: (hu int16 [1, height, width], spacing (z, y, x) in mm, lesion bool [1, height, width]).

    size: of the ct that it is cut from. Labels and sites are as those of ct.phantom; so are the errors.
    """
    ct.check_label(label)
    check_site(site)
    body = ct.body_of(seed, index, size)
    at = best(body)
    hu, lesion = ct.under(within(body, at), label)
    hu = scan(body.rng, in_view(hu[at:at + 1], site, AIR), site)
    return hu, body.spacing, in_view(lesion[at:at + 1], site, False)


def best(body: ct.Body) -> int:
    """The slice of most ground glass times consolidation, among those with at least half of the largest lung area."""
    area = _by_slice(body, np.ones(body.lung.where.size))
    score = _by_slice(body, body.glass.weight) * _by_slice(body, body.dense.weight)
    return int(np.argmax(np.where(area >= 0.5 * area.max(), score, -1.0)))


def within(body: ct.Body, at: int) -> ct.Body:
    """The body with ground glass, consolidation and what stands in for them in slice `at` alone."""
    here = _slices(body) == at
    lung = body.lung._replace(mottle=np.where(here, body.lung.mottle, -np.inf),
                              dependent=np.where(here, body.lung.dependent, -np.inf))
    dense = body.dense._replace(weight=body.dense.weight * here)
    bed = ct.spread(dense, lung.dependent)
    glass = body.glass._replace(weight=body.glass.weight * here * (bed.weight == 0))
    return body._replace(lung=lung, glass=glass, dense=dense, bed=bed)


def _slices(body):
    """The slice of each lung voxel [lung voxels]."""
    return body.lung.where // body.tissue[0].size


def _by_slice(body, weight):
    return np.bincount(_slices(body), weight, len(body.tissue))
