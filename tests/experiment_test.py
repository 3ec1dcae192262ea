import contextlib
import csv
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import small_config
from finished_runs import NAMES, exam, leave, scores
from ml_collections import ConfigDict

from covid_jax import UserError, config, experiment, stages, start
from covid_jax.methods.method import build_network
from covid_jax.predictions import Predictions
from covid_jax.report import evidence
from covid_jax.runtime import workdir
from covid_jax.runtime.mesh import make_mesh


def test_folds_and_seeds_have_their_own_folders_and_one_table(tmp_path, capsys, rng):
    """Every patient is in test once over the folds."""
    for i in range(12):
        folder = tmp_path / 'data' / ('covid' if i % 2 else 'normal')
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f'{i}.npz', hu=rng.integers(-1000, 400, (8, 16, 16)).astype(np.int16))
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.folds, c.seeds = 2, 2
        c.train.epochs = 1.0
        c.eval.tta = 0
        c.data.source, c.data.root = 'folder', str(tmp_path / 'data')
    results = experiment.run(c, tmp_path / 'run')
    parts = [f'fold{f}/seed{s}' for f in (0, 1) for s in (0, 1)]
    assert list(results) == parts
    tested = []
    for part in parts:
        lines = (tmp_path / 'run' / part / 'predictions.csv').read_text().splitlines()[1:]
        tested.append({line.split(',')[0] for line in lines if ',test,' in line})
        assert json.loads((tmp_path / 'run' / part / 'metrics.json').read_text()) == results[part]
    assert tested[0] == tested[1] and tested[2] == tested[3]
    assert not tested[0] & tested[2] and len(tested[0] | tested[2]) == 12
    assert len(list((tmp_path / 'run' / 'store').glob('*/table.json'))) == 1  # prepared once
    printed = capsys.readouterr().out
    assert '2 folds x 2 seeds' in ' '.join(printed.split()) and 's.d. folds' in printed


def test_a_stage_starts_from_an_earlier_one_and_a_third_takes_the_better(tmp_path, capsys):
    c = small_config()
    with c.unlocked():
        c.stages = ('first', 'second', 'taken')
        c.first = ConfigDict({'method': 'supervised', 'train': {'epochs': 1.0}})
        c.second = ConfigDict({'init_from': 'first', 'train': {'epochs': 1.0}})
        c.taken = ConfigDict({'choose': {'runs': 'first,second', 'by': 'auc'}})
        c.eval.tta = 0
    results = experiment.run(c, tmp_path)
    assert list(results) == ['taken']
    of_val = {stage: json.loads((tmp_path / stage / 'metrics.json').read_text())['val']['all']['auc']['value']
              for stage in ('first', 'second')}
    taken = json.loads((tmp_path / 'taken' / 'chosen.json').read_text())
    assert taken['val'] == {f'../{stage}': score for stage, score in of_val.items()}
    assert of_val[taken['chosen'].removeprefix('../')] == max(of_val.values())
    chosen = tmp_path / 'taken' / taken['chosen']
    assert (tmp_path / 'taken' / 'predictions.csv').read_bytes() == (chosen / 'predictions.csv').read_bytes()
    assert [line[:2] for line in csv.reader((tmp_path / 'results.csv').read_text().splitlines())][-1] == ['taken', 'test']
    assert json.loads((tmp_path / 'first' / 'config.json').read_text())['method'] == 'supervised'
    assert json.loads((tmp_path / 'second' / 'config.json').read_text())['init_from'] == '../first'
    out = capsys.readouterr().out
    assert f"started from {tmp_path / 'first'}; freshly initialised: network/classifier/" in out
    assert 'network/classifier/Dense_0/kernel, log_sigma, projector' in out


def folders(c):
    return [str(part.folder) for part in stages.parts(c, 'w')]


def test_a_stage_of_one_fold_and_seed_is_done_once_and_found_by_all():
    """By its own folds=1, seeds=1, or one of the two; without them it has as many as the rest."""
    c = small_config()
    with c.unlocked():
        c.folds, c.seeds = 2, 2
        config.set_stages(c, {'once': {'folds': 1, 'seeds': 1}, 'folded': {'seeds': 1, 'init_from': 'once'},
                              'all': {'init_from': 'folded'}})
    assert folders(c) == ['once', 'folded/fold0', 'folded/fold1', 'all/fold0/seed0', 'all/fold0/seed1', 'all/fold1/seed0',
                          'all/fold1/seed1']
    sources = {str(part.folder): part.config.init_from for part in stages.parts(c, 'w')}
    assert sources['folded/fold1'] == 'w/once' and sources['all/fold1/seed0'] == 'w/folded/fold1'
    c.folds = 1
    assert folders(c) == ['once', 'folded', 'all/fold0/seed0', 'all/fold0/seed1']
    c.folds, c.seeds = 1, 1
    assert folders(c) == ['once', 'folded', 'all']
    c.once.folds = 3
    with pytest.raises(UserError, match='--config.once.folds=3 must be 1 or as --config.folds, 1'):
        stages.parts(c, 'w')


