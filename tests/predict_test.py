"""Scans that no split knows, asked about by finished runs in real: against what the runs answered of their own exams."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import single_image_config
from PIL import Image

from covid_jax import UserError, cli, commands, experiment, predict, predictions, sources, start
from covid_jax.data import familiar, parts
from covid_jax.data.prep import prepare
from covid_jax.metrics.calibration import temperature, tempered
from covid_jax.metrics.classification import decide, frozen_threshold
from covid_jax.predictions import Predictions
from covid_jax.sources.exams import Exam

VAL = 20
SCANS = ['phantom:slice:40:0:covid', 'phantom:slice:40:1:normal', 'phantom:slice:41:5:covid']


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """The folder of a run of two seeds, with test-time augmentation."""
    folder = tmp_path_factory.mktemp('predict') / 'run'
    c = single_image_config(epochs=1.0)
    c.data.phantom.update(kind='slice', train=8, val=VAL, test=4)
    c.seeds = 2
    c.eval.tta = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('builtins.print', lambda *words, **_: None)
        experiment.run(c, folder)
    return folder


@pytest.fixture(scope='module')
def opened(finished):
    return [start.load(finished / f'fold0/seed{seed}') for seed in range(2)]


def asked(opened, paths, **options):
    answers, _ = predict.predict(opened, paths, say=lambda line: None, **options)
    return answers


def without_views(opened):
    """The same runs, which see each scan once and plain."""
    runs = []
    for run, state in opened:
        config = run.config.copy_and_resolve_references()
        config.eval.tta = 0
        runs.append((run._replace(config=config), state))
    return runs


def test_a_test_exam_is_answered_as_the_run_answered_it(opened, tmp_path_factory):
    """Of a run without augmentation at test time; and calibrated, decided and left open as its validation exams say."""
    folder = tmp_path_factory.mktemp('plain')
    c = single_image_config(epochs=1.0)
    c.data.phantom.update(kind='slice', train=8, val=VAL, test=4)
    c.eval.tta = 0
    experiment.run(c, folder)
    table = predictions.of_run(folder)
    own = table.of('test')
    path_of = {exam.id: exam.path for exam in sources.parts_of(c.data)[0]}
    answers = asked([start.load(folder)], [path_of[exam.id] for exam in own.exams])
    val = table.of('val')
    value = temperature(val.label, val.probability)
    np.testing.assert_allclose([a.probability for a in answers], tempered(own.probability, value), atol=1e-5)
    decided = decide(own.probability, frozen_threshold(val.label, val.probability))
    assert [a.decision for a in answers] == [table.names[i] for i in decided]


def test_a_scan_is_answered_whatever_is_asked_beside_it(opened):
    """Its views at test time, too; and each run of several has its part."""
    alone = [asked(opened, [path])[0] for path in SCANS]
    together = asked(opened, SCANS[::-1])[::-1]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-6)
        assert (one.decision, one.possible) == (other.decision, other.possible)
    plain = asked(without_views(opened), SCANS)
    assert max(np.abs(a.probability - b.probability).max() for a, b in zip(plain, alone, strict=True)) > 1e-6


def test_several_runs_answer_with_their_mean(opened, monkeypatch):
    """Judged by the mean of what they answered of the validation exams, by hand."""
    tables = [predictions.of_run(run.folder).of('val') for run, _ in opened]
    mean = np.mean([table.probability for table in tables], 0)
    basis = predict.frozen([predictions.of_run(run.folder) for run, _ in opened], 0.8)
    assert basis.threshold == frozen_threshold(tables[0].label, mean)
    assert basis.temperature == temperature(tables[0].label, mean)
    own = np.sort(mean[tables[0].label == 1, 1])
    assert basis.bounds[1] == own[int((len(own) + 1) * 0.2 + 1e-9) - 1] and basis.exams == np.bincount(tables[0].label).tolist()
    both = asked(opened, SCANS)
    each = [asked([one], SCANS) for one in opened]
    raw = [[_raw(answer, predict.frozen([predictions.of_run(run.folder)], 0.9).temperature) for answer in answers]
           for answers, (run, _) in zip(each, opened, strict=True)]
    np.testing.assert_allclose([a.probability for a in both], tempered(np.mean(raw, 0), basis.temperature), atol=1e-5)
    monkeypatch.setattr(predict, 'temperature', lambda *_: None)  # then they are not calibrated, and sum to 1 only if it is a mean
    np.testing.assert_allclose([a.probability for a in asked(opened, SCANS)], np.mean(raw, 0), atol=1e-5)


def test_an_answer_by_hand():
    """Odds of 2 / 3 are 4 / 9 at a temperature of a half; threshold and bounds are of what is not calibrated; far is the mean over the runs."""
    exams = [Exam(name, '', '', '', '', f'{name}.png') for name in 'ab']
    means = predict.Means(np.array([[0.6, 0.4], [0.72, 0.28]]), {}, set(), {'a': [0.5, 1.8], 'b': [0.5, 1.2]})
    basis = predict.Basis(0.35, 0.5, np.array([0.5, 0.32]), [9, 9])
    first, second = predict._answers(exams, means, basis, ('noncovid', 'covid'))
    np.testing.assert_allclose(first.probability, [9 / 13, 4 / 13])
    assert first[2:] == ('covid', ('noncovid', 'covid'), '', False)
    assert second[2:] == ('noncovid', ('noncovid',), '', True)


def _raw(answer, value):
    return tempered(answer.probability[None], 1 / value)[0]


def test_validation_exams_of_folds_are_judged_by_the_run_that_did_not_learn_from_them():
    def table(ids, covid):
        exams = [Exam(name, name, '', 'covid' if i % 2 else 'noncovid', 'val', '') for i, name in enumerate(ids)]
        p = np.array(covid, np.float32)
        return Predictions(('noncovid', 'covid'), exams, np.arange(len(ids)) % 2, np.stack([1 - p, p], 1))

    basis = predict.frozen([table('ab', [0.2, 0.9]), table('cd', [0.3, 0.5])], 0.5)
    assert basis.exams == [2, 2] and basis.threshold == pytest.approx(0.4)
    np.testing.assert_allclose(basis.bounds, [0.7, 0.5])
    assert predict.frozen([table('abc', [0.2, 0.9, 0.3])], 0.5).exams == [2, 1]


def test_what_cannot_be_read_is_a_row_with_its_reason(opened, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG and no more')
    paths = [tmp_path / 'broken.png', SCANS[0], tmp_path / '=nowhere']
    assert asked(opened, ['\x1b[2J.png'])[0].reason.isprintable()
    answers, basis = predict.predict(opened, paths, say=lambda line: None)
    assert [bool(a.reason) for a in answers] == [True, False, True]
    predict.write(tmp_path / 'out', answers, basis, [run for run, _ in opened], 0.9)
    with (tmp_path / 'out' / 'answers.csv').open(newline='') as f:
        rows = list(csv.DictReader(f))
    assert [row['p_covid'] == '' for row in rows] == [True, False, True] and 'broken.png' in rows[0]['reason']
    told = json.loads((tmp_path / 'out' / 'answers.json').read_text())
    assert told['scans'][1]['probability']['covid'] == pytest.approx(float(rows[1]['p_covid']), abs=1e-4)
    assert told['scans'][2] == {'path': f'{tmp_path}/=nowhere', 'probability': None, 'decision': None, 'uncertain': None, 'possible': [], 'familiar': None,
                                'reason': f'{tmp_path}/=nowhere: no such file or folder'}


@pytest.mark.skipif(not Path('/proc/self/mem').exists(), reason='this system has no file that always fails to be read')
def test_a_scan_that_its_disk_cannot_read_is_a_row_and_the_others_are_answered(opened, tmp_path, capfd):
    """/proc/self/mem answers reading with an input/output error, as a broken disk does."""
    broken, folder, good = asked(opened[:1], ['/proc/self/mem', str(tmp_path), SCANS[0]])
    assert broken.probability is None and broken.reason == '/proc/self/mem: Input/output error'
    assert str(tmp_path) in folder.reason and good.decision and not good.reason


def test_a_run_keeps_what_its_training_exams_look_like(opened, monkeypatch):
    """The 8 of them are too few to judge by, and predict says so; where 8 are enough, the same scans are familiar."""
    knows = familiar.read(opened[0][0].folder)
    assert knows.statistics.shape == (8, familiar.GREYS + familiar.STEPS) and knows.depth.tolist() == [1] * 8
    assert knows.hounsfield.all() and (knows.low < -900).all() and np.isnan(knows.limit)
    lines = []
    answers, _ = predict.predict(opened, SCANS[:1], say=lines.append)
    assert answers[0].familiar is None and lines == [
        f'{run.folder} learnt from less than 30 patients: whether scans are like theirs is not judged' for run, _ in opened]
    images = {path: prepare(parts.decode.decode(path), opened[0][0].prep) for path in SCANS}
    far = {path: familiar.distance(knows._replace(limit=1.0), familiar.describe(image)) for path, image in images.items()}
    near, middle, most = sorted(far.values())
    limits = iter([(near + middle) / 2, (middle + most) / 2])  # each run has its own: the mean of their distances counts
    monkeypatch.setattr(predict.familiar, 'read', lambda folder: knows._replace(limit=next(limits)))
    answers, basis = predict.predict(opened, SCANS, say=lambda line: None)
    pair = [(near + middle) / 2, (middle + most) / 2]
    assert [a.familiar for a in answers] == [bool(np.mean([far[path] / limit for limit in pair]) <= 1) for path in SCANS]
    assert {a.familiar for a in answers} == {True, False}
    told = [commands.predict.told(answer, 1, 'covid') for answer in answers]
    assert f'{answers[0].decision}, probability of covid {answers[0].probability[1]:.3f}' in told[0]
    assert ['unlike the training data' in line for line in told] == [not a.familiar for a in answers]


def test_another_kind_of_scan_is_a_row_that_is_unlike(opened, tmp_path):
    """Grey values for a run on Hounsfield units, several slices for one on single images, and nothing at all; the scan beside them is
    answered as it is alone."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)).save(tmp_path / 'grey.png')
    np.savez(tmp_path / 'volume.npz', hu=np.random.default_rng(0).integers(-1000, 900, (3, 32, 32), np.int16))
    np.savez(tmp_path / 'bone.npz', hu=np.random.default_rng(0).integers(500, 900, (32, 32), np.int16))
    paths = [tmp_path / 'grey.png', tmp_path / 'volume.npz', tmp_path / 'bone.npz', SCANS[0]]
    answers, basis = predict.predict(opened, paths, say=lambda line: None)
    for answer, path, why in zip(answers, paths, ('are grey values', '3 slices', 'Hounsfield units are 500 to'), strict=False):
        assert answer.reason.startswith(f'{path}: unlike the training data: ') and why in answer.reason
        assert (answer.probability, answer.decision, answer.possible, answer.familiar, answer.uncertain) == (None, '', (), False, False)
    np.testing.assert_allclose(answers[3].probability, asked(opened, SCANS[:1])[0].probability, atol=1e-6)
    predict.write(tmp_path, answers, basis, [run for run, _ in opened], 0.9)
    with (tmp_path / 'answers.csv').open(newline='') as f:
        assert [row['familiar'] for row in csv.DictReader(f)] == ['no', 'no', 'no', '']
    assert [scan['familiar'] for scan in json.loads((tmp_path / 'answers.json').read_text())['scans']] == [False, False, False, None]


