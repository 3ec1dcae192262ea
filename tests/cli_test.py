"""The covid-jax command: as a process, and what typer makes of its arguments."""

import os
import subprocess
import sys

import finished_runs
import pytest
from conftest import QUICK

from covid_jax import UserError, cli

SMALL = ['--config.prep.size=(8,16,16)', '--config.views.depth=6', '--config.cmc.projection=8',
         '--config.model.name=_ResNetTiny', '--config.train.batch=4']


def process(root, *command):
    two = f'{QUICK} --xla_force_host_platform_device_count=2'
    env = {**os.environ, 'XLA_FLAGS': two, 'JAX_PLATFORMS': 'cpu', 'COLUMNS': '120'}
    return subprocess.run([sys.executable, *command], env=env, text=True, capture_output=True, cwd=root, timeout=200)


def test_plan_of_this_host(root, tmp_path):
    result = process(root, '-m', 'covid_jax.cli', 'plan', f'--config={root}/configs/cmc.py', f'--workdir={tmp_path / "run"}', *SMALL)
    assert result.returncode == 0, result.stderr
    assert 'one step of 4 scans on 2 x cpu' in result.stdout and 'all-reduce' in result.stdout
    assert not (tmp_path / 'run').exists()


def test_a_mistake_is_one_line_and_its_code(root):
    result = process(root, '-m', 'covid_jax.cli', 'plan', '--config=configs/cmc.py', '--topology=v5e')
    assert result.returncode == 2 and 'v5e:2x4, v5e:16x16' in result.stderr, result.stderr
    assert result.stderr.startswith('covid_jax: ') and result.stderr.count('\n') == 1 and not result.stdout


@pytest.mark.parametrize('module, arguments, wanted', [
    ('cli', ['--help'], '--config='), ('main', ['--help'], '--config='), ('cli', ['plan', '--help'], '--workdir  '),
    ('cli', ['compare', '--help'], 'RUN_A'), ('cli', ['audit', '--help'], 'DATA'), ('cli', ['table', '--help'], '--workdir')])
def test_help_has_an_example_of_each_command_and_is_there_at_once(root, module, arguments, wanted):
    """Neither jax nor what takes as long to import is."""
    code = (f'import sys\nfrom covid_jax import {module}\nsys.argv[1:] = {arguments}\n'
            f'try:\n    {module}.main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n'
            'slow = {"jax", "numpy", "orbax", "tensorflow_datasets"} & {*sys.modules}\nassert not slow, slow')
    result = process(root, '-c', code)
    assert result.returncode == 0, result.stderr
    assert wanted in result.stdout
    if arguments == ['--help']:
        assert 'python -m covid_jax.main --config=' in result.stdout
        assert all(f'  covid-jax {command.name} ' in result.stdout for command in cli.app.registered_commands)


