"""The laws of the loop, on a method of one number and exams of a few bytes: when it validates, saves, stops and refuses."""

import contextlib
import json
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax import UserError, config, evaluate, start, train
from covid_jax.data import pipeline
from covid_jax.methods.method import Method
from covid_jax.predictions import Predictions
from covid_jax.runtime import checkpoint
from covid_jax.runtime.interrupt import Interrupted
from covid_jax.runtime.mesh import make_mesh
from covid_jax.sources.exams import Exam

BATCH = 4


def dataset(split, site='here', label='covid'):
    """Exams of these splits, the image of exam i all i; site and label: of all, or one each."""
    n = len(split)
    sites = [site] * n if isinstance(site, str) else site
    labels = [label] * n if isinstance(label, str) else label
    exams = [Exam(f'e{i}', f'p{i}', *row, '') for i, row in enumerate(zip(sites, labels, split, strict=True))]
    images = [{'image': np.full((1, 2, 2, 1), i, np.uint8)} for i in range(n)]
    return pipeline.Dataset(exams, np.ones(n, np.int32), np.zeros(n, np.int32), np.arange(n), images, {}, '', ['x'] * n, ('here',))


DATA = dataset(['train'] * 12 + ['val'] * 4)  # 3 steps an epoch


def method(poison=-1, labelled=False):
    """It classifies nothing: its loss is the mean of the images plus a number that is learnt, and not finite at one step."""
    def loss(params, state, batch, key, step):
        value = jnp.mean(batch['image'].astype(jnp.float32)) + params['w'] * jnp.where(step == poison, jnp.nan, 1.0)
        return value, (state, {'twice': 2 * value})

    def init(key, batch, start=None):
        return {'w': jnp.float32(0)}, {'count': jnp.zeros(1)}

    return Method(None, init, loss, lambda p, s, b, key=None: {'features': b['image'][:, 0, 0, 0]}, labelled=labelled)


def run_of(folder, of=None, **fields):
    """A start.Run on one device, at rate 0."""
    c = config.base()
    c.method = 'none'
    c.prep.size = (1, 2, 2)
    c.train.update(batch=BATCH, lr=0.0)
    c.eval.update(batch=BATCH, select='loss')
    c.update_from_flattened_dict(fields)
    return start.Run(c, folder, make_mesh(jax.devices()[:1]), of or method(), None)


@pytest.fixture
def saved(monkeypatch):
    """[(step, whether it has a score)] of all that is saved."""
    steps = []
    save = checkpoint.save

    def noted(checkpoints, state, score=None):
        steps.append((int(state.step), score is not None))
        save(checkpoints, state, score)

    monkeypatch.setattr(checkpoint, 'save', noted)
    return steps


@pytest.fixture
def trained(monkeypatch):
    """train_and_evaluate of a run on a dataset, which nothing prepares; what it says."""
    def go(run, data=DATA):
        said = []
        monkeypatch.setattr(pipeline, 'prepare', lambda *args: data)
        train.train_and_evaluate(run, SimpleNamespace(digest='d'), [], said.append)
        return said

    return go


def rows(folder):
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


@pytest.mark.parametrize('epochs, eval_every, steps, validated', [
    (2.5, 1.0, 8, [3, 6, 8]),  # 7.5 steps are 8; the last is validated whatever its number
    (2.0, 0.5, 6, [2, 4, 6]),  # 1.5 steps are 2
    (1.0, 0.0, 3, [1, 2, 3]),  # never less than a step
    (1.0, 9.0, 3, [3])])
def test_steps_validations_and_saves(tmp_path, trained, saved, epochs, eval_every, steps, validated):
    trained(run_of(tmp_path, **{'train.epochs': epochs, 'train.eval_every': eval_every}))
    assert [row['step'] for row in rows(tmp_path)] == list(range(steps))
    assert [row['step'] + 1 for row in rows(tmp_path) if 'val/loss' in row] == validated
    assert saved == [(step, True) for step in validated]


def test_a_loss_that_is_not_finite_ends_in_a_line_that_names_the_step(tmp_path, trained, saved):
    """It is noticed when rows are written, and nothing of it is: neither rows nor a checkpoint."""
    with pytest.raises(UserError, match='not finite at step 4: run again with a lower --config.train.lr and another --workdir') as e:
        trained(run_of(tmp_path, method(poison=4), **{'train.epochs': 4.0, 'train.log_every': 100}))
    assert '\n' not in str(e.value)
    assert saved == [(3, True)]
    assert [row['step'] for row in rows(tmp_path)] == [0, 1, 2] and all(np.isfinite(row['loss']) for row in rows(tmp_path))


def test_a_stop_is_saved_without_a_score_and_the_same_call_goes_on(tmp_path, trained, saved, monkeypatch):
    answers = iter([0, signal.SIGTERM])
    with monkeypatch.context() as patched:
        patched.setattr(train, 'requests', lambda: contextlib.nullcontext(lambda: next(answers)))
        with pytest.raises(Interrupted) as e:
            trained(run_of(tmp_path, **{'train.epochs': 2.0}))
    assert e.value.args == (signal.SIGTERM, 2) and saved == [(2, False)]
    assert [row['step'] for row in rows(tmp_path)] == [0, 1]
    trained(run_of(tmp_path, **{'train.epochs': 2.0}))
    assert saved == [(2, False), (3, True), (6, True)]
    assert [row['step'] for row in rows(tmp_path)] == list(range(6))
    trained(run_of(tmp_path, **{'train.epochs': 2.0}))  # done: nothing is trained again
    assert len(saved) == 3


