import csv
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config

from covid_jax import evaluate
from covid_jax.data.exams import Exam
from covid_jax.data.pipeline import Dataset
from covid_jax.methods.method import Method
from covid_jax.runtime.mesh import make_mesh


def dataset(label, split, patient=None):
    n = len(label)
    exams = [Exam(f'e{i}', patient[i] if patient else f'p{i}', 'here', 'x', s, ()) for i, s in enumerate(split)]
    images = [{'image': np.full((2, 2, 2, 1), 10 * i, np.uint8)} for i in range(n)]
    return Dataset(exams, np.array(label, np.int32), np.zeros(n, np.int32), np.arange(n), images, {}, '')


def brightness(params, state, batch, key=None):
    """Logit of COVID: the mean of the image over 100, plus a draw of each row where there is a key."""
    x = batch['image'].astype(jnp.float32).mean((1, 2, 3, 4)) / 100
    if key is not None:
        x = x + jax.vmap(lambda d: jax.random.normal(jax.random.fold_in(key, d)))(batch['draw'])
    return {'features': x[:, None], 'logits': jnp.stack([jnp.zeros_like(x), x], 1)}


METHOD = Method(None, None, brightness)
STATE = types.SimpleNamespace(params={}, state={})


@pytest.mark.parametrize('devices', [1, 8])
def test_every_exam_is_predicted_in_order_whatever_the_batch(devices):
    mesh = make_mesh(jax.devices()[:devices])
    d = dataset([0, 1] * 5 + [1], ['test'] * 11)
    p = evaluate.predict_split(evaluate.predictor(METHOD, mesh), STATE, d, 'test', 8, mesh)
    x = np.arange(11) / 10
    np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp(-x)), rtol=1e-5)


def test_passes_are_averaged():
    """The mean of three softmaxes, each under its own key; not the softmax of a mean."""
    mesh = make_mesh(jax.devices()[:1])
    d = dataset([0, 1, 0], ['test'] * 3)
    key = jax.random.key(3)
    p = evaluate.predict_split(evaluate.predictor(METHOD, mesh), STATE, d, 'test', 4, mesh, key, 3)
    draws = np.array([[jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, t), i)) for i in range(3)]
                      for t in range(3)])
    np.testing.assert_allclose(p[:, 1], (1 / (1 + np.exp(-(np.arange(3) / 10 + draws)))).mean(0), rtol=1e-5)


def report(tmp_path, label, split, probability, patient=None):
    config = small_config()
    d = dataset(label, split, patient)
    p = {s: np.stack([1 - q, q], 1) for s in dict.fromkeys(split)
         for q in [np.array([x for x, t in zip(probability, split, strict=True) if t == s])]}
    return evaluate.write_report(config, tmp_path, d, p), json.loads((tmp_path / 'metrics.json').read_text())


def test_the_threshold_is_frozen_on_validation(tmp_path):
    """Validation is split cleanly at 0.25: there test has one mistake, at 0.5 it has two."""
    label = [0, 0, 1, 1] + [0, 1, 1, 0]
    probability = [0.1, 0.2, 0.3, 0.4] + [0.1, 0.3, 0.4, 0.3]
    metrics, kept = report(tmp_path, label, ['val'] * 4 + ['test'] * 4, probability)
    assert metrics == kept
    assert metrics['test']['threshold_frozen']['value'] == pytest.approx(0.25)
    assert metrics['test']['accuracy']['value'] == 0.5 and metrics['test']['accuracy_frozen']['value'] == 0.75
    assert metrics['test']['auc']['value'] == pytest.approx(0.875)  # pairs won: 0.3 > 0.1, 0.4 > both, 0.3 = 0.3 a half


def test_undefined_is_null_with_the_reason(tmp_path):
    metrics, _ = report(tmp_path, [0, 0], ['test'] * 2, [0.1, 0.7])
    test = metrics['test']
    assert test['auc']['value'] is None and 'covid' in test['auc']['reason']
    assert test['specificity']['value'] == 0.5 and test['threshold_frozen']['value'] is None
    assert not [k for k in test if k.endswith('_frozen') and k != 'threshold_frozen']


