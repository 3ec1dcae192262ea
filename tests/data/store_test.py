import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from covid_jax import UserError
from covid_jax.data import parts, store
from covid_jax.data.prep import Prep, prepare
from covid_jax.phantom import address
from covid_jax.scans.decode import decode
from covid_jax.scans.lungs import lung_mask, quality
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


def test_what_is_stored_is_what_prepare_gives_and_broken_exams_are_set_aside_with_the_reason(tmp_path, rng):
    exams = exams_in(tmp_path, rng)
    broken = tmp_path / 'scan1.npz'
    broken.write_bytes(broken.read_bytes()[:200])
    made = built(exams, tmp_path / 'store')
    assert list(made.broken) == ['e1'] and 'scan1.npz' in made.broken['e1'] and '\n' not in made.broken['e1']
    assert list(made.row) == ['e0', 'e2', 'e3'] and len(made.images) == 3
    for e in (exams[0], *exams[2:]):
        np.testing.assert_array_equal(made.images[made.row[e.id]]['image'], prepare(decode(e.path), PREP))
    assert not (made.path / 'parts').exists()


def test_a_finished_store_is_found_again_also_as_a_copy_and_another_prep_is_another_store(tmp_path, rng):
    exams = exams_in(tmp_path, rng)
    first = built(exams, tmp_path / 'store')
    shutil.copytree(tmp_path / 'store', tmp_path / 'copy')
    for root in ('store', 'copy'):
        found = built(exams, tmp_path / root)
        assert found.path == tmp_path / root / first.path.name
        assert (found.path / 'table.json').stat().st_mtime_ns == (first.path / 'table.json').stat().st_mtime_ns
    assert built(exams, tmp_path / 'store', Prep((-1000.0, 400.0), (4, 12, 12))).path != first.path


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
def test_what_is_the_machines_fault_sets_nothing_aside(tmp_path, rng, monkeypatch, as_for_users, statement, words):
    exams = exams_in(tmp_path, rng)
    with monkeypatch.context() as patch:
        in_workers(tmp_path, patch, statement)
        with pytest.raises(UserError, match=words):
            built(exams, tmp_path / 'store')
    assert not list(tmp_path.glob('store/*/table.json')) and not list(tmp_path.glob('store/*/parts/*.tmp'))
    assert built(exams, tmp_path / 'store').broken == {}


def test_a_scan_that_kills_its_process_is_set_aside_and_the_others_go_on(tmp_path, rng, monkeypatch, capsys, as_for_users):
    in_workers(tmp_path, monkeypatch, 'os.abort()')
    exams = exams_in(tmp_path, rng)
    made = store.build(exams, store.content_hashes(exams, tmp_path / 'store'), PREP, tmp_path / 'store', workers=2)
    assert list(made.broken) == ['e2'] and 'scan2.npz' in made.broken['e2'] and sorted(made.row) == ['e0', 'e1', 'e3']
    assert 'one scan at a time' in capsys.readouterr().out


def test_nothing_usable_is_one_line(tmp_path, rng):
    exams = exams_in(tmp_path, rng, 2)
    for e in exams:
        Path(e.path).write_text('hello')
    with pytest.raises(UserError, match='none of 2 exams'):
        built(exams, tmp_path / 'store')


def test_what_counts_as_content(tmp_path, rng, monkeypatch):
    """Bytes and not names; but a suffix, which chooses the decoder, its version, a part, and the names of slices."""
    (exam,) = exams_in(tmp_path, rng, 1)
    folder = tmp_path / 'slices'
    folder.mkdir()
    (folder / '1.png').write_bytes(b'one')
    for name in ('copy.npz', 'copy.zip'):
        shutil.copy(exam.path, tmp_path / name)

    def digest(path):
        return store.content_hashes([exam._replace(path=str(path))], tmp_path / 'store')[0]

    first, slices = digest(exam.path), digest(folder)
    assert digest(tmp_path / 'copy.npz') == first
    assert len({first, digest(tmp_path / 'copy.zip'), digest(f'{exam.path}::slice=1'), digest(f'{exam.path}::slice=2')}) == 4
    (folder / '1.png').rename(folder / '2.png')  # another order of slices may be another scan
    assert digest(folder) != slices
    np.savez(exam.path, hu=np.full((5, 20, 20), -700, np.int16))
    assert digest(exam.path) != first
    monkeypatch.setattr(store.scan, 'VERSION', 99)
    assert digest(tmp_path / 'copy.npz') != first


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


