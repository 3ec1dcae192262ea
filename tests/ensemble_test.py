import csv
import json
import shutil

import numpy as np
import pytest
from conftest import small_config

from covid_jax import UserError, ensemble
from covid_jax.predictions import of_run
from covid_jax.report import evidence

HEADER = ['id', 'patient', 'site', 'split', 'label', 'p_noncovid', 'p_covid']


def write(folder, rows, header=HEADER):
    """A run's predictions from (id, split, label, p of covid)."""
    folder.mkdir(parents=True)
    with open(folder / 'predictions.csv', 'w', newline='') as f:
        csv.writer(f).writerows([header, *([n, f'of {n}', 'here', s, label, f'{1 - p:.6f}', f'{p:.6f}']
                                           for n, s, label, p in rows)])
    return str(folder)


def average(folders, workdir):
    config = small_config()
    config.ensemble.runs = ','.join(folders)
    return ensemble.average(config, workdir)


A = [('a', 'val', 'noncovid', 0.1), ('b', 'val', 'covid', 0.4), ('c', 'test', 'covid', 0.6), ('d', 'test', 'noncovid', 0.7),
     ('e', 'test', '', 0.2)]
B = [('e', 'test', '', 0.9), ('d', 'test', 'noncovid', 0.1), ('c', 'test', 'covid', 0.5), ('b', 'val', 'covid', 0.8),
     ('a', 'val', 'noncovid', 0.3)]


@pytest.fixture
def folders(tmp_path):
    return [write(tmp_path / 'one', A), write(tmp_path / 'two', B)]


def test_probabilities_are_averaged_by_exam(tmp_path, folders):
    """By hand, whatever the order of rows: a 0.2, b 0.6, c 0.55, d 0.4, e 0.55."""
    metrics = average(folders, tmp_path / 'mean')
    with open(tmp_path / 'mean' / 'predictions.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert [(r['id'], r['patient'], r['split'], r['label']) for r in rows] == [(n, f'of {n}', s, t) for n, s, t, _ in A]
    np.testing.assert_allclose([float(r['p_covid']) for r in rows], [0.2, 0.6, 0.55, 0.4, 0.55], atol=1e-6)
    assert metrics == json.loads((tmp_path / 'mean' / 'metrics.json').read_text())
    assert [metrics[split]['all']['accuracy']['value'] for split in ('val', 'test')] == [1, 1]  # each run alone has errors
    assert (tmp_path / 'mean' / 'submission' / 'covid.csv').read_text().strip() == 'e'
    assert (tmp_path / 'mean' / 'roc_runs_test.png').exists()
    assert average(folders, tmp_path / 'mean') == metrics


def test_the_first_run_s_shortcut_probes_stand_beside_the_mean(tmp_path, folders):
    """Whichever order its rows are in: by exam. Of other exams nothing is written."""
    for folder in folders:
        evidence.leave(folder, {'thumbnail': of_run(folder), 'nearest neighbours': of_run(folder)})
    average(folders[::-1], tmp_path / 'mean')
    left, notes = evidence.read(tmp_path / 'mean')
    np.testing.assert_array_equal(left['thumbnail'].probability, of_run(folders[1]).probability)
    assert list(left) == ['thumbnail'] and not notes
    evidence.leave(folders[0], {'thumbnail': of_run(write(tmp_path / 'fewer', A[1:]))})
    with pytest.raises(UserError, match='did not answer the same exams'):
        average(folders, tmp_path / 'refused')
    assert not (tmp_path / 'refused').exists()


def test_a_folder_keeps_to_its_exams(tmp_path, folders):
    """And says in config.json what an ensemble has, no more."""
    average(folders, tmp_path / 'mean')
    kept = json.loads((tmp_path / 'mean' / 'config.json').read_text())
    assert kept.keys() == {'dataset', 'row', 'kind', 'seed', 'ensemble', 'data', 'eval'} and kept['eval'].keys() == {'level'}
    before = (tmp_path / 'mean' / 'predictions.csv').read_bytes()
    others = [write(tmp_path / 'other' / name, A[1:]) for name in ('one', 'two')]
    for folder, other in zip(folders, others, strict=True):
        shutil.copy(f'{other}/predictions.csv', folder)
    with pytest.raises(UserError, match='other scans'):
        average(folders, tmp_path / 'mean')
    assert (tmp_path / 'mean' / 'predictions.csv').read_bytes() == before


@pytest.mark.parametrize('line', ['a,of a,here,val,noncovid,0.9', 'a,of a,here,val,noncovid,0.9,x', 'a,of a,here,val,cat,0.9,0.1',
                                  'a,of a,here,val,noncovid,nan,nan', 'a,of a,here,val,noncovid,2,-1', 'a', '',
                                  'f,of f,here,val,noncovid,0.9,0.9', 'a,of a,here,val,noncovid,0.700000,0.300000'])
def test_damaged_predictions(tmp_path, folders, line):
    """And nothing is half-written."""
    with open(tmp_path / 'two' / 'predictions.csv', 'a') as f:
        f.write(line + '\n')
    with pytest.raises(UserError, match='two/predictions.csv line 7 is damaged'):
        average(folders, tmp_path / 'mean')
    assert not (tmp_path / 'mean').exists()


@pytest.mark.parametrize('change, message', [
    (lambda rows: rows[:-1], '1 differ, one is a'),
    (lambda rows: [(n, s, 'covid' if n == 'd' else t, p) for n, s, t, p in rows], 'd has another label in .*two than in .*one: take runs of the same data'),
    (lambda rows: [(n, 'val' if n == 'c' else s, t, p) for n, s, t, p in rows], '2 differ, one is c'),
])
def test_runs_of_other_exams(tmp_path, change, message):
    folders = [write(tmp_path / 'one', A), write(tmp_path / 'two', change(B))]
    with pytest.raises(UserError, match=message):
        average(folders, tmp_path / 'mean')
    assert not (tmp_path / 'mean').exists()


def test_folders_that_are_no_runs(tmp_path, folders):
    with pytest.raises(UserError, match='names a run twice'):
        average([folders[0], folders[0] + '/'], tmp_path / 'mean')
    (tmp_path / 'two' / 'predictions.csv').write_text('')
    with pytest.raises(UserError, match='the columns of nothing'):
        average(folders, tmp_path / 'mean')
    with pytest.raises(UserError, match='nowhere holds no predictions.csv: give the folder of a finished run'):
        average([str(tmp_path / 'nowhere'), str(tmp_path / 'neither')], tmp_path / 'mean')
    write(tmp_path / 'seeds' / 'fold0' / 'seed1', A)
    with pytest.raises(UserError, match='as .*seeds/fold0/seed1$'):
        average([str(tmp_path / 'seeds'), str(tmp_path / 'neither')], tmp_path / 'mean')
    folder = write(tmp_path / 'three', [], [*HEADER[:-1], 'p_covid', 'p_pneumonia'])
    with pytest.raises(UserError, match='p_pneumonia, and these classes .*p_covid$'):
        average([folder, str(tmp_path / 'neither')], tmp_path / 'mean')


def test_curves_are_called_as_short_as_they_can_be():
    assert ensemble.short(['runs/a', 'runs/b']) == ['a', 'b']
    assert ensemble.short(['/w/model1/fold0/seed0', '/w/model3/fold0/seed0']) == ['model1', 'model3']
    assert ensemble.short(['a', 'a/b']) == ['a', 'a/b']
    assert ensemble.short(['a', 'a']) == ['a', 'a']
