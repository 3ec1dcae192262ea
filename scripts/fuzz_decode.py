"""Damaged files of every format -> decode: each must end in a scan or in one line that names the file, in nothing else.

    python scripts/fuzz_decode.py [--files=10000] [--seed=0] [--only=KIND] [--first=0] [--keep=DIR]

Small files are written, damaged one by one (the same for the same seed and number) and decoded in a process of their
own, which is watched: it must not end, take 20 seconds, 1 GiB of memory, or write anywhere. Prints a table, saves what
went wrong in DIR, and exits with 1 if anything did. --first=N --files=1 repeats the N-th.
"""

import argparse
import gzip
import io
import json
import os
import re
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from fuzz_originals import originals

from covid_jax import UserError
from covid_jax.scans import decode

SECONDS, MEMORY, ADDRESSES = 20, 2**30, 3 * 2**32
GOOD, BAD = ('decoded', 'refused'), ('crash', 'hang', 'memory', 'foreign', 'stray')
NUMBERS = (0, 1, 7, 255, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (b'', b'0', b'-1', b'3', b'65536', b'2147483647', b'99999999999', b'1e999', b'nan', b'-0.5', b'1e-300',
         b'9' * 5000, b'../x', b'/etc/passwd', b'LIST')
SPOTS = re.compile(rb'\xff\xd8|\xff\x4f\xff\x51|IDAT|PLTE|PK\x01\x02|\xe0\x7f\x10\x00|\x28\x00\x10\x00')  # of headers


def fuzz(files, seed=0, only='', first=0, keep=None):
    """-> {kind: Counter of endings; 'peak' is the most memory one took, in MiB}."""
    counts = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        for kind, address in originals(root / 'files').items():
            assert not _is_no_scan(decode.decode(root / 'files' / kind / address))
        at, last, again = first, first + files, -1
        while at < last:
            for line in _watched(root, at, last, seed, only):
                at = line['index'] + 1
                counts[line['kind']][line['ending']] += 1
                counts[line['kind']]['peak'] = max(counts[line['kind']]['peak'], line['peak'])
                if line['ending'] in BAD and keep:
                    _save(root, Path(keep), line)
            assert at > again, 'the process that decodes does not start'
            again = at
    return counts


def _watched(root, at, last, seed, only):
    """Yields what became of each file until the process has done them all or one of them ends it."""
    shutil.rmtree(root / 'tmp', ignore_errors=True)
    (root / 'tmp').mkdir()
    (root / 'cwd').mkdir(exist_ok=True)
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, '-W', 'ignore', __file__, '--child', *map(str, (write, root, at, last, seed)), only],
        pass_fds=[write], cwd=root / 'cwd', stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {'TMPDIR': str(root / 'tmp'), 'PYTHONPATH': str(Path(__file__).resolve().parents[1])})
    os.close(write)
    now, text, done = None, b'', False
    while not done:
        ready = select.select([read], [], [], SECONDS if now else 120)[0]
        text += (chunk := os.read(read, 2**16)) if ready else b''
        *lines, text = text.split(b'\n')
        for line in map(json.loads, lines):
            if 'ending' in line:
                yield line
            now = None if 'ending' in line else line
        done = not ready or not chunk
    os.close(read)
    child.kill()
    code = child.wait()
    if now:
        ending, why = ('crash', f'ended with {code}') if ready else ('hang', f'no end after {SECONDS} s')
        yield now | {'ending': ending, 'why': why, 'peak': 0}


def _save(root, keep, line):
    """The files that went wrong, and how."""
    keep.mkdir(parents=True, exist_ok=True)
    name = f'{line["kind"]}-{line["index"]}-{line["ending"]}'
    (keep / f'{name}.txt').write_text(json.dumps(line, indent=1))
    source = root / 'bad' / str(line['index'])
    shutil.copytree(source if source.exists() else root / 'files' / line['kind'], keep / name, dirs_exist_ok=True)