def test_a_stage_names_what_comes_before_it():
    c = small_config()
    with c.unlocked():
        config.set_stages(c, {'one': {'init_from': 'two'}, 'two': {}})
    with pytest.raises(UserError, match="stage 'one' names 'two', which does not come before it"):
        stages.parts(c, 'w')


def test_what_is_made_of_finished_runs_is_of_no_row_but_one_that_is_made_so():
    """Model5 is the mean of three; a mean of any runs is no Model4."""
    for row, kept in (('model4', False), ('model5', True)):
        c = small_config(f'{row},size=small')
        named = c.row
        assert named == f'cmc:{row},size=small,encoder=paper'
        c.ensemble.runs = 'a,b'
        assert [part.config.row for part in stages.parts(c, 'w')] == [named if kept else '']


def test_one_cannot_start_from_a_choice():
    c = small_config()
    with c.unlocked():
        config.set_stages(c, {'one': {}, 'two': {}, 'best': {'choose': {'runs': 'one,two'}}, 'after': {'init_from': 'best'}})
    with pytest.raises(UserError, match="'after' starts from 'best', which trains nothing"):
        stages.parts(c, 'w')


def test_one_cannot_start_from_several():
    c = small_config()
    with c.unlocked():
        config.set_stages(c, {'many': {}, 'once': {'folds': 1, 'init_from': 'many'}})
        c.folds = 3
    with pytest.raises(UserError, match="'once' has one of folds and names 'many', which has 3"):
        stages.parts(c, 'w')
    c.fold = 2
    with pytest.raises(UserError, match='--config.fold=2 is for a run to set'):
        stages.parts(c, 'w')


def test_a_source_that_is_none_is_said_before_anything_is_read(tmp_path):
    c = small_config()
    c.init_from = str(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='nowhere is to be started from and is no folder'):
        experiment.run(c, tmp_path / 'run')
    assert not [*tmp_path.iterdir()]


def test_a_kind_that_is_none():
    c = small_config()
    c.kind = 'rnak'
    with pytest.raises(UserError, match='--config.kind=rnak must be one of train, ensemble, choose'):
        stages.parts(c, 'w')


def test_a_stage_may_not_be_called_like_a_field():
    c = small_config()
    with c.unlocked():
        c.stages = ('model',)
    with pytest.raises(UserError, match="'model': a field or a folder of that name"):
        stages.parts(c, 'w')


def test_a_stage_without_overrides():
    c = small_config()
    with c.unlocked():
        c.stages = ('luna',)
    with pytest.raises(UserError, match='luna'):
        stages.parts(c, '.')


def test_the_batch_of_a_run_is_kept_on_other_devices(tmp_path):
    c = small_config()
    with c.unlocked():
        c.train.batch = 0
    first = start.build(c, tmp_path, jax.devices()[:1]).config
    assert first.train.batch == 8 and c.train.batch == 0
    workdir.keep(workdir.fields(first), tmp_path, dataset='digest')
    assert start.build(c, tmp_path, jax.devices()[:2]).config.train.batch == 8
    with pytest.raises(UserError, match='multiple of 3'):
        start.build(c, tmp_path, jax.devices()[:3])


def model5():
    """The row, with tiny networks and a phantom for each of 16, 8 and 8."""
    c = small_config('model5,size=small')
    with c.unlocked():
        for stage, name in (('model1', '_ResNetTiny'), ('model3', '_ResNeStTiny'), ('model4', '_ResNeStTiny')):
            c[stage].model.name = name
            c[stage].views.depth = 6
        c.train.update(epochs=1.0, lr=1e-2)
    return c


@pytest.fixture(scope='module')
def ensemble(tmp_path_factory):
    """The folder of model5, and what was returned and printed."""
    workdir = tmp_path_factory.mktemp('model5')
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        results = experiment.run(model5(), workdir)
    return workdir, results, printed.getvalue()


