"""What several tests of decoding need: real files, small folders and archives, how a path is refused."""

import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from covid_jax import UserError
from covid_jax.scans.decode import decode

SHARED = Path(__file__).parents[1] / '../shared/data'


def real(name):
    """A path of the real data; the test is skipped where it is not at hand."""
    if not (SHARED / name).exists():
        pytest.skip(f'needs the real data in {SHARED / name}')
    return SHARED / name


def refused(path, *words):
    """The one line with which decode refuses a path; it holds the words."""
    with pytest.raises(UserError) as caught:
        decode(path)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    for word in (str(path), *words):
        assert word in line, line
    return line


def slices(folder, count):
    """A folder of grey PNG slices [6, 8], 'ct <i>.png' of the constant value i."""
    folder.mkdir()
    for i in range(count):
        Image.new('L', (8, 6), i).save(folder / f'ct {i}.png')
    return folder


def nifti(path, hu):
    """[z, y, x] as a NIfTI whose indices grow to the right, the front and the head."""
    nibabel.save(nibabel.Nifti1Image(hu[:, ::-1, ::-1].transpose(2, 1, 0), np.diag([.7, .8, 2.5, 1])), path)
    return path


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    """members: {name: bytes, or the path of a file}."""
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data.read_bytes() if isinstance(data, Path) else data)
    return path