def test_an_older_run_judges_nothing_and_says_so(opened, monkeypatch):
    monkeypatch.setattr(predict.familiar, 'read', lambda folder: None)
    lines = []
    answers, _ = predict.predict(opened[:1], SCANS[:1], say=lines.append)
    assert 'has no familiar.npz' in lines[0] and answers[0].familiar is None and answers[0].decision


def test_a_row_is_written_as_it_is_judged(tmp_path, opened):
    """Its names, its four columns, and a path that no text file can hold."""
    p = np.array([0.25, 0.75])
    answers = [predict.Answer('=a.png', p, 'covid', ('covid',), '', True), predict.Answer('b\udcff.png', p, 'covid', (), '', False),
               predict.Answer('c.png', p[::-1], 'noncovid', ('noncovid', 'covid'), '')]
    basis = predict.Basis(0.5, 1.0, np.zeros(2), [3, 4])
    predict.write(tmp_path / 'deep' / 'out', answers, basis, [opened[0][0]], 0.9)
    rows = (tmp_path / 'deep' / 'out' / 'answers.csv').read_text().splitlines()
    assert rows == ['path,p_noncovid,p_covid,decision,uncertain,possible,familiar,reason', "'=a.png,0.2500,0.7500,covid,no,covid,yes,",
                    'b\\udcff.png,0.2500,0.7500,covid,yes,,no,', 'c.png,0.7500,0.2500,noncovid,yes,noncovid|covid,,']
    told = json.loads((tmp_path / 'deep' / 'out' / 'answers.json').read_text())
    assert (told['positive'], told['threshold'], told['temperature'], told['level']) == ('covid', 0.5, 1.0, 0.9)
    assert told['validation_exams'] == {'noncovid': 3, 'covid': 4} and told['runs'] == [str(opened[0][0].folder)]
    assert [scan['uncertain'] for scan in told['scans']] == [False, True, True]


def test_too_few_validation_exams_leave_all_open(opened):
    lines = []
    answers, _ = predict.predict(opened, SCANS[:1], level=0.99, say=lines.append)
    assert answers[0].possible == ('noncovid', 'covid') and answers[0].uncertain
    assert 'too few validation exams of noncovid (10), covid (10)' in lines[0]


def test_the_command(finished, tmp_path, capsys):
    cli.run(['predict', SCANS[0], str(tmp_path / 'nowhere.png'), f'--run={finished}', f'--out={tmp_path / "out"}'])
    told = capsys.readouterr().out
    assert f'{SCANS[0]}: ' in told and 'nowhere.png: no answer' in told and '2 scans' in told
    assert (tmp_path / 'out' / 'answers.csv').exists()
    for arguments, line in ((['x.png', f'--run={tmp_path}', '--out=o'], 'holds no predictions.csv'),
                            (['x.png', f'--run={finished}', '--out=o', '--level=90'], '--level=90.0 must be between 0 and 1'),
                            ([f'--run={finished}', '--out=o'], 'PATH')):
        with pytest.raises(UserError, match=line):
            cli.run(['predict', *arguments])
