"""Where the slices of a DICOM series lie: sorted by position, upright, evenly apart, or refused by slice number."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from covid_jax import UserError
from covid_jax.scans.dicom.header import MACROS, Header, numbers, own_words
from covid_jax.scans.dicom.steps import even_step
from covid_jax.scans.scan import check_spacing

SLOPE = 0.2  # mm to the side per mm along: a bit more than the tilt that _axial lets through
REACH = 1 / 8  # of a window lies below all values at most


class Plane(NamedTuple):
    """One frame of one file, as the frame or else the file says; None where neither does."""

    header: Header
    name: str
    position: np.ndarray | None     # x, y, z in mm towards the left, the back and the head, of the first pixel
    orientation: np.ndarray | None  # directions in which the column index and the row index grow
    pixel: np.ndarray | None        # mm between rows, between columns
    between: float | None           # mm from slice to slice
    thick: float | None             # mm
    rescale: np.ndarray | None      # slope, intercept
    hounsfield: bool
    window: tuple | None            # center, width, function


def planes_of(headers: Sequence[Header]) -> list[Plane]:
    """One Plane per frame, in the order of the files. A slice is called by its number where that is its alone."""
    planes = []
    for header in headers:
        with own_words(header.path, 'its header is broken'):
            groups = list(header.tags.get('PerFrameFunctionalGroupsSequence') or [])
            shared = list(header.tags.get('SharedFunctionalGroupsSequence') or [])[:1]
            if header.frames > 1 and len(groups) != header.frames:
                raise UserError(f'{header.path}: {header.frames} frames of which {len(groups)} are described: export '
                                'the original series')
            number = numbers(header.tags.get('InstanceNumber'))
            name = header.path.name if number is None else f'{number[0]:.0f}'
            for frame in range(header.frames):
                called = f'{frame + 1}' if len(headers) == 1 < header.frames else name
                planes.append(_plane(header, groups[frame:frame + 1] + shared, called))
    counts = Counter(plane.name for plane in planes)
    return [plane if counts[plane.name] == 1 else plane._replace(name=f'{plane.name} ({plane.header.path.name})')
            for plane in planes]


def _plane(header, groups, name):
    """What holds for one frame, looked up in its functional groups, then in the file."""
    def find_value(keyword):
        for group in groups:
            macro = group.get(MACROS[keyword])
            if macro and macro[0].get(keyword) is not None:
                return macro[0].get(keyword)
        return header.tags.get(keyword)

    def vector(keyword, length):
        value = numbers(find_value(keyword))
        if value is not None and len(value) < length:
            raise ValueError('too few numbers')
        if keyword == 'RescaleSlope' and value is not None and not value[0]:
            raise ValueError('slope 0')
        return None if value is None else value[:length]

    def millimetres(keyword):
        value = vector(keyword, 1)
        return None if value is None else abs(float(value[0])) or None  # 0 says nothing

    slope, intercept, center, width = (vector(keyword, 1) for keyword in (
        'RescaleSlope', 'RescaleIntercept', 'WindowCenter', 'WindowWidth'))
    return Plane(
        header, name, vector('ImagePositionPatient', 3), vector('ImageOrientationPatient', 6),
        vector('PixelSpacing', 2), millimetres('SpacingBetweenSlices'), millimetres('SliceThickness'),
        None if slope is None or intercept is None else (float(slope[0]), float(intercept[0])),
        str(find_value('RescaleType') or 'HU').strip().upper() in ('', 'HU', 'US'),  # US: unspecified, so writes GDCM
        None if center is None or width is None else (
            center[0], width[0], str(find_value('VOILUTFunction') or 'LINEAR').strip().upper()))


def arrange(planes: Sequence[Plane]) -> tuple[
        np.ndarray, Callable[[np.ndarray], np.ndarray], tuple[float, float, float] | None]:
    """-> (order, orient, spacing): the planes from feet to head, what turns one upright, (z, y, x) mm or None."""
    sizes = [(plane.header.rows, plane.header.columns) for plane in planes]
    usual = Counter(sizes).most_common(1)[0][0]
    for plane, size in zip(planes, sizes, strict=True):
        if size != usual:
            raise ValueError(f'slice {plane.name} is {size[0]} x {size[1]} pixels, the others are {usual[0]} x '
                             f'{usual[1]}: choose one series or remove it')
    if len(planes) > 1:
        for plane in planes:
            if plane.position is None or plane.orientation is None:
                raise ValueError(f'slice {plane.name} does not say where it is: export the original series')
        _one_frame(planes)
    pixel = _same(planes, 'pixel', 'pixel spacing')
    orientation = _same(planes, 'orientation', 'orientation')
    if pixel is not None:
        check_spacing(pixel)
    if orientation is None:
        return np.zeros(1, int), lambda stored: stored, None
    normal, turned, signs = _axial(orientation)
    if len(planes) == 1:
        order = np.zeros(1, int)
        apart = planes[0].between or planes[0].thick
    else:
        along = np.array([plane.position for plane in planes]) @ normal
        order = np.argsort(along, kind='stable')
        apart = even_step(planes, along)
        upward = [planes[int(i)] for i in order]
        _straight(upward, along[order], orientation, 0.5 if pixel is None else 0.5 * min(pixel))
        _complete(upward, apart)
    spacing = None
    if pixel is not None and apart is not None:
        upright = pixel[::-1] if turned else pixel
        spacing = apart, float(upright[0]), float(upright[1])
        check_spacing(spacing)
    return order, lambda stored: (stored.T if turned else stored)[::signs[0], ::signs[1]], spacing


def _one_frame(planes):
    """ValueError where positions are measured from several origins. Slices that do not say from which are let be."""
    slice_in = {}  # of each frame of reference the first slice
    for plane in planes:
        if plane.header.tags.get('FrameOfReferenceUID'):
            slice_in.setdefault(str(plane.header.tags.get('FrameOfReferenceUID')), plane.name)
    if len(slice_in) > 1:
        one, other, *_ = slice_in.values()
        raise ValueError(f'slices {one} and {other} have different frames of reference, which cannot be compared: give '
                         'each series a folder of its own')


def _same(planes, field, name):
    """The median over the planes of a field that must agree within 1e-3 in all of them, None where none has it."""
    values = [getattr(plane, field) for plane in planes]
    if all(value is None for value in values):
        return None
    missing = sum(value is None for value in values)
    usual = np.median([value for value in values if value is not None], axis=0)
    if missing <= len(planes) / 2:
        odd = [value is None or np.abs(value - usual).max() > 1e-3 for value in values]
    else:
        odd = [value is not None for value in values]
    if any(odd):
        raise ValueError(f'slice {planes[odd.index(True)].name} has another {name} than the others: choose one series or '
                         'remove it')
    return usual


def _axial(orientation):
    """-> (the normal towards the head, whether row and column are swapped, the steps down and across)."""
    near = math.cos(math.radians(10))  # what lies within 10 degrees of an axis counts as along it
    row, column = np.split(orientation, 2)
    normal = np.cross(row, column)
    if any(abs(np.linalg.norm(v) - 1) > 1e-2 for v in (row, column, normal)):
        raise ValueError('the image orientation is no two directions at right angles: export the original series')
    axis = int(np.abs(normal).argmax())
    if abs(normal[axis]) < near or axis != 2:
        kind = 'oblique' if abs(normal[axis]) < near else ('sagittal', 'coronal')[axis]
        raise ValueError(f'a {kind} series, slices must lie across the body: export the axial one')
    turned = abs(row[1]) > abs(row[0])
    if turned:
        row, column = column, row
    if min(abs(row[0]), abs(column[1])) < near:
        raise ValueError('slices that are turned in their plane: export the axial series without rotation')
    return normal * np.sign(normal[2]), turned, (1 if column[1] > 0 else -1, 1 if row[0] > 0 else -1)


def _straight(planes, along, orientation, limit):
    """ValueError for a slice that lies more than `limit` mm off the line on which the first pixels of the others lie.

    planes: sorted; along: mm along their normal. The line may lean as far as the tilt of a gantry makes it.
    """
    aside = np.array([plane.position for plane in planes]) @ orientation.reshape(2, 3).T
    half = len(planes) // 2  # each slice and the one half the series further up: so far apart, rounding matters little
    slopes = (aside[half:] - aside[:-half]) / (along[half:] - along[:-half])[:, None]
    middle = (len(slopes) - 1) // 2
    slope = np.take_along_axis(slopes, np.abs(slopes).argsort(0), 0)[middle].clip(-SLOPE, SLOPE)
    off = aside - along[:, None] * slope
    off = np.linalg.norm(off - np.sort(off, 0)[(len(off) - 1) // 2], axis=1)
    worst = int(off.argmax())
    if off[worst] > limit:
        raise ValueError(f'slice {planes[worst].name} lies {off[worst]:.1f} mm beside the others: it does not belong '
                         'here, give each series a folder of its own')


def _complete(planes, apart):
    """ValueError for two or three slices too far apart; of more, an even distance says that none is missing."""
    between = planes[0].between
    thick = planes[0].thick
    most = math.inf
    if thick:
        most = 3 * thick  # slices may be spaced further than they are thick
    if between:
        most = 1.5 * between
    if len(planes) > 3 or apart <= most:
        return
    said = f'and by their header {between:g} mm' if between else f'and {thick:g} mm thick'
    raise ValueError(f'slices {planes[0].name} and {planes[1].name} are {apart:.1f} mm apart {said}: slices between '
                     'them are missing, copy the whole series or give the path of one file')


def check_grey(planes: Sequence[Plane]) -> None:
    """ValueError for CT without Hounsfield units whose slices would not be shown alike, or not as anyone chose. Where slices
    differ, those that fewer are like are named."""
    scaled = [plane.rescale is not None and plane.hounsfield for plane in planes]
    if any(scaled):
        odd = scaled.index(sum(scaled) <= len(planes) / 2)
        does = 'says' if scaled[odd] else 'does not say'
        raise ValueError(f'slice {planes[odd].name} {does} how its values become Hounsfield units, unlike slice '
                         f'{planes[scaled.index(not scaled[odd])].name}: export the series as original CT')
    shown = [_shown(plane) for plane in planes]
    if any(each != shown[0] for each in shown):
        usual = max(shown, key=shown.count)
        unlike = next(plane for plane, each in zip(planes, shown, strict=True) if each != usual)
        raise ValueError(f'slices have windows of their own, {unlike.name} another than {planes[shown.index(usual)].name}: '
                         'export the series as original CT')
    if planes[0].window is None and not planes[0].header.tags.get('VOILUTSequence'):
        raise ValueError(f'slice {planes[0].name} says neither how its values become Hounsfield units nor a window: export the '
                         'series as original CT')
    for plane in planes:
        _check_reach(plane)


def _check_reach(plane):
    """ValueError for a window of Hounsfield units over values that lost theirs: it reaches far below all that is stored without a sign, and
    would show air as white."""
    tags = plane.header.tags
    if plane.window is None or plane.rescale is not None or tags.get('PixelRepresentation') or tags.get('ModalityLUTSequence'):
        return
    center, width, _ = plane.window
    low = center - width / 2
    if low < -REACH * width:
        raise ValueError(f'the window of slice {plane.name} reaches down to {low:g}, and what is stored has no sign: the RescaleIntercept was '
                         'lost, export the series as original CT')


def _shown(plane):
    """All that decides how a slice without Hounsfield units is shown, to be compared."""
    with own_words(plane.header.path, 'its header is broken'):
        tables = [plane.header.tags.get(key) for key in ('ModalityLUTSequence', 'VOILUTSequence')]
    return plane.window, tables
