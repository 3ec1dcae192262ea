"""From a decoded scan to the integers that are stored: one function for training, evaluation and prediction."""

import hashlib
from dataclasses import dataclass

import numpy as np

from covid_jax import UserError


@dataclass(frozen=True)
class Prep:
    """How a scan is prepared.

    window:  Hounsfield units that become 0 and 255; scans without Hounsfield units (0..255) are taken as they are
    size:    (depth, height, width) after resizing
    version: raised whenever `prepare` changes what it returns
    """

    window: tuple[float, float]
    size: tuple[int, int, int]
    version: int = 1

    def __post_init__(self):
        if len(self.window) != 2 or self.window[0] >= self.window[1]:
            raise UserError(f'--config.prep.window={self.window} must be two Hounsfield values, the lower first')
        if len(self.size) != 3 or min(self.size) < 1:
            raise UserError(f'--config.prep.size={self.size} must be three whole numbers: depth, height, width')

    @property
    def hash(self):
        """The same in every process and Python version."""
        fields = ([float(v) for v in self.window], [int(n) for n in self.size], self.version)
        return hashlib.sha256(repr(fields).encode()).hexdigest()[:16]


def prepare(scan, prep):
    """A decoded scan [depth, height, width] -> uint8 [*prep.size, 1]: windowed, then resized linearly.

    CMC-COV19D section 5.1 (resize to a fixed depth, height and width, then to [0, 1]). UserError where the values can be
    neither Hounsfield units nor 0..255.
    """
    voxels = scan.voxels
    low, high = prep.window if scan.hounsfield else (0.0, 255.0)
    if not scan.hounsfield:
        least, most = voxels.min(), voxels.max()
        if least < 0 or most > 255:
            raise UserError(f'values from {least:g} to {most:g} are neither Hounsfield units nor grey values 0..255')
    below, above, weight = _taps(voxels.shape[0], prep.size[0])
    out = np.empty((*prep.size, 1), np.uint8)
    for i, (a, b, w) in enumerate(zip(below, above, weight, strict=True)):  # only the two source slices it needs
        plane = _scaled(voxels[a], low, high)
        if w:
            plane = plane + np.float32(w) * (_scaled(voxels[b], low, high) - plane)
        plane = _linear(_linear(plane, prep.size[1], 0), prep.size[2], 1)
        out[i, :, :, 0] = np.rint(plane)
    return out


def _scaled(plane, low, high):
    return np.clip((plane.astype(np.float32) - low) * np.float32(255 / (high - low)), 0, 255)


def _linear(plane, size, axis):
    if plane.shape[axis] == size:
        return plane
    below, above, weight = _taps(plane.shape[axis], size)
    low, high = plane.take(below, axis), plane.take(above, axis)
    weight = weight.astype(np.float32)
    return low + (weight[:, None] if axis == 0 else weight) * (high - low)


def _taps(length, size):
    """Half-pixel linear interpolation, edges repeated: indices below and above, weight of the one above."""
    at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    below = np.floor(at).astype(int)
    return below, np.minimum(below + 1, length - 1), at - below
