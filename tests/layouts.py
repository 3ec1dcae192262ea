"""Tiny folders in the layout of public data sets, and what a source says of them."""

import pytest

from covid_jax import UserError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'')


def write(path, *rows, newline='\n'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(newline.join(rows).encode())


def listed(source, root):
    """(exams, notes) of a source."""
    notes = []
    exams = source(root, notes.append)
    assert len({exam.id for exam in exams}) == len(exams)
    assert all('\n' not in note for note in notes) and len(set(notes)) == len(notes)
    return exams, notes


def refused(call, *args):
    """The one line with which a call is refused."""
    with pytest.raises(UserError) as caught:
        call(*args)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
