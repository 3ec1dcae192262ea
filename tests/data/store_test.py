import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.data import parts, store
from covid_jax.data.prep import Prep, prepare
from covid_jax.phantom import address
from covid_jax.scans.decode import decode
from covid_jax.sources.exams import Exam

PREP = Prep((-1000.0, 400.0), (6, 12, 12))


def exams_in(folder, rng, count=4):
    exams = []
    for i in range(count):
        path = folder / f'scan{i}.npz'
        np.savez(path, hu=rng.integers(-1000, 400, (5, 20, 20)).astype(np.int16))
        exams.append(Exam(f'e{i}', f'p{i}', 'here', 'covid', 'train', str(path)))
    return exams


def built(exams, root, prep=PREP):
    return store.build(exams, store.content_hashes(exams, root), prep, root, workers=1)


def test_what_is_stored_is_what_prepare_gives(tmp_path, rng):
    exams = exams_in(tmp_path, rng)
    made = built(exams, tmp_path / 'store')
    assert made.broken == {} and len(made.images) == 4
    for e in exams:
        np.testing.assert_array_equal(made.images[made.row[e.id]]['image'], prepare(decode(e.path), PREP))
    assert not (made.path / 'parts').exists()


def test_a_finished_store_is_found_again_and_another_prep_is_another_store(tmp_path, rng):
    exams = exams_in(tmp_path, rng)
    first = built(exams, tmp_path / 'store')
    stamp = (first.path / 'table.json').stat().st_mtime_ns
    assert built(exams, tmp_path / 'store').path == first.path
    assert (first.path / 'table.json').stat().st_mtime_ns == stamp
    assert built(exams, tmp_path / 'store', Prep((-1000.0, 400.0), (4, 12, 12))).path != first.path


def test_broken_exams_are_set_aside_with_the_reason(tmp_path, rng):
    exams = exams_in(tmp_path, rng)
    broken = tmp_path / 'scan1.npz'
    broken.write_bytes(broken.read_bytes()[:200])
    made = built(exams, tmp_path / 'store')
    assert list(made.broken) == ['e1'] and 'scan1.npz' in made.broken['e1'] and '\n' not in made.broken['e1']
    assert sorted(made.row) == ['e0', 'e2', 'e3']
    np.testing.assert_array_equal(made.images[made.row['e3']]['image'], prepare(decode(exams[3].path), PREP))


def in_workers(folder, monkeypatch, statement):
    """Preparing processes run the statement in place of decoding scan2."""
    (folder / 'sitecustomize.py').write_text(f"""
import errno, os
from covid_jax.scans import decode
real = decode.decode
def instead(path, *args):
    if 'scan2' in str(path):
        {statement}
    return real(path, *args)
decode.decode = instead
""")
    monkeypatch.setenv('PYTHONPATH', f'{folder}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')


@pytest.mark.parametrize('statement, words', [
    ('raise MemoryError', 'not enough memory to prepare .*scan2.*workers=1'),
    ('raise OSError(errno.ENOSPC, "No space left on device")', 'scan2.*cannot be prepared here: No space left')])
def test_what_is_the_machines_fault_sets_nothing_aside(tmp_path, rng, monkeypatch, statement, words):
    exams = exams_in(tmp_path, rng)
    with monkeypatch.context() as patch:
        in_workers(tmp_path, patch, statement)
        with pytest.raises(UserError, match=words):
            built(exams, tmp_path / 'store')
    assert not list(tmp_path.glob('store/*/table.json')) and not list(tmp_path.glob('store/*/parts/*.tmp'))
    assert built(exams, tmp_path / 'store').broken == {}


def test_the_decoder_counts_as_content(tmp_path, rng, monkeypatch):
    """Another version of the decoders, and another suffix for the same bytes, may give other voxels."""
    (exam,) = exams_in(tmp_path, rng, 1)
    other = tmp_path / 'copy.zip'
    other.write_bytes((tmp_path / 'scan0.npz').read_bytes())
    first = store.content_hashes([exam], tmp_path / 'store')
    assert store.content_hashes([exam._replace(path=str(other))], tmp_path / 'store') != first
    monkeypatch.setattr(store.scan, 'VERSION', 99)
    assert store.content_hashes([exam], tmp_path / 'store') != first


def test_a_scan_that_kills_its_process_is_set_aside_and_the_others_go_on(tmp_path, rng, monkeypatch, capsys):
    in_workers(tmp_path, monkeypatch, 'os.abort()')
    exams = exams_in(tmp_path, rng)
    made = store.build(exams, store.content_hashes(exams, tmp_path / 'store'), PREP, tmp_path / 'store', workers=2)
    assert list(made.broken) == ['e2'] and 'scan2.npz' in made.broken['e2'] and sorted(made.row) == ['e0', 'e1', 'e3']
    assert 'one at a time' in capsys.readouterr().out


