"""What a report draws is drawn, and the folder of a run that it is of."""

import json
import shutil

import numpy as np
import pytest
from finished_runs import finished
from report_pages import CONFIG

from covid_jax import evaluate, predictions
from covid_jax.report import calibration, looks, written
from covid_jax.runtime import files
from covid_jax.sources.exams import Exam


@pytest.fixture(autouse=True)
def drawn(as_for_users):
    """As for users."""


@pytest.fixture(scope='session')
def left_by_a_run(tmp_path_factory):
    """A run as a training leaves it, of two sites, with a scan that is shown."""
    tmp_path = tmp_path_factory.mktemp('left')
    rng = np.random.default_rng(0)
    rows = [(f'{("oslo", "bergen")[i // 2 % 2]}/{i}', ('val', 'test')[i // 20 % 2], ('noncovid', 'covid')[i % 2],
             float(np.clip(i % 2 * 0.4 + 0.6 * rng.random(), 0, 1))) for i in range(80)]
    learnt = [Exam(name, name, name.rpartition('/')[0], label, split, '') for name, split, label, _ in rows]
    finished(tmp_path, rows, config=CONFIG, learnt=[*learnt, Exam('a', 'a', 'oslo', 'covid', 'train', '')])
    answers = predictions.of_run(tmp_path)
    metrics = evaluate.all_metrics(answers, 0.95)
    files.write(tmp_path / 'metrics.json', json.dumps(metrics))
    calibrated = {'temperature': {'value': 1.5, 'n': 40}, 'before': calibration.scores(answers.of('test'), 0.95)}
    files.write(tmp_path / 'calibration.json', json.dumps({'test': calibrated}))
    files.write(tmp_path / 'network.txt', 'Total: 1,234 -- 5 bytes\n')
    files.write(tmp_path / 'shortcuts.json', json.dumps({'test': {'border': {'auc': {'value': 0.5, 'n': 40, 'low': 0.3, 'high': 0.7}}}}))
    rows = [{'step': k, 'loss': 1 / (k + 1), **({'val/auc': 0.9} if k % 5 == 4 else {})} for k in range(20)]
    files.write(tmp_path / 'metrics.jsonl', ''.join(f'{json.dumps(row)}\n' for row in rows))
    (name, _), *_ = written.shown(predictions.of_run(tmp_path), metrics)
    looks.keep(tmp_path, [looks.thinned(name, rng.integers(0, 255, (30, 20, 24), np.uint8), np.ones((30, 20, 24)))])
    return tmp_path


@pytest.fixture
def folder(tmp_path, left_by_a_run):
    """The same, for a test to change."""
    return shutil.copytree(left_by_a_run, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def write(monkeypatch):
    """written.write, but of the plots, which take the longest."""
    monkeypatch.setattr(written, '_plots', lambda *_: {})
    return written.write