def predicted(folder):
    with open(folder / 'predictions.csv', newline='') as f:
        return {row['id']: (row['split'], row['label'], float(row['p_covid'])) for row in csv.DictReader(f)}


def test_model5_is_the_mean_of_three_stages(ensemble):
    workdir, results, printed = ensemble
    stages = [predicted(workdir / stage) for stage in ('model1', 'model3', 'model4')]
    mean = predicted(workdir / 'model5')
    assert len(mean) == 16 and all(stage.keys() == mean.keys() for stage in stages)
    for name, (*rest, p) in mean.items():
        assert all([*stage[name][:2]] == rest for stage in stages)
        assert p == pytest.approx(np.mean([stage[name][2] for stage in stages]), abs=2e-6)
    assert len({stage[name][2] for stage in stages}) == 3
    assert {p.name for p in (workdir / 'model5').iterdir()} == {
        'config.json', 'metrics.json', 'predictions.csv', 'roc.png', 'confusion_val.png', 'confusion_test.png',
        'roc_runs_val.png', 'roc_runs_test.png', 'reliability_val.png', 'reliability_test.png', 'decision_val.png',
        'decision_test.png', 'calibration.json', 'exams.csv', 'results.json', 'seconds.json', 'evidence'}
    left, notes = evidence.read(workdir / 'model5')
    assert list(left) == ['thumbnail', 'border', 'file'] and not notes
    for kind, of_kind in evidence.read(workdir / 'model1')[0].items():
        np.testing.assert_array_equal(left[kind].probability, of_kind.probability)
    assert 'AUC' in printed and 'of the mean of the runs is' in ' '.join(printed.split())
    assert list(results) == ['model5'] and results['model5']['test']['all']['accuracy']['n'] == 8
    assert len(list((workdir / 'store').glob('*/table.json'))) == 1  # prepared once
    rows = [line.removeprefix('\u2502').split()[0] for line in printed.splitlines() if line.startswith('\u2502m')]
    assert rows[:4] == ['model1', 'model3', 'model4', 'model5']


def test_finished_runs_are_averaged_and_nothing_is_trained(ensemble, tmp_path):
    workdir, results, _ = ensemble
    c = small_config()
    c.ensemble.runs = ','.join(str(workdir / stage) for stage in ('model1', 'model3', 'model4'))
    assert experiment.run(c, tmp_path)['.'] == results['model5']
    assert (tmp_path / 'predictions.csv').read_bytes() == (workdir / 'model5' / 'predictions.csv').read_bytes()
    assert not (tmp_path / 'checkpoints').exists() and not (tmp_path / 'store').exists()
    assert '## what simpler evidence reaches: test' in (tmp_path / 'results.md').read_text()
    c.ensemble.runs = ','.join(str(workdir / stage) for stage in ('model1', 'model4'))
    with pytest.raises(UserError, match='another run'):
        experiment.run(c, tmp_path)


@pytest.mark.parametrize('runs', [',', 'a', 'a,', ',a', 'a,,b'])
def test_an_ensemble_is_of_two_or_more(tmp_path, runs):
    c = small_config()
    c.ensemble.runs = runs
    with pytest.raises(UserError, match='two or more'):
        experiment.run(c, tmp_path)


