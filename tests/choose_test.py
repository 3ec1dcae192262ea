"""The best of several stages by a metric of validation: which is taken, what it leaves, and what it cannot see."""

import json

import numpy as np
import pytest
from conftest import small_config
from finished_runs import finished

from covid_jax import UserError, config, experiment, stages
from covid_jax.predictions import of_run
from covid_jax.report import evidence
from covid_jax.runtime import workdir

A = [('a', 'val', 'covid', 0.9), ('b', 'val', 'noncovid', 0.1), ('c', 'test', 'covid', 0.2), ('d', 'test', 'noncovid', 0.8)]
B = [('a', 'val', 'covid', 0.4), ('b', 'val', 'noncovid', 0.1), ('c', 'test', 'covid', 0.9), ('d', 'test', 'noncovid', 0.1)]


def choice(*runs):
    c = small_config()
    c.choose.runs = ','.join(map(str, runs))
    return c


def test_validation_decides_and_the_test_split_does_not(tmp_path, capsys):
    """By hand: A is right on val and wrong on all of test; B the other way round on test."""
    finished(tmp_path / 'a', A)
    finished(tmp_path / 'b', B)
    results = experiment.run(choice(tmp_path / 'b', tmp_path / 'a'), tmp_path / 'chosen')
    assert results['.']['test']['all']['accuracy']['value'] == 0 and results['.']['val']['all']['accuracy']['value'] == 1
    assert (tmp_path / 'chosen' / 'predictions.csv').read_bytes() == (tmp_path / 'a' / 'predictions.csv').read_bytes()
    record = json.loads((tmp_path / 'chosen' / 'chosen.json').read_text())
    assert record == {'chosen': '../a', 'by': 'macro_f1', 'val': {'../b': pytest.approx(1 / 3), '../a': 1.0}}
    assert f'{tmp_path}/a is taken, by macro_f1 on val' in capsys.readouterr().out


def test_one_process_at_a_time_is_at_work_in_a_folder(tmp_path):
    """The second is told so and changes nothing; afterwards it goes on."""
    finished(tmp_path / 'a', A)
    finished(tmp_path / 'b', B)
    c = choice(tmp_path / 'b', tmp_path / 'a')
    with workdir.held(tmp_path / 'chosen'), pytest.raises(UserError, match='another process is at work in .*/chosen: wait for it'):
        experiment.run(c, tmp_path / 'chosen')
    assert not (tmp_path / 'chosen').exists()
    assert experiment.run(c, tmp_path / 'chosen')['.']['val']['all']['accuracy']['value'] == 1


def left_beside(run, *kinds):
    """Evidence of a finished run, of these kinds, that answers as the run itself."""
    evidence.leave(run, {kind: of_run(run) for kind in kinds}, ('of the lungs',))


def test_the_shortcut_probes_of_the_chosen_run_stand_beside_it(tmp_path, capsys):
    """Not what its trunk was asked: a probe of it is another part."""
    for run, rows in (('a', A), ('b', B)):
        finished(tmp_path / run, rows)
        left_beside(tmp_path / run, 'no lungs', 'border')
    experiment.run(choice(tmp_path / 'b', tmp_path / 'a'), tmp_path / 'chosen')
    left, notes = evidence.read(tmp_path / 'chosen')
    np.testing.assert_array_equal(left['border'].probability, of_run(tmp_path / 'a').probability)
    assert list(left) == ['border'] and not notes
    assert 'what simpler evidence reaches' in ' '.join(capsys.readouterr().out.split())


def test_a_run_without_probes_says_so(tmp_path):
    """And one whose probes are of other exams is refused, before anything is written."""
    finished(tmp_path / 'a', A)
    finished(tmp_path / 'b', B)
    experiment.run(choice(tmp_path / 'a', tmp_path / 'b'), tmp_path / 'chosen')
    assert 'no shortcut probes stand beside' in (tmp_path / 'chosen' / 'results.md').read_text()
    evidence.leave(tmp_path / 'a', {}, ('for a reason',))
    experiment.run(choice(tmp_path / 'a', tmp_path / 'b'), tmp_path / 'again')
    assert evidence.read(tmp_path / 'again') == ({}, ('for a reason',))
    left_beside(tmp_path / 'a', 'file')
    finished(tmp_path / 'a', A[:3])
    finished(tmp_path / 'b', B[:3])
    with pytest.raises(UserError, match='did not answer the same exams'):
        experiment.run(choice(tmp_path / 'a', tmp_path / 'b'), tmp_path / 'other')
    assert not (tmp_path / 'other').exists()


def test_among_equals_the_first(tmp_path):
    finished(tmp_path / 'a', A)
    finished(tmp_path / 'b', B)
    c = choice(tmp_path / 'b', tmp_path / 'a')
    c.choose.by = 'auc'  # 1 of both
    experiment.run(c, tmp_path / 'chosen')
    assert json.loads((tmp_path / 'chosen' / 'chosen.json').read_text())['chosen'] == '../b'


def test_a_stage_chooses_for_each_fold():
    c = small_config()
    with c.unlocked():
        c.folds = 2
        config.set_stages(c, {'weak': {}, 'strong': {}, 'taken': {'choose': {'runs': 'weak,strong', 'by': 'accuracy'}}})
    parts = [part for part in stages.parts(c, 'w') if part.stage == 'taken']
    assert [part.config.kind for part in parts] == ['choose'] * 2
    assert [part.config.choose.runs for part in parts] == [
        f'w/weak/fold{fold}/seed0,w/strong/fold{fold}/seed0' for fold in (0, 1)]


@pytest.mark.parametrize('fields, line', [
    ({'runs': 'a'}, 'two or more folders'), ({'runs': 'a,,b'}, 'two or more folders'), ({'runs': 'a,./a'}, 'all different'),
    ({'runs': 'a,b', 'by': 'loss'}, '--config.choose.by=loss must be one of accuracy'),
    ({'runs': 'a,nowhere'}, 'nowhere holds no predictions.csv')])
def test_choices_that_cannot_be(tmp_path, monkeypatch, fields, line):
    monkeypatch.chdir(tmp_path)
    finished(tmp_path / 'a', A)
    finished(tmp_path / 'b', B)
    c = small_config()
    c.choose.update(fields)
    with pytest.raises(UserError, match=line):
        experiment.run(c, tmp_path / 'chosen')
    assert not (tmp_path / 'chosen').exists()


def test_a_val_split_that_cannot_judge(tmp_path):
    for run in 'ab':
        finished(tmp_path / run, A[1:])  # no covid in val
    with pytest.raises(UserError, match='a cannot be judged by macro_f1 on its val split, undefined: no examples of class covid'):
        experiment.run(choice(tmp_path / 'a', tmp_path / 'b'), tmp_path / 'chosen')
    assert not (tmp_path / 'chosen').exists()


def test_averaged_and_chosen_at_once():
    c = choice('a', 'b')
    c.ensemble.runs = 'a,b'
    with pytest.raises(UserError, match='are averaged, or one is chosen, not both'):
        stages.parts(c, 'w')
