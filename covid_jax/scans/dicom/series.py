"""DICOM -> Scan: CT in Hounsfield units, slices from the feet to the head by position, X-rays as grey.

header.py reads headers, planes.py the geometry, pixels.py the values. Of the patient's id only a hash is kept, to tell
people apart, and neither is said anywhere.
"""

import os
import re
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.tag import Tag

from covid_jax import UserError
from covid_jax.scans import geometry, scan
from covid_jax.scans.dicom.header import (
    OBJECTS,
    PERSON,
    XRAY,
    check_pixels,
    check_whole,
    digest,
    kind,
    modality,
    numbers,
    own_words,
    parse,
    read_header,
)
from covid_jax.scans.dicom.offsets import check_offsets
from covid_jax.scans.dicom.pixels import read_voxels
from covid_jax.scans.dicom.planes import arrange, check_grey, planes_of
from covid_jax.scans.names import BESIDE
from covid_jax.scans.scan import MACHINE, Scan, check_size, hidden

SECONDARY = '1.2.840.10008.5.1.4.1.1.7'  # and what begins with it: secondary captures
NO_DICOM = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.npy', '.npz', *BESIDE)  # not worth opening
START = 512  # bytes of a file that tell whether it is DICOM
BARE = 3  # elements of a file without preamble that are looked at
SHORT = b'AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US'.split()  # VRs whose length has two bytes
LONG = b'OB OD OF OL OV OW SQ SV UC UN UR UT UV'.split()  # and four, behind two of nothing
SLICE = re.compile(r'[^.]*[0-9][^.]*|.*\.[0-9]+')  # how slices without suffix are called, and LICENSE or README are not


def is_dicom(path: Path | str) -> bool:
    """Whether a file holds DICOM by its content, see begins_dicom."""
    try:
        with open(path, 'rb', buffering=0) as file:
            return begins_dicom(file.read(START))
    except OSError as error:
        if error.errno in MACHINE:
            raise
        return False


def begins_dicom(head: bytes) -> bool:
    """Whether a file whose first 512 bytes these are (or all, if it is shorter) holds DICOM: 'DICM' stands at byte
    128, or, in files of before there was a preamble, it begins with elements of ascending tags in group 0002 or 0008,
    little endian."""
    if head[128:132] == b'DICM':
        return True
    at = 0
    last = (0, 0)
    for _ in range(BARE):
        group, element, length = struct.unpack('<HHI', head[at:at + 8].ljust(8, b'\xff'))
        vr = head[at + 4:at + 6]
        if vr in SHORT:
            length >>= 16
        elif vr in LONG:
            length = int.from_bytes(head[at + 8:at + 12].ljust(4, b'\xff'), 'little')
            at += 4
        if group not in (2, 8) or (group, element) <= last or length > START:
            return False
        last = group, element
        at += 8 + length
    return True


def find(folder: Path) -> list[Path]:
    """The DICOM files below a folder, sorted: by their content, or named .dcm. Hidden ones and DICOMDIR are left out.

    A file beside them that is called like a slice without suffix ('IM0007'), or has the suffix of one ('7.IMA',
    '7.dcm.part'), is one of them even so: it is a broken slice, which decode_dicom refuses by name.
    """
    found: list[str] = []
    folders: list[Path | str] = [folder]
    while folders:
        here = folders.pop()
        try:
            with os.scandir(here) as listed:
                entries = [entry for entry in listed if not hidden(entry.name)]
        except OSError as error:
            if error.errno in MACHINE:
                raise
            raise UserError(f'{here}: the folder cannot be read ({error.strerror}): allow it or move the '
                            'folder away') from None
        folders += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        slices = []
        others = []
        for entry in entries:
            low = entry.name.lower()
            if low != 'dicomdir' and not low.endswith(NO_DICOM) and entry.is_file():
                if low.endswith('.dcm') or is_dicom(entry.path):
                    slices.append(entry.path)
                else:
                    others.append(entry.path)
        if slices:
            found += slices + _called_alike(others, slices)
    return sorted(map(Path, found))


def _called_alike(others, slices):
    """Those of the other files that are called like a slice."""
    suffixes = {Path(path).suffix.lower() for path in slices}
    last_two = {path: {suffix.lower() for suffix in Path(path).suffixes[-2:]} for path in others}
    return [path for path in others if not path.lower().endswith(BESIDE)
            and (SLICE.fullmatch(os.path.basename(path).lower()) or suffixes & last_two[path])]


def patient_digest(paths: Iterable[Path | str], series: str = '') -> str:
    """A hash that is the same for all files of one patient, '' where the id is blank or stands for nobody.

    paths: the files of a scan, series: the one that is meant. The first of its images that names somebody counts. The
    hash is for grouping in memory: an id can be guessed back from it, so it must not be written anywhere.
    """
    keys = [*PERSON, Tag('Modality'), Tag('SeriesInstanceUID')]
    for path in map(Path, paths):
        if not (path.name.lower().endswith('.dcm') or is_dicom(path)):
            continue
        try:
            with own_words(path, 'cannot be read as DICOM'):
                tags = parse(path, keys)[0]
                person = digest(tags)
                mine = not series or str(tags.get('SeriesInstanceUID') or 'none') == series
                if person and mine and str(tags.get('Modality')) not in OBJECTS:
                    return person
        except UserError:  # decoding says so
            continue
    return ''