def folds_with(folder, *left):
    """Made-up parts of a run in as many folds as are given, each with {kind: its AUC is 1 or 0} and notes: what is pooled."""
    parts = []
    for fold, (right, notes) in enumerate(left):
        exams = [exam(i) for i in range(40) if i // 2 % len(left) == fold]
        label = np.array([NAMES.index(e.label) for e in exams], np.int32)
        parts.append(stages.Part('', fold, 0, Path(f'fold{fold}'), small_config()))
        leave(folder / f'fold{fold}', exams, scores(40, 1, 0)[:len(exams)])
        answers = {kind: Predictions(NAMES, exams, label, np.eye(2)[label if told else 1 - label]) for kind, told in right.items()}
        evidence.leave(folder / f'fold{fold}', answers, notes)
    return experiment.beside(parts, folder, 'test')


def test_evidence_of_folds_is_pooled_and_what_one_lacks_is_said(tmp_path):
    """The site is told alike in two folds of three."""
    whole = {'no lungs': True, 'file': True}
    found = folds_with(tmp_path, (whole, ('lungs filled', 'site 0.7')), ({'file': False}, ('no lungs were found', 'site 0.7')),
                       (whole, ('lungs filled', 'site 0.6')))
    assert list(found.rows) == ['the network', 'file'] and found.rows['file']['n'] == 40
    assert found.rows['file']['value'] < 1  # of the fold in which it is wrong, too
    assert found.notes == ('lungs filled (2 of 3 parts)', 'site 0.7 (2 of 3 parts)', 'no lungs were found (1 of 3 parts)',
                           'site 0.6 (1 of 3 parts)', 'no lungs is not shown, for it is lacking in fold1')


def test_evidence_of_which_all_folds_have_the_same_is_said_once(tmp_path):
    found = folds_with(tmp_path, ({'file': True}, ('as it is',)), ({'file': True}, ('as it is',)))
    assert found.notes == ('as it is',) and found.rows['file']['value'] == 1


def test_a_reason_stands_beside_folds_that_have_no_evidence(tmp_path):
    found = folds_with(tmp_path / 'reason', ({}, ('one class',)), ({'border': True}, ()), ({}, ()))
    assert list(found.rows) == ['the network'] and found.best == ''
    assert found.notes == ('one class (1 of 3 parts)', 'border is not shown, for it is lacking in fold0, fold2')
    assert folds_with(tmp_path / 'alone', ({}, ('one class',))).notes == ('one class',)
    assert folds_with(tmp_path / 'nothing', ({}, ()), ({}, ())) is None


def test_each_seed_has_its_ensemble(tmp_path, capsys):
    """0.1 and 0.3 make 0.2, 0.5 and 0.9 make 0.7: by hand."""
    header = 'id,patient,site,split,label,p_noncovid,p_covid'
    for run, answers in (('a', (0.1, 0.5)), ('b', (0.3, 0.9))):
        for seed, p in enumerate(answers):
            folder = tmp_path / run / 'fold0' / f'seed{seed}'
            folder.mkdir(parents=True)
            (folder / 'predictions.csv').write_text(f'{header}\nx,x,here,test,covid,{1 - p},{p}\n')
    c = small_config()
    c.seeds, c.ensemble.runs = 2, f'{tmp_path}/a, {tmp_path}/b'
    results = experiment.run(c, tmp_path / 'mean')
    assert [predicted(tmp_path / 'mean' / part)['x'][2] for part in results] == [0.2, 0.7]
    assert [r['test']['all']['accuracy']['value'] for r in results.values()] == [0, 1]
    assert '2 seeds' in ' '.join(capsys.readouterr().out.split())


def test_a_stage_that_overrides_what_is_not_there(tmp_path):
    c = small_config()
    with c.unlocked():
        c.stages = ('luna',)
        c.luna = ConfigDict({'train': {'epoch': 3}})
    with pytest.raises(UserError, match='luna.*epoch'):
        stages.parts(c, tmp_path)


@pytest.mark.parametrize('field, value, message', [('model.pretrained', 'nowhere.pth', 'nowhere.pth'),
                                                   ('train.batch', 9, r'--config\.model4\.train\.batch=9'), ('model.name', 'ResNest', 'ResNeSt')])
def test_the_last_stage_is_checked_before_the_first_trains(tmp_path, field, value, message):
    c = model5()
    with c.unlocked():
        section, name = field.split('.')
        c.model4[section][name] = value
    with pytest.raises(UserError, match=message):
        experiment.run(c, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_evaluated_again(tmp_path):
    """With other passes: other predictions, the same checkpoints, and a config that says so."""
    c = small_config('model1,size=small')
    c.model.name, c.train.epochs, c.eval.tta = '_ResNetTiny', 1.0, 0
    experiment.run(c, tmp_path)
    plain, steps = predicted(tmp_path), sorted(p.name for p in (tmp_path / 'checkpoints').iterdir())
    rows = (tmp_path / 'metrics.jsonl').read_bytes()
    c.eval.tta = 3
    experiment.run(c, tmp_path)
    again = predicted(tmp_path)
    assert again.keys() == plain.keys() and again != plain
    assert json.loads((tmp_path / 'config.json').read_text())['eval']['tta'] == 3
    assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == steps
    assert (tmp_path / 'metrics.jsonl').read_bytes() == rows


def test_the_challenge(tmp_path, capsys, rng):
    """COV19-CT-DB with a test folder that nobody labelled: the table is of validation, the answers are two files."""
    for split, labels, n in (('train', ('covid', 'non-covid'), 4), ('val', ('covid', 'non-covid'), 2), ('test', ('',), 3)):
        for label in labels:
            for i in range(n):
                path = tmp_path / 'data' / split / label / f'ct_scan_{i}.npy'
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, rng.integers(0, 256, (8, 16, 16)).astype(np.uint8))
    c = small_config('model4,size=small')
    with c.unlocked():
        c.data.source, c.data.root = 'cov19_ct_db', str(tmp_path / 'data')
        c.train.epochs = 1.0
    results = experiment.run(c, tmp_path / 'run')
    assert results['.']['val']['all']['accuracy']['n'] == 4 and results['.']['test']['all']['accuracy']['value'] is None
    assert 'val (it chose the checkpoint), positive class covid' in ' '.join(capsys.readouterr().out.split())
    scans = {name.split('/')[1] for name, (split, _, _) in predicted(tmp_path / 'run').items() if split == 'test'}
    assert scans == {'ct_scan_0', 'ct_scan_1', 'ct_scan_2'}
    named = [(tmp_path / 'run' / 'submission' / f'{name}.csv').read_text() for name in ('covid', 'non-covid')]
    assert sorted(filter(None, ','.join(n.strip() for n in named).split(','))) == sorted(scans)


@pytest.mark.slow  # the parts of it are in sites_test.py
def test_a_network_that_normalises_by_site(tmp_path, capsys, rng):
    """It tells apart the sites that are trained on, and a site of the test split alone is answered by their average."""
    rows = ['path,label,site,split']
    for i in range(24):
        np.save(tmp_path / f'{i}.npy', rng.integers(0, 255, (1, 16, 16), np.uint8))
        site = ('athens', 'oslo', 'rome')[i % 3]
        rows.append(f'{i}.npy,{("normal", "covid")[i // 3 % 2]},{site},{"test" if site == "athens" or i > 17 else "train"}')
    (tmp_path / 'scans.csv').write_text('\n'.join(rows))
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.data.source, c.data.root = 'manifest', str(tmp_path / 'scans.csv')
        c.model.name, c.prep.size = '_COVIDNetRedesignTiny', (1, 16, 16)
        c.train.epochs, c.eval.tta = 2.0, 0
        c.model.sites = 3
    with pytest.raises(UserError, match=r'normalises 3 sites, not the 2 .* \(oslo, rome\): set --config.model.sites=2$'):
        experiment.run(c, tmp_path / 'run')
    assert not [*tmp_path.rglob('table.json')]  # before a scan is prepared
    c.model.sites = 0
    experiment.run(c, tmp_path / 'run')
    assert 'no scan of athens is trained on: there the answer is the average of the answers at oslo, rome' in (
        capsys.readouterr().out)
    with open(tmp_path / 'run' / 'predictions.csv', newline='') as f:
        tested = list(csv.DictReader(f))
    assert len(tested) == 12 and all(0 < float(row['p_covid']) < 1 for row in tested)


@pytest.mark.parametrize('fields, line', [
    ({'model.name': 'CRNet'}, r'CRNet takes grey images of 224x224.*--config.prep.size=\(1,224,224\)'),
    ({'model.name': 'VGG16'}, 'no less than 32x32x32 .*, not 8x16x16: set --config.prep.size, and for a volume'),
    ({'model.name': '_VGGTiny'}, '8x16x16, and was given 4x16x16: set --config.views.depth=8'),
    ({'model.inflate': 'center'}, '--config.model.inflate=center must be mean or centre'),
    ({'model.pretrained': __file__}, 'experiment_test.py is not read: weights are .safetensors')])
def test_what_the_network_cannot_take_is_said_before_a_scan_is_prepared(tmp_path, fields, line):
    c = small_config('baseline,size=small')
    with c.unlocked():
        c.views.depth = 4
        c.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=line) as e:
        experiment.run(c, tmp_path)
    assert '\n' not in str(e.value) and not [*tmp_path.rglob('*')]


def test_single_images_make_a_network_of_two_dimensions():
    c = small_config('baseline,size=small')
    for name, taps in (('ResNet18', 3), ('VGG19', 3), ('EfficientNetB4', None)):
        with c.unlocked():
            c.model.name, c.prep.size = name, (32, 32, 32)
        assert build_network(c, make_mesh()).taps == taps
        with c.unlocked():
            c.prep.size = (1, 32, 32)
        assert build_network(c, make_mesh()).taps == 1
        with c.unlocked():
            c.model.taps = 3
        assert build_network(c, make_mesh()).taps == 3  # as it was asked to
        with c.unlocked():
            c.model.taps = 0
