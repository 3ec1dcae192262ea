"""What every decoder gives, the limits that every header is judged by, and how a foreign error becomes one line."""

import errno
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from covid_jax import UserError
from covid_jax.text import printable

VERSION = 2  # raised whenever a decoder gives other voxels for the same bytes: prepared scans are then made anew
VOXELS = 2**30  # of one scan: ten times the largest CT of a chest
BYTES = 2**32  # of its array, and of what an archive unpacks to
FILES = 4096  # that one scan may be made of
JUNK = ('thumbs.db', 'ehthumbs.db', 'ehthumbs_vista.db', 'desktop.ini', 'icon\r', '$recycle.bin', 'system volume information', 'lost+found',
        '@eadir', '@recycle', '#recycle')  # of Windows, macOS, file systems and network drives, in small letters
JUNK_ENDS = ('zone.identifier', ':encryptable', '~')  # streams of NTFS beside a file, and what editors keep of an older one
MACHINE = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)  # not the file's fault


class Scan(NamedTuple):
    """What a path holds.

    voxels:     [depth, height, width]; one slice has depth 1. Where the source knows directions: slices from the feet
                to the head, rows from the front to the back, columns from the patient's right to the left (phantoms run
                the other way along z)
    hounsfield: True: int16 or float32 Hounsfield units. False: grey, uint8 or float32 in [0, 255]
    spacing:    (z, y, x) mm between voxel centres, None where the source does not say
    mask:       the file with the mask of its lungs, where the source has one
    affine:     [4, 4], index (i, j, k) of the file as it is stored -> mm to the right, the front and the head, as in
                NIfTI; None where the source does not say. Of DICOM i is the column, j the row, and k the slice from the
                feet. See geometry.py
    tissue_padding: whether what stands for no measurement has a value that tissue has too, such as 0 where 0 is water:
                of it what reaches the edge of a slice has become air
    """

    voxels: np.ndarray
    hounsfield: bool
    spacing: tuple[float, float, float] | None
    mask: Path | None = None
    affine: np.ndarray | None = None
    tissue_padding: bool = False


@contextmanager
def blame(path: Path | str) -> Iterator[None]:
    """Whatever a parser raises on foreign bytes becomes one printable line that names the file, without its warnings.

    What is the machine's fault (no memory, no room on the disk) goes on as it is: the file may be good.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE:
            raise
        line = str(error) if isinstance(error, UserError) else f'{path}: {str(error) or type(error).__name__}'
        raise UserError(printable(line)) from error


def check_size(shape: Sequence[int]) -> None:
    """ValueError for a claimed shape of more voxels than any scan has, before memory is taken for it."""
    if any(n < 1 for n in shape):
        raise ValueError(f'{" x ".join(map(str, shape))} voxels are none')
    if np.prod(shape, dtype=object) > VOXELS:
        raise ValueError(f'{" x ".join(map(str, shape))} are more than {VOXELS} voxels')


def check_spacing(spacing: Sequence[float] | np.ndarray) -> None:
    """ValueError for millimetres between voxels that no scan of a chest has."""
    if not all(0.01 <= mm <= 100 for mm in spacing):
        raise ValueError(f'voxels of {" x ".join(f"{mm:g}" for mm in spacing)} mm: a wrong unit or a broken header')


def hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or something that systems, network drives and editors add on their own."""
    low = name.lower()
    return name.startswith(('.', '__MACOSX')) or low in JUNK or low.endswith(JUNK_ENDS)
