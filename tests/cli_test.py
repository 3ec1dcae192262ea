"""The covid-jax command in a real process."""

import os
import subprocess
import sys

import pytest

SMALL = ['--config.prep.size=(8,16,16)', '--config.views.depth=6', '--config.cmc.projection=8',
         '--config.model.name=_ResNeStTiny', '--config.train.batch=4']


def run(root, *args):
    two = '--xla_force_host_platform_device_count=2'
    env = {**os.environ, 'XLA_FLAGS': two, 'JAX_PLATFORMS': 'cpu', 'COLUMNS': '120'}
    return subprocess.run([sys.executable, '-m', 'covid_jax.cli', *args], env=env, text=True, capture_output=True,
                          cwd=root, timeout=200)


def test_plan_of_this_host(root, tmp_path):
    result = run(root, 'plan', f'--config={root}/configs/cmc.py', f'--workdir={tmp_path / "run"}', *SMALL)
    assert result.returncode == 0, result.stderr
    assert 'one step of 4 scans on 2 x cpu' in result.stdout and 'all-reduce' in result.stdout
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('args,message', [
    ([], 'covid-jax plan'),
    (['paln', '--config=configs/cmc.py'], 'covid-jax plan'),
    (['plan', 'v5e:2x4', '--config=configs/cmc.py'], 'covid-jax plan'),
    (['plan'], '--config=configs/cmc.py'),
    (['plan', '--config=configs/cmcc.py'], 'configs/cmcc.py'),
    (['plan', '--config=configs/cmc.py', '--config.train.lrr=1'], 'did you mean --config.train.lr'),
    (['plan', '--config=configs/cmc.py', '--topolgy=v5e:2x4'], 'topolgy'),
    (['plan', '--config=configs/cmc.py', '--topology=v5e'], 'v5e:2x4, v5e:16x16'),
    (['plan', '--config=configs/cmc.py', '--config.train.batch=5'], 'multiple of 2'),
])
def test_a_mistake_is_one_helpful_line(root, args, message):
    result = run(root, *args)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert result.stderr.count('\n') == 1 and 'Traceback' not in result.stderr + result.stdout
