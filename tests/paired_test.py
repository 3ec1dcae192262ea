"""A paper's p-values beside those of the runs in a folder: of which runs, on which exams, and why there may be none."""

import shutil

import numpy as np
import pytest
from finished_runs import exam, finished
from scipy import stats

from covid_jax import paired, papers
from covid_jax.commands import table
from covid_jax.config import PairedTests

TESTS = PairedTests('Table II', 'ours', {'single': {'site oslo': '.002', 'site rome': '.004'}})
SITES = 'oslo', 'rome'


def answered(folder, row, wrong, sites=SITES, seeds=1, learnt=20, bare=False):
    """A run in folds of 10 exams of each site, of which {site: how many it has wrong in each fold}; every second is covid. bare: ids
    as of a data set of one site, that does not name it."""
    for fold in range(len(next(iter(wrong.values())))):
        rows = []
        for site in sites:
            for i in range(10):
                p = (0.9 if (i % 2 == 1) == (i >= wrong[site][fold]) else 0.1) + i / 1000
                rows.append((f'{site}/{10 * fold + i}', 'test', ('noncovid', 'covid')[i % 2], p))
        for seed in range(seeds):
            place = folder / f'fold{fold}' / f'seed{seed}'
            finished(place, rows, fold=fold, seed=seed, folds=len(wrong[site]), seeds=seeds, config={'row': f'cross:{row}'},
                     learnt=[exam(i, 'train') for i in range(learnt)])
            if bare:
                path = place / 'predictions.csv'
                path.write_text(path.read_text().replace('oslo/', ''))


def shown(folder, tests=TESTS):
    found = paired.tested(tests, 'cross', papers.finished(folder), lambda stage: {})
    return {(line.row, line.group, line.metric): line for line in found.lines}, found


def test_p_over_folds_by_scipy(tmp_path):
    """Accuracy in oslo by hand: 1, 0.9, 0.9 and 0.8 against 0.8, 0.8, 0.9 and 0.6. 10 of 20 patients: the share is 0.5."""
    answered(tmp_path / 'a', 'ours', {'oslo': [0, 1, 1, 2], 'rome': [3, 2, 4, 3]})
    answered(tmp_path / 'b', 'single', {'oslo': [2, 2, 1, 4]}, sites=('oslo',), bare=True)
    found, whole = shown(tmp_path)
    line = found['single', 'site oslo', 'accuracy']
    assert (line.paper, line.difference, line.runs) == ('.002', '+0.125', (1, 2))
    d = np.array([0.2, 0.1, 0.0, 0.2])
    expected = stats.ttest_rel([1, 0.9, 0.9, 0.8], [0.8, 0.8, 0.9, 0.6]).pvalue
    assert line.plain == f'{expected:.3f}' == '0.080'
    t = d.mean() / np.sqrt((1 / 4 + 0.5) * d.var(ddof=1))
    assert line.corrected == f'{2 * stats.t(3).sf(t):.3f}' == '0.229'
    assert found['single', 'site oslo', 'auc'].plain not in ('-', line.plain)
    other = found['single', 'site rome', 'accuracy']
    assert (other.paper, other.difference, other.plain, other.corrected, other.runs) == ('.004', '-', '-', '-', ())
    assert any(remark.startswith('single, site rome: ') and 'has no exams of site rome' in remark for remark in whole.remarks)
    assert not any(remark.startswith('single, site oslo') for remark in whole.remarks)


def test_of_two_runs_of_one_site_each_the_one_of_the_group_counts(tmp_path):
    answered(tmp_path / 'a', 'ours', {'oslo': [0, 1, 1], 'rome': [3, 2, 4]})
    answered(tmp_path / 'b', 'single,site=a', {'oslo': [2, 2, 4]}, sites=('oslo',))
    answered(tmp_path / 'c', 'single,site=b', {'rome': [4, 5, 4]}, sites=('rome',))
    found, whole = shown(tmp_path)
    assert found['single', 'site oslo', 'accuracy'].difference == '+0.200'
    assert found['single', 'site rome', 'accuracy'].difference == '+0.133'
    assert not whole.remarks and len(whole.lines) == 4
    assert [run.rpartition('/')[2] for run in whole.runs] == ['a', 'b: site=a', 'c: site=b']


def test_each_fold_is_the_mean_over_its_seeds(tmp_path):
    """Seeds that are equal change nothing; taken as more folds they would make p smaller."""
    for seeds in (1, 2):
        answered(tmp_path / f'{seeds}a', 'ours', {'oslo': [0, 1, 1], 'rome': [3, 2, 4]}, seeds=seeds)
        answered(tmp_path / f'{seeds}b', 'single', {'oslo': [2, 3, 1], 'rome': [4, 2, 5]}, seeds=seeds)
    lines = [line for line in shown(tmp_path)[1].lines if line.metric == 'accuracy' and line.group == 'site oslo']
    assert len(lines) == 2 and len({line.plain for line in lines}) == 1 and lines[0].plain != '-'


