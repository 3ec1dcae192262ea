"""scripts/Containerfile where no container engine is at hand: what it builds, and its commands on what it copies, without network."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from PIL import Image

COMMAND = re.compile(r'^#   ((?:python -m|covid-jax) .*)$', re.M)
TINY = ['--config.model.name=_ResNetTiny', '--config.prep.size=(1,16,16)', '--config.train.epochs=1', '--config.train.batch=2',
        '--config.data.workers=1']
NO_NETWORK = '''import socket

def refuse(self, address):
    raise OSError(f'no network: {address}')

for family in ('connect', 'connect_ex'):
    setattr(socket.socket, family, refuse)
socket.getaddrinfo = lambda *args, **how: refuse(None, args)
'''


@pytest.fixture(scope='module')
def text(root):
    return (root / 'scripts' / 'Containerfile').read_text()


@pytest.fixture(scope='module')
def instructions(text):
    """(word, what follows it), in order."""
    lines = [line for line in text.replace('\\\n', ' ').splitlines() if line and not line.startswith('#')]
    return [tuple(line.split(None, 1)) for line in lines]


def copied(instructions):
    """{what: where} of the COPY lines."""
    return {source: line.split()[-1] for word, line in instructions if word == 'COPY' for source in line.split()[:-1]}


def test_it_builds_on_a_pinned_image_with_the_constraints_and_runs_as_no_root(instructions, root):
    words = [word for word, _ in instructions]
    assert words[0] == 'FROM' and words.count('FROM') == 1 and 'ADD' not in words
    assert re.fullmatch(r'docker\.io/library/python:3\.1\d\.\d+-slim-\w+', instructions[0][1])
    installed = [line for word, line in instructions if word == 'RUN' and 'pip install' in line]
    assert len(installed) == 1 and '-c constraints.txt' in installed[0]
    at = [i for i, (word, _) in enumerate(instructions) if word == 'USER']
    assert len(at) == 1 and int(instructions[at[0]][1]) > 0 and 'RUN' not in words[at[0]:] and 'CMD' in words[at[0]:]


def test_it_copies_what_the_installation_and_its_commands_read(instructions, root):
    project = tomllib.loads((root / 'pyproject.toml').read_text())['project']
    sources = copied(instructions)
    assert {project['readme'], *project['license-files'], 'constraints.txt', 'pyproject.toml', 'covid_jax', 'configs'} == {*sources}
    assert all((root / source).exists() for source in sources)
    assert all(where == './' if (root / source).is_file() else where == source for source, where in sources.items())


def test_its_commands_are_of_three_layouts_and_name_what_is_mounted(text):
    commands = COMMAND.findall(text)
    assert [re.search(r'data\.source=(\w+)', line)[1] for line in commands[:-1]] == ['folder', 'manifest', 'covid_ct']
    assert commands[-1].startswith('covid-jax predict /data/')
    assert all(' --workdir=/runs/' in line or ' --out=/runs/' in line for line in commands)
    assert '--network=none -v "$PWD/scans:/data:ro" -v "$PWD/runs:/runs"' in text


def images(folder, names, rng):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(folder / name)


@pytest.mark.slow  # a minute
def test_its_commands_run_on_what_it_copies_without_a_network(text, instructions, root, tmp_path, rng):
    app = tmp_path / 'app'
    app.mkdir()
    for source in copied(instructions):
        copy = shutil.copytree if (root / source).is_dir() else shutil.copy
        copy(root / source, app / source)
    data = {name: tmp_path / name for name in ('folder', 'manifest', 'covid_ct')}
    images(data['folder'], [f'{label}/{n}.png' for label in ('covid', 'normal') for n in range(6)], rng)
    images(data['manifest'], [f'{n}.png' for n in range(12)], rng)
    rows = [f'{n}.png,{"covid" if n % 2 else "normal"},p{n}' for n in range(12)]
    (data['manifest'] / 'scans.csv').write_text('\n'.join(['path,label,patient', *rows]) + '\n')
    for first, label in ((0, 'COVID'), (100, 'NonCOVID')):
        images(data['covid_ct'], [f'Images-processed/CT_{label}/{first + n}.png' for n in range(6)], rng)
    (tmp_path / 'sitecustomize.py').write_text(NO_NETWORK)
    env = {**os.environ, 'PYTHONPATH': str(tmp_path), 'HOME': str(tmp_path / 'home'), 'XLA_FLAGS': ''}
    for line in COMMAND.findall(text):
        of = re.search(r'/runs/(folder|manifest|covid_ct)', line)[1]
        words = shlex.split(line.replace('/data', str(data[of])).replace('/runs', str(tmp_path / 'runs')))
        module = 'covid_jax.cli' if words[0] == 'covid-jax' else words[2]
        rest = [*words[1:], '--workers=1'] if words[0] == 'covid-jax' else [*words[3:], *TINY]
        if words[0] == 'covid-jax':
            images(data[of], ['0031/0.png'], rng)
        result = subprocess.run([sys.executable, '-m', module, *rest], cwd=app, env=env, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    for name in data:
        assert (tmp_path / 'runs' / name / 'predictions.csv').exists()
    assert (tmp_path / 'runs' / 'answers' / 'answers.csv').read_text().count('\n') == 2
