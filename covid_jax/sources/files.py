"""What an exam's original file tells of it before a voxel is read: a network that sees none of it can be told apart from one
that was taught by how the classes were saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from covid_jax import phantom
from covid_jax.scans import decode, images, lost

PHANTOM = 'phantom'


class Facts(NamedTuple):
    """format: of the bytes of an image ('PNG', whatever its suffix says), else the suffix, '' where nothing tells it; mode: of
    an image's colours, as Pillow names it ('L', 'RGB', 'RGBA', ...); width, height: of an image in pixels, as they are stored;
    bytes: of all files of the exam. '' and 0: not known."""

    format: str = ''
    mode: str = ''
    width: int = 0
    height: int = 0
    bytes: int = 0


def facts(address: str, files: Sequence[Path]) -> Facts:
    """The Facts of an exam's address, of several slices those of the first, from headers alone; a phantom has its format and
    nothing else. files: of the address, as decode.files_of has them. Nothing of a patient is in them. Never raises: what cannot be read
    is not known."""
    if phantom.is_address(address):
        return Facts(PHANTOM)
    try:
        files = [file for file in files if file.is_file()]
        size = sum(file.stat().st_size for file in files)
    except Exception:  # decoding says what is wrong
        return Facts()
    if not files:
        return Facts()
    first = files[0]
    if first.name.lower().endswith(images.SUFFIXES):
        try:
            with Image.open(first, formats=images.FORMATS) as image:
                return Facts(image.format or '', image.mode, *image.size, size)
        except Exception:
            return Facts(bytes=size)
    return Facts(_kind(first), bytes=size)


def kind(fact: Facts) -> str:
    """'PNG RGBA': the format of a file and the mode of its colours, in words."""
    return f'{fact.format} {fact.mode}'.strip() or 'not known'


def missing_slices(files: Sequence[Path]) -> list[int]:
    """The numbers that are missing among the slices of an exam of these files, where these are images in a folder. Never raises."""
    try:
        return lost.missing_numbers([file for file in files if file.name.lower().endswith(images.SUFFIXES)])
    except Exception:  # decoding says what is wrong
        return []


def _kind(path):
    """'nii.gz', 'npz', 'dcm', ...: the suffix; of DICOM files, which may have none, 'dcm'."""
    name = path.name.lower()
    known = max((suffix for suffix in decode.SUFFIXES if name.endswith(suffix)), key=len, default='.dcm')
    return known.removeprefix('.')