@pytest.mark.parametrize('change, reason', [
    ({'wrong': {'oslo': [1, 2]}}, 'folds'), ({'seeds': 2}, 'seeds'), ({'sites': ('rome',), 'wrong': {'rome': [1, 2, 3]}}, 'has no exams of')])
def test_what_cannot_be_compared_has_a_reason(tmp_path, change, reason):
    answered(tmp_path / 'a', 'ours', {'oslo': [0, 1, 1], 'rome': [3, 2, 4]})
    answered(tmp_path / 'b', 'single', **{'wrong': {'oslo': [2, 3, 1]}, 'sites': ('oslo',), **change})
    found, whole = shown(tmp_path)
    assert found['single', 'site oslo', 'accuracy'].plain == '-'
    assert any(remark.startswith('single, site oslo: ') and reason in remark for remark in whole.remarks)


def test_other_exams_one_fold_and_no_run_have_a_reason(tmp_path):
    found, whole = shown(tmp_path)
    assert found['single', 'site oslo', 'auc'].plain == '-' and 'single, site oslo: there is no run of ours, or none of single' in whole.remarks
    answered(tmp_path / 'a', 'ours', {'oslo': [0], 'rome': [3]})
    answered(tmp_path / 'b', 'single', {'oslo': [2], 'rome': [1]})
    found, whole = shown(tmp_path)
    assert found['single', 'site oslo', 'accuracy'].difference == '+0.200' and found['single', 'site oslo', 'accuracy'].plain == '-'
    assert 'single, site oslo: no t-test: 1 difference, 2 needed' in whole.remarks
    path = tmp_path / 'b' / 'fold0' / 'seed0' / 'predictions.csv'
    path.write_text(path.read_text().replace('oslo/9', 'oslo/99'))
    _, whole = shown(tmp_path)
    assert any('did not answer the same exams' in remark for remark in whole.remarks)


def test_runs_that_both_lack_a_fold_are_not_compared(tmp_path):
    for name, row in (('a', 'ours'), ('b', 'single')):
        answered(tmp_path / name, row, {'oslo': [0, 1, 1], 'rome': [3, 2, 4]})
        shutil.rmtree(tmp_path / name / 'fold2')
    found, whole = shown(tmp_path)
    assert found['single', 'site oslo', 'accuracy'].plain == '-'
    assert f'single, site oslo: {tmp_path}/a is not finished: give its command again' in whole.remarks


def test_equal_answers_need_no_reason(tmp_path):
    for name, row in (('a', 'ours'), ('b', 'single')):
        answered(tmp_path / name, row, {'oslo': [0, 1, 1], 'rome': [3, 2, 4]})
    found, whole = shown(tmp_path)
    assert found['single', 'site oslo', 'accuracy'].plain == '1.000' and not whole.remarks


def test_without_what_was_learnt_from_the_corrected_test_is_left_out(tmp_path):
    answered(tmp_path / 'a', 'ours', {'oslo': [0, 1, 1], 'rome': [3, 2, 4]})
    answered(tmp_path / 'b', 'single', {'oslo': [2, 3, 1], 'rome': [4, 2, 5]}, learnt=0)
    found, whole = shown(tmp_path)
    line = found['single', 'site oslo', 'accuracy']
    assert line.plain != '-' and line.corrected == '-'
    assert 'single, site oslo: no corrected t-test: no exams.csv says how many patients were learnt from' in whole.remarks


def test_the_command_prints_them_after_the_tables(tmp_path, monkeypatch, capsys):
    """On a terminal of 80 columns."""
    answered(tmp_path / 'runs' / 'a', 'ours', {'oslo': [0, 1, 1, 2], 'rome': [3, 2, 4, 3]})
    answered(tmp_path / 'runs' / 'b', 'single', {'oslo': [2, 2, 1, 4]}, sites=('oslo',))
    config = tmp_path / 'cross.py'
    config.write_text('from covid_jax.config import PairedTests, base\n'
                      'TABLES = ()\n'
                      f'PAIRED_TESTS = (PairedTests({TESTS.title!r}, {TESTS.ours!r}, {TESTS.rows!r}),)\n'
                      'def get_config(arg):\n    c = base()\n    c.method = "supervised"\n    return c\n')
    monkeypatch.setenv('COLUMNS', '80')
    table.run(str(config), tmp_path / 'runs')
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if 'oslo' in line and 'accuracy' in line)
    assert [cell.strip() for cell in line.split('│')[1:-1]] == ['single', 'site oslo', '.002', 'accuracy', '+0.125', '0.080', '0.229', '1, 2']
    assert f'1  {tmp_path}/runs/a' in text and 'has no exams of site rome' in text and 'A: ours.' in text