def test_a_killed_preparation_goes_on_where_it_was(tmp_path, monkeypatch, as_for_users):
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
    for i in (0, 11):
        expected = prepare(decode(address(0, i, 'covid')), PREP)
        np.testing.assert_array_equal(made.images[made.row[f'e{i}']]['image'], expected)


def test_who_wants_the_same_store_waits_for_the_first(tmp_path, rng, monkeypatch, capsys):
    exams = exams_in(tmp_path, rng)
    make = parts.make
    begun = threading.Event()
    go_on = threading.Event()
    calls = []

    def slow(*args):
        calls.append(args)
        begun.set()
        assert go_on.wait(60)
        return make(*args)

    monkeypatch.setattr(parts, 'make', slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(built, exams, tmp_path / 'store')
        assert begun.wait(60)
        second = pool.submit(built, exams, tmp_path / 'store')
        said = ''
        deadline = time.monotonic() + 60
        while 'waiting for it' not in said and time.monotonic() < deadline:
            said += capsys.readouterr().out
            time.sleep(0.01)
        go_on.set()
        assert 'waiting for it' in said
        assert first.result().row == second.result().row == {e.id: i for i, e in enumerate(exams)}
    assert len(calls) == 1


def features(made):
    table = json.loads((made.path / 'packed' / 'features.json').read_text())
    return table['featuresDict']['features']['image']['tensor']


def test_scans_of_their_own_shapes(tmp_path, rng):
    """Landscape, portrait and square in one store, found again."""
    exams = exams_in(tmp_path, rng, 3)
    for exam, plane in zip(exams, ((20, 30), (40, 20), (24, 24)), strict=True):
        np.savez(exam.path, hu=rng.integers(-1000, 400, (5, *plane)).astype(np.int16))
    prep = Prep((-1000.0, 400.0), (6, 12, 12), keep_aspect=True)
    for _ in range(2):
        made = built(exams, tmp_path / 'store', prep)
        seen = [made.images[made.row[e.id]]['image'] for e in exams]
        assert [image.shape for image in seen] == [(6, 12, 18, 1), (6, 24, 12, 1), (6, 12, 12, 1)]
        for image, exam in zip(seen, exams, strict=True):
            np.testing.assert_array_equal(image, prepare(decode(exam.path), prep))
    assert built(exams, tmp_path / 'store').path != made.path


def test_a_store_of_one_size_is_packed_as_ever(tmp_path, rng):
    """Recorded before scans could have shapes of their own: such a store opens in either version."""
    tensor = features(built(exams_in(tmp_path, rng), tmp_path / 'store'))
    assert tensor == {'dtype': 'uint8', 'encoding': 'bytes', 'shape': {'dimensions': ['6', '12', '12', '1']}}


def test_of_each_mask_it_is_told_what_tells_one_that_went_wrong(tmp_path, as_for_users):
    """Beside the exams in the table, where lungs were looked for; a part that a killed run left without it is made again."""
    exams = [Exam(f'e{i}', f'p{i}', 'here', 'normal', 'train', address(7, i, 'normal')) for i in range(3)]
    prep = replace(PREP, lungs='crop')
    table = json.loads((built(exams, tmp_path, prep).path / 'table.json').read_text())
    expected = [quality(lung_mask(decode(e.path)), decode(e.path))._asdict() for e in exams]
    assert table['lungs'] == expected and table['ids'] == ['e0', 'e1', 'e2']
    assert 'lungs' not in json.loads((built(exams, tmp_path).path / 'table.json').read_text())
    part = tmp_path / 'part.npy'
    part.touch()
    assert not parts.is_made(part, PREP)
    part.with_suffix(parts.SEEN).touch()
    assert parts.is_made(part, PREP) and not parts.is_made(part, prep)


def test_a_part_that_an_older_version_left_without_what_its_scan_was_is_made_again(tmp_path, rng, monkeypatch):
    exams = exams_in(tmp_path, rng, 3)
    pack = store._pack
    monkeypatch.setattr(store, '_pack', lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        built(exams, tmp_path / 'store')
    left = sorted((tmp_path / 'store').glob(f'*/parts/*{parts.SEEN}'))
    assert len(left) == 3
    left[0].unlink()
    monkeypatch.setattr(store, '_pack', pack)
    made = built(exams, tmp_path / 'store')
    assert len(made.images) == len(made.seen) == 3 and tuple(made.seen['e0'].shape) == (5, 20, 20)


def test_where_nothing_can_be_prepared_nothing_is_left(tmp_path, rng):
    """What was prepared is, and what others keep there."""
    exams = exams_in(tmp_path, rng, 2)
    for exam in exams:
        Path(exam.path).write_bytes(b'x')
    for other in ((), ('hashes.json',)):
        (tmp_path / 'store').mkdir(exist_ok=True)
        for name in other:
            (tmp_path / 'store' / name).write_text('{}')
        with pytest.raises(UserError, match='none of 2 exams could be prepared'):
            store.build(exams, ['a', 'b'], PREP, tmp_path / 'store', workers=1)
        assert (tmp_path / 'store').exists() == bool(other)
        assert [path.name for path in tmp_path.glob('store/*')] == list(other)


def test_what_is_prepared_is_kept_where_the_machine_is_at_fault(tmp_path, rng, monkeypatch):
    exams = exams_in(tmp_path, rng, 2)
    make = parts.make

    def full_disk(exams, *args):
        make(exams[:1], *args)
        raise UserError('no room')

    monkeypatch.setattr(parts, 'make', full_disk)
    with pytest.raises(UserError, match='no room'):
        built(exams, tmp_path / 'store')
    assert len(list((tmp_path / 'store').glob('*/parts/*.npy'))) == 1


def test_a_scan_is_the_same_with_a_mask_and_without_and_what_is_prepared_is_not(tmp_path, rng):
    """So that who was learnt from is known whatever masks there are, and a new mask is not passed over."""
    plain, other = exams_in(tmp_path, rng, 2)
    np.save(tmp_path / 'mask.npy', np.ones((5, 20, 20), np.uint8))
    masked = plain._replace(path=f'{plain.path}::lungs=mask.npy')
    exams = [plain, masked, masked._replace(path=f'{plain.path}::lungs=gone.npy'), other]
    hashes = store.content_hashes(exams, tmp_path / 'store')
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]
    prep = replace(PREP, lungs='crop')
    first = store.prepared_hashes(exams, hashes, prep)
    assert first[0] == hashes[0] and len(set(first)) == 4
    assert store.prepared_hashes(exams, hashes, PREP) == hashes
    np.save(tmp_path / 'mask.npy', np.eye(20, dtype=np.uint8)[None].repeat(5, 0))
    after = store.prepared_hashes(exams, hashes, prep)
    assert [a == b for a, b in zip(first, after, strict=True)] == [True, False, True, True]


@pytest.mark.parametrize('damage', ['', '[]', '{"prep": 1}', '\0'])
def test_a_damaged_table_is_one_line_and_a_damaged_cache_of_hashes_is_made_again(tmp_path, rng, damage):
    exams = exams_in(tmp_path, rng)
    first = store.content_hashes(exams, tmp_path / 'store')
    made = built(exams, tmp_path / 'store')
    (tmp_path / 'store' / 'hashes.json').write_text(damage)
    assert store.content_hashes(exams, tmp_path / 'store') == first
    (made.path / 'table.json').write_text(damage)
    with pytest.raises(UserError, match=f'table.json is damaged: delete {made.path}, and the same command prepares its scans again'):
        built(exams, tmp_path / 'store')


def test_a_pipe_in_the_place_of_a_scan_or_of_its_mask_is_never_opened(tmp_path, rng):
    """It would be waited for without an end."""
    exams = exams_in(tmp_path, rng)
    Path(exams[0].path).unlink()
    os.mkfifo(exams[0].path)
    os.mkfifo(tmp_path / 'lungs.npz')
    exams[1] = exams[1]._replace(path=f'{exams[1].path}::lungs=lungs.npz')
    prep = Prep((-1000, 400), (4, 8, 8), lungs='mask')
    hashes = store.content_hashes(exams, tmp_path / 'store')
    assert store.prepared_hashes(exams, hashes, prep)[0] == hashes[0] and hashes[0] not in hashes[1:]
    made = store.build(exams, hashes, PREP, tmp_path / 'store', workers=1)
    assert 'no such file' in made.broken['e0'] and len(made.broken) == 1
