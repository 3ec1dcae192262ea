"""Each run asked about the data of the others: which answers a cell is made of, and what is not asked again."""

import csv
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import single_image_config, small_config
from finished_runs import BINARY, exam, finished, leave, run, scores
from sklearn.metrics import accuracy_score, roc_auc_score

from covid_jax import UserError, config, cross, evaluate, experiment, predictions, stages, start, warm
from covid_jax.data import lineage, pipeline
from covid_jax.predictions import Predictions, of_run, read


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


def test_a_cell_is_of_own_test_answers_or_of_all_exams_of_the_others(tmp_path, monkeypatch, capsys):
    """One has two folds, two has one: against scikit-learn on the tables that are left. Real networks, and what was answered is
    not asked again; the matrix is the last that is printed, and a set without a folder is left out, in a line."""
    experiment.run(tiny(), tmp_path)
    found = matrix_of(tmp_path / 'matrix')
    assert {key[:2] for key in found} == {(row, column) for row in ('one', 'two') for column in ('one', 'two', 'phantom')}
    own = [of_run(tmp_path / f'one/fold{fold}/seed0').of('test') for fold in (0, 1)]
    label = np.concatenate([table.label for table in own])
    p = np.concatenate([table.probability[:, 1] for table in own])
    assert float(found['one', 'one', 'auc']['value']) == pytest.approx(roc_auc_score(label, p), abs=1e-5)
    assert found['one', 'one', 'auc']['exams'] == '16' and found['two', 'two', 'auc']['exams'] == '4'
    asked = [read(tmp_path / f'matrix/one_fold{fold}_seed0_on_two.csv') for fold in (0, 1)]
    assert [len(table.exams) for table in asked] == [16, 16]
    assert {e.id for e in asked[0].exams} >= {e.id for e in of_run(tmp_path / 'two').exams}  # which has val and test
    assert np.abs(asked[0].probability - asked[1].probability).max() > 1e-5  # of two networks
    aucs = [roc_auc_score(table.label, table.probability[:, 1]) for table in asked]
    hits = [accuracy_score(table.label, table.probability[:, 1] > 0.5) for table in asked]
    assert float(found['one', 'two', 'auc']['value']) == pytest.approx(np.mean(aucs), abs=1e-5)
    assert float(found['one', 'two', 'accuracy']['value']) == pytest.approx(np.mean(hits), abs=1e-5)
    assert [found['one', 'two', 'auc'][name] for name in ('exams', 'networks', 'seen')] == ['16', '2', '0']
    assert len(read(tmp_path / 'matrix/two_on_one.csv').exams) == 16
    assert {e.id.split('-')[1] for e in read(tmp_path / 'matrix/two_on_phantom.csv').exams} == {'60', '61', '62'}
    out = capsys.readouterr().out
    assert out.index('predictions, metrics and plots') < out.index('rows: learnt from')

    before = (tmp_path / 'matrix/matrix.csv').read_bytes()
    (tmp_path / 'matrix/matrix.csv').unlink()
    (tmp_path / 'matrix/two_on_one.csv').unlink()
    asked = []
    ask = evaluate.ask
    monkeypatch.setattr(evaluate, 'ask', lambda run, *args: asked.append(run[0].folder) or ask(run, *args))
    experiment.run(tiny(), tmp_path)
    assert asked == [tmp_path / 'two'] and (tmp_path / 'matrix/matrix.csv').read_bytes() == before
    assert 'covid_ct is left out of the matrix, no folder is given' in capsys.readouterr().out


def images(folder, labels=('normal', 'covid'), start=0):
    """A table of 8 images, their labels in turn."""
    folder.mkdir(parents=True)
    lines = ['id,path,label']
    for i in range(8):
        np.save(folder / f'{i}.npy', np.full((1, 4, 4), 10 * (start + i), np.uint8))
        lines.append(f'e{start + i},{i}.npy,{labels[i % len(labels)]}')
    (folder / 'table.csv').write_text('\n'.join(lines) + '\n')
    return folder / 'table.csv'


