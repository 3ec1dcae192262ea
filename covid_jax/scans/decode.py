"""A path in, voxels out: the bytes of one scan read as data, never as code, and checked against limits first.

A path is an array (.npz, .npy), an image (.png, .jpg, .tif), a volume (.nii, .nii.gz, .mha, .mhd, .nrrd, .nhdr), a
DICOM file, a folder of slices as images or of DICOM files at any depth, or a .zip of any of these, unpacked for as long as it
is read.
'PATH::series=UID' is one series of DICOM files that hold several, 'PATH::slice=N' the N-th slice (from 0) of a volume,
'PATH::lungs=FILE' a volume with the mask of its lungs in a file beside it, 0 outside them.
'phantom:...' is the address of a phantom, see covid_jax/phantom. Every failure is a UserError of one line that names the file.
"""

import re
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from covid_jax import UserError, phantom
from covid_jax.scans import arrays, dicom, geometry, images, lost, volumes
from covid_jax.scans.grey import check_grey
from covid_jax.scans.names import masks_among, natural, scan_of_mask
from covid_jax.scans.scan import BYTES, FILES, Scan, blame, hidden
from covid_jax.text import some

ARRAYS = ('.npz', '.npy')
PARTS = ('series', 'slice', 'lungs')  # what may follow '::' in an address
SUFFIXES = (*ARRAYS, *images.SUFFIXES, *volumes.SUFFIXES, '.dcm', '.zip')
EXPECTED = '.npz, .npy, .nii, .nii.gz, .mha, .mhd, .nrrd, .png, .jpg, .tif, .bmp, .gif, .webp, .dcm, .zip or a folder of slices'
NOT_A_SCAN = f'not a scan: expected {EXPECTED}'
READERS = (('.npz', arrays.decode_npz), ('.npy', arrays.decode_npy), (images.SUFFIXES, images.decode_image),
           (volumes.SUFFIXES, volumes.decode_volume))


def decode(address: Path | str, scratch: Path | str | None = None) -> Scan:
    """The Scan at a path; see the module for what a path may be, and scan.py for what a Scan is.

    scratch: the folder in which a .zip is unpacked, None for the system's temporary one. What is unpacked is deleted when
    it is read, but not where this process is killed meanwhile: it may hold names of patients.
    """
    if phantom.is_address(str(address)):
        return Scan(*phantom.from_address(str(address)))
    path, part = split_address(address)
    with blame(path):
        if twin := scan_of_mask(path, SUFFIXES):
            raise ValueError(f'by its name the mask of {twin.name}, no scan: keep masks apart from the scans, or rename it')
        scan = _decode(path, part.get('series', ''), scratch)
        if 'slice' in part:
            at = part['slice']
            if not (at.isdecimal() and int(at) < len(scan.voxels)):
                raise ValueError(f'no slice {at!r}, there are 0 to {len(scan.voxels) - 1}')
            where = geometry.of_slice(scan.affine, scan.voxels.shape, int(at))
            scan = scan._replace(voxels=scan.voxels[int(at):int(at) + 1], affine=where)
        return scan._replace(mask=mask_of(address))


def lungs_beside(scan: Scan) -> np.ndarray:
    """The lungs that the file beside a scan marks: bool [depth, height, width]. UserError, which names the file, for one that cannot be
    read, marks nothing, or is of another size or spacing. Where left, front and head are each of both files says for itself."""
    with blame(scan.mask):
        mask = _decode(scan.mask, judged=False)
        shapes = [' x '.join(map(str, of.voxels.shape)) for of in (mask, scan)]
        if mask.voxels.shape != scan.voxels.shape:
            raise ValueError(f'a mask of {shapes[0]} voxels is of no scan of {shapes[1]}')
        if mask.spacing and scan.spacing and not np.allclose(mask.spacing, scan.spacing, rtol=0.01):
            raise ValueError(f'a mask whose voxels are {mask.spacing} mm apart is of no scan where they are {scan.spacing}')
        lungs = mask.voxels > 0
        if not lungs.any():
            raise ValueError('a mask of lungs that marks none')
        return lungs


def mask_of(address: Path | str) -> Path | None:
    """The file with the mask of the lungs of an address, where it names one."""
    path, part = split_address(address)
    return path.parent / part['lungs'] if 'lungs' in part else None


def split_address(address: Path | str) -> tuple[Path, dict[str, str]]:
    """'scans/a::series=1.2.3' -> (Path('scans/a'), {'series': '1.2.3'}). UserError for a part that is not known."""
    path, mark, part = str(address).rpartition('::')
    key, _, value = part.partition('=')
    if not mark or not value:
        return Path(address), {}
    if key not in PARTS:
        raise UserError(f'{address}: unknown part {key!r}, write PATH::series=UID, PATH::slice=N or PATH::lungs=FILE')
    if path.rpartition('::')[2].partition('=')[0] in PARTS and '::' in path:
        raise UserError(f'{address}: an address has one part, and this has two')
    return Path(path), {key: value}


