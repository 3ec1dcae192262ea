"""From a decoded scan to the integers that are stored, and back to its grid: one function for training, evaluation and
prediction."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from covid_jax import UserError
from covid_jax.scans.decode import lungs_beside
from covid_jax.scans.lungs import box, guess_spacing, lung_mask
from covid_jax.scans.scan import Scan

LUNGS = ('', 'crop', 'mask')
MOST_VOXELS = 10**9  # of a prepared scan: 1000 x 1000 x 1000
LONGEST = 2  # how many times its shorter side the longer side of a scan that keeps its aspect may be
BLACKED = 0.7  # of the height and of the width of an image, about its middle (Maguolo and Nanni 2020)


@dataclass(frozen=True)
class Prep:
    """How a scan is prepared.

    window:  Hounsfield units that become 0 and 255; scans without Hounsfield units (0..255) are taken as they are. (): of
             each scan its least and its greatest value become 0 and 255 (min-max, CMT-CNN section 3.1); of one with a single
             value all is 0
    size:    (depth, height, width) of the result
    spacing: (z, y, x) mm of the result, whose middle is the scan's: cropped, or padded with 0, to size. (): the whole scan
             is resized to size, whatever its spacing
    lungs:   '' | 'crop': what follows sees only the box around both lungs | 'mask': that, and 0 outside the lungs
    margin:  (z, y, x) mm by which that box is wider than the lungs
    blank:   True: without its lungs, to see what a network reaches that cannot see them (Maguolo and Nanni, "A Critic
             Evaluation of Methods for COVID-19 Automatic Detection from X-Ray Images", 2020). Of a volume the voxels of
             the lungs have their mean; of an image the central 70 % of height and of width are 0
    keep_aspect: True: height and width of size are one length s, and of each scan (or of the box around its lungs) the
             shorter side becomes s, the longer one by the same factor round(s * long / short), but 2 s at most: what is longer
             is squashed to that
    version: raised whenever `prepare` changes what it returns
    """

    window: tuple[float, float] | tuple[()]
    size: tuple[int, int, int]
    spacing: tuple[float, float, float] | tuple[()] = ()
    lungs: str = ''
    margin: tuple[float, float, float] = (5.0, 9.0, 9.0)
    blank: bool = False
    keep_aspect: bool = False
    version: int = 2

    def __post_init__(self):
        if self.window and (len(self.window) != 2 or self.window[0] >= self.window[1]):
            raise UserError(f'--config.prep.window={self.window} must be two Hounsfield values, the lower first, or () for the '
                            'least and the greatest of each scan')
        if len(self.size) != 3 or min(self.size) < 1 or any(n % 1 for n in self.size):
            raise UserError(f'--config.prep.size={self.size} must be three whole numbers: depth, height, width')
        if math.prod(self.size) > MOST_VOXELS:
            raise UserError(f'--config.prep.size={self.size} is {math.prod(self.size):.1e} voxels: of a scan at most {MOST_VOXELS:.0e} are taken')
        if self.spacing and (len(self.spacing) != 3 or min(self.spacing) <= 0):
            raise UserError(f'--config.prep.spacing={self.spacing} must be (), or three lengths in mm: z, y, x')
        if self.lungs not in LUNGS:
            raise UserError(f"--config.prep.lungs={self.lungs} must be one of {', '.join(map(repr, LUNGS))}")
        if len(self.margin) != 3 or min(self.margin) < 0:
            raise UserError(f'--config.prep.margin={self.margin} must be three lengths in mm: z, y, x')
        if self.keep_aspect and self.size[1] != self.size[2]:
            raise UserError('--config.prep.keep_aspect=True brings the shorter side of every scan to one length: height and width '
                            f'of --config.prep.size={self.size} must be the same')
        if self.keep_aspect and self.spacing:
            raise UserError('--config.prep.keep_aspect=True resizes scans whole, whatever their spacing: set '
                            '--config.prep.spacing="()"')

    @property
    def hash(self) -> str:
        """The same in every process and Python version."""
        floats = [[float(v) for v in values] for values in (self.window, self.spacing, self.margin)]
        fields: tuple = (floats[0], [int(n) for n in self.size], floats[1], self.lungs, floats[2] if self.lungs else [],
                         self.version)
        if self.blank:
            fields = (*fields, 'blank')
        if self.keep_aspect:
            fields = (*fields, 'keep_aspect')
        return hashlib.sha256(repr(fields).encode()).hexdigest()[:16]

    @property
    def canvas(self) -> int:
        """Height and width of the square that a scan of any aspect fits into; 0 where all are of one size."""
        return LONGEST * self.size[1] if self.keep_aspect else 0


class Taps(NamedTuple):
    """Where the samples along one axis of the result lie among the voxels of a scan; each array has one entry a sample."""

    below: np.ndarray   # the index of the voxel before it
    above: np.ndarray   # and after it
    weight: np.ndarray  # of the one after it, float32 in [0, 1)
    inside: np.ndarray  # whether it lies in the scan at all


class Place(NamedTuple):
    """Where a prepared scan lies in the scan.

    shape: (depth, height, width) of the scan
    box:   what was prepared of it: the box around its lungs, or all
    steps: (z, y, x) voxels of the scan from one of the prepared scan to the next; the middle of both is that of the box
    size:  (depth, height, width) of the prepared scan
    lungs: bool [*shape], where they were asked for
    """

    shape: tuple[int, int, int]
    box: tuple[slice, ...]
    steps: tuple[float, float, float]
    size: tuple[int, int, int]
    lungs: np.ndarray | None


def place(scan: Scan, prep: Prep) -> Place:
    """Where `prepare` takes its voxels from. UserError where a spacing is asked for and the scan has none, and where no
    lungs are found."""
    if prep.spacing and not scan.spacing:
        raise UserError(f'--config.prep.spacing={prep.spacing} needs scans that know their spacing, as DICOM or NIfTI does')
    shape = scan.voxels.shape
    spacing = scan.spacing or guess_spacing(shape)
    lungs = _lungs(scan, prep) if prep.lungs or (prep.blank and shape[0] > 1) else None
    around = box(lungs, spacing, prep.margin) if lungs is not None and prep.lungs else tuple(slice(0, n) for n in shape)
    lengths = [side.stop - side.start for side in around]
    size = _of_aspect(prep.size, lengths) if prep.keep_aspect else prep.size
    steps = np.divide(prep.spacing, spacing) if prep.spacing else np.divide(lengths, size)
    return Place(shape, around, tuple(steps), size, lungs)


def prepare(scan: Scan, prep: Prep, where: Place | None = None) -> np.ndarray:
    """A decoded scan [depth, height, width] -> uint8 [*prep.size, 1], or of the size that its aspect asks for: lungs found,
    windowed, then resampled linearly.

    CMC-COV19D section 5.1 (resize to a fixed depth, height and width); Rubik's cube Pro section 4.1 (lungs, crop with
    margins, spacing). Reads only the slices that it needs, for min-max all. where: its place, if it is known. UserError where
    the values can be neither Hounsfield units nor 0..255, and as in `place`.
    """
    if not scan.hounsfield:
        least = scan.voxels.min()
        most = scan.voxels.max()
        if least < 0 or most > 255:
            raise UserError(f'values from {least:g} to {most:g} are neither Hounsfield units nor grey values 0..255')
    where = where or place(scan, prep)
    voxels = scan.voxels[where.box]
    mask = where.lungs[where.box] if where.lungs is not None and prep.lungs == 'mask' else None
    hidden = _hidden(scan, where) if prep.blank else None
    low, high = _range(scan, voxels, prep.window, mask, hidden)
    filling = _filling(scan, where, low) if prep.blank else 0
    z, y, x = (_taps(*axis) for axis in zip(voxels.shape, where.size, where.steps, strict=True))

    @lru_cache(maxsize=2)  # neighbours in the result share a slice of the scan
    def plane(k):
        seen = voxels[k] if hidden is None else np.where(hidden[k], np.float32(filling), voxels[k])
        return _across(_windowed(seen, None if mask is None else mask[k], low, high), y, x)

    out = np.zeros((*where.size, 1), np.uint8)
    for i in np.flatnonzero(z.inside):
        lower = plane(z.below[i])
        upper = plane(z.above[i])
        np.rint(lower + z.weight[i] * (upper - lower), out=out[i, :, :, 0], casting='unsafe')
    return out


def together(images: Sequence[np.ndarray], canvas: int) -> dict[str, np.ndarray]:
    """Prepared scans as fields of a batch: image uint8 [batch, depth, height, width, 1].

    canvas: Prep.canvas. Where it is not 0 that is the height and the width of the image: each scan lies at its top left, beyond
    it is 0, and extent int32 [batch, 2] is the height and the width of each.
    """
    if not canvas:
        return {'image': np.stack(images)}
    out = np.zeros((len(images), len(images[0]), canvas, canvas, 1), np.uint8)
    for row, image in zip(out, images, strict=True):
        row[:, :image.shape[1], :image.shape[2]] = image
    return {'image': out, 'extent': np.array([image.shape[1:3] for image in images], np.int32)}


def to_scan(values: np.ndarray, where: Place) -> np.ndarray:
    """Values [d, h, w] on cells that tile a prepared scan evenly -> float32 [depth, height, width] on the scan's own grid.

    A cell is size / (d, h, w) voxels of the prepared scan; its value stands in its middle. Between the middles it is
    linear, on the half cell beyond the outermost ones constant, and 0 where the prepared scan does not reach.
    """
    out = np.zeros(where.shape, np.float32)
    inside = out[where.box]
    steps = np.divide(values.shape, where.size) / where.steps  # cells from one voxel of the scan to the next
    z, y, x = (_taps(*axis) for axis in zip(values.shape, inside.shape, steps, strict=True))
    planes = [_across(plane, y, x) for plane in values.astype(np.float32)]
    for i in np.flatnonzero(z.inside):
        lower = planes[z.below[i]]
        inside[i] = lower + z.weight[i] * (planes[z.above[i]] - lower)
    return out


def blank_words(images: Iterable[np.ndarray]) -> str:
    """What Prep.blank did, and to how many, told from scans that were prepared so, uint8 [depth, height, width, 1].

    The depth that they have now says nothing of it. A single image is black in the middle half of height and of width, which
    lies well within what was blacked; no chest whose lungs were filled is black there in all slices.
    """
    blacked = [not image[:, *_middle(image.shape[1:3], 0.5)].any() for image in images]
    counts = {'lungs filled with their mean': len(blacked) - sum(blacked), f'central {100 * BLACKED:.0f} % blacked': sum(blacked)}
    return ', '.join(f'{what} in {count} scan{"s" * (count != 1)}' for what, count in counts.items() if count)


def _of_aspect(size, lengths):
    """(depth, height, width) of a scan whose shorter side is that of `size`."""
    depth, side, _ = size
    short = min(lengths[1:])
    return depth, *(min(round(side * length / short), LONGEST * side) for length in lengths[1:])


def _hidden(scan, where):
    """What is hidden of the box, bool of its shape."""
    if where.lungs is not None and len(scan.voxels) > 1:
        return where.lungs[where.box]
    hidden = np.zeros(where.shape, bool)
    hidden[:, *_middle(where.shape[1:], BLACKED)] = True
    return hidden[where.box]


def _filling(scan, where, low):
    """The value that stands where something is hidden."""
    if where.lungs is not None and len(scan.voxels) > 1:
        return scan.voxels[where.lungs].mean(dtype=float)
    return low


def _middle(shape, share):
    """The slices that cut such a share of each axis out of its middle."""
    edges = [round(n * (1 - share) / 2) for n in shape]
    return tuple(slice(edge, n - edge) for edge, n in zip(edges, shape, strict=True))


def _lungs(scan, prep):
    if scan.mask:
        return lungs_beside(scan)
    try:
        return lung_mask(scan)
    except ValueError as error:
        field = "--config.prep.lungs=''" if prep.lungs else '--config.prep.blank=False'
        raise UserError(f'{error}; {field} takes scans whole') from None


def _range(scan, voxels, window, mask, hidden):
    """The values that become 0 and 255. Min-max is of what stays visible, so that it tells nothing of the rest."""
    if window:
        return window if scan.hounsfield else (0.0, 255.0)
    seen = voxels
    if hidden is not None:
        seen = seen[~hidden]
        mask = None if mask is None else mask[~hidden]
    if mask is not None:
        seen = seen[mask]
    if not seen.size:
        return 0.0, 1.0
    low = float(seen.min())
    high = float(seen.max())
    return low, high if high > low else low + 1


def _windowed(plane, mask, low, high):
    """One slice [height, width] -> float32 in [0, 255], 0 outside the mask."""
    plane = np.clip((plane.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low)), 0, 255)
    if mask is not None:
        plane *= mask
    return plane


def _across(plane, rows, columns):
    """float32 [height, width] -> [rows, columns]: resampled in plane, 0 outside."""
    for axis, taps in enumerate((rows, columns)):
        if len(taps.below) == plane.shape[axis] and not taps.weight.any() and taps.inside.all():
            continue  # every sample is a voxel
        lower = plane.take(taps.below, axis)
        upper = plane.take(taps.above, axis)
        upper -= lower  # in place, for this is where preparing a scan spends its time
        upper *= np.expand_dims(taps.weight, 1 - axis)
        lower += upper
        plane = lower if taps.inside.all() else lower * np.expand_dims(taps.inside, 1 - axis)
    return plane


def _taps(length, size, step):
    """Linear interpolation of `size` samples `step` voxels apart, their middle the middle of `length` voxels.

    The scan ends half a voxel beyond the last centre; on the way there the last voxel is repeated.
    """
    at = (np.arange(size) + 0.5 - size / 2) * step + length / 2 - 0.5
    inside = (at > -0.5 - 1e-6) & (at < length - 0.5 + 1e-6)  # a sample on the very edge is in, however it is rounded
    at = np.clip(at, 0, length - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, length - 1)
    return Taps(below, above, (at - below).astype(np.float32), inside)
