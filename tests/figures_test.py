"""The scripts of the figures of contrastive cross-site learning and of Self-Trans, of made-up answers."""

import runpy

import numpy as np
import pytest
from finished_runs import NAMES, exam, run

from covid_jax import UserError
from covid_jax.predictions import Predictions, of_run


@pytest.fixture
def script(root):
    return lambda name: runpy.run_path(str(root / 'scripts' / f'{name}.py'))


def test_the_surest_mistakes_of_each_site(script):
    """By hand: of oslo 0, 3 and 4 are wrong, 4 the surest; of rome 7; of lima none."""
    exams = [exam(i, site=('oslo', 'rome', 'lima')[min(i // 5, 2)]) for i in range(12)]
    p = np.array([0.75, 0.9, 0.1, 0.3, 0.8, 0.9, 0.1, 0.2, 0.1, 0.9, 0.1, 0.9])
    label = (np.arange(12) % 2).astype(np.int32)
    found = script('fig5_cross_site')['mistakes'](Predictions(NAMES, exams, label, np.stack([1 - p, p], 1)), 2)
    told = {site: [(m.exam.id, m.predicted, round(m.probability, 6)) for m in of_site] for site, of_site in found.items()}
    assert told == {'oslo': [('e4', 1, 0.8), ('e0', 1, 0.75)], 'rome': [('e7', 0, 0.8)]}


def test_curves_of_folds_are_of_the_first_seed_pooled(script, tmp_path, monkeypatch, capsys):
    """A run of one site has a curve there alone; the ids of a mix of sites begin with the site."""
    def of_two(exam):
        site = ('oslo', 'rome')[int(exam.id[1:]) // 4 % 2]
        return exam._replace(site=site, id=f'{site}/{exam.id}', patient=f'{site}/{exam.patient}')

    run(tmp_path / 'joint', 2, folds=2, seeds=(3, 4), n=40, change=of_two)
    run(tmp_path / 'single', 1, n=40)
    fig3 = script('fig3_cross_site')
    drawn = {}
    monkeypatch.setitem(fig3['main'].__globals__, 'plots', type('P', (), {
        'roc_sites_png': staticmethod(lambda path, panels, title, positive: drawn.update(panels=panels, note=title, positive=positive))}))
    fig3['main']([tmp_path / 'joint', tmp_path / 'single'], [], 'test', 'fig3.png')
    assert {site: [*curves] for site, curves in drawn['panels'].items()} == {'oslo': ['joint', 'single'], 'rome': ['joint']}
    label, score = drawn['panels']['rome']['joint']
    table = [of_run(tmp_path / 'joint' / f'fold{fold}' / 'seed3') for fold in (0, 1)]
    expected = np.concatenate([of_fold.of(site='rome').probability[:, 1] for of_fold in table])
    np.testing.assert_array_equal(score, expected)
    assert len(label) == 20 and drawn['note'] == 'test, the answers of 1, 2 folds pooled, seed 0, 3' and drawn['positive'] == 'covid'
    assert 'oslo: single answered other exams than joint' in capsys.readouterr().out
    with pytest.raises(UserError, match='all different'):
        fig3['main']([tmp_path / 'joint', tmp_path / 'single'], ['a', 'a'], 'test', 'fig3.png')


def test_what_all_runs_of_a_sheet_have_tested(script, tmp_path):
    """Exams with COVID of two folds of one run, and of a run without folds: what both of two have tested, in the order of the first."""
    run(tmp_path / 'folds', 1, folds=2, n=40)
    run(tmp_path / 'whole', 2, n=40)
    of_fold = [of_run(tmp_path / 'folds' / f'fold{fold}' / 'seed0').of('test') for fold in (0, 1)]
    tested_by_all = script('fig5_self_trans')['tested_by_all']
    running = type('R', (), {'classes': NAMES})
    both = [tmp_path / 'whole', tmp_path / 'folds' / 'fold1' / 'seed0']
    found = tested_by_all(both, 2 * [running], 'test')
    assert found == [e.id for e, label in zip(of_fold[1].exams, of_fold[1].label, strict=True) if label == 1] != []
    assert tested_by_all([*both, tmp_path / 'folds' / 'fold0' / 'seed0'], 3 * [running], 'test') == []
