import csv
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import single_image_config, small_config
from scipy.stats import binomtest

from covid_jax import UserError, evaluate, experiment, start, train
from covid_jax.data import lineage
from covid_jax.data.pipeline import Dataset
from covid_jax.methods.method import Method
from covid_jax.predictions import Predictions, of_run
from covid_jax.report import calibration, pictures, submission
from covid_jax.runtime import checkpoint
from covid_jax.runtime.mesh import make_mesh
from covid_jax.sources.exams import Exam


def exams(split, patient=None, site=None):
    return [Exam(f'e{i}', patient[i] if patient else f'p{i}', site[i] if site else 'here', 'x', s, '')
            for i, s in enumerate(split)]


def dataset(label, split):
    n = len(label)
    images = [{'image': np.full((2, 2, 2, 1), 10 * i, np.uint8)} for i in range(n)]
    return Dataset(exams(split), np.array(label, np.int32), np.zeros(n, np.int32), np.arange(n), images, {}, '', [''] * n,
                   ('here',))


def brightness(params, state, batch, key=None):
    """Logit of COVID: the mean of the image over 100."""
    x = batch['image'].astype(jnp.float32).mean((1, 2, 3, 4)) / 100
    return {'features': x[:, None], 'logits': jnp.stack([jnp.zeros_like(x), x], 1)}


METHOD = Method(None, None, None, brightness)
STATE = types.SimpleNamespace(params={}, state={})


@pytest.mark.parametrize('devices', [1, 8])
def test_every_exam_is_predicted_in_order_whatever_the_batch(devices):
    mesh = make_mesh(jax.devices()[:devices])
    d = dataset([0, 1] * 5 + [1], ['test'] * 11)
    answers = evaluate.predict_split(evaluate.predictor(METHOD, mesh, features=True), STATE, d, 'test', 8, mesh)
    x = np.arange(11) / 10
    np.testing.assert_allclose(answers['probability'][:, 1], 1 / (1 + np.exp(-x)), rtol=1e-5)
    np.testing.assert_allclose(answers['features'][:, 0], x, rtol=1e-5)


def test_passes_are_averaged():
    """By hand: of a logit that is 5, 5 and -10 in three passes the probabilities are averaged, 0.662, not the logits, 0.5. Each
    pass has a key of its own."""
    mesh = make_mesh(jax.devices()[:1])
    logits = iter([5.0, 5.0, -10.0])
    keys = []

    def answer(params, state, batch, key):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        x = jnp.full(4, next(logits))
        return {'features': x[:, None], 'logits': jnp.stack([jnp.zeros(4), x], 1)}

    with jax.disable_jit():
        predict = evaluate.predictor(METHOD._replace(predict=answer), mesh)
        p = evaluate.predict_split(predict, STATE, dataset([0, 1, 0], ['test'] * 3), 'test', 4, mesh, jax.random.key(3), 3)
    np.testing.assert_allclose(p['probability'], [[1 - 0.662220, 0.662220]] * 3, atol=1e-6)
    assert len(set(keys)) == 3


def table(label, split, probability, patient=None, site=None):
    q = np.array(probability, np.float32)
    return Predictions(('noncovid', 'covid'), exams(split, patient, site), np.array(label, np.int32), np.stack([1 - q, q], 1))


def report(tmp_path, *args, **kwargs):
    metrics = evaluate.write_report(tmp_path, table(*args, **kwargs), level=0.95)
    return metrics, json.loads((tmp_path / 'metrics.json').read_text())


def test_the_threshold_is_frozen_on_validation(tmp_path):
    """Validation is split cleanly at 0.25: there test has one mistake, at 0.5 it has two."""
    label = [0, 0, 1, 1] + [0, 1, 1, 0]
    probability = [0.1, 0.2, 0.3, 0.4] + [0.1, 0.3, 0.4, 0.3]
    metrics, kept = report(tmp_path, label, ['val'] * 4 + ['test'] * 4, probability)
    assert metrics == kept
    test = metrics['test']['all']
    assert test['threshold_frozen']['value'] == pytest.approx(0.25)
    assert test['accuracy']['value'] == 0.5 and test['accuracy_frozen']['value'] == 0.75
    assert test['auc']['value'] == pytest.approx(0.875)  # pairs won: 0.3 > 0.1, 0.4 > both, 0.3 = 0.3 a half


