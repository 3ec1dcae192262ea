"""The plots of a run, seen through what is handed to plots: of which run, split, exams and class each is."""

import numpy as np
import pytest

from covid_jax.predictions import Predictions
from covid_jax.report import calibration, pictures, plots
from covid_jax.sources.exams import Exam

BINARY = ('noncovid', 'covid')
TERNARY = ('normal', 'covid', 'pneumonia')


def answers(names, label, split, sites=('oslo',)):
    """Exams of these labels and splits, sites in turn; the class of the label has 0.6, or 0.4 where the exam is the last."""
    right = np.full(len(label), 0.6)
    right[-1] = 0.3
    p = np.repeat(((1 - right) / (len(names) - 1))[:, None], len(names), 1)
    p[np.arange(len(label)), label] = right
    exams = [Exam(f'e{i}', f'p{i}', sites[i % len(sites)], 'x', s, '') for i, s in enumerate(split)]
    return Predictions(names, exams, np.array(label, np.int32), p)


@pytest.fixture
def drawn(monkeypatch):
    """{name of a PNG: its figure}."""
    figures = {}
    monkeypatch.setattr(plots, 'save', lambda path, figure, title='', note='': figures.update({path.name: (figure, title, note)}))
    return figures


@pytest.mark.parametrize('folder, name', [
    ('runs/cmc', 'runs/cmc'), ('runs/cmc/model4/fold0/seed1', 'cmc/model4/fold0/seed1'), ('runs/cmc/fold0/seed1', 'runs/cmc/fold0/seed1'),
    ('runs/cmc/model4', 'cmc/model4'), ('runs/cmc/seed2', 'runs/cmc/seed2')])
def test_a_part_is_called_after_its_run_too(tmp_path, monkeypatch, folder, name):
    monkeypatch.chdir(tmp_path)
    assert pictures.name(folder) == pictures.name(tmp_path / folder) == name
    assert pictures.name('/fold0') == 'fold0'
    monkeypatch.chdir('/tmp')
    assert pictures.name('.') == 'tmp'


@pytest.mark.parametrize('names, decided', [(BINARY, 'decided for covid from probability 0.5 up'), (TERNARY, 'decided for the most probable class')])
def test_each_picture_says_of_what_it_is(tmp_path, drawn, names, decided):
    """By hand: two of three exams of test are positive; one has no label."""
    p = answers(names, [0, 1, 1, 1, 0, 1], ['val', 'val', 'test', 'test', 'test', 'test'])
    p.label[3] = -1
    pictures.write(tmp_path / 'cmc' / 'fold0', p, {'val': 0.45, 'test': 0.45}, 'beware')
    folder = f'{tmp_path.name}/cmc/fold0'
    assert drawn.keys() == {'confusion_val.png', 'confusion_test.png', 'roc.png'}
    assert drawn['confusion_test.png'][1:] == (f'{folder}: test\nn = 3, 2 of the positive class covid\n{decided}', 'beware')
    assert drawn['roc.png'][1:] == (f'{folder}\npositive class covid, against all others', 'beware')
    axes = drawn['roc.png'][0].axes[0]
    marks = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == 'o' and len(line.get_xdata())]
    assert marks == [[[0, 1]], [[0, 0.5]]]  # the last positive of test has 0.3
    assert axes.get_ylabel() == 'sensitivity (share of covid called so)'


def test_sites_are_apart_and_nothing_is_drawn_of_unlabelled_exams(tmp_path, drawn):
    p = answers(BINARY, [0, 1, 1, 0], ['test'] * 4, ('oslo', 'rome'))
    pictures.write(tmp_path, p)
    figure, title, _ = drawn['roc_sites.png']
    assert title.endswith('by site') and [axes.get_title() for axes in figure.axes] == ['oslo', 'rome']
    drawn.clear()
    p.label[:] = -1
    pictures.write(tmp_path, p)
    assert not drawn


def test_calibration_says_so_too(tmp_path, drawn):
    p = answers(TERNARY, [0, 1, 2, 1, 0, 1], ['val', 'val', 'test', 'test', 'test', 'test'])
    (tmp_path / 'xray').mkdir()
    calibration.write(tmp_path / 'xray', p)
    for kind in ('reliability', 'decision'):
        figure, title, _ = drawn[f'{kind}_test.png']
        assert title == f'{tmp_path.name}/xray: test\nn = 4, 2 of the positive class covid'
        assert 'probability of covid' in figure.axes[-1].get_xlabel()
