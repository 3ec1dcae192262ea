"""A path in, voxels out: the bytes of one scan read as data, never as code, and checked against limits first.

A path is an array (.npz, .npy), an image (.png, .jpg, .tif), a volume (.nii, .nii.gz, .mha, .mhd), a DICOM file, a folder
of slices as images or of DICOM files at any depth, or a .zip of any of these. 'PATH::series=UID' is one series of DICOM files
that hold several, 'PATH::slice=N' the N-th slice (from 0) of a volume. 'phantom:...' is an address, see phantom.py. Every
failure is a UserError of one line that names the file.
"""

import tempfile
import zipfile
from pathlib import Path

from covid_jax import UserError
from covid_jax.data import arrays, dicom, images, phantom, volumes
from covid_jax.data.scan import BYTES, FILES, Scan, blame, natural

ARRAYS = ('.npz', '.npy')
SUFFIXES = (*ARRAYS, *images.SUFFIXES, *volumes.SUFFIXES, '.dcm', '.zip')
EXPECTED = '.npz, .npy, .nii, .nii.gz, .mha, .mhd, .png, .jpg, .tif, .dcm, .zip or a folder of slices'


def decode(address):
    """The Scan at a path; see the module for what a path may be, and scan.py for what a Scan is."""
    if str(address).startswith('phantom:'):
        hu, spacing, _ = phantom.from_address(str(address))
        return Scan(hu, True, spacing)
    path, part = split_address(address)
    with blame(path):
        scan = _decode(path, part.get('series', ''))
        if 'slice' in part:
            at = part['slice']
            if not (at.isdecimal() and int(at) < len(scan.voxels)):
                raise ValueError(f'no slice {at!r}, there are 0 to {len(scan.voxels) - 1}')
            scan = scan._replace(voxels=scan.voxels[int(at):int(at) + 1])
        return scan


def split_address(address):
    """'scans/a::series=1.2.3' -> (Path('scans/a'), {'series': '1.2.3'}). UserError for a part that is not known."""
    path, mark, part = str(address).rpartition('::')
    key, _, value = part.partition('=')
    if not mark or not value:
        return Path(address), {}
    if key not in ('series', 'slice'):
        raise UserError(f'{address}: unknown part {key!r}, write PATH::series=UID or PATH::slice=N')
    return Path(path), {key: value}


def files_of(address):
    """Every file that decoding the address reads, in order: what its content hash is made of."""
    path, _ = split_address(address)
    if path.is_dir():
        return sorted(entry for entry in path.rglob('*') if entry.is_file())
    return [path, *volumes.companions(path)]


def is_scan(path):
    """Whether a file or folder may be a scan, by its name."""
    return path.is_dir() or path.name.lower().endswith(SUFFIXES)


def _decode(path, series=''):
    if path.is_dir():
        return _folder(path, series)
    if not path.is_file():
        raise ValueError('no such file or folder')
    name = path.name.lower()
    if name.endswith('.npz'):
        return arrays.decode_npz(path)
    if name.endswith('.npy'):
        return arrays.decode_npy(path)
    if name.endswith(images.SUFFIXES):
        return images.decode_image(path)
    if name.endswith(volumes.SUFFIXES):
        return volumes.decode_volume(path)
    if name.endswith('.zip'):
        return _zip(path, series)
    if name.endswith('.dcm') or dicom.is_dicom(path):
        return dicom.decode_dicom([path], series)
    raise ValueError(f'not a scan: expected {EXPECTED}')


def _folder(folder, series):
    """Slices as images, or DICOM files at any depth, or the one volume that is here. Other files are ignored."""
    entries = sorted((entry for entry in folder.iterdir() if not entry.name.startswith(('.', '__MACOSX'))), key=natural)
    slices = [entry for entry in entries if entry.name.lower().endswith(images.SUFFIXES) and entry.is_file()]
    dicoms = dicom.find(folder)
    if slices and dicoms:
        raise UserError(f'{folder} holds {len(slices)} images and {len(dicoms)} DICOM files: keep one of the two')
    if slices:
        return images.decode_slices(slices)
    if dicoms:
        return dicom.decode_dicom(dicoms, series)
    whole = [entry for entry in entries if entry.is_file() and entry.name.lower().endswith(ARRAYS + volumes.SUFFIXES)]
    if len(whole) == 1:
        return _decode(whole[0])
    names = [entry.name for entry in entries]
    found = ', '.join(names[:5] + ['...'] * (len(names) > 5)) or 'nothing'
    raise UserError(f'no slices (PNG, JPG, TIFF or DICOM) and no single volume in {folder} (found: {found})')


def _zip(path, series):
    """What is in an archive, unpacked for as long as it is read; names that lead out of it are made harmless."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        members = [info for info in archive.infolist() if not info.is_dir()]
        size = sum(info.file_size for info in members)
        if len(members) > FILES or size > BYTES:
            raise ValueError(f'{len(members)} files of {size} bytes are more than {FILES} files or {BYTES} bytes')
        for info in members:
            archive.extract(info, folder)
        folder = Path(folder)
        try:
            inside = folder
            while len(entries := [e for e in inside.iterdir() if not e.name.startswith(('.', '__MACOSX'))]) == 1:
                inside = entries[0]
                if inside.is_file():
                    break
            if inside.is_file() and inside.name.lower().endswith('.zip'):
                raise ValueError(f'holds the archive {inside.name!r}: unpack that one')
            return _decode(inside, series)
        except UserError as error:
            raise UserError(str(error).replace(str(folder), str(path))) from None