def trained(folder, table, tested, classes=BINARY, **fields):
    """A finished run of these data that was tested on these of its exams: {id: label}."""
    rows = [(name, 'test', label, (i + 1) / 9) for i, (name, label) in enumerate(tested.items())]
    data = {'method': 'supervised', 'data.source': 'manifest', 'data.root': str(table), **fields}
    finished(folder, rows, config={**data, 'data.classes': list(classes)})
    lineage.write(folder, lineage.own([], []))
    return folder


@pytest.fixture
def two(tmp_path, monkeypatch):
    """The config of a matrix of two runs a and b on images, whose networks are made up; and the list of what was asked: (name
    of the run, ids)."""
    asked = []

    def ask(loaded, survey, store, say):
        asked.append((loaded.name, [e.id for e in survey.exams]))
        names = predictions.of_run(loaded).names
        p = np.random.default_rng(len(loaded.name)).random(len(survey.exams))
        label = np.array([0 if e.label in ('normal', 'noncovid') else 1 for e in survey.exams], np.int32)
        return Predictions(names, survey.exams, label, np.stack([1 - p, p], 1)), {}

    monkeypatch.setattr(start, 'load', lambda folder: folder)
    monkeypatch.setattr(evaluate, 'ask', ask)
    monkeypatch.setattr(warm, 'begun', lambda folder: True)
    for i, name in enumerate('ab'):
        table = images(tmp_path / f'data {name}', start=8 * i)
        trained(tmp_path / 'runs' / name, table, {f'e{8 * i + j}': BINARY[j % 2] for j in range(4)})
    c = small_config()
    c.cross.runs = f'{tmp_path}/runs/a,{tmp_path}/runs/b'
    return c, asked


def test_finished_runs_are_asked_without_training(two, tmp_path, capsys):
    c, asked = two
    assert experiment.run(c, tmp_path / 'w') == {'.': {}}
    of_a, of_b = ([f'e{start + i}' for i in range(8)] for start in (0, 8))
    assert asked == [('a', of_b), ('b', of_a)]
    found = matrix_of(tmp_path / 'w')
    assert [found[*key, 'auc']['exams'] for key in ('aa', 'ab', 'ba', 'bb')] == ['4', '8', '8', '4']
    out = capsys.readouterr().out
    assert 'rows: learnt from' in out and 'nothing is scored' not in out


def test_stopped_between_two_cells_it_goes_on(two, tmp_path, monkeypatch):
    c, asked = two
    ask = evaluate.ask
    monkeypatch.setattr(evaluate, 'ask', lambda *args: pytest.fail('asked') if asked else ask(*args))
    with pytest.raises(pytest.fail.Exception):
        experiment.run(c, tmp_path / 'w')
    assert not (tmp_path / 'w/matrix.csv').exists()
    monkeypatch.setattr(evaluate, 'ask', ask)
    experiment.run(c, tmp_path / 'w')
    assert [name for name, _ in asked] == ['a', 'b'] and len(matrix_of(tmp_path / 'w')) == 16


def test_a_folder_keeps_to_its_runs_and_exams(two, tmp_path):
    """Moved data are the same data; other bytes, or other answers of a run, are not."""
    c, asked = two
    experiment.run(c, tmp_path / 'w')
    a = tmp_path / 'runs/a'
    shutil.move(tmp_path / 'data a', tmp_path / 'moved')
    trained(a, tmp_path / 'moved/table.csv', {f'e{i}': BINARY[i % 2] for i in range(4)})
    experiment.run(c, tmp_path / 'w')
    assert len(asked) == 2
    image = tmp_path / 'moved/7.npy'  # which no run was tested on
    before = image.read_bytes()
    np.save(image, np.full((1, 4, 4), 200, np.uint8))
    with pytest.raises(UserError, match='was started with other scans'):
        experiment.run(c, tmp_path / 'w')
    image.write_bytes(before)
    experiment.run(c, tmp_path / 'w')
    path = a / 'predictions.csv'
    before = path.read_text()
    path.write_text(before.replace('0.8888889,0.11111111', '0.888888,0.111112'))
    assert path.read_text() != before
    with pytest.raises(UserError, match='was started with other scans'):
        experiment.run(c, tmp_path / 'w')
    assert len(asked) == 2