def test_unlabelled_exams_are_predicted_and_not_scored(tmp_path):
    metrics, _ = report(tmp_path, [0, 1, -1], ['test'] * 3, [0.1, 0.9, 0.2])
    assert metrics['test']['accuracy'] | {'reason': ''} == {'value': 1.0, 'n': 2, 'low': None, 'high': None, 'reason': ''}
    with open(tmp_path / 'predictions.csv', newline='') as f:
        table = list(csv.DictReader(f))
    assert [r['label'] for r in table] == ['noncovid', 'covid', ''] and [r['p_covid'] for r in table][2] == '0.200000'


def test_unlabelled_exams_are_no_negatives_of_the_curve(tmp_path):
    d = dataset([0, 1, -1], ['test'] * 3)
    label, score = evaluate.curve(d, 'test', np.array([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]]))
    assert label.tolist() == [0, 1] and score.tolist() == [0.1, 0.9]


def test_the_two_files_of_the_challenge(tmp_path):
    """COVID at 0.5 and above; scans with labels are in neither."""
    report(tmp_path, [0, 1, -1, -1, -1], ['val'] * 2 + ['test'] * 3, [0.1, 0.9, 0.2, 0.5, 0.8])
    assert (tmp_path / 'submission' / 'covid.csv').read_text().splitlines() == ['e3,e4']
    assert (tmp_path / 'submission' / 'non-covid.csv').read_text().splitlines() == ['e2']


def test_no_submission_where_all_is_labelled(tmp_path):
    report(tmp_path, [0, 1], ['test'] * 2, [0.1, 0.9])
    assert not (tmp_path / 'submission').exists()


@pytest.mark.parametrize('ids, row', [(['test/a', 'test/b'], 'a,b'), (['x/a', 'y/a'], 'x/a,y/a')])
def test_scans_are_called_by_their_last_name_where_that_is_unique(tmp_path, ids, row):
    d = dataset([-1, -1], ['test'] * 2)
    d = d._replace(exams=[e._replace(id=name) for e, name in zip(d.exams, ids, strict=True)])
    evaluate.write_submission(tmp_path / 'submission', d, {'test': np.array([[0.1, 0.9], [0.2, 0.8]])})
    assert (tmp_path / 'submission' / 'covid.csv').read_text().splitlines() == [row]
    assert (tmp_path / 'submission' / 'non-covid.csv').read_text().split() == []


def test_images_are_scored_by_image_and_by_patient(tmp_path, capsys):
    """Patient a: mean 0.6, covid; b: mean 0.4, not; c has both labels and is left out; d: one image, no label."""
    label, patient = [1, 1, 0, 0, 0, 1, -1], list('aabbccd')
    metrics, kept = report(tmp_path, label, ['test'] * 7, [0.3, 0.9, 0.7, 0.1, 0.2, 0.8, 0.5], patient)
    assert metrics == kept
    assert metrics['test']['accuracy']['value'] == pytest.approx(4 / 6) and metrics['test']['accuracy']['n'] == 6
    assert metrics['test_patients']['accuracy']['value'] == 1.0 and metrics['test_patients']['accuracy']['n'] == 2
    assert '1 patients have images of different labels' in capsys.readouterr().out
    with open(tmp_path / 'predictions_patients.csv', newline='') as f:
        table = {r['patient']: (r['label'], r['p_covid']) for r in csv.DictReader(f)}
    assert table == {'a': ('covid', '0.600000'), 'b': ('noncovid', '0.400000'), 'd': ('', '0.500000')}


def test_patients_of_one_exam_are_not_counted_twice(tmp_path):
    metrics, _ = report(tmp_path, [0, 1], ['test'] * 2, [0.3, 0.9])
    assert list(metrics) == ['test'] and not (tmp_path / 'predictions_patients.csv').exists()


def test_only_patients_of_both_labels_leave_undefined_metrics_with_a_reason(tmp_path):
    metrics, _ = report(tmp_path, [0, 1], ['test'] * 2, [0.3, 0.9], ['a', 'a'])
    assert metrics['test_patients']['auc']['value'] is None and metrics['test_patients']['auc']['reason']
