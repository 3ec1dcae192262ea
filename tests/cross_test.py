"""Each run asked about the data of the others: which answers a cell is made of, and what is not asked again."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import single_image_config, small_config
from finished_runs import BINARY, exam, finished, leave, run, scores
from sklearn.metrics import accuracy_score, roc_auc_score

from covid_jax import UserError, config, cross, evaluate, experiment, stages, start
from covid_jax.predictions import of_run, read


def matrix_of(folder):
    """{(row, column): the row of matrix.csv of a metric}."""
    with (folder / 'matrix.csv').open(newline='') as f:
        return {(row['row'], row['column'], row['metric']): row for row in csv.DictReader(f)}


def tiny(folds=2):
    """Two stages of other phantoms, and their matrix with a third set."""
    c = single_image_config(epochs=1.0)
    with c.unlocked():
        c.folds = folds
        config.set_stages(c, {
            'one': {'kind': 'train', 'data': {'phantom': {'seed': 1, 'train': 8, 'val': 2, 'test': 6}}},
            'two': {'kind': 'train', 'folds': 1, 'data': {'phantom': {'seed': 9, 'train': 8, 'val': 4, 'test': 4}}},
            'matrix': {'kind': 'cross', 'cross': {'runs': 'one,two', 'sources': 'phantom,covid_ct'},
                       'data': {'phantom': {'seed': 20, 'train': 2, 'val': 2, 'test': 4}}}})
        c.folds = folds
    return c


@pytest.fixture(scope='module')
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cross')
    experiment.run(tiny(), folder)
    return folder


def test_a_cell_is_of_own_test_answers_or_of_all_exams_of_the_others(done):
    """One has two folds, two has one: against scikit-learn on the tables that are left."""
    found = matrix_of(done / 'matrix')
    assert {key[:2] for key in found} == {(row, column) for row in ('one', 'two') for column in ('one', 'two', 'phantom')}
    own = [of_run(done / f'one/fold{fold}/seed0').of('test') for fold in (0, 1)]
    label = np.concatenate([table.label for table in own])
    p = np.concatenate([table.probability[:, 1] for table in own])
    assert float(found['one', 'one', 'auc']['value']) == pytest.approx(roc_auc_score(label, p), abs=1e-5)
    assert found['one', 'one', 'auc']['exams'] == '16' and found['two', 'two', 'auc']['exams'] == '4'
    asked = [read(done / f'matrix/one_fold{fold}_seed0_on_two.csv') for fold in (0, 1)]
    assert [len(table.exams) for table in asked] == [16, 16]
    assert {e.id for e in asked[0].exams} >= {e.id for e in of_run(done / 'two').exams}  # which has val and test
    assert np.abs(asked[0].probability - asked[1].probability).max() > 1e-5  # of two networks
    aucs = [roc_auc_score(table.label, table.probability[:, 1]) for table in asked]
    hits = [accuracy_score(table.label, table.probability[:, 1] > 0.5) for table in asked]
    assert float(found['one', 'two', 'auc']['value']) == pytest.approx(np.mean(aucs), abs=1e-5)
    assert float(found['one', 'two', 'accuracy']['value']) == pytest.approx(np.mean(hits), abs=1e-5)
    assert [found['one', 'two', 'auc'][name] for name in ('exams', 'networks', 'seen')] == ['16', '2', '0']
    assert len(read(done / 'matrix/two_on_one.csv').exams) == 16
    assert {e.id.split('-')[1] for e in read(done / 'matrix/two_on_phantom.csv').exams} == {'60', '61', '62'}


def test_what_was_answered_is_not_asked_again(done, monkeypatch, capsys):
    """And a set without a folder is left out, in a line."""
    before = (done / 'matrix/matrix.csv').read_bytes()
    (done / 'matrix/two_on_one.csv').unlink()
    asked = []
    on = evaluate.on
    monkeypatch.setattr(evaluate, 'on', lambda run, *args, **more: asked.append(run[0].folder) or on(run, *args, **more))
    experiment.run(tiny(), done)
    assert asked == [done / 'two'] and (done / 'matrix/matrix.csv').read_bytes() == before
    out = capsys.readouterr().out
    assert 'covid_ct is left out of the matrix, no folder is given' in out and 'rows: learnt from' in out


def test_finished_runs_are_asked_without_training(done, tmp_path, capsys):
    c = small_config()
    c.cross.runs = f'{done}/two,{done}/one'
    c.data.store = f'{done}/store'
    assert experiment.run(c, tmp_path / 'w') == {'.': {}}
    found = matrix_of(tmp_path / 'w')
    for key in (('one', 'one'), ('one', 'two'), ('two', 'one'), ('two', 'two')):
        assert found[*key, 'auc'] == matrix_of(done / 'matrix')[*key, 'auc']
    assert 'nothing was evaluated' not in capsys.readouterr().out


def test_each_column_is_asked_about_as_its_run_has_it(tmp_path, monkeypatch):
    """Where the data lie, and whose exams count as one patient's; of a set that no run is of, as the matrix says."""
    rows = [(f'{i}', 'test', BINARY[i % 2], i / 9) for i in range(8)]
    for name, group in (('a', 'source'), ('b', 'clusters')):
        data = {'data.source': 'folder', 'data.root': str(tmp_path / f'of {name}'), 'data.group': group}
        finished(tmp_path / 'runs' / name, rows, config=data)
    asked = []

    def on(loaded, source, root, *, store, group, say):
        asked.append((loaded[0].folder.name, source, root, group, loaded[0].config.data.phantom.kind))
        return of_run(tmp_path / 'runs/a'), {}

    def opened(folder):
        return start.Run(small_config(), folder, None, None, None), None

    monkeypatch.setattr(start, 'load', opened)
    monkeypatch.setattr(evaluate, 'on', on)
    c = small_config()
    c.cross.update({'runs': f'{tmp_path}/runs/a,{tmp_path}/runs/b', 'sources': 'manifest,phantom', 'roots': f'{tmp_path},'})
    c.data.phantom.kind = 'xray'
    cross.run(c, tmp_path / 'w')
    of_columns = [('folder', str(tmp_path / 'of b'), 'clusters', 'ct'), ('folder', str(tmp_path / 'of a'), 'source', 'ct')]
    test_only = [('manifest', str(tmp_path), 'source', 'xray'), ('phantom', '', 'source', 'xray')]
    assert asked == [(row, *column) for row, other in zip('ab', of_columns, strict=True) for column in (other, *test_only)]