def test_labels_are_read_as_the_matrix_says_of_all_runs_alike(two, tmp_path):
    """b learnt from labels that the config does not know until it is told; the runs' own lists do not matter."""
    c, asked = two
    shutil.rmtree(tmp_path / 'data b')
    table = images(tmp_path / 'data b', ('healthy person', 'covid'), 8)
    trained(tmp_path / 'runs/b', table, {f'e{8 + i}': BINARY[i % 2] for i in range(4)}, ('noncovid|healthy person', 'covid'))
    line = r"no run can be asked about b: e8: label 'healthy person' is not declared: add .* in --config.data.classes"
    with pytest.raises(UserError, match=line):
        experiment.run(c, tmp_path / 'w')
    assert not asked and not (tmp_path / 'w/config.json').exists()
    c.data.classes = ('noncovid|normal|healthy person', 'covid')
    experiment.run(c, tmp_path / 'w')
    assert [name for name, _ in asked] == ['a', 'b']


@pytest.mark.parametrize('change, line', [
    (lambda w: trained(w / 'runs/b', w / 'data b/table.csv', {'e8': 'covid'}), 'e8 was covid when .*/runs/b was tested.*noncovid here'),
    (lambda w: trained(w / 'runs/b', w / 'data b/table.csv', {'e1': 'covid'}), 'b was tested on e1, which its data do not have any'),
    (lambda w: trained(w / 'runs/b', w / 'gone.csv', {'e8': 'noncovid'}), 'nothing at .*gone.csv.*in the command of .*runs/b'),
    (lambda w: (w / 'runs/b/exams.csv').unlink(), 'runs/b holds no exams.csv'),
    (lambda w: (w / 'data b/3.npy').unlink(), 'asked about b: .*1 scan is not there'),
    (lambda w: shutil.copytree(w / 'runs/a', w / 'runs/b', dirs_exist_ok=True) and os.unlink(w / 'runs/b/config.json'),
     'runs/b holds no run that trained a network')])
def test_what_can_be_known_is_said_before_any_network_is_asked(two, tmp_path, change, line):
    c, asked = two
    change(tmp_path)
    with pytest.raises(UserError, match=line):
        experiment.run(c, tmp_path / 'w')
    assert not asked and not (tmp_path / 'w/config.json').exists()


def test_a_run_without_a_checkpoint_is_needed_for_what_it_has_not_answered_alone(two, tmp_path, monkeypatch):
    c, asked = two
    experiment.run(c, tmp_path / 'w')
    monkeypatch.setattr(warm, 'begun', lambda folder: folder.name != 'b')
    experiment.run(c, tmp_path / 'w')
    (tmp_path / 'w/a_on_b.csv').unlink()
    (tmp_path / 'w/b_on_a.csv').unlink()
    with pytest.raises(UserError, match='runs/b holds no finished checkpoint'):
        experiment.run(c, tmp_path / 'w')
    assert len(asked) == 2


@pytest.mark.parametrize('ids, line', [((0, 0), 'the folds of b share exams of test'), ((0, 4), '')])
def test_folds_that_share_exams_are_told_first(two, tmp_path, ids, line):
    c, asked = two
    shutil.rmtree(tmp_path / 'runs/b')
    for fold, first in enumerate(ids):
        rows = [(f'e{8 + first + i}', 'test', BINARY[i % 2], i / 9) for i in range(4)]
        data = {'method': 'supervised', 'data.source': 'manifest', 'data.root': str(tmp_path / 'data b/table.csv')}
        finished(tmp_path / f'runs/b/fold{fold}', rows, fold=fold, folds=2, config=data)
        lineage.write(tmp_path / f'runs/b/fold{fold}', lineage.own([], []))
    if line:
        with pytest.raises(UserError, match=line):
            experiment.run(c, tmp_path / 'w')
    else:
        experiment.run(c, tmp_path / 'w')
        assert matrix_of(tmp_path / 'w')['b', 'b', 'auc']['exams'] == '8'
    assert len(asked) == (0 if line else 3)