def files_of(address: Path | str) -> list[Path]:
    """Every file that decoding the address reads, in order: what its content hash is made of. Missing ones too, and no mask."""
    path, _ = split_address(address)
    try:
        files = _of_folder(path) if path.is_dir() else [path]
    except (OSError, UserError):  # decoding says what is wrong
        files = [path]
    return sorted({*files, *(more for file in files for more in volumes.companions(file))})


def is_scan(path: Path) -> bool:
    """Whether a file or folder may be a scan: by its name, or as DICOM by its first bytes."""
    low = path.name.lower()
    return path.is_dir() or low.endswith(SUFFIXES) or low != 'dicomdir' and dicom.is_dicom(path)


def patient_digest(address: Path | str) -> str:
    """A digest of the DICOM patient of an address, '' where it is no DICOM or names nobody; see dicom.patient_digest.

    Members of a .zip are unpacked one after another until one names a patient. Never raises: an error may quote the id.
    """
    try:
        path, part = split_address(address)
        series = part.get('series', '')
        name = path.name.lower()
        if path.is_dir():
            return dicom.patient_digest(dicom.find(path), series)
        if name.endswith('.zip'):
            return _zip_digest(path, series)
        if not path.is_file() or any(name.endswith(suffixes) for suffixes, _ in READERS):
            return ''
        return dicom.patient_digest([path], series)
    except Exception:
        return ''


def _zip_digest(path, series):
    with zipfile.ZipFile(path) as archive:
        for info in sorted(_members(archive), key=lambda info: info.filename):
            name = Path(info.filename).name.lower()
            if name == 'dicomdir' or name.endswith(dicom.NO_DICOM):
                continue
            with archive.open(info) as member, tempfile.NamedTemporaryFile(suffix='.dcm') as file:
                start = member.read(dicom.START)
                if name.endswith('.dcm') or dicom.begins_dicom(start):
                    file.write(start)
                    shutil.copyfileobj(member, file)
                    file.flush()
                    if digest := dicom.patient_digest([Path(file.name)], series):
                        return digest
    return ''


def _decode(path, series='', scratch=None, judged=True):
    """judged: whether grey is asked whether it can be a scan."""
    if path.is_dir():
        return _folder(path, series, judged)
    if not path.is_file():
        raise ValueError('no such file or folder')
    name = path.name.lower()
    if name.endswith('.zip'):
        return _zip(path, series, scratch, judged)
    reader = next((reader for suffixes, reader in READERS if name.endswith(suffixes)), None)
    if reader is None and (name.endswith('.dcm') or dicom.is_dicom(path)):
        return _no_mask(dicom.decode_dicom([path], series), judged)
    if reader is None:
        raise ValueError(NOT_A_SCAN)
    _no_series(series)
    return _no_mask(reader(path), judged)


def _no_mask(scan, judged):
    if judged and not scan.hounsfield:
        check_grey(scan.voxels)
    return scan


def _no_series(series):
    if series:
        raise ValueError(f'::series={series} chooses among DICOM files, and this is none: leave it out')


def _contents(folder):
    """What a folder may be decoded from: {kind: paths}. DICOM files at any depth; all other files are ignored."""
    files = sorted((entry for entry in folder.iterdir() if not hidden(entry.name) and entry.is_file()), key=natural)

    def ending(suffixes):
        return [file for file in files if file.name.lower().endswith(suffixes)]

    found = {'image': ending(images.SUFFIXES), 'DICOM file': dicom.find(folder), 'volume': ending(ARRAYS + volumes.SUFFIXES)}
    previews = ending(images.PREVIEWS)
    if len(previews) < sum(map(len, found.values())):  # beside scans of another kind they are no slices, but for those that go on with them
        slices = [file for file in found['image'] if file not in previews]
        found['image'] = [file for file in found['image'] if file in slices or lost.continues(file, slices)]
    return found


def _of_folder(folder):
    """Every file of a folder that is read, or is why it is refused: when that one is gone the folder is another."""
    contents = _contents(folder)
    empty, folders = lost.links(folder)
    named = lost.namesakes(folder, contents['image'], images.SUFFIXES) if contents['image'] else []
    return [*empty, *folders, *named, *(file for files in contents.values() for file in files)]