def test_the_level_stands_beside_each_interval(tmp_path):
    """By hand: 7 of 8 patients are found, whose Clopper-Pearson interval at 90 % is 0.529 to 0.994 (scipy's binomtest)."""
    p = table([1] * 8 + [0] * 8, ['test'] * 16, [0.9] * 7 + [0.2] + [0.1] * 8)
    test = evaluate.write_report(tmp_path, p, level=0.9)['test']['all']
    assert test == json.loads((tmp_path / 'metrics.json').read_text())['test']['all']
    assert test['sensitivity']['level'] == 0.9
    assert (test['sensitivity']['low'], test['sensitivity']['high']) == pytest.approx(
        binomtest(7, 8).proportion_ci(0.9, 'exact'), abs=1e-6)
    assert 'level' not in evaluate.score(p)['sensitivity'] and 'low' not in evaluate.score(p)['sensitivity']


def test_undefined_is_null_with_the_reason(tmp_path):
    metrics, _ = report(tmp_path, [0, 0], ['test'] * 2, [0.1, 0.7])
    test = metrics['test']['all']
    assert test['auc']['value'] is None and 'covid' in test['auc']['reason']
    assert test['specificity']['value'] == 0.5 and test['threshold_frozen']['value'] is None
    assert not [k for k in test if k.endswith('_frozen') and k != 'threshold_frozen']