@pytest.mark.parametrize('arguments, message', [
    ([], 'covid-jax plan'),
    (['paln', '--config=configs/cmc.py'], "'paln'"),
    (['--config=configs/cmc.py', 'plan'], 'covid-jax plan'),
    (['plan', '--topology'], "'--topology' requires an argument"),
    (['plan', 'v5e:2x4', '--config=configs/cmc.py'], "'v5e:2x4' is not a flag"),
    (['plan'], '--config=configs/cmc.py'),
    (['plan', '--config=configs/cmc.py', '--config.train.lrr=1'], 'did you mean --config.train.lr'),
    (['plan', '--config=configs/cmc.py', '--topolgy=v5e:2x4'], 'topolgy'),
    (['plan', '--config=configs/cmc.py', '--config.ensemble.runs=a,b'], 'takes no training step'),
    (['plan', '--config=configs/cmc.py', '--config.train.batch=5'], 'multiple of 8'),
    (['audit'], 'DATA'),
    (['audit', 'covid_jax', '--source=foldr'], "did you mean 'folder'"),
    (['audit', 'nowhere'], 'there is nothing at nowhere'),
    (['audit', 'nowhere', '--source=folder'], 'there is nothing at nowhere'),
    (['audit', 'README.md'], 'README.md is no CSV file, and no folder of folders of scans'),
    (['audit', 'docs'], 'say what it is by --source, one of folder, manifest, cov19_ct_db'),
    (['audit', 'covid_jax', '--source=folder,folder'], 'give each source its folder or file'),
    (['audit', 'covid_jax', '--source=phantom'], 'there is nothing to audit'),
    (['audit', 'docs', '--source=folder'], 'no scans in docs'),
    (['audit', 'docs', '--source=manifest'], 'for folders of classes set --source=folder'),
    (['audit', 'covid_jax', '--source=folder', '--group=mine'], '--group=mine must be source or clusters'),
    (['audit', 'covid_jax', '--source=folder', '--split=mine'], '--split=mine must be auto, source or drawn'),
    (['audit', 'covid_jax', '--source=folder', '--workers=-1'], '--workers=-1 must be at least 0'),
    (['info', 'nowhere'], 'there is no folder nowhere'),
    (['info', 'docs'], 'docs holds no predictions.csv'),
    (['prepare'], '--config=configs/cmc.py'),
    (['prepare', '--config=configs/cmc.py', '--config.data.source=folder'], 'no folder is given'),
    (['evaluate', '--run=nowhere', '--out=out', '--root=docs'], 'there is no folder nowhere'),
    (['evaluate', '--run=nowhere'], "'--out'"),
    (['table'], "'--config'"),
    (['table', '--config=configs/nowhere.py'], 'no config file configs/nowhere.py'),
    (['table', '--config=configs/supervised.py'], 'has no TABLES'),
    (['table', '--config=configs/cmc.py', '--workdir=nowhere'], 'there is no folder nowhere'),
    (['table', '--config=configs/cmc.py', '--config.seed=1'], 'config.seed'),
    (['compare', 'runs/a'], "'RUN_B'"),
    (['compare', 'runs/a', 'runs/b', '--config=configs/cmc.py'], 'covid-jax compare --help'),
    (['compare', 'runs/a', 'runs/b', '--level=high'], "'--level'"),
    (['compare', 'runs/a', 'runs/b', '--level=95'], '--level=95.0 must be above 0'),
    (['compare', 'no/where', 'runs/b'], 'there is no folder no/where'),
    (['compare', 'no/where', 'runs/b', f'--out={__file__}'], f'{__file__} is no folder that can be written to'),
    (['compare', 'no/where', 'runs/b', f'--out={__file__}/below'], f'{__file__} is no folder that can be written to'),
])
def test_what_typer_or_the_command_refuses_is_one_line(root, monkeypatch, arguments, message):
    monkeypatch.chdir(root)
    with pytest.raises(UserError) as e:
        cli.run(arguments)
    assert message in str(e.value) and '\n' not in str(e.value)


def test_a_table_of_the_paper(root, tmp_path):
    finished_runs.finished(tmp_path / 'a', [('x', 'test', 'covid', 0.9), ('y', 'test', 'noncovid', 0.2)], config={'row': 'cmc:model4,size=small'})
    result = process(root, '-m', 'covid_jax.cli', 'table', '--config=configs/cmc.py', f'--workdir={tmp_path}')
    assert result.returncode == 0, result.stderr
    assert 'Table 1' in result.stdout and '94.65 [92.78, 96.52] │ 100.00' in result.stdout
    assert f'1  {tmp_path}/a: size=small; 2 exams of test, here' in result.stdout
    assert 'No confusion matrix of two classes gives this row of the paper. Li et al. (CMT-CNN): accuracy 93.46 %' in result.stdout


def test_two_finished_runs_are_compared_and_told_without_jax(root, tmp_path):
    a = finished_runs.run(tmp_path / 'a', 1)
    b = finished_runs.run(tmp_path / 'b', 0.5)
    code = ('import sys\nfrom covid_jax import cli\n'
            f'sys.argv[1:] = ["compare", "{a}", "{b}", "--resamples=20", "--level=0.9", "--out={tmp_path / "out"}"]\n'
            'try:\n    cli.main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n'
            f'sys.argv[1:] = ["info", "{a}"]\ntry:\n    cli.main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n'
            'assert not {"jax", "tensorflow", "matplotlib"} & {*sys.modules}')
    result = process(root, '-c', code)
    assert result.returncode == 0, result.stderr
    assert f'covid-jax compare {a} OTHER' in result.stdout
    assert '90 % interval' in result.stdout and 'draws patients 20 times' in result.stdout and 'DeLong: ' in result.stdout
    assert (tmp_path / 'out' / 'compare.csv').exists() and (tmp_path / 'out' / 'compare.md').exists()


def test_folds_and_seeds_of_a_stage_are_planned_once(root, monkeypatch):
    """Each stage on its own; typer's option stands beside the flags of the config in any order."""
    from covid_jax import plan, start

    planned = []
    monkeypatch.chdir(root)
    monkeypatch.setattr(start, 'build', lambda config, folder, devices: (str(folder), devices))
    monkeypatch.setattr(plan, 'slice_devices', lambda name: name)
    monkeypatch.setattr(plan, 'make', lambda run: run)
    monkeypatch.setattr(plan, 'show', planned.append)
    cli.run(['plan', '--config.seeds=2', '--topology', 'v5e:2x4', '--config=configs/cmc.py:model5,size=small', '--workdir', 'w'])
    assert planned == [(f'w/{stage}/fold0/seed0', 'v5e:2x4') for stage in ('model1', 'model3', 'model4')]