def cell_of(tmp_path, tables, quality=2.0, change=lambda exam: exam):
    """The cell of a run of so many networks, whose answers about 'there' have these exams."""
    row = 'here', [SimpleNamespace(fold=0, seed=seed, predictions=SimpleNamespace(names=BINARY)) for seed in range(tables)]
    exams = [change(exam(i)._replace(label=BINARY[i % 2])) for i in range(40)]
    for i in range(tables):
        path = cross.answers(row, i, 'there', tmp_path)
        leave(tmp_path / f'{i}', exams, scores(40, quality, i), BINARY, {'seen': np.arange(40) < 3})
        (tmp_path / f'{i}/predictions.csv').rename(path)
    return cross.cell(row, 'there', tmp_path, 0.95)


def test_exams_that_a_network_learnt_from_are_counted_once(tmp_path):
    found = cell_of(tmp_path, 2)
    assert (found.seen, found.exams, found.patients, found.networks, found.folds) == (3, 40, 40, 2, 1)


def test_one_sick_patient_gives_no_interval(tmp_path):
    """As COVID-CT-MD here: twenty slices of one patient, and others of two."""
    found = cell_of(tmp_path, 1, change=lambda e: e._replace(patient='P001' if e.label == 'covid' else f'cap{len(e.id) % 2}'))
    entry = found.entries['auc']
    assert entry['value'] is not None and entry['low'] is None and '1 patient of class covid, 2 needed' in entry['reason']


@pytest.mark.parametrize('fields, line', [
    ({'runs': 'a,./a'}, 'all different'), ({'runs': 'a,'}, 'must be folders of finished runs'),
    ({'runs': 'a', 'sources': 'covid_ct,luna16', 'roots': 'x'}, 'names 2 data sets and --config.cross.roots 1 folders'),
    ({'runs': 'a', 'sources': 'covid_ct', 'roots': 'nowhere'}, 'there is nothing at nowhere'),
    ({'runs': 'a', 'sources': 'covid-ct', 'roots': 'nowhere'}, "no data source 'covid-ct'"),
    ({'runs': 'a', 'sources': 'phantom,phantom'}, "two columns of the matrix are called 'phantom'"),
    ({'runs': 'nowhere'}, 'there is no folder nowhere'), ({'runs': 'a'}, 'trained a network'),
    ({'runs': 'b'}, 'has the classes normal, covid, not noncovid, covid')])
def test_what_cannot_be(tmp_path, monkeypatch, fields, line):
    """a: answers that no network gave. b: of other classes."""
    monkeypatch.chdir(tmp_path)
    leave(tmp_path / 'a', [exam(i)._replace(label=BINARY[i % 2]) for i in range(4)], scores(4, 1, 0), BINARY)
    run(tmp_path / 'b', 1.0)
    c = small_config()
    c.cross.update(fields)
    with pytest.raises(UserError, match=line):
        experiment.run(c, tmp_path / 'w')


def test_a_matrix_is_one_part_of_all_folds_and_seeds():
    c = tiny(3)
    c.seeds = 2
    (part,) = [part for part in stages.parts(c, 'w') if part.config.kind == 'cross']
    assert part.config.cross.runs == 'w/one,w/two' and str(part.folder) == 'matrix'
    c.cross.runs = 'a'
    c.choose.runs = 'a,b'
    with pytest.raises(UserError, match='not both'):
        stages.parts(c, 'w')