def test_unlabelled_exams_are_predicted_and_not_scored(tmp_path):
    metrics, _ = report(tmp_path, [0, 1, -1], ['test'] * 3, [0.1, 0.9, 0.2])
    assert metrics['test']['all']['accuracy'] | {'reason': ''} == {'value': 1.0, 'n': 2, 'low': None, 'high': None, 'reason': ''}
    with open(tmp_path / 'predictions.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert [r['label'] for r in rows] == ['noncovid', 'covid', ''] and rows[2]['p_covid'] == '0.2'


def test_a_threshold_says_of_which_exams_it_was_frozen(tmp_path):
    """Its metrics of val say so, beside what else is said of them; those of test, those without it and the threshold do not."""
    p = table([0, 1] * 6, ['val'] * 8 + ['test'] * 4, [0.1, 0.9, 0.2, 0.8] * 3)
    metrics = evaluate.all_metrics(p, 0.95)
    for name, entry in metrics['val']['all'].items():
        assert entry.get('note', '').endswith('; the threshold was frozen on these exams') == (name.endswith('_frozen') and name[:4] != 'thre')
    assert not any('these exams' in entry.get('note', '') for entry in metrics['test']['all'].values())
    earlier = evaluate.all_metrics(p, 0.95, {'all': 0.5})['val']['all']
    assert not any('these exams' in entry.get('note', '') for entry in earlier.values())


@pytest.mark.parametrize('label, probability, told', [
    ([0, 1, 0], [0.6, 0.9, 0.7], 'all 3 are answered as covid: nothing is told apart there'),
    ([0, 1, 0], [0.1, 0.4, 0.2], 'all 3 are answered as noncovid: nothing is told apart there'),
    ([0, 1, 0], [0.1, 0.9, 0.2], None), ([1, 1, 1], [0.6, 0.9, 0.7], None)])
def test_a_network_that_answers_one_class_alone_is_named(label, probability, told):
    """Not where the exams are of one class: then it is right."""
    metrics = evaluate.all_metrics(table(label, ['test'] * 3, probability))['test']['all']
    assert metrics['accuracy'].get('reason') == told


def test_unlabelled_exams_are_no_negatives_of_the_curve(tmp_path):
    label, score = pictures.curve(table([0, 1, -1], ['test'] * 3, [0.125, 0.875, 0.25]))
    assert label.tolist() == [0, 1] and score.tolist() == [0.125, 0.875]


def test_the_two_files_of_the_challenge(tmp_path):
    """COVID at 0.5 and above; scans with labels are in neither."""
    report(tmp_path, [0, 1, -1, -1, -1], ['val'] * 2 + ['test'] * 3, [0.1, 0.9, 0.2, 0.5, 0.8])
    assert (tmp_path / 'submission' / 'covid.csv').read_text().splitlines() == ['e3,e4']
    assert (tmp_path / 'submission' / 'non-covid.csv').read_text().splitlines() == ['e2']


@pytest.mark.parametrize('ids, row', [(['test/a', 'test/b'], 'a,b'), (['x/a', 'y/a'], 'x/a,y/a'),
                                      (['-12a', '=b'], '-12a,=b')])
def test_scans_are_called_by_their_last_name_where_that_is_unique(tmp_path, ids, row):
    p = table([-1, -1], ['test'] * 2, [0.9, 0.8])
    p = p._replace(exams=[e._replace(id=name) for e, name in zip(p.exams, ids, strict=True)])
    submission.write(tmp_path / 'submission', p)
    assert (tmp_path / 'submission' / 'covid.csv').read_text().splitlines() == [row]
    assert (tmp_path / 'submission' / 'non-covid.csv').read_text().split() == []


def test_images_are_scored_by_image_and_by_patient(tmp_path, capsys):
    """Patient a: mean 0.6, covid; b: mean 0.4, not; c has both labels and is left out; d: one image, no label."""
    label, patient = [1, 1, 0, 0, 0, 1, -1], list('aabbccd')
    metrics, kept = report(tmp_path, label, ['test'] * 7, [0.3, 0.9, 0.7, 0.1, 0.2, 0.8, 0.5], patient)
    assert metrics == kept
    accuracy, patients = metrics['test']['all']['accuracy'], metrics['test']['patients']['accuracy']
    assert accuracy['value'] == pytest.approx(4 / 6) and accuracy['n'] == 6
    assert patients['value'] == 1.0 and patients['n'] == 2
    assert '1 patients have images of different labels' in capsys.readouterr().out
    with open(tmp_path / 'predictions_patients.csv', newline='') as f:
        rows = {r['patient']: (r['label'], r['p_covid']) for r in csv.DictReader(f)}
    assert rows == {'a': ('covid', '0.6'), 'b': ('noncovid', '0.4'), 'd': ('', '0.5')}


def test_patients_of_one_exam_are_not_counted_twice_and_labelled_scans_are_not_submitted(tmp_path):
    metrics, _ = report(tmp_path, [0, 1], ['test'] * 2, [0.3, 0.9])
    assert list(metrics) == ['test'] and list(metrics['test']) == ['all']
    assert not (tmp_path / 'predictions_patients.csv').exists() and not (tmp_path / 'submission').exists()


def test_only_patients_of_both_labels_leave_undefined_metrics_with_a_reason(tmp_path):
    metrics, _ = report(tmp_path, [0, 1, 0], ['test', 'test', 'val'], [0.3, 0.9, 0.2], ['a', 'a', 'b'])
    assert 'patients' not in metrics['test'] and metrics['val']['patients']['auc']['value'] is None


def test_sites_are_shown_apart(tmp_path):
    """Two sites in test, one of them alone in val: by hand, site b is right once in two."""
    site = ['a', 'a', 'a', 'a', 'b', 'b']
    metrics, _ = report(tmp_path, [0, 1, 0, 1, 0, 1], ['val'] * 2 + ['test'] * 4, [0.1, 0.9, 0.2, 0.8, 0.6, 0.7], site=site)
    assert {split: list(groups) for split, groups in metrics.items()} == {
        'val': ['all', 'site a'], 'test': ['all', 'site a', 'site b']}
    value = {group: m['accuracy']['value'] for group, m in metrics['test'].items()}
    assert value == {'all': 0.75, 'site a': 1.0, 'site b': 0.5}
    assert metrics['test']['site b']['threshold_frozen'] == metrics['test']['all']['threshold_frozen']


def test_a_curve_of_each_site_where_there_are_several(tmp_path, monkeypatch):
    """Of labelled exams: those of c have no label."""
    drawn = {}
    monkeypatch.setattr(pictures.plots, 'roc_sites_png', lambda path, panels, *beside: drawn.update({path.name: panels}))
    label = [0, 1, 0, 1, 0, 1, -1]
    report(tmp_path, label, ['val'] * 2 + ['test'] * 5, [0.125, 0.875, 0.25, 0.75, 0.5, 0.375, 0.625], site=[*'aaaabbc'])
    panels = drawn['roc_sites.png']
    assert {site: [*splits] for site, splits in panels.items()} == {'a': ['val', 'test'], 'b': ['test']}
    assert [values.tolist() for values in panels['b']['test']] == [[0, 1], [0.5, 0.375]]
    drawn.clear()
    report(tmp_path, label, ['val'] * 2 + ['test'] * 5, [0.125] * 7, site=[*'aaaaaac'])
    assert not drawn


def test_what_was_seen_before_is_said(tmp_path):
    p = table([0, 1, 0, 1], ['test'] * 4, [0.1, 0.9, 0.2, 0.8])
    p = p._replace(columns={'seen': np.array([1, 0, 1, 0], np.float32)})
    metrics = evaluate.write_report(tmp_path, p)
    entry = metrics['test']['all']['seen_before']
    assert (entry['value'], entry['n']) == (2, 4) and 'no test of new patients' in entry['reason']
    with open(tmp_path / 'predictions.csv', newline='') as f:
        assert [r['seen'] for r in csv.DictReader(f)] == ['1', '0', '1', '0']


def test_precision_of_covid_is_named_so(tmp_path):
    metrics, _ = report(tmp_path, [0, 1, 0, 1], ['test'] * 4, [0.1, 0.9, 0.8, 0.7])
    precision = metrics['test']['all']['precision']
    assert (precision['value'], precision['n'], precision['positive']) == (pytest.approx(2 / 3), 3, 'covid')


def watched(folder, probability, tta):
    """A session on six exams, the first four of val and the others of test, that are answered so; and a list of (position
    of the first exam of a batch, key that it was seen with)."""
    seen = []

    def predict(params, state, batch, key):
        first = int(batch['image'][0, 0, 0, 0, 0]) // 10
        seen.append((first, key))
        q = np.array(probability[first:first + 4], np.float32)
        q = np.pad(q, (0, 4 - len(q)))
        return {'probability': np.stack([1 - q, q], 1)}

    config = small_config()
    config.eval.update(batch=4, tta=tta)
    run = types.SimpleNamespace(config=config, mesh=make_mesh(jax.devices()[:1]), folder=folder, method=METHOD)
    data = dataset([0, 0, 0, 1, 0, 1], ['val'] * 4 + ['test'] * 2)
    return train.Session(run, data, None, 1, 1, jax.random.key(0), None, predict, None), seen


def test_the_checkpoint_is_chosen_by_macro_f1_of_plain_views_of_validation(tmp_path):
    """By hand: one false alarm, so F1 of 0.8 and 2/3; accuracy is 3/4 and the AUC 2/3. Nothing looks at test."""
    session, seen = watched(tmp_path, [0.1, 0.2, 0.9, 0.8, 0.1, 0.9], tta=3)
    score, scalars = train.validate(session, STATE)
    assert score == pytest.approx((0.8 + 2 / 3) / 2)
    assert scalars['val/accuracy'] == 0.75 and scalars['val/auc'] == pytest.approx(2 / 3)
    assert seen == [(0, None)]


def test_what_is_reported_is_the_mean_of_three_views(tmp_path):
    session, seen = watched(tmp_path, [0.1, 0.2, 0.9, 0.8, 0.1, 0.9], tta=3)
    train.report(session, STATE, {})
    assert [first for first, _ in seen] == [0, 0, 0, 4, 4, 4]
    assert len({tuple(jax.random.key_data(key).tolist()) for _, key in seen}) == 3


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished run on 16 phantoms to learn from, 8 of val and 8 of test, with the answers that the average of its weights gave."""
    folder = tmp_path_factory.mktemp('finished')
    config = single_image_config(epochs=2.0)
    config.train.average = 0.9
    experiment.run(config, folder)
    return start.load(folder), of_run(folder)


def test_a_finished_run_answers_other_data_as_it_answered_its_own(finished, tmp_path):
    """All its phantoms at once, those that it learnt from too: answers to val and test are the same, the threshold is the run's,
    and the 24 that it learnt from or chose by are marked."""
    run, own = finished
    said = []
    answers, metrics = evaluate.on(run, 'phantom', '', store=tmp_path, say=said.append)
    assert [e.split for e in answers.exams] == ['test'] * 32 and any(line.startswith('test: ') for line in said)
    of_exam = {e.id: p for e, p in zip(answers.exams, answers.probability, strict=True)}
    np.testing.assert_allclose([of_exam[e.id] for e in own.exams], own.probability, atol=1e-5)
    untouched = {e.id for e in own.exams if e.split == 'test'}
    assert {e.id for e, seen in zip(answers.exams, answers.columns['seen'], strict=True) if not seen} == untouched
    assert_averaged(run[0].folder)
    test = metrics['all']
    assert test['seen_before']['value'] == 24 and test['auc']['n'] == 32
    assert test['threshold_frozen']['value'] == run[0].threshold is not None
    decided = np.array([p[1] >= run[0].threshold for p in of_exam.values()])
    assert test['accuracy_frozen']['value'] == pytest.approx(np.mean(decided == answers.label))
    odds = [(p[1] / p[0]) ** (1 / run[0].temperature) for p in of_exam.values()]
    square = [(x / (1 + x) - y)**2 for x, y in zip(odds, answers.label, strict=True)]
    assert test['brier_tempered']['value'] == pytest.approx(np.mean(square), rel=1e-4) != test['brier']['value']


def assert_averaged(folder):
    """That what is read of a run is not its last weights, which it goes on from."""
    with checkpoint.manager(folder / 'checkpoints') as checkpoints:
        step, read = checkpoint.read(folder)
        last = checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))['state']
    params = last['params']['network']['classifier']
    assert not np.array_equal(params['Dense_0']['kernel'], read['params']['network']['classifier']['Dense_0']['kernel'])


def test_splits_of_other_data_do_not_matter_and_a_scan_that_cannot_be_read_is_set_aside(finished, tmp_path):
    """A folder whose files lie in train and test, of a patient of two images, one of them damaged elsewhere."""
    rng = np.random.default_rng(0)
    for split, label in (('train', 'covid'), ('test', 'normal')):
        (tmp_path / 'data' / split / label).mkdir(parents=True)
        for i in range(3):
            np.save(tmp_path / 'data' / split / label / f'{label}{i}.npy', rng.integers(0, 255, (1, 20, 20), np.uint8))
    (tmp_path / 'data' / 'test' / 'normal' / 'cut.npy').write_bytes(b'\x93NUMPY')
    said = []
    answers, metrics = evaluate.on(finished[0], 'folder', tmp_path / 'data', store=tmp_path / 'store', say=said.append)
    assert {e.split for e in answers.exams} == {'test'} and answers.label.tolist().count(1) == 3 == len(answers.exams) - 3
    assert 'seen_before' not in metrics['all'] and not answers.columns and metrics['all']['auc']['n'] == 6
    assert [line for line in said if '1 could not be prepared' in line and 'cut' in line]


def test_data_without_labels_are_not_scored(finished, tmp_path):
    np.save(tmp_path / 'a.npy', np.zeros((1, 20, 20), np.uint8))
    (tmp_path / 'table.csv').write_text('id,path,patient,label\na,a.npy,p,\n')
    with pytest.raises(UserError, match='none of 1 exams has a label'):
        evaluate.on(finished[0], 'manifest', tmp_path / 'table.csv', store=tmp_path / 'store')


def test_the_temperature_of_val_is_frozen_and_lowers_the_ece_of_test(tmp_path):
    """Answers three times too sure: the ECE falls, and val says that the temperature was fitted there."""
    rng = np.random.default_rng(5)
    odds = rng.normal(size=800) * 2
    label = (rng.random(800) < 1 / (1 + np.exp(-odds))).astype(int)
    p = table(label, ['val'] * 400 + ['test'] * 400, 1 / (1 + np.exp(-3 * odds)))
    evaluate.write_report(tmp_path, p, level=0.95)
    kept = json.loads((tmp_path / 'calibration.json').read_text())
    t = kept['test']['temperature']['value']
    assert t == kept['val']['temperature']['value'] == calibration.read_temperature(tmp_path) == pytest.approx(3, rel=0.3)
    before, after = (kept['test'][name]['ece'] for name in ('before', 'after'))
    assert after['value'] < before['value'] / 2 and after['low'] == 0 < before['low'] and after['positive'] == 'covid'
    assert kept['test']['after']['brier']['value'] < kept['test']['before']['brier']['value']
    assert 'fitted on these exams' in kept['val']['after']['ece']['note'] and 'note' not in after
    for split in ('val', 'test'):
        assert {'reliability', 'decision'} <= {f.name.split('_')[0] for f in tmp_path.glob(f'*_{split}.png')}


def test_a_val_that_is_told_apart_without_a_fault_does_not_tell_the_temperature(tmp_path):
    report(tmp_path, [0, 1] * 8, ['val'] * 8 + ['test'] * 8, [0.3, 0.8] * 8)
    kept = json.loads((tmp_path / 'calibration.json').read_text())['test']['temperature']
    assert kept['value'] == pytest.approx(0.5, rel=1e-2) and 'at a bound' in kept['note']


def test_without_val_there_is_no_temperature_and_the_reason(tmp_path):
    report(tmp_path, [0, 1] * 20, ['test'] * 40, np.linspace(0.1, 0.9, 40))
    kept = json.loads((tmp_path / 'calibration.json').read_text())['test']
    assert 'after' not in kept and kept['temperature']['value'] is None and 'no validation split' in kept['temperature']['reason']
    assert kept['before']['ece']['low'] is not None and calibration.read_temperature(tmp_path) is None
    report(tmp_path, [-1], ['test'], [0.5])
    assert json.loads((tmp_path / 'calibration.json').read_text()) == {}
    assert calibration.read_temperature(tmp_path / 'nowhere') is None


def seeing(folder, predict, sites):
    """A finished run that learnt from one exam e0 of a patient p0, and answers so."""
    lineage.write(folder, lineage.own(exams(['train']), ['hash of e0']))
    config = small_config()
    config.prep.size = (1, 4, 4)
    config.eval.batch = 4
    run = types.SimpleNamespace(config=config, mesh=make_mesh(jax.devices()[:1]), folder=folder, sites=sites, thresholds={},
                                temperature=None, method=METHOD._replace(predict=predict))
    return run, STATE


def manifest(folder, site):
    for i in range(2):
        np.save(folder / f'{i}.npy', np.full((1, 4, 4), 100 * i, np.uint8))
    (folder / 'table.csv').write_text(f'path,label,site\n0.npy,normal,{site[0]}\n1.npy,covid,{site[1]}\n')
    return folder / 'table.csv'


def test_a_site_is_the_one_of_its_name_or_an_unknown_one(tmp_path):
    def predict(params, state, batch, key=None):
        return {**brightness(params, state, batch), 'at': batch['site']}

    answers, metrics = evaluate.on(seeing(tmp_path, predict, ('lima', 'oslo')), 'manifest', manifest(tmp_path, ('oslo', 'rome')))
    assert answers.columns['at'].tolist() == [1, -1]
    frozen = metrics['all']['threshold_frozen']
    assert frozen['value'] is None and 'frozen none' in frozen['reason'] and 'ece_tempered' not in metrics['all']


def test_other_data_are_answered_with_the_views_of_the_run(tmp_path):
    """By hand: of logits that are 5 and -10 in the two views that the run asks for the probabilities are averaged."""
    def predict(params, state, batch, key=None):
        key = jax.random.key(0) if key is None else key
        of_test = jax.random.fold_in(jax.random.key(7), evaluate.TEST_VIEWS)
        second = jnp.all(jax.random.key_data(key) == jax.random.key_data(jax.random.fold_in(of_test, 1)))
        x = jnp.full(4, jnp.where(second, -10.0, 5.0))
        return {'features': x[:, None], 'logits': jnp.stack([jnp.zeros(4), x], 1)}

    run, state = seeing(tmp_path, predict, ())
    run.config.seed = 7
    run.config.eval.tta = 2
    answers, _ = evaluate.on((run, state), 'manifest', manifest(tmp_path, ('oslo', 'rome')))
    np.testing.assert_allclose(answers.probability[:, 1], (1 / (1 + np.exp(-5)) + 1 / (1 + np.exp(10))) / 2, atol=1e-6)


def test_which_labels_of_other_data_count_as_which_can_be_said(tmp_path):
    """And nothing else: the names of the classes are the run's."""
    table = manifest(tmp_path, ('oslo', 'rome'))
    table.write_text(table.read_text().replace('covid', 'flu').replace('normal', 'noncovid'))
    run = seeing(tmp_path, brightness, ())
    with pytest.raises(UserError, match="label 'flu' is not declared"):
        evaluate.on(run, 'manifest', table)
    answers, _ = evaluate.on(run, 'manifest', table, classes=('noncovid', 'covid|flu'))
    assert answers.label.tolist() == [0, 1] and answers.names == ('noncovid', 'covid')
    with pytest.raises(UserError, match='has the classes noncovid, covid, not flu, noncovid'):
        evaluate.on(run, 'manifest', table, classes=('flu', 'noncovid'))


def test_a_group_is_passed_on_and_a_run_that_does_not_classify_is_asked_nothing(tmp_path):
    table = manifest(tmp_path, ('oslo', 'rome'))
    said = []
    evaluate.on(seeing(tmp_path, brightness, ()), 'manifest', table, group='clusters', say=said.append)
    assert any('by near duplicates 2 exams' in line for line in said)

    def features(params, state, batch, key=None):
        return {'features': batch['label'][:, None]}

    with pytest.raises(UserError, match='does not classify'):
        evaluate.on(seeing(tmp_path, features, ()), 'manifest', table)
