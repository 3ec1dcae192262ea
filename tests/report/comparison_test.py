"""What a comparison says, and what it says that it does not say."""

import csv

import pytest

from covid_jax.metrics.significance import Difference
from covid_jax.report import comparison
from covid_jax.report.comparison import BOOTSTRAP, CORRECTED, DELONG, FOLDS, MCNEMAR, SEEDS, Comparison, Row

D = Difference(0.0625, 0.03125, 0.001, 0.124, 0.0004, 40)
NONE = Difference(None, None, None, None, None, 40, 'undefined on these exams')


def made(tests, **changes):
    """A Comparison with an AUC in each of these tests."""
    rows = [Row('all', test, 'accuracy' if test == MCNEMAR else 'auc', (0.9375,), (0.875,), D) for test in tests]
    c = Comparison(('runs/a', 'runs/b'), 'test', ('normal', 'covid'), 1, (0,), 40, 40, (0, 0), 999, 0.95, None, None, rows)
    return c._replace(**changes)


SINGLE = made([BOOTSTRAP, MCNEMAR, DELONG], discordant=(7, 2))
SEVERAL = made([BOOTSTRAP, SEEDS], seeds=(0, 1, 2))
CROSS = made([BOOTSTRAP, FOLDS, CORRECTED], folds=5, seeds=(0, 1), test_share=0.25)


def said(c):
    return '\n'.join(comparison.sentences(c))


def test_one_training_each_says_nothing_of_other_seeds():
    text = said(SINGLE)
    assert 'draws patients 999 times, the same ones for A and B' in text
    assert 'two imagined patients of each class, one that A alone has right and one that B alone has' in text
    assert 'One training each: this says nothing about other seeds.' in text
    assert 'A alone is right on 7 exams and B alone on 2, p <0.001' in text and 'at probability 0.5 only' in text
    assert 'the AUCs differ by +0.062, 95 % interval +0.001 to +0.124, p <0.001' in text
    assert 'independent' not in text and 'fold' not in text and 'ensemble' not in text
    assert 'at the most probable class only' in said(SINGLE._replace(classes=('normal', 'covid', 'pneumonia')))


def test_several_exams_of_a_patient_are_not_independent():
    text = said(SINGLE._replace(exams=90))
    assert 'McNemar and DeLong take the 90 exams as independent, and 40 patients have them' in text


def test_seeds_are_not_drawn_and_single_tests_left_out():
    text = said(SEVERAL)
    assert 'means over 3 seeds (0, 1, 2), and the seeds are not drawn' in text and '2 degrees of freedom' in text
    assert 'McNemar and DeLong are of one answer for each exam, and left out' in text and 'says nothing about other seeds' not in text
    assert '1 degree of freedom' in said(SEVERAL._replace(seeds=(0, 1)))


def test_folds_overlap_and_one_test_allows_for_it():
    text = said(CROSS)
    assert 'plain t-test over 5 folds' in text and 'their training sets overlap' in text
    assert 'with 0.250 patients tested on for each one learnt from' in text and 'the means over 2 seeds (0, 1)' in text
    assert 'says nothing about other seeds' not in text
    assert 'One training each, for each fold: this' in said(CROSS._replace(seeds=(0,)))
    assert 'The corrected t-test is left out: no exams.csv' in said(CROSS._replace(test_share=None))


def test_the_split_that_chose_the_checkpoint_is_no_test():
    assert 'The validation split chose the checkpoints' in said(SINGLE._replace(split='val'))
    assert 'validation' not in said(SINGLE)


def test_leaks_and_many_tests_are_spoken_of():
    text = said(SINGLE._replace(seen=(0, 3)))
    assert 'B is tested on 3 exams of patients that a run before it learnt from' in text and 'A is tested' not in text
    assert 'of many, some are small by chance' in text


def test_what_is_undefined_says_why(capsys, tmp_path):
    rows = [Row('all', BOOTSTRAP, 'precision', (None,), (0.5,), NONE),
            Row('all', DELONG, 'auc', (0.5,), (0.5,), NONE._replace(reason='no test: 1 positive exams'))]
    c = made([], rows=rows)
    (_, _, table, reasons), = comparison.tables(c)
    assert table == [['precision', '-', '0.500', '-', '', '-']] and reasons == ['precision: undefined on these exams']
    assert 'DeLong: no test of the AUCs (no test: 1 positive exams)' in said(c)
    comparison.show(c)
    assert 'precision: undefined on these exams' in capsys.readouterr().out
    comparison.write(tmp_path, c)
    assert 'all,bootstrap over patients,precision,,0.5,,,,,,40,undefined on these exams' in (tmp_path / 'compare.csv').read_text()


