"""CT scanners: one of the body's own, drawn with it, or one that a site uses for all its patients."""

from typing import NamedTuple

import numpy as np

from covid_jax import UserError

AIR = -1000.0  # HU
STORED = (-1024, 1500)  # HU: the least and the most that a CT keeps
QUARTER = 0.25  # shared with either neighbour: weights 1, 2, 1, the plainest blur


class Scanner(NamedTuple):
    """How a site makes a CT of a body.

    margin: pixels by which its field of view is wider than the body's on each side, or narrower where below 0
    slab:   the part of its value that a voxel shares with either neighbouring slice, at most 0.3
    blur:   the same with its four neighbours in plane: a smooth kernel
    edge:   how often the difference from a blurred copy is added: a sharp kernel
    noise:  standard deviation before the kernel, HU
    gain:   density above air is multiplied by it, as by a scanner that was calibrated otherwise
    offset: HU
    circle: whether nothing is reconstructed outside the circle in the image
    """

    margin: int
    slab: float
    blur: float
    edge: float
    noise: float
    gain: float
    offset: float
    circle: bool


SITES = {
    'site0': Scanner(margin=0, slab=0.0, blur=0.0, edge=0.6, noise=40.0, gain=1.0, offset=-15.0, circle=False),
    'site1': Scanner(margin=8, slab=0.15, blur=0.1, edge=0.0, noise=40.0, gain=0.93, offset=30.0, circle=True),
    'site2': Scanner(margin=-4, slab=0.25, blur=0.05, edge=0.3, noise=60.0, gain=1.05, offset=20.0, circle=False),
    'site3': Scanner(margin=2, slab=0.05, blur=0.2, edge=0.0, noise=70.0, gain=1.0, offset=-40.0, circle=True)}


def scan(rng: np.random.Generator, hu: np.ndarray, site: str = '') -> np.ndarray:
    """The CT int16 [depth, height, width] of a body's HU [depth, height, width], already in the site's field of view."""
    hu = _of_site(rng, hu, SITES[site]) if site else _of_its_own(rng, hu)
    return np.rint(np.clip(hu, *STORED)).astype(np.int16)


def in_view(array: np.ndarray, site: str, outside: float) -> np.ndarray:
    """An array [depth, height, width] in the site's field of view, `outside` where the body's own does not reach."""
    margin = SITES[site].margin if site else 0
    if margin < 0:
        return array[:, -margin:margin, -margin:margin]
    return np.pad(array, [(0, 0), (margin, margin), (margin, margin)], constant_values=outside)


def check_site(site: str) -> None:
    """UserError for a site that has no scanner."""
    if site and site not in SITES:
        raise UserError(f'phantom site {site!r} is not one of {", ".join(SITES)}')


def _of_its_own(rng, hu):
    """By one of two scanners, as likely: a sharp kernel with noise of 38 HU, or a smooth one with 26 before it is blurred."""
    noise = rng.standard_normal(hu.shape)
    sharp = rng.uniform() < 0.5
    dose = rng.uniform(0.8, 1.25)  # noise in units of the scanner's usual
    hu = _mix(hu, 0, rng.uniform(0.0, 0.12))
    if sharp:
        hu = hu + 0.3 * (hu - _smooth(hu, QUARTER)) + 38 * dose * noise
    else:
        hu = _smooth(hu, 0.1) + 26 * dose * _smooth(noise, QUARTER)
    return hu + rng.uniform(-12, 12)  # calibration drifts


def _of_site(rng, hu, scanner):
    hu = _mix(hu, 0, scanner.slab) + scanner.noise * rng.standard_normal(hu.shape)
    hu = _smooth(hu, scanner.blur)
    hu = hu + scanner.edge * (hu - _smooth(hu, QUARTER))
    hu = scanner.gain * (hu - AIR) + AIR + scanner.offset
    if scanner.circle:
        y, x = (np.linspace(-1, 1, n) for n in hu.shape[1:])
        hu[:, np.hypot(y[:, None], x) > 1] = -np.inf  # becomes the least that is kept
    return hu


def _smooth(a, part):
    """Each pixel shares `part` of its value with either neighbour along the rows, then along the columns."""
    return _mix(_mix(a, 1, part), 2, part)


def _mix(a, axis, part):
    """Each voxel shares `part` of its value with either neighbour along an axis."""
    pad = np.pad(a, [(1, 1) if k == axis else (0, 0) for k in range(3)], mode='edge')
    pad = np.moveaxis(pad, axis, 0)
    return np.moveaxis(part * (pad[:-2] + pad[2:]) + (1 - 2 * part) * pad[1:-1], 0, axis)
