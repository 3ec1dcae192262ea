"""Chest X-rays of the ct phantoms: what parallel rays from back to front leave behind, as a posterior-anterior radiograph.

The ct's slices become rows: the apex of the lungs is up, the patient's right is on the left. The patient stands: there is
no table.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from covid_jax.phantom import ct
from covid_jax.phantom.anatomy import Size
from covid_jax.phantom.scanner import check_site

SIZE = (48, 96, 96)  # of the ct
VERSION = 1  # raised whenever the same address gives other pixels, and the ct's is not
WATER = 0.0206  # 1/mm: water at 60 keV (NIST XCOM)
BONE = 160.0  # HU: what is denser is bone
BLUR = 25.0  # mm: standard deviation of the copy that edges are sharpened against
UNEXPOSED = 0.1  # absorption below which a ray has met no body
BLACK = 1  # percentile of the body's absorption that is shown black
HARD = 4.0  # times by which bone is denser here: the cts have soft ribs, which a radiograph would not show


class Detector(NamedTuple):
    """How a site makes and shows a radiograph.

    photons: that reach a pixel through nothing: the fewer, the more noise
    edge:    how often the difference from a blurred copy is added
    white:   the percentile of the body's absorption that is shown white
    gamma:   exponent of the grey values; above 1 the lungs are darker
    frame:   the part of the height and of the width, on each side, that the collimator leaves unexposed
    """

    photons: float
    edge: float
    white: float
    gamma: float
    frame: float


OWN = Detector(photons=2e5, edge=1.0, white=99.5, gamma=1.0, frame=0.0)  # where no site is named
SITES = {
    'site0': Detector(photons=4e5, edge=2.0, white=99.0, gamma=1.15, frame=0.0),
    'site1': Detector(photons=3e4, edge=0.0, white=99.9, gamma=0.75, frame=0.05),
    'site2': Detector(photons=1e5, edge=0.6, white=97.0, gamma=1.4, frame=0.02),
    'site3': Detector(photons=2e4, edge=1.0, white=99.9, gamma=0.9, frame=0.0)}


def phantom(seed: int, index: int, label: str, size: Size = SIZE, site: str = '') -> ct.Phantom:
    """One X-ray: (grey uint8 [1, height, width], spacing (z, y, x) in mm, lesion bool [1, height, width]).

    Pixels are square; z is 1 mm, for a projection has no depth. lesion: where a ray meets one. size: of the ct that is
    projected. Labels are as those of ct.phantom, and so are the errors.
    """
    ct.check_label(label)
    check_site(site)
    body = ct.body_of(seed, index, size, table=False)
    hu, lesion = ct.under(body, label)
    mm = body.spacing[2]
    rows = round(size[0] * body.spacing[0] / mm)
    hu += (HARD - 1) * np.maximum(hu - BONE, 0)
    absorbed = _square(line_integral(hu, body.spacing[1]), rows)
    grey = _shown(body.rng, absorbed, mm, SITES[site] if site else OWN)
    met = _square(lesion.any(1).astype(float), rows) > 0.5
    return grey[None], (1.0, mm, mm), met[None]


def line_integral(hu: np.ndarray, mm: float) -> np.ndarray:
    """What rays from back to front meet: HU [depth, height, width], voxels `mm` high -> absorption [depth, width].

    Beer and Lambert: of I photons exp(-absorption) I come through. Attenuation is that of water times 1 + HU / 1000, and
    never below 0.
    """
    return mm * (WATER * np.maximum(1 + hu / 1000, 0)).sum(1)


def _square(image, rows):
    """An image [depth, width] with so many rows, by linear interpolation."""
    return ndimage.zoom(image, (rows / len(image), 1), order=1, mode='nearest', grid_mode=True)


def _shown(rng, absorbed, mm, detector):
    """The radiograph uint8 [height, width] of an absorption, dark where little is absorbed."""
    photons = rng.poisson(detector.photons * np.exp(-absorbed))
    film = -np.log(np.maximum(photons, 1) / detector.photons)
    film += detector.edge * (film - ndimage.gaussian_filter(film, BLUR / mm))
    body = absorbed > UNEXPOSED
    black, white = np.percentile(film[body], (BLACK, detector.white))
    grey = np.clip((film - black) / (white - black), 0, 1)**detector.gamma
    rows, columns = (round(detector.frame * n) for n in grey.shape)
    exposed = np.zeros(grey.shape)
    exposed[rows:len(grey) - rows, columns:grey.shape[1] - columns] = 1
    return np.rint(255 * grey * exposed).astype(np.uint8)
