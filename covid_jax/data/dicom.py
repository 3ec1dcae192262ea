"""DICOM -> Scan: CT in Hounsfield units, slices from the feet to the head by position, X-rays as grey.

dicom_header.py reads headers, dicom_planes.py the geometry, dicom_pixels.py the values. The patient's id is read by
patient_digest alone, and said nowhere.
"""

import hashlib
import os
from collections import Counter
from pathlib import Path

from pydicom.tag import Tag

from covid_jax.data import scan
from covid_jax.data.dicom_header import OBJECTS, XRAY, kind, modality, numbers, own_words, parse, quiet, read_header
from covid_jax.data.dicom_pixels import check_pixels, read_voxels
from covid_jax.data.dicom_planes import arrange, planes_of
from covid_jax.data.scan import Scan, check_size

SECONDARY = '1.2.840.10008.5.1.4.1.1.7'  # and what begins with it: secondary captures
NO_DICOM = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.npy', '.npz', '.csv', '.json', '.txt')  # not worth opening
NOBODY = ('anon', 'anonymised', 'anonymized', 'anonymous', 'deidentified', 'de-identified', 'n/a', 'na', 'nan',
          'no name', 'none', 'null', 'patient', 'redacted', 'removed', 'test', 'unknown', 'unspecified')


def is_dicom(path):
    """Whether a file holds DICOM by its content: 'DICM' at byte 128."""
    try:
        with open(path, 'rb', buffering=0) as file:
            file.seek(128)
            return file.read(4) == b'DICM'
    except OSError:
        return False


def find(folder):
    """The DICOM files below a folder, sorted: with the magic or named .dcm. Hidden ones and DICOMDIR are left out."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(('.', '__MACOSX'))]
        for name in names:
            path, low = Path(root, name), name.lower()
            if not low.startswith('.') and low != 'dicomdir' and not low.endswith(NO_DICOM) and path.is_file():
                if low.endswith('.dcm') or is_dicom(path):
                    found.append(path)
    return sorted(found)


def patient_digest(path):
    """A hash that is the same for all files of one patient, '' where the id is blank or stands for nobody.

    path: a DICOM file or a folder, of which the first DICOM file is read. It is for grouping in memory: an id can be
    guessed back from its hash, so it must not be written anywhere.
    """
    path = Path(path)
    first = find(path)[:1] if path.is_dir() else [path] if is_dicom(path) or path.name.lower().endswith('.dcm') else []
    try:
        with quiet():
            tags = parse(first[0], [Tag('PatientID'), Tag('IssuerOfPatientID')])[0]
            patient, issuer = (bytes(tags.get_item(key).value or b'').strip(b' \0') if key in tags else b''
                               for key in ('PatientID', 'IssuerOfPatientID'))
    except Exception:  # whatever it is, it may quote the id
        return ''
    plain = patient.decode('latin-1').lower().strip(' 0x-_.*?')
    return hashlib.sha256(patient + b'\0' + issuer).hexdigest() if plain and plain not in NOBODY else ''


def decode_dicom(paths, series=''):
    """The DICOM files of one scan -> Scan; of several series the one whose SeriesInstanceUID is `series`.

    CT (also enhanced, of many frames) is in Hounsfield units, or grey by its window where it has no rescale values; one
    X-ray is grey without spacing, dark where little was absorbed. UserError or ValueError of one line that names the
    file or the slice for what is no such image, does not fit together, has gaps or is not axial.
    """
    with quiet():
        if len(paths) > scan.FILES:
            raise ValueError(f'{len(paths)} DICOM files are more than {scan.FILES}')
        headers = _choose([read_header(Path(path)) for path in paths], series)
        kinds = '/'.join(sorted({modality(header) for header in headers}))
        if kinds not in ('CT', *XRAY):
            raise ValueError(f'a series of modality {kinds}: only CT and X-rays (CR, DX) can be read')
        for header in headers:
            check_pixels(header)
        if kinds in XRAY and (len(headers) > 1 or headers[0].frames > 1):
            raise ValueError(f'{sum(header.frames for header in headers)} X-rays in one series '
                             f'({headers[0].path.name}, ...): give the path of one file')
        check_size((sum(header.frames for header in headers), headers[0].rows, headers[0].columns))
        planes = planes_of(headers)
        if kinds in XRAY:
            return Scan(read_voxels(planes, [0], lambda stored: stored, False), False, None)
        order, orient, spacing = arrange(planes)
        hounsfield = all(plane.rescale is not None and plane.hounsfield for plane in planes)
        for plane in planes:
            if not hounsfield and plane.window is None and 'VOILUTSequence' not in plane.header.tags:
                raise ValueError(f'slice {plane.name} says neither how its values become Hounsfield units nor a '
                                 'window: export the series as original CT')
        return Scan(read_voxels(planes, order, orient, hounsfield), hounsfield, spacing)


def _choose(headers, series):
    """The headers of the one series of images that is here, or of the one that is meant."""
    def scout(header):
        return any(word in str(header.tags.get('ImageType')).upper() for word in ('LOCALIZER', 'SCOUT'))

    def listing(groups):
        told = [f'{key} ({modality(group[0])}, {sum(header.frames for header in group)} of {group[0].rows} x '
                f'{group[0].columns}{_thickness(group[0])})' for key, group in sorted(groups.items())]
        return '; '.join(told[:5] + ['...'] * (len(told) > 5))

    images = [header for header in headers if header.rows and modality(header) not in OBJECTS and not scout(header)]
    if not images:
        kinds = Counter('localizer' if header.rows and scout(header) else kind(header) for header in headers)
        raise ValueError(f'no CT and no X-ray here, only {", ".join(f"{n} x {kind}" for kind, n in kinds.items())}')
    first = [header for header in images if not str(header.tags.get('SOPClassUID')).startswith(SECONDARY)]
    groups = {}
    for header in images if series else first or images:
        groups.setdefault(str(header.tags.get('SeriesInstanceUID') or 'none'), []).append(header)
    if series and series not in groups:
        raise ValueError(f'no series {series} here, there is {listing(groups)}')
    if not series and len(groups) > 1:
        raise ValueError(f'{len(groups)} series: choose one as PATH::series=UID of {listing(groups)}')
    return groups[series] if series else next(iter(groups.values()))


def _thickness(header):
    """', 2 mm', '' where the file does not say."""
    with own_words(header.path, 'its slice thickness is no number'):
        thick = numbers(header.tags.get('SliceThickness') or header.tags.get('SpacingBetweenSlices'))
        return '' if thick is None else f', {thick[0]:g} mm'