def decode_dicom(paths: Sequence[Path | str], series: str = '') -> Scan:
    """The DICOM files of one scan -> Scan; of several series the one whose SeriesInstanceUID is `series`.

    CT (also enhanced, of many frames) is in Hounsfield units, or grey by its window where it has no rescale values; one
    X-ray is grey without spacing, dark where little was absorbed. UserError or ValueError of one line that names the
    file or the slice for what is no such image, does not fit together, has gaps or is not axial.
    """
    if len(paths) > scan.FILES:
        raise ValueError(f'{len(paths)} DICOM files are more than {scan.FILES}')
    headers = _choose([read_header(Path(path)) for path in paths], series)
    kinds = '/'.join(sorted({modality(header) for header in headers}))
    if kinds not in ('CT', *XRAY):
        raise ValueError(f'a series of modality {kinds}: only CT and X-rays (CR, DX) can be read')
    _one_person(headers)
    for header in headers:
        check_pixels(header)
    raw = [header.path.name for header in headers if kinds in XRAY and _for_processing(header)]
    if raw:
        raise ValueError(f'{raw[0]} is an X-ray FOR PROCESSING, the raw values of a detector: export the one FOR '
                         'PRESENTATION')
    if kinds in XRAY and (len(headers) > 1 or headers[0].frames > 1):
        raise ValueError(f'{sum(header.frames for header in headers)} X-rays in one series '
                         f'({headers[0].path.name}, ...): give the path of one file')
    check_size((sum(header.frames for header in headers), headers[0].rows, headers[0].columns))
    planes = planes_of(headers)
    if kinds in XRAY:
        return Scan(read_voxels(planes, np.zeros(1, int), lambda stored: stored, False)[0], False, None)
    order, orient, spacing = arrange(planes)
    hounsfield = all(plane.rescale is not None and plane.hounsfield for plane in planes)
    if not hounsfield:
        check_grey(planes)
    upward = [planes[int(i)] for i in order]
    voxels, tissue_padding = read_voxels(planes, order, orient, hounsfield)
    if hounsfield:
        check_offsets(upward, voxels)
    return Scan(voxels, hounsfield, spacing, affine=_affine(upward, spacing), tissue_padding=tissue_padding)


def slices_of(paths: Sequence[Path | str], series: str = '') -> list[Path]:
    """The file of each slice that decode_dicom reads of these, from the feet to the head. ValueError or UserError as
    there, and for files of many frames."""
    headers = _choose([read_header(Path(path)) for path in paths], series)
    many = [header.path.name for header in headers if header.frames > 1]
    if many:
        raise ValueError(f'{many[0]} holds many frames: only series of one slice a file are followed')
    order, _, _ = arrange(planes_of(headers))
    return [headers[int(i)].path for i in order]


def _affine(planes, spacing):
    """That of a Scan, from its planes from the feet to the head; None where one does not say where it is."""
    if spacing is None or planes[0].position is None:
        return None
    row, column = np.mean([plane.orientation for plane in planes], 0).reshape(2, 3)
    down, across = planes[0].pixel
    normal = np.cross(row, column)
    step = normal * np.sign(normal[2]) * spacing[0]
    if len(planes) > 1:  # of slices under a tilted gantry it is not along the normal
        step = (planes[-1].position - planes[0].position) / (len(planes) - 1)
    return geometry.affine_of(np.stack([row * across, column * down, step], 1), planes[0].position)


def _choose(headers, series):
    """The headers of the one series of images that is here, or of the one that is meant."""
    def scout(header):
        return any(word in str(header.tags.get('ImageType')).upper() for word in ('LOCALIZER', 'SCOUT'))

    def listing(groups):
        each = [f'{key} ({modality(group[0])}, {sum(header.frames for header in group)} of {group[0].rows} x '
                f'{group[0].columns}{_thickness(group[0])})' for key, group in sorted(groups.items())]
        return '; '.join(each[:5] + ['...'] * (len(each) > 5))

    for header in headers:
        check_whole(header)
    images = [header for header in headers if header.rows and modality(header) not in OBJECTS and not scout(header)]
    if not images:
        kinds = Counter('localizer' if header.rows and scout(header) else kind(header) for header in headers)
        raise ValueError(f'no CT and no X-ray here, only {", ".join(f"{n} x {kind}" for kind, n in kinds.items())}')
    if not series:  # no secondary captures, unless there is nothing else
        primary = [header for header in images if not str(header.tags.get('SOPClassUID')).startswith(SECONDARY)]
        images = primary or images
    groups = {}
    for header in images:
        groups.setdefault(str(header.tags.get('SeriesInstanceUID') or 'none'), []).append(header)
    if series and series not in groups:
        raise ValueError(f'no series {series} here, there is {listing(groups)}')
    if not series and len(groups) > 1:
        raise ValueError(f'{len(groups)} series: choose one as PATH::series=UID of {listing(groups)}')
    return groups[series] if series else next(iter(groups.values()))


def _for_processing(header):
    """Whether an X-ray is not meant to be looked at."""
    said = str(header.tags.get('PresentationIntentType') or '').strip().upper()
    return said == 'FOR PROCESSING' or header.tags.get('SOPClassUID') == uid.DigitalXRayImageStorageForProcessing


def _one_person(headers):
    """ValueError for images of several people, who are not named."""
    paths = {}
    for header in headers:
        if header.person:
            paths.setdefault(header.person, header.path)
    if len(paths) > 1:
        one, other = list(paths.values())[:2]
        raise ValueError(f'files of {len(paths)} patients in one series: {one} and {other} are of two, give each '
                         'patient a folder of its own')


def _thickness(header):
    """', 2 mm', '' where the file does not say."""
    with own_words(header.path, 'its slice thickness is no number'):
        thick = numbers(header.tags.get('SliceThickness') or header.tags.get('SpacingBetweenSlices'))
        return '' if thick is None else f', {thick[0]:g} mm'