def child(pipe, root, at, last, seed, only):
    """Damages and decodes the files from number at to last, and tells the pipe before and after each."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kinds = json.loads((root / 'files' / 'kinds.json').read_text())
    kinds = [(kind, address) for kind, address in kinds.items() if kind == (only or kind)]
    with open(pipe, 'w') as told:
        for index in range(at, last):
            rng = np.random.default_rng([seed, index])
            kind, address = kinds[index % len(kinds)]
            victims = sorted(path for path in (root / 'files' / kind).rglob('*') if path.is_file())
            victim = victims[rng.integers(len(victims))]
            whole = victim.read_bytes()
            victim.write_bytes(damaged(rng, victim.name, whole))
            line = {'index': index, 'kind': kind, 'file': victim.name}
            print(json.dumps(line), file=told, flush=True)
            line |= outcome(root, root / 'files' / kind / address)
            if line['ending'] in BAD:
                shutil.copytree(root / 'files' / kind, root / 'bad' / str(index))
            victim.write_bytes(whole)
            print(json.dumps(line), file=told, flush=True)


def outcome(root, address):
    """How decoding the address ends."""
    before, memory = _snapshot(root), _memory('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # forgets the peak
    ending, why = 'decoded', ''
    try:
        decode.files_of(address)
        decode.patient_digest(address)
        why = _is_no_scan(decode.decode(address))
    except UserError as error:
        ending, line = 'refused', str(error)
        why = '' if len(line.splitlines()) == 1 and address.name in line and line.isprintable() else f'line: {line}'
    except BaseException:
        why = traceback.format_exc()
    peak = _memory('VmHWM') - memory
    ending = 'foreign' if why else 'memory' if peak > MEMORY else ending
    if (after := _snapshot(root)) != before:
        ending, why = 'stray', str(set(after.items()) ^ set(before.items()))
    return {'ending': ending, 'why': why, 'peak': peak >> 20}


def _memory(key):
    """Bytes."""
    return int(re.search(rf'{key}:\s+(\d+) kB', Path('/proc/self/status').read_text()).group(1)) * 1024


def _snapshot(root):
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob('*') if path.is_file()}


def _is_no_scan(scan):
    """What is wrong with a Scan, '' if nothing is."""
    voxels, hounsfield, spacing, *_ = scan
    low, high = voxels.min(), voxels.max()
    if voxels.ndim != 3 or voxels.dtype not in ((np.int16, np.float32) if hounsfield else (np.uint8, np.float32)):
        return f'{voxels.dtype} {voxels.shape} {hounsfield}'
    if not np.isfinite([low, high]).all() or not hounsfield and not 0 <= low <= high <= 255:
        return f'from {low} to {high}, Hounsfield {hounsfield}'
    known = spacing is None or len(spacing) == 3 and all(type(mm) is float and 0 < mm < np.inf for mm in spacing)
    return '' if known else f'spacing {spacing}'


def damaged(rng, name, data):
    """The bytes of a file, damaged; mostly inside their container, whose sums and lengths are then right again."""
    if rng.integers(4):
        if name.endswith('.gz'):
            return gzip.compress(damage(rng, gzip.decompress(data)))
        if name.endswith(('.zip', '.npz')):
            return _rezipped(rng, data)
        if name.endswith('.png'):
            return _summed(damage(rng, data))
        if b'CompressedData = True' in data and b'LOCAL\n' in data:
            head, mark, voxels = data.partition(b'LOCAL\n')
            return head + mark + zlib.compress(damage(rng, zlib.decompress(voxels)))
    return damage(rng, data)


def damage(rng, data):
    """The bytes cut short, with bits flipped, a piece repeated or taken out, numbers and words replaced, or several."""
    for _ in range(rng.choice([1, 1, 1, 3])):
        data = (_cut, _flip, _repeat, _number, _number, _text)[rng.integers(6)](rng, bytearray(data))
    return bytes(data)


def _place(rng, data):
    """An index, mostly in or near a header."""
    starts = [0, *(spot.start() for spot in SPOTS.finditer(data))]
    start = starts[rng.integers(len(starts))]
    return min(start + int(rng.integers(rng.choice([16, 64, 400, len(data) + 1]))), len(data))


def _cut(rng, data):
    return data[:rng.integers(len(data) + 1)]


def _flip(rng, data):
    for _ in range(rng.integers(1, 9)):
        at = _place(rng, data)
        data[at:at + 1] = bytes(byte ^ 1 << rng.integers(8) for byte in data[at:at + 1])
    return data


def _repeat(rng, data):
    start, end = sorted(_place(rng, data) for _ in range(2))
    return data[:end] + data[start:] if rng.integers(2) else data[:start] + data[end:]


def _number(rng, data):
    at, width = _place(rng, data), int(rng.choice([1, 2, 4, 8]))
    number = NUMBERS[rng.integers(len(NUMBERS))] % 256**width
    data[at:at + width] = number.to_bytes(width, ('little', 'big')[rng.integers(2)])
    return data


def _text(rng, data):
    words = list(re.finditer(rb'-?\d+(\.\d+)?|True|False|LOCAL|[a-z]\w+\.\w+', data[:4096]))
    if words:
        word = words[rng.integers(len(words))]
        data[word.start():word.end()] = TEXTS[rng.integers(len(TEXTS))]
    return data


def _rezipped(rng, data):
    """A .zip of the same members, of which one is damaged, or its name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, info.compress_type, archive.read(info)) for info in archive.infolist()]
    at = rng.integers(len(members))
    name, method, inside = members[at]
    if rng.integers(8):
        members[at] = name, method, damaged(rng, name, inside)
    else:
        names = '../x' + name, '/tmp/fuzz-' + name, name[:-3], '.' + name, 'a.zip', '..'
        members[at] = names[rng.integers(len(names))], method, inside
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, method, inside in members:
            archive.writestr(name, inside, method)
    return file.getvalue()


def _summed(data):
    """A .png whose chunks have the right checksums."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + struct.unpack_from('>I', out, at)[0]
        if end + 4 > len(out):
            break
        struct.pack_into('>I', out, end, zlib.crc32(out[at + 4:end]))
        at = end + 4
    return bytes(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--files', type=int, default=10000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--first', type=int, default=0)
    parser.add_argument('--only', default='')
    parser.add_argument('--keep')
    args = parser.parse_args()
    start, total = time.time(), Counter()
    counts = fuzz(args.files, args.seed, args.only, args.first, args.keep)
    print(f'| {"kind":22} | {" | ".join(f"{ending:>8}" for ending in (*GOOD, *BAD, "peak MiB"))} |')
    for kind, endings in sorted(counts.items()):
        total += endings
        print(f'| {kind:22} | {" | ".join(f"{endings[ending]:8}" for ending in (*GOOD, *BAD, "peak"))} |')
    total['peak'] = max(endings['peak'] for endings in counts.values())
    print(f'| {"all":22} | {" | ".join(f"{total[ending]:8}" for ending in (*GOOD, *BAD, "peak"))} |')
    print(f'{args.files} files from number {args.first}, seed {args.seed}, in {time.time() - start:.0f} s')
    sys.exit(any(total[ending] for ending in BAD))


if __name__ == '__main__':
    if sys.argv[1:2] == ['--child']:
        child(int(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:7]), sys.argv[7])
    else:
        main()