def test_a_label_that_no_class_declares_is_told_before_anything_is_trained(tmp_path):
    c = tiny()
    c.matrix.cross.sources = 'manifest'
    c.matrix.cross.roots = str(images(tmp_path / 'data', ('normal', 'flu')))
    with pytest.raises(UserError, match="asked about manifest: e1: label 'flu' is not declared"):
        experiment.run(c, tmp_path / 'w')
    assert not (tmp_path / 'w').exists()


def test_exams_that_are_left_out_are_not_asked_about(two, tmp_path):
    """A run's own list holds for its data, the matrix's for the data that no run is of."""
    c, asked = two
    (tmp_path / 'list.txt').write_text('e15\n')
    (tmp_path / 'other.txt').write_text('e16\n')
    trained(tmp_path / 'runs/b', tmp_path / 'data b/table.csv', {'e8': 'noncovid', 'e9': 'covid'},
            **{'data.exclude': str(tmp_path / 'list.txt')})
    c.cross.update({'sources': 'manifest', 'roots': str(images(tmp_path / 'third', start=16))})
    c.data.exclude = str(tmp_path / 'other.txt')
    experiment.run(c, tmp_path / 'w')
    ids = [f'e{i}' for i in range(24)]
    assert asked == [('a', ids[8:15]), ('a', ids[17:]), ('b', ids[:8]), ('b', ids[17:])]


def test_a_column_is_of_the_sites_that_its_run_took(two, tmp_path):
    """Two runs on one table, each on one of its sites: what the matrix is made for."""
    c, asked = two
    table = images(tmp_path / 'both')
    lines = table.read_text().split()
    table.write_text('\n'.join([f'{lines[0]},site', *(f'{line},{"oslo" if i < 4 else "rome"}' for i, line in enumerate(lines[1:]))]))
    for name, site, first in (('a', 'oslo', 0), ('b', 'rome', 4)):
        trained(tmp_path / 'runs' / name, table, {f'e{first + j}': BINARY[j % 2] for j in range(2)}, **{'data.sites': [site]})
    experiment.run(c, tmp_path / 'w')
    assert asked == [('a', ['e4', 'e5', 'e6', 'e7']), ('b', ['e0', 'e1', 'e2', 'e3'])]


def test_each_column_is_asked_about_as_its_run_has_it(two, tmp_path, monkeypatch):
    """Where the data lie, and whose exams count as one patient's; of a set that no run is of, as the matrix says."""
    c, _ = two
    trained(tmp_path / 'runs/b', tmp_path / 'data b/table.csv', {'e8': 'noncovid'}, **{'data.group': 'clusters'})
    surveyed = []
    survey = pipeline.survey_test

    def survey_test(asked, store, say):
        surveyed.append((asked.data.source, asked.data.root, asked.data.group, asked.data.phantom.kind))
        asked.data.group = 'source'  # clusters would prepare scans
        return survey(asked, store, say)

    monkeypatch.setattr(pipeline, 'survey_test', survey_test)
    third = str(images(tmp_path / 'third', start=16))
    c.cross.update({'sources': 'manifest,phantom', 'roots': f'{third},'})
    c.data.phantom.kind = 'xray'
    cross.run(c, tmp_path / 'w')
    assert surveyed == [('manifest', str(tmp_path / 'data a/table.csv'), 'source', 'ct'),
                        ('manifest', str(tmp_path / 'data b/table.csv'), 'clusters', 'ct'),
                        ('manifest', third, 'source', 'xray'), ('phantom', '', 'source', 'xray')]


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