def test_a_run_that_was_here_before_says_what_becomes_of_it(tmp_path, trained, monkeypatch):
    """Killed at its first step, stopped at step 2, and trained; a new run says nothing of the kind."""
    folder = tmp_path / 'run'

    def stopped_at(step):
        answers = iter([0] * (step - 1) + [signal.SIGTERM])
        with monkeypatch.context() as patched, pytest.raises(Interrupted):
            patched.setattr(train, 'requests', lambda: contextlib.nullcontext(lambda: next(answers)))
            if step == 1:  # nothing of it is left but the description
                patched.setattr(checkpoint, 'save', lambda *args: None)
            return trained(run_of(folder, **{'train.epochs': 2.0}))

    new = trained(run_of(tmp_path / 'new', **{'train.epochs': 2.0}))
    stopped_at(1)
    told = []
    monkeypatch.setattr(train, 'resumed', lambda *args, told=told, real=train.resumed: told.append(real(*args)) or told[-1])
    stopped_at(2)
    again = trained(run_of(folder, **{'train.epochs': 2.0}))
    done = trained(run_of(folder, **{'train.epochs': 2.0}))
    assert not [line for line in new if str(tmp_path) in line]
    assert told[0] == f'{folder} was stopped before its first checkpoint: it begins again'
    assert f'{folder} goes on from step 2' in again and f'{folder} has been trained, to step 6: it is evaluated again' in done


@pytest.mark.parametrize('start, compiled', [(0, [1, 3]), (1, [2, 3]), (2, [3])])
def test_the_first_step_and_the_first_validation_are_compiled(tmp_path, trained, monkeypatch, start, compiled):
    """Of 6 steps, validated at 3 and 6, each told: what was compiled counts for no rate."""
    if start:
        answers = iter([0] * (start - 1) + [signal.SIGTERM])
        with monkeypatch.context() as patched, pytest.raises(Interrupted):
            patched.setattr(train, 'requests', lambda: contextlib.nullcontext(lambda: next(answers)))
            trained(run_of(tmp_path, **{'train.epochs': 2.0}))
    told = []
    monkeypatch.setattr(train, 'progress', lambda *args: contextlib.nullcontext(lambda step, text, new: told.append((step, new))))
    trained(run_of(tmp_path, **{'train.epochs': 2.0, 'train.log_every': 1}))
    assert [step for step, _ in told] == list(range(start + 1, 7)) and [step for step, new in told if new] == compiled


def test_what_is_empty_is_said(tmp_path, trained):
    said = trained(run_of(tmp_path, method(labelled=True), **{'train.epochs': 1.0, 'train.patience': 2}),
                   dataset(['train'] * 8))
    assert said == ['no val split: the last checkpoint is evaluated, no threshold is frozen', 'no test split: no test metrics',
                    'no val split: --config.train.patience has nothing to wait for']


def session(run, data):
    return SimpleNamespace(run=run, dataset=data, key=jax.random.key(0), loss=run.method.loss, predict=None)


STATE = SimpleNamespace(params={'w': 0.0}, state={}, step=0)


@pytest.mark.parametrize('n, mean', [
    (11, np.mean(range(1, 9))),  # two whole batches: the last three are left out
    (4, 2.5),
    (3, (1 + 2 + 3 + 3) / 4)])  # less than a batch: filled up with the last
def test_the_loss_of_validation_is_of_whole_batches(tmp_path, n, mean):
    """Exam 0 is trained on; the image of exam i is all i."""
    found = train.val_losses(session(run_of(tmp_path), dataset(['train'] + ['val'] * n)), STATE)
    assert found == pytest.approx({'loss': mean, 'twice': 2 * mean})


@pytest.mark.parametrize('labelled, mean', [(False, (1 + 3 + 3 + 3) / 4), (True, 3)])
def test_the_loss_of_validation_is_of_exams_that_it_can_judge(tmp_path, labelled, mean):
    """Exam 1 has no label, exam 2 is of a site that is not trained on."""
    data = dataset(['train', 'val', 'val', 'val'], ['here', 'here', 'there', 'here'], ['covid', '', 'covid', 'covid'])
    run = run_of(tmp_path, method(labelled=labelled))
    assert train.val_losses(session(run, data), STATE)['loss'] == pytest.approx(mean)
    alone = dataset(['train', 'val'], ['here', 'there'])
    assert train.val_losses(session(run, alone), STATE) == {}


@pytest.mark.parametrize('classifies, select, score', [
    (True, 'auto', 2 / 3 * 0.5 + 0.8 * 0.5),  # F1 of noncovid 2/3, of covid 0.8, by hand
    (True, 'accuracy', 0.75), (True, 'loss', -7.0), (True, 'last', None),
    (False, 'auto', -7.0), (False, 'nearest', 0.25), (False, 'last', None)])
def test_what_a_checkpoint_is_judged_by(tmp_path, monkeypatch, classifies, select, score):
    p = np.array([0.1, 0.7, 0.8, 0.9], np.float32)
    exams = [Exam(f'e{i}', f'p{i}', 'here', 'x', 'val', '') for i in range(4)]
    answers = Predictions(('noncovid', 'covid'), exams, np.array([0, 0, 1, 1], np.int32),
                          np.stack([1 - p, p], 1) if classifies else None, None if classifies else np.stack([1 - p, p], 1))
    monkeypatch.setattr(evaluate, 'collect', lambda *args: answers)
    monkeypatch.setattr(train, 'val_losses', lambda *args: {'loss': 7.0, 'nearest': 0.25})
    found, scalars = train.validate(session(run_of(tmp_path, **{'eval.select': select}), DATA), STATE)
    assert found == (score if score is None else pytest.approx(score))
    assert ('val/macro_f1' in scalars) == classifies
    assert select in ('auto', 'last') or abs(float(scalars[f'val/{select}'])) == pytest.approx(abs(score))
    assert train.validate(session(run_of(tmp_path), dataset(['train'])), STATE) == (None, {})
