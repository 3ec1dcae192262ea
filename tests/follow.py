"""Runs commands of the docs as they are written, one after another in one process: python tests/follow.py LINES.json, in a folder of its own.

A command is parsed whole and does all that it does for a user, with tiny networks, scans and trainings in place of those that it names.
What it reads and no command before it has left is made: scans of noise, a table of them, finished runs.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import sys
import time
import traceback
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[1]
DATA = PROJECT.parent / 'shared' / 'data'
NETWORKS = ('COVIDNetRedesign', 'COVIDNet', 'CRNet', 'DenseNet', 'EfficientNet', 'VGG', 'ResNeSt', 'ResNet')
PLACEHOLDERS = {'configs/CONFIG': 'configs/supervised.py', '=DIR': '=store', 'SCAN...': 'phantom:0:1:covid', 'audit DATA': 'audit scans',
                'cap002 --': 'COVID-CT-MD/dicom/cap002 --', 'VOLUMES': 'COVID-CT-MD/volumes'}
ON_SCANS = '--config=configs/supervised.py --config.data.source=manifest --config.data.root=scans.csv'
# The least that each script says of its work in one go.
BRIEFLY = {'scripts/simulate_intervals.py': '--simulations=20', 'scripts/simulate_calibration.py': '--simulations=4',
           'scripts/shuffled_groups.py': '--epochs=1 --seeds=1'}
SCANS = 24
FEW = 16
SIZE = (8, 24, 24)


def write_scans():
    """scans/CLASS/N.npz, half of them with COVID, each of its own patient, and the tables scans.csv and volumes.csv of them; the same of
    others in elsewhere.csv, and in other.csv without labels."""
    rng = np.random.default_rng(0)
    for folder, tables in {'scans': ('scans.csv', 'volumes.csv'), 'others': ('elsewhere.csv', 'other.csv')}.items():
        shutil.rmtree(folder, ignore_errors=True)
        rows = []
        for n in range(SCANS):
            label = ('covid', 'normal', 'covid', 'pneumonia')[n % 4]
            path = Path(folder, label, f'{n}.npz')
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, hu=rng.integers(-1000, 400 + 200 * (label == 'covid'), SIZE, np.int16))
            rows.append([path, label, f'{folder}{n}', ('oslo', 'bergen')[n // 4 % 2]])
        for table in tables:
            told = [[path, '' if table == 'other.csv' else label, *rest] for path, label, *rest in rows]
            Path(table).write_text('\n'.join(','.join(map(str, row)) for row in [('path', 'label', 'patient', 'site'), *told]) + '\n')


def link_data():
    """The real data, where it is: COVID-CT whole, for its lists are looked at, and the first files of each other folder of images."""
    for folder in (path for path in DATA.rglob('*') if path.is_dir()):
        files = [file for file in sorted(folder.iterdir()) if file.is_file()]
        here = Path(folder.relative_to(DATA))
        here.mkdir(parents=True, exist_ok=True)
        for file in files if here.parts[0] in ('COVID-CT', 'COVID-CT-MD') else files[:FEW]:
            (here / file.name).symlink_to(file)


def make_scan(path):
    """A scan of noise at a path that a command names: scans/0031 or scans/0032.nii.gz."""
    import nibabel

    voxels = np.random.default_rng(1).integers(-1000, 400, SIZE, np.int16)
    if path.suffix == '.gz':
        nibabel.Nifti1Image(voxels.T, np.diag([-1.0, -1.0, 2.0, 1.0])).to_filename(path)
    else:
        path.mkdir()
        np.savez(path / 'scan.npz', hu=voxels)


def tiny(config):
    """A config in place, with its stages: the same method, task and choice of data at a size of seconds."""
    sections = [config, *(config[stage] for stage in config.stages)]
    with config.unlocked():
        config.update(folds=min(config.folds, 2), seeds=min(config.seeds, 2))
        for section in sections:
            shrink(section)


def shrink(c):
    """One section of fields, the config's own or a stage's."""
    from ml_collections import FieldReference

    own = {name: value for name, value in c.items(preserve_field_references=True) if not isinstance(value, FieldReference)}
    if 'model' not in own or c.data.source == '':  # an ensemble has no network, and a probe has its run's, and its data
        return
    c.model.update(name=next(f'_{name}Tiny' for name in NETWORKS if c.model.name.strip('_').startswith(name)), remat=False, depth_strides=())
    if c.model.pretrained and not Path(c.model.pretrained).exists():
        c.model.pretrained = ''  # a file of weights that the user has downloaded
    if not c.data.root and c.data.source not in ('', 'phantom'):
        c.data.update(source='manifest', root='scans.csv', sites=())  # "on your copy of its data"
    images = c.prep.size[0] == 1
    slices = c.views.depth and (SIZE[0] if c.views.depth == c.prep.size[0] else 6)
    c.prep.update(size=(1, 40, 40) if images else SIZE, spacing=(), lungs=c.prep.lungs if c.data.source == 'phantom' else '')
    c.views.update(depth=0 if images else slices, plane=c.views.plane and (40 if 'CRNet' in c.model.name else 32))
    c.train.update(epochs=1.0, batch=8, eval_every=min(c.train.eval_every, 1.0))
    c.eval.tta = min(c.eval.tta, 1)
    c.data.update(workers=1, store='store')
    phantom = c.data.phantom
    phantom.update(train=min(phantom.train, 16), val=min(phantom.val, 8), test=min(phantom.test, 8))
    for method, fields in {'cmc': {'projection': 8}, 'moco': {'queue': 16, 'projection': 8}, 'rubik': {'gap': (1, 2, 2)},
                           'cross_site': {'embedding': (16, 8), 'warm_up': 0}}.items():
        if method in c and {*fields} <= {*c[method]}:  # a stage may be called as its method
            c[method].update(fields)
    if 'cmt' in c:
        c.cmt.latent = min(c.cmt.latent, 8)


def words_of(line):
    """The program of a line and what it is given, with the placeholders of the docs in place."""
    line = re.split(' {2,}', line)[0].split(' && ')[-1]
    for name, value in PLACEHOLDERS.items():
        line = line.replace(name, value)
    if line.startswith('--'):
        workdir = '' if '--workdir=' in line else f' --workdir=runs/line{zlib.crc32(line.encode())}'  # each is a run of its own
        line = f'python -m covid_jax.main {line if "--config=" in line else f"{ON_SCANS} {line}"}{workdir}'
    script = re.search(r'python3? (scripts/\S+)', line)
    return shlex.split(f'{line} {BRIEFLY.get(script[1], "") if script else ""}')


def prepare(words):
    """Makes what a command reads and is not there."""
    write_scans()
    written = {word.partition('=')[2] for word in words if word.startswith('--workdir=')}
    for run in dict.fromkeys(re.findall(r'\bruns/[\w/]+', ' '.join(words))):
        if run in written or Path(run).exists():
            continue
        source = '--config=configs/cmc.py' if run == 'runs/cmc' else ON_SCANS
        if any(f'ranking={run}' in word for word in words):
            prepare(['--config.init_from=runs/first'])
            source = '--config=configs/rank.py --config.init_from=runs/first'
        train(f'{source} --workdir={run}'.split())
    for scan in (Path(word) for word in words if re.fullmatch(r'scans/\d+(\.nii\.gz)?', word)):
        make_scan(scan)


def train(arguments):
    from covid_jax import main

    main.train(arguments)


def run(words):
    from covid_jax import cli

    if 'covid_jax.main' in words:
        train(words[words.index('covid_jax.main') + 1:])
    elif Path(words[0]).name == 'covid-jax':
        cli.run(words[1:])
    else:
        with mock.patch.object(sys, 'argv', words[1:]):
            runpy.run_path(words[1], run_name='__main__')


def follow(line):
    """None, or what went wrong."""
    words = words_of(line)
    try:
        prepare(words)
        run(words)
    except SystemExit as e:
        return f'it exited with {e.code}' if e.code else None
    except Exception:
        return traceback.format_exc()
    return None


def main(lines):
    """Follows the lines, and prints a line of what each took; the exit code is how many went wrong."""
    from small_scans import hasten

    from covid_jax import experiment
    from covid_jax import prepare as preparing

    for folder in ('configs', 'scripts'):
        Path(folder).symlink_to(PROJECT / folder)
    link_data()

    def smaller(whole):
        def small(config, *rest):
            tiny(config)
            return whole(config, *rest)
        return small

    wrong = 0
    with (mock.patch.object(experiment, 'run', smaller(experiment.run)),
          mock.patch.object(preparing, 'prepare', smaller(preparing.prepare))):
        hasten(pytest.MonkeyPatch())
        for line in lines:
            began = time.monotonic()
            error = follow(line)
            wrong += error is not None
            print(f'{"WRONG" if error else "followed"} {time.monotonic() - began:.0f} s: {line}\n{error or ""}', file=sys.stderr, flush=True)
    sys.exit(min(wrong, 100))


if __name__ == '__main__':
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    main(json.loads(Path(sys.argv[1]).read_text()))
