"""Damaged and hostile inputs -> predict: each must be a row, with an answer or with one line that says why there is none.

    python scripts/fuzz_predict.py --run=RUN [--inputs=3000] [--seed=0] [--batch=250]

Three of four inputs are small files of every format, damaged as fuzz_decode.py does; the others are archives that climb out, lie or swell,
folders with links and pipes, and addresses that are none (the same for the same seed and number). They are asked about so many at a time,
as one call of the command does it. Nothing may be written but the answers, no process may take more than 3 GiB, and none may hang. Prints a
table of what became of each kind, and exits with 1 if anything went wrong.
"""

import argparse
import contextlib
import csv
import gzip
import io
import json
import os
import resource
import shutil
import stat
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from fuzz_decode import damaged
from fuzz_originals import originals

MEMORY = 3 * 2**30  # bytes that a process which prepares scans may take
SECONDS = 600  # that one batch may take
CLIMBING = ('../x.png', '../../x.png', '/tmp/fuzz-x.png', 'C:\\x.png', 'a/../../x.png', '..\\x.png', '\\\\host\\x.png', '..', './/../x.png')
ADDRESSES = ('', '.', '/dev/zero', '/etc/passwd', 'a\0b.png', '\udcff.png', '=1+1', '<script>alert(1)</script>.png',
             'two\nlines.png', '\x1b[2J.png', 'x' * 5000, 'a/' * 3000, 'a.png::slice=-1', 'a.png::slice=' + '9' * 5000, 'a::series=../..',
             'a::lungs=../../etc/passwd', 'a::b=c', 'a::slice=1::series=2', 'phantom:', 'phantom:ct:9:9:covid:site9',
             'phantom:999999999999999999999:1:covid', 'phantom:0:1:none', '~', '*', '-', '--run=x')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', required=True)
    parser.add_argument('--inputs', type=int, default=3000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--batch', type=int, default=250)
    args = parser.parse_args()
    run = Path(args.run).resolve()
    begun = time.time()
    with tempfile.TemporaryDirectory() as root, contextlib.chdir(root):
        for name in ('tmp', 'cwd', 'inputs', 'big'):
            Path(root, name).mkdir()
        tempfile.tempdir = str(Path(root, 'tmp'))
        os.chdir(Path(root, 'cwd'))
        counts, wrong = fuzz(Path(root), run, args.inputs, args.seed, args.batch)
        os.chdir('/')
    print(f'| {"kind":24} | answered | unlike | refused |')
    for kind, endings in sorted(counts.items()):
        print(f'| {kind:24} | {endings["answered"]:8} | {endings["unlike"]:6} | {endings["refused"]:7} |')
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    if peak << 20 > MEMORY:
        wrong.append(f'a process took {peak} MiB')
    print(f'{args.inputs} inputs, seed {args.seed}, {sum(map(Counter.total, counts.values()))} rows, in {time.time() - begun:.0f} s; the most that a '
          f'process took: {peak} MiB; {len(wrong)} went wrong')
    print('\n'.join(wrong[:50]))
    sys.exit(bool(wrong))


def fuzz(root, run, inputs, seed, batch):
    """-> {kind: Counter of endings}, and what went wrong."""
    from covid_jax import predict, start

    opened = [start.load(run)]
    whole = root / 'files'
    kinds = list(originals(whole).items())
    counts = defaultdict(Counter)
    wrong = []
    for first in range(0, inputs, batch):
        shutil.rmtree(root / 'inputs')
        (root / 'inputs').mkdir()
        made = [make(root, whole, kinds, seed, index) for index in range(first, min(first + batch, inputs))]
        before = _snapshot(root, run)
        begun = time.time()
        answers, basis = predict.predict(opened, [path for _, path in made], say=lambda line: None)
        predict.write(root / 'out', answers, basis, [opened[0][0]], 0.9)
        if time.time() - begun > SECONDS:
            wrong.append(f'inputs {first} on took {time.time() - begun:.0f} s')
        if changed := set(_snapshot(root, run)) ^ set(before):
            wrong.append(f'inputs {first} on left {sorted(changed)[:5]}')
        wrong += _judge(root / 'out', made, answers, first)
        print(f'inputs {first} to {first + len(made) - 1} in {time.time() - begun:.0f} s, {len(wrong)} went wrong so far', flush=True)
        for (kind, _), answer in zip(made, answers, strict=True):
            counts[kind]['unlike' if answer.familiar is False else 'refused' if answer.reason else 'answered'] += 1
    return counts, wrong


def _judge(out, made, answers, first):
    """What is wrong with the rows of a batch."""
    with (out / 'answers.csv').open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    told = json.loads((out / 'answers.json').read_text(encoding='utf-8'))['scans']
    wrong = [] if len(rows) == len(told) == len(made) else [f'{len(made)} inputs and {len(rows)} rows']
    for index, ((kind, path), answer) in enumerate(zip(made, answers, strict=True), first):
        if answer.reason:
            fine = answer.probability is None and answer.reason.isprintable() and len(answer.reason) < 10000
        else:
            fine = answer.probability is not None and abs(answer.probability.sum() - 1) < 1e-3 and answer.decision
        if not fine:
            wrong.append(f'{index} {kind} {path!r:.80}: {answer}')
    return wrong


def _snapshot(root, run):
    """Everything below the root but the answers, and what archives may have reached: [(path, size, time)]."""
    places = [path for folder in (root, run) for path in folder.rglob('*') if root / 'out' not in (path, *path.parents)]
    return [(str(path), *_stamp(path)) for path in [*places, *Path('/tmp').glob('fuzz-x*'), *root.parent.glob('x.png')]]


def _stamp(path):
    info = path.lstat()
    return (info.st_size, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else (0, 0)


def make(root, whole, kinds, seed, index):
    """(kind, path) of an input; its files lie in a folder of its own."""
    rng = np.random.default_rng([seed, index])
    folder = root / 'inputs' / str(index)
    if index % 4:
        kind, name = kinds[rng.integers(len(kinds))]
        shutil.copytree(whole / kind, folder)
        victims = sorted(path for path in folder.rglob('*') if path.is_file())
        victim = victims[rng.integers(len(victims))]
        victim.write_bytes(damaged(rng, victim.name, victim.read_bytes()))
        return 'damaged ' + kind.partition('-')[0], str(folder / name)
    folder.mkdir()
    hostile = HOSTILE[index // 4 % len(HOSTILE)]
    return hostile.__name__.strip('_').replace('_', ' '), hostile(rng, folder, root / 'big')


def _png(rng):
    """A picture, small and good."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 24), np.uint8)).save(content, 'png')
    return content.getvalue()


def _zip(path, members):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return str(path)


def _climbing_zip(rng, folder, big):
    return _zip(folder / 'a.zip', [('a.png', _png(rng)), (CLIMBING[rng.integers(len(CLIMBING))], _png(rng))])


def _zip_with_a_link(rng, folder, big):
    info = zipfile.ZipInfo('b.png')
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return _zip(folder / 'a.zip', [('a.png', _png(rng)), (info, ('/etc/passwd', '../..', 'a.png')[rng.integers(3)])])


def _zip_of_many(rng, folder, big):
    """Of 100000 members."""
    path = big / 'many.zip'
    if not path.exists():
        _zip(path, [(f'{i}.png', b'') for i in range(100000)])
    return str(path)


def _nested_zip(rng, folder, big):
    content = _png(rng)
    name = 'a.png'
    for _ in range(rng.integers(2, 40)):
        file = io.BytesIO()
        _zip(file, [(name, content)])
        content = file.getvalue()
        name = 'a.zip'
    (folder / 'a.zip').write_bytes(content)
    return str(folder / 'a.zip')


def _swelling_zip(rng, folder, big):
    """Of 256 MiB of zeros as an array, a NIfTI, a picture or a DICOM file."""
    name = ('a.npy', 'a.nii', 'a.png', 'a.dcm', 'a.nrrd')[rng.integers(5)]
    path = big / f'{name}.zip'
    return str(path) if path.exists() else _zip(path, [(name, bytes(2**28))])


def _lying_zip(rng, folder, big):
    """Of 16 MiB whose directory promises a few bytes, or 2 GiB or more."""
    path = folder / 'a.zip'
    _zip(path, [('a.npy', bytes(2**24))])
    content = bytearray(path.read_bytes())
    start = content.rindex(b'PK\x01\x02')
    struct.pack_into('<I', content, start + 24, (0, 10, 2**31, 2**32 - 2)[rng.integers(4)])
    path.write_bytes(content)
    return str(path)


def _overlapping_zip(rng, folder, big):
    """Whose directory names the same 16 MiB 20 to 300 times."""
    path = folder / 'a.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('0.npy', bytes(2**24))
        for i in range(1, rng.integers(20, 300)):
            info = zipfile.ZipInfo(f'{i}.npy')
            for field in ('CRC', 'compress_size', 'compress_type', 'file_size', 'header_offset'):
                setattr(info, field, getattr(archive.filelist[0], field))
            archive.filelist.append(info)
    return str(path)


def _swelling_gzip(rng, folder, big):
    """A NIfTI of 256 MiB of zeros."""
    path = big / 'a.nii.gz'
    if not path.exists():
        path.write_bytes(gzip.compress(bytes(2**28)))
    return str(path)


def _wide_png(rng, folder, big):
    """A picture that promises to be 2 ** 17 and more pixels wide and high."""
    content = bytearray(_png(rng))
    struct.pack_into('>II', content, 16, *(int(2**rng.integers(17, 31)) for _ in range(2)))
    (folder / 'a.png').write_bytes(content)
    return str(folder / 'a.png')


def _odd_folder(rng, folder, big):
    """With links, a pipe and a folder that is its own parent."""
    if rng.integers(2):
        (folder / 'a.png').write_bytes(_png(rng))
    target = ('/etc/passwd', '..', '.', '/dev/zero', 'nowhere', 'b.png')[rng.integers(6)]
    (folder / ('b.png', 'b', 'b.dcm')[rng.integers(3)]).symlink_to(target)
    if rng.integers(2):
        os.mkfifo(folder / ('c.png', 'c.dcm', 'c')[rng.integers(3)])
    return str(folder)


def _pipe(rng, folder, big):
    path = folder / ('a.png', 'a.zip', 'a.dcm', 'a', 'a.nii.gz')[rng.integers(5)]
    os.mkfifo(path)
    return str(path)


def _address(rng, folder, big):
    return ADDRESSES[rng.integers(len(ADDRESSES))]


HOSTILE = (_climbing_zip, _zip_with_a_link, _nested_zip, _lying_zip, _address, _odd_folder, _climbing_zip, _wide_png, _pipe, _address,
           _overlapping_zip, _climbing_zip, _swelling_zip, _address, _odd_folder, _swelling_gzip, _zip_of_many)


if __name__ == '__main__':
    main()