def _refuse_lost(folder, slices):
    """UserError, which names them, for slices that cannot be opened: a part of a scan would pass for the whole."""
    empty, folders = lost.links(folder)
    named = lost.namesakes(folder, slices, images.SUFFIXES) if slices else []
    for paths, what in ((empty, 'links whose content is not here: fetch it, or delete them'),
                        (folders, 'links to folders, which are not followed: put the files in their place, or delete them'),
                        (named, f'files that are called like its slices and are none that is read: {EXPECTED}, or delete them')):
        if paths:
            names = some((path.relative_to(folder) for path in paths), 10)
            raise UserError(f'{folder}: {names}: {len(paths)} {what}')


def _folder(folder, series, judged):
    """Slices as images, or DICOM files at any depth, or the one volume that is here. UserError for several of these."""
    contents = {kind: files for kind, files in _contents(folder).items() if files}
    _refuse_lost(folder, contents.get('image', []))
    masks = masks_among(contents.get('image', []), images.SUFFIXES)
    if masks:
        mask, scan = next(iter(masks.items()))
        raise UserError(f'{folder}: {len(masks)} of its slices are masks by their names, as {mask.name} of {scan.name}: move the masks to a '
                        'folder of their own, or rename them')
    counted = [f'{len(files)} {kind}{"s" * (len(files) > 1)} ({some(file.name for file in files)})'
               for kind, files in contents.items()]
    if len(contents) > 1:
        raise UserError(f'{folder} holds {" and ".join(counted)}: keep one kind, or give the path of one file')
    if not contents:
        found = sorted((entry for entry in folder.iterdir() if not hidden(entry.name)), key=natural)
        raise UserError(f'no slices (PNG, JPG, TIFF or DICOM) and no single volume in {folder} '
                        f'(found: {some(entry.name for entry in found) or "nothing"})')
    (kind, files), = contents.items()
    if kind == 'DICOM file':
        return _no_mask(dicom.decode_dicom(files, series), judged)
    _no_series(series)
    if kind == 'image':
        return _no_mask(images.decode_slices(files), judged)
    if len(files) > 1:
        raise UserError(f'{folder} holds {counted[0]}: keep one, or give its path')
    return _decode(files[0], judged=judged)


def _zip(path, series, scratch, judged):
    """What is in an archive, unpacked for as long as it is read."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(dir=scratch) as folder:
        for info in _members(archive):
            archive.extract(info, folder)
        folder = Path(folder)
        try:
            inside = folder
            while inside.is_dir() and len(entries := list(inside.iterdir())) == 1:
                inside = entries[0]
            if inside.is_file() and inside.name.lower().endswith('.zip'):
                raise ValueError(f'holds the archive {inside.name!r}: unpack that one')
            if inside.is_dir():
                _check_levels(inside)
            return _decode(inside, series, judged=judged)
        except UserError as error:
            raise UserError(str(error).replace(str(folder), str(path))) from None


def _check_levels(folder):
    """ValueError for an archive whose slices are in a folder and in folders of it: those would be lost in silence."""
    files = sorted(file for file in folder.rglob('*') if file.is_file())
    slices = [file for file in files if file.name.lower().endswith(images.SUFFIXES)]
    deeper = [file for file in slices if file.parent != folder]
    if 0 < len(deeper) < len(slices):
        raise ValueError(f'{len(slices) - len(deeper)} slices and {len(deeper)} more in folders beside them '
                         f'({deeper[0].relative_to(folder)}): pack each scan into an archive of its own')


def _members(archive):
    """The files of an archive without hidden ones, named by relative paths with '/'.

    ValueError for more than a scan may have, for links, for names that lead out of the archive, and two of one name.
    """
    members = [info for info in archive.infolist() if not info.is_dir()]
    size = sum(info.file_size for info in members)
    if len(members) > FILES or size > BYTES:
        raise ValueError(f'{len(members)} files of {size} bytes are more than {FILES} files or {BYTES} bytes')
    names = {}  # as they are written, by what a file system that ignores case makes of them
    shown = []
    for info in members:
        name = info.filename
        parts = [part for part in re.split(r'[/\\]', name) if part not in ('', '.')]
        if not parts or re.match(r'[/\\]|[A-Za-z]:', name) or '..' in parts:
            raise ValueError(f'refused, its member {name[:100]!r} leads out of it: pack it anew with relative names')
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f'refused, its member {name[:100]!r} is a link: pack the file that it points to')
        info.filename = '/'.join(parts)
        key = info.filename.casefold()
        if key in names:
            raise ValueError(f'refused, its members {names[key][:100]!r} and {name[:100]!r} have one name: rename one')
        names[key] = name
        if not any(map(hidden, parts)):
            shown.append(info)
    return shown
