"""What a machine lacks, made to lack it."""

import os
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from layouts import touch
from packaging.requirements import Requirement

from covid_jax import cli, doctor

GIB = 2**30


@pytest.fixture
def nothing_unseen(monkeypatch):
    """A machine without an accelerator that jax does not see, and with much free disk."""
    monkeypatch.setattr(doctor, 'ACCELERATORS', {})
    monkeypatch.setattr(doctor.shutil, 'which', lambda name: None)
    monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda place: SimpleNamespace(free=100 * GIB))


def of(checks, what):
    (found,) = [check for check in checks if check.what == what]
    return found


def test_this_machine_is_well_and_names_nobody(nothing_unseen, tmp_path, capsys):
    """Neither the home folder nor this host is in what is printed, which people send to others."""
    touch(tmp_path, 'data/covid/a.png', 'data/covid/b.png', 'data/normal/c.png')
    cli.run(['doctor', '--workdir=runs', f'--data={tmp_path / "data"}'])
    out = capsys.readouterr().out
    assert out.count('\nok ') == out.count('\n') - 1 and f'{len(jax.devices())} x cpu' in out and 'compressions are read' in out
    assert '3 exams of 3 patients, read as --source=folder: 1 noncovid, 2 covid' in out
    for private in (str(Path.home()), os.uname().nodename, str(Path(doctor.__file__).parents[1])):
        assert private not in out


@pytest.mark.parametrize('line, there, advice', [
    ('numpy>=2.1', '2.0.3', 'pip install "numpy>=2.1"'), ('grain>=0.2', None, 'pip install "grain>=0.2"'), ('numpy>=2.1', '2.1.0', None),
    ('numpy>=2.1; python_version < "3"', None, None), ('torch==2.0; extra == "parity"', None, None)])
def test_a_package_that_is_not_as_it_is_needed(monkeypatch, line, there, advice):
    monkeypatch.setattr(doctor, '_requirements', lambda: ([Requirement(line)], '>=3.11'))
    monkeypatch.setattr(doctor, '_version', lambda name: '1.0' if name == doctor.OURS else there)
    monkeypatch.setattr(doctor, '_extras', lambda: ['parity'])
    wrong = [check.advice for check in doctor.packages() if not check.works]
    assert wrong == ([advice] if advice else [])


def test_a_python_that_is_too_old(monkeypatch):
    monkeypatch.setattr(doctor.platform, 'python_version', lambda: '3.10.2')
    found = of(doctor.packages(), 'python')
    assert not found.works and '>=3.11 is needed' in found.advice


def test_an_extra_is_there_with_what_it_asks_of_others(monkeypatch):
    """jax[cuda13] is not there because jax is."""
    needed = {'jax': ['cudaplugin>=1; extra == "cuda13"', 'numpy']}
    monkeypatch.setattr(doctor.importlib.metadata, 'requires', lambda name: needed.get(name))
    there = {'jax': '1', 'numpy': '2'}
    monkeypatch.setattr(doctor, '_version', there.get)
    assert doctor._is_there(Requirement('jax')) and not doctor._is_there(Requirement('jax[cuda13]'))
    there['cudaplugin'] = '1'
    assert doctor._is_there(Requirement('jax[cuda13]'))


def test_disk_and_memory_that_are_full(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda place: SimpleNamespace(free=GIB))
    monkeypatch.setattr(doctor, '_memory', lambda: 0.5)
    checks = list(doctor.machine(tmp_path / 'not/yet/there'))
    assert not of(checks, 'disk').works and '1.0 GiB free' in of(checks, 'disk').found and not of(checks, 'memory').works
    (tmp_path / 'file').write_text('')
    assert 'cannot be written to' in of(doctor.machine(tmp_path / 'file/below'), 'disk').found


@pytest.mark.parametrize('platforms, works, advice', [('', False, 'pip install "covid-jax[cuda]"'), ('cpu', True, 'unset JAX_PLATFORMS')])
def test_an_accelerator_that_jax_does_not_see(nothing_unseen, monkeypatch, platforms, works, advice):
    """Of a machine on which somebody chose the CPU, that is no fault."""
    monkeypatch.setenv('JAX_PLATFORMS', platforms)
    monkeypatch.setattr(doctor.shutil, 'which', lambda name: '/usr/bin/nvidia-smi')
    listed = SimpleNamespace(stdout='GPU 0: made up (UUID: secret)\n')
    monkeypatch.setattr(doctor.subprocess, 'run', lambda *command, **_: listed)
    checks = list(doctor.devices())
    found = of(checks, 'accelerator')
    assert found.works == works and advice in found.advice and 'secret' not in str(checks)
    listed.stdout = 'No devices were found\n'
    assert not [check for check in doctor.devices() if check.what == 'accelerator']


def test_a_device_that_multiplies_wrongly(monkeypatch):
    monkeypatch.setattr(jax, 'jit', lambda f: lambda x: f(x) + 10)
    assert not of(doctor.devices(), 'computes').works
    monkeypatch.setattr(jax, 'jit', lambda f: lambda x: 1 / 0)
    assert 'division by zero' in of(doctor.devices(), 'computes').found
    monkeypatch.undo()
    assert of(doctor.devices(), 'computes').works


def test_a_compression_whose_reader_is_gone(monkeypatch):
    import pydicom.pixels

    monkeypatch.setattr(pydicom.pixels, 'get_decoder', lambda syntax: namedtuple('Decoder', 'available_plugins')(('pillow', 'pydicom')))
    (found,) = doctor.readers()
    assert not found.works and found.advice == 'pip install python-gdcm' and 'JPEG' in found.found


def test_data_without_a_label_are_no_fault(tmp_path):
    touch(tmp_path, 'a.png')
    (tmp_path / 'table.csv').write_text('path,label\na.png,\n')
    found = doctor.exams(str(tmp_path / 'table.csv'))
    assert found.works and '1 without a label' in found.found and 'predict' in found.advice


@pytest.mark.parametrize('data, line', [
    ('nowhere', 'there is nothing at'), ('odd', 'say what it is by --source'), ('odd --source=folder', 'no scans in'),
    ('one', 'no exam of noncovid: nothing can be told apart'), ('flu --source=folder', 'flu')])
def test_data_that_are_not_as_they_should_be(nothing_unseen, tmp_path, monkeypatch, capsys, data, line):
    monkeypatch.setattr(doctor, 'devices', tuple)
    monkeypatch.setattr(doctor, 'readers', tuple)
    touch(tmp_path, 'one/covid/a.png', 'flu/flu/a.png', 'odd/nothing.txt')
    path, *options = data.split()
    with pytest.raises(SystemExit) as e:
        cli.run(['doctor', f'--data={tmp_path / path}', *options])
    last = capsys.readouterr().out.splitlines()[-1]
    assert e.value.code == 1 and last.startswith('NO  data') and line in last and '--config' not in last
