"""What a run's folder says of it, of folders made by hand; and what a person sees of that."""

import json

import pytest
from finished_runs import NAMES, exam, finish, finished, leave

from covid_jax import UserError, cli, info

FIELDS = {'method': 'cmc', 'model.name': 'ResNet18', 'data.source': 'manifest', 'prep.size': [24, 48, 48], 'prep.spacing': [], 'prep.window': [-1000, 400],
          'prep.lungs': 'crop', 'data.classes': ['noncovid|normal', 'covid']}


@pytest.fixture
def run(tmp_path):
    """A run on six exams of oslo, that was tested on two, as a training leaves it."""
    rows = [('oslo/1', 'val', 'covid', 0.9), ('oslo/2', 'val', 'noncovid', 0.3), ('oslo/3', 'test', 'covid', 0.8), ('oslo/4', 'test', 'noncovid', 0.2)]
    learnt = [exam(i, split) for i, split in enumerate(('train', 'train', 'val', 'val', 'test', 'test', 'train'))]
    metrics = finished(tmp_path / 'a', rows, config=FIELDS, learnt=[*learnt[:-1], learnt[-1]._replace(label='')])
    (tmp_path / 'a/metrics.json').write_text(json.dumps(metrics))
    (tmp_path / 'a/calibration.json').write_text(json.dumps({'val': {'temperature': {'value': 1.5, 'n': 2}}}))
    (tmp_path / 'a/network.txt').write_text('| conv |\nTotal: 1,234 -- 4,936 bytes\n')
    (tmp_path / 'a/checkpoints').mkdir()
    return tmp_path / 'a'


def test_a_run_is_told_for_programs(run, capsys):
    cli.run(['info', str(run), '--json'])
    found = json.loads(capsys.readouterr().out)
    assert [found[name] for name in ('method', 'network', 'parameters', 'positive', 'kind')] == ['cmc', 'ResNet18', 1234, 'covid', 'train']
    assert found['classes'] == {'noncovid': ['noncovid', 'normal'], 'covid': ['covid']} and found['input']['size'] == [24, 48, 48]
    (training,) = found['trainings']
    assert training['exams'] == {'train': {'oslo': {'without a label': 1, 'noncovid': 1, 'covid': 1}}, 'val': {'oslo': {'noncovid': 1, 'covid': 1}},
                                 'test': {'oslo': {'noncovid': 1, 'covid': 1}}}
    assert (training['threshold'], training['temperature']) == (pytest.approx(0.6), 1.5)
    assert training['metrics']['test']['all']['auc']['value'] == 1.0
    assert [command.split()[1] for command in found['commands']] == ['predict', 'explain', 'evaluate', 'export', 'compare', 'report', '-m']


def test_a_run_is_told_for_people(run, capsys):
    cli.run(['info', str(run)])
    out = capsys.readouterr().out
    for line in ('24 x 48 x 48 volumes, Hounsfield units -1000 to 400, or grey values, lungs: crop', 'noncovid (also normal), covid', '0.6, frozen on',
                 '1 noncovid, 1 covid, 1 without a label at oslo', '1.000 of 2', f'covid-jax evaluate --run={run}'):
        assert line in out, line


def test_what_cannot_answer_is_not_offered(tmp_path):
    """Of what trained without classifying, and of a mean of runs."""
    finish(tmp_path / 'moco', config={'method': 'moco', 'prep.size': [1, 48, 48], 'prep.window': []})
    (tmp_path / 'moco/checkpoints').mkdir()
    found = info.info(tmp_path / 'moco')
    assert [command.split()[0] for command in found['commands']] == ['python'] and 'init_from' in found['commands'][0]
    assert ('input', '48 x 48 images, each scan from its least to its greatest value') in list(info.lines(found))
    leave(tmp_path / 'mean', [exam(0), exam(1)], [0.1, 0.9])
    finish(tmp_path / 'mean', config={'kind': 'ensemble', 'data.classes': list(NAMES)})
    found = info.info(tmp_path / 'mean')
    assert found['network'] is None and [command.split()[1] for command in found['commands']] == ['compare', 'report']
    assert ('kind', 'ensemble') in list(info.lines(found))


def test_folds_have_a_part_each(tmp_path):
    for fold in range(2):
        finished(tmp_path / f'fold{fold}', [(f'oslo/{fold}', 'test', 'covid', 0.9), (f'oslo/{fold}b', 'test', 'noncovid', 0.1)], fold=fold, folds=2,
                 config=FIELDS)
    found = info.info(tmp_path)
    assert [(training['fold'], training['folder']) for training in found['trainings']] == [(i, str(tmp_path / f'fold{i}')) for i in range(2)]
    (tmp_path / 'fold0/checkpoints').mkdir()
    commands = info.info(tmp_path)['commands']
    assert f'covid-jax export {tmp_path}/fold0 --out=DIR' in commands and f'covid-jax explain SCAN --run={tmp_path}/fold0 --out=DIR' in commands
    assert f'covid-jax predict SCAN --run={tmp_path} --out=DIR' in commands and f'covid-jax report {tmp_path}' in commands
    assert info.info(tmp_path / 'fold1')['trainings'][0]['folder'] == str(tmp_path / 'fold1')


def test_what_is_no_finished_run_is_one_line(run, tmp_path):
    with pytest.raises(UserError, match='there is no folder'):
        info.info(tmp_path / 'nowhere')
    (run / 'calibration.json').write_text('{')
    with pytest.raises(UserError, match='calibration.json.*damaged'):
        info.info(run)
    (run / 'results.json').unlink()
    with pytest.raises(UserError, match='a has not finished'):
        info.info(run)
