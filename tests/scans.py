"""What several tests of decoding need: real files, a small folder of slices, the line with which a path is refused."""

from pathlib import Path

import pytest
from PIL import Image

from covid_jax import UserError
from covid_jax.data.decode import decode

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