def test_a_reason_is_given_once_with_the_metrics_that_share_it():
    alike = D._replace(low=None, high=None, reason='no interval: all 3 differences are 0')
    rows = [Row('all', SEEDS, metric, (0.5,), (0.5,), difference)
            for metric, difference in (('accuracy', alike), ('auc', D), ('macro_f1', alike), ('precision', NONE))]
    assert comparison.tables(made([], rows=rows))[0][-1] == ['accuracy, macro_f1: no interval: all 3 differences are 0',
                                                             'precision: undefined on these exams']
    assert comparison.tables(made([], rows=rows[::2]))[0][-1] == ['all metrics: no interval: all 3 differences are 0']


def test_equal_ranks_have_no_interval_and_that_is_said():
    same = Difference(0.0, 0.0, p=1.0, n=40, reason='no interval: both runs rank every exam alike')
    text = said(made([], rows=[Row('all', DELONG, 'auc', (0.5,), (0.5,), same)]))
    assert 'the AUCs differ by +0.000, no interval: both runs rank every exam alike, p 1.000.' in text


def test_the_tables_fit_a_terminal_of_80_columns(capsys, monkeypatch):
    """The widest cells: two spreads, an interval and a small p."""
    monkeypatch.setenv('COLUMNS', '80')
    comparison.show(made([], rows=[Row('all', SEEDS, 'average_precision', (0.9, 0.7), (0.5, 0.5), D)]))
    line, = (line for line in capsys.readouterr().out.splitlines() if 'average_precision' in line)
    assert [cell.strip() for cell in line.split('│')[1:-1]] == ['average_precision', '0.800 ± 0.141', '0.500 ± 0.000', '+0.062',
                                                                '+0.001 to +0.124', '<0.001']


def test_the_tables_are_of_each_group_and_test():
    sites = [Row('site oslo', BOOTSTRAP, 'auc', (0.9, 0.7), (0.5, 0.5), D)]
    tables = comparison.tables(CROSS._replace(rows=[*CROSS.rows, *sites], level=0.9))
    assert [title for title, *_ in tables] == ['test: paired t over folds', 'test: corrected t over folds',
                                               'test: bootstrap over patients', 'test, site oslo: bootstrap over patients']
    assert tables[0][1] == ['metric', 'A', 'B', 'A - B', '90 % interval', 'p']
    assert tables[-1][2] == [['auc', '0.800 ± 0.141', '0.500 ± 0.000', '+0.062', '+0.001 to +0.124', '<0.001']]


def test_a_site_and_a_folder_may_be_called_anything_and_a_terminal_obeys_none(capsys, tmp_path):
    row = Row('site [red]os|lo\x1b[2J', BOOTSTRAP, 'auc', (0.5,), (0.5,), D)
    c = made([], rows=[row], runs=('a\x1b[2J', '=b'))
    comparison.show(c)
    out = capsys.readouterr().out
    assert '\x1b[2J' not in out and 'site [red]os|lo' in out
    comparison.write(tmp_path, c)
    assert r'site \[red\]os\|lo' in (tmp_path / 'compare.md').read_text()


@pytest.mark.parametrize('c', [SINGLE, SEVERAL, CROSS])
def test_what_is_written_holds_every_row_and_every_sentence(tmp_path, c):
    comparison.write(tmp_path / 'new' / 'folder', c)
    with (tmp_path / 'new' / 'folder' / 'compare.csv').open(newline='') as f:
        rows = list(csv.DictReader(f))
    assert [(row['test'], row['metric']) for row in rows] == [(row.test, row.metric) for row in c.rows]
    assert (rows[0]['a'], rows[0]['b'], rows[0]['difference'], rows[0]['p']) == ('0.9375', '0.875', '0.0625', '0.0004')
    text = (tmp_path / 'new' / 'folder' / 'compare.md').read_text().replace('\\', '')
    for line in [*comparison.heading(c), *comparison.sentences(c), 'not a medical device']:
        assert line in text
    assert text.count('| auc | 0.938 | 0.875 | +0.062 | +0.001 to +0.124 | <0.001 |') == len(comparison.tables(c))