def test_a_part_of_a_file_is_another_content_than_the_file(tmp_path, rng):
    (whole,) = exams_in(tmp_path, rng, 1)
    parts = [whole._replace(path=f'{whole.path}::slice={i}') for i in (1, 2)]
    assert len(set(store.content_hashes([whole, *parts], tmp_path / 'store'))) == 3
    made = built([parts[0]], tmp_path / 'store')
    expected = prepare(decode(whole.path)._replace(voxels=np.load(whole.path)['hu'][1:2]), PREP)
    np.testing.assert_array_equal(made.images[0]['image'], expected)


def test_nothing_usable_is_one_line(tmp_path, rng):
    exams = exams_in(tmp_path, rng, 2)
    for e in exams:
        with open(e.path, 'w') as f:
            f.write('hello')
    with pytest.raises(UserError, match='none of 2 exams'):
        built(exams, tmp_path / 'store')


def test_a_changed_file_is_another_store(tmp_path, rng):
    exams = exams_in(tmp_path, rng)
    before = store.content_hashes(exams, tmp_path / 'store')
    np.savez(exams[2].path, hu=np.full((5, 20, 20), -700, np.int16))
    after = store.content_hashes(exams, tmp_path / 'store')
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True]


def test_hashes_are_of_bytes_not_of_names(tmp_path, rng):
    exams = exams_in(tmp_path, rng, 2)
    with open(exams[0].path, 'rb') as a, open(exams[1].path, 'wb') as b:
        b.write(a.read())
    first, second = store.content_hashes(exams, tmp_path / 'store')
    assert first == second
    folder = tmp_path / 'slices'
    folder.mkdir()
    (folder / '1.png').write_bytes(b'one')
    exam = Exam('f', 'f', '', 'covid', '', str(folder))
    before = store.content_hashes([exam], tmp_path / 'store')
    (folder / '1.png').rename(folder / '2.png')  # another slice order may be another scan
    assert store.content_hashes([exam], tmp_path / 'store') != before


KILLED = """
import sys
from pathlib import Path
from covid_jax.data import store
from covid_jax.sources.exams import Exam
from covid_jax.data.prep import Prep
if __name__ == '__main__':
    from covid_jax.phantom import address
    exams = [Exam(f'e{i}', f'p{i}', '', 'covid', 'train', address(0, i, 'covid')) for i in range(12)]
    root = Path(sys.argv[1])
    store.build(exams, store.content_hashes(exams, root), Prep((-1000.0, 400.0), (6, 12, 12)), root, workers=1)
"""


def test_a_killed_preparation_goes_on_where_it_was(tmp_path, monkeypatch):
    script, root = tmp_path / 'script.py', tmp_path / 'store'
    script.write_text(KILLED)
    process = subprocess.Popen([sys.executable, script, root])
    deadline = time.monotonic() + 120
    while len(done := sorted(root.glob('*/parts/*.npy'))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    stamps = {p: p.stat().st_mtime_ns for p in done}
    assert not list(root.glob('*/table.json'))
    names = [p.name for p in root.glob('*/parts/*')]
    time.sleep(0.5)
    assert [p.name for p in root.glob('*/parts/*')] == names, 'a worker outlived its parent'

    exams = [Exam(f'e{i}', f'p{i}', '', 'covid', 'train', address(0, i, 'covid')) for i in range(12)]
    prepared = []
    make = parts.make

    def record(exams, *args):
        prepared.extend(e.id for e in exams)
        assert {p: p.stat().st_mtime_ns for p in done} == stamps
        return make(exams, *args)

    monkeypatch.setattr(parts, 'make', record)
    made = built(exams, root)
    assert 0 < len(prepared) <= 9 and len(made.images) == 12
    for i in (0, 5, 11):
        expected = prepare(decode(address(0, i, 'covid')), PREP)
        np.testing.assert_array_equal(made.images[made.row[f'e{i}']]['image'], expected)


def test_a_second_process_waits_for_the_first(tmp_path):
    script, root = tmp_path / 'script.py', tmp_path / 'store'
    script.write_text(KILLED)
    both = [subprocess.Popen([sys.executable, script, root], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [p.communicate(timeout=200)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert sum('waiting' in o for o in outputs) == 1
    table = json.loads(next(root.glob('*/table.json')).read_text())
    assert table['ids'] == [f'e{i}' for i in range(12)]


def test_the_folder_name_follows_from_content_and_prep(tmp_path, rng):
    exams = exams_in(tmp_path, rng, 1)
    hashes = [hashlib.sha256(b'x').hexdigest()]
    a = store.build(exams, hashes, PREP, tmp_path / 's', 1).path.name
    assert a == store.build(exams, hashes, PREP, tmp_path / 't', 1).path.name and len(a) == 16
    assert os.path.isdir(tmp_path / 's' / a / 'packed')
