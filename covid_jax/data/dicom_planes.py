"""Where the slices of a DICOM series lie: sorted by position, upright, evenly apart, or refused by slice number."""

import math
from collections import Counter
from typing import NamedTuple

import numpy as np

from covid_jax import UserError
from covid_jax.data.dicom_header import MACROS, Header, numbers, own_words


class Plane(NamedTuple):
    """One frame of one file, as the frame or else the file says; None where neither does."""

    header: Header
    name: str
    position: np.ndarray | None     # x, y, z in mm towards the left, the back and the head, of the first pixel
    orientation: np.ndarray | None  # directions in which the column index and the row index grow
    pixel: np.ndarray | None        # mm between rows, between columns
    thick: np.ndarray | None        # mm
    rescale: np.ndarray | None      # slope, intercept
    hounsfield: bool
    window: tuple | None            # center, width, function


def planes_of(headers):
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

    slope, intercept, center, width = (vector(keyword, 1) for keyword in (
        'RescaleSlope', 'RescaleIntercept', 'WindowCenter', 'WindowWidth'))
    thick = vector('SpacingBetweenSlices', 1)
    thick = vector('SliceThickness', 1) if thick is None else thick
    return Plane(
        header, name, vector('ImagePositionPatient', 3), vector('ImageOrientationPatient', 6),
        vector('PixelSpacing', 2), thick,
        None if slope is None or intercept is None else (float(slope[0]), float(intercept[0])),
        str(find_value('RescaleType') or 'HU').strip().upper() in ('', 'HU', 'US'),  # US: unspecified, so writes GDCM
        None if center is None or width is None else (
            center[0], width[0], str(find_value('VOILUTFunction') or 'LINEAR').strip().upper()))


def arrange(planes):
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
    pixel = _same(planes, 'pixel', 'pixel spacing')
    orientation = _same(planes, 'orientation', 'orientation')
    if orientation is None:
        return [0], lambda stored: stored, None
    normal, turned, signs = _axial(orientation)
    thick = planes[0].thick
    spacing = None if thick is None else abs(float(thick[0])) or None
    order = [0]
    if len(planes) > 1:
        along = np.array([plane.position for plane in planes]) @ normal
        order, spacing = np.argsort(along, kind='stable'), _even(planes, along)
    if pixel is None or spacing is None or not (pixel > 0).all():
        spacing = None
    else:
        spacing = spacing, *(float(mm) for mm in (pixel[::-1] if turned else pixel))
    return order, lambda stored: (stored.T if turned else stored)[::signs[0], ::signs[1]], spacing


def _same(planes, field, name):
    """The median over the planes of a field that must agree within 1e-3 in all of them, None where none has it."""
    values = [getattr(plane, field) for plane in planes]
    if all(value is None for value in values):
        return None
    usual = np.median([value for value in values if value is not None], axis=0)
    for plane, value in zip(planes, values, strict=True):
        if value is None or np.abs(value - usual).max() > 1e-3:
            raise ValueError(f'slice {plane.name} has another {name} than the others: choose one series or remove it')
    return usual


def _axial(orientation):
    """-> (the normal towards the head, whether row and column are swapped, the steps down and across)."""
    near = math.cos(math.radians(10))
    row, column = orientation[:3], orientation[3:]
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


def _even(planes, along):
    """The distance of neighbours in mm. ValueError that names slices at one place or unevenly apart."""
    order = np.argsort(along, kind='stable')
    steps = np.diff(along[order])
    real = steps[steps >= 0.01]
    usual = float(np.median(real)) if real.size else 0.0

    def pairs(where, told):
        texts = [f'slices {planes[order[i]].name} and {planes[order[i + 1]].name} {told(i)}'
                 for i in np.flatnonzero(where)]
        return ', '.join(texts[:5] + ['...'] * (len(texts) > 5))

    double = steps < max(0.01, 0.01 * usual)
    if double.any():
        z = [plane.position[2] for plane in planes]
        told = pairs(double, lambda i: f'are at the same position (z = {z[order[i]]:.1f} mm)')
        raise ValueError(f'{told}: remove one of each, or give each series a folder of its own')
    uneven = np.abs(steps - usual) > 0.1 * usual
    if uneven.any():
        digits = 1 if (np.abs(steps - usual)[uneven] >= 0.1).all() else 3
        raise ValueError(f'{pairs(uneven, lambda i: f"are {steps[i]:.{digits}f} mm apart")}, the others '
                         f'{usual:.{digits}f} mm: a slice is missing or does not belong here')
    return usual
