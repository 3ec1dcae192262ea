"""What the tables of a run say: of which split, group and site they are, and what they leave out."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from covid_jax import evaluate
from covid_jax.config import PairedTests, Table
from covid_jax.predictions import Predictions
from covid_jax.report import paper, tables
from covid_jax.sources.exams import Exam


def metrics(rows, level=None):
    """Of (split, site, label, probability of covid)."""
    exams = [Exam(f'e{i}', f'p{i}', site, 'x', split, '') for i, (split, site, *_) in enumerate(rows)]
    p = np.array([row[3] for row in rows])
    return evaluate.all_metrics(Predictions(('noncovid', 'covid'), exams, np.array([row[2] for row in rows]),
                                            np.stack([1 - p, p], 1)), level)


ONE = [('val', 'oslo', 0, 0.1), ('val', 'rome', 1, 0.9), ('test', 'oslo', 0, 0.2), ('test', 'oslo', 1, 0.7)]
TWO = [*ONE, ('test', 'rome', 0, 0.8), ('test', 'rome', 1, 0.6)]


def shown(capsys, results, tmp_path):
    tables.show(results, {}, tmp_path)
    return ' '.join(capsys.readouterr().out.split())


def test_a_split_of_one_site_alone_says_so(capsys, tmp_path):
    out = shown(capsys, {'': {'.': metrics(ONE)}}, tmp_path)
    assert 'test, of oslo alone, positive class covid' in out and out.count('positive class') == 1


def test_a_network_that_answers_one_class_alone_is_named(capsys, tmp_path):
    out = shown(capsys, {'': {'.': metrics([('test', 'oslo', i % 2, 0.6 + 0.01 * i) for i in range(8)], 0.95)}}, tmp_path)
    assert out.count('all 8 are answered as covid: nothing is told apart there') == 1


def test_a_title_is_a_line_whatever_the_width(capsys, tmp_path, monkeypatch):
    """Of a group, of all stages, of a paper's table and of its tests: rich would break each to the width of its table."""
    monkeypatch.setenv('COLUMNS', '30')
    tables.show({'pretrain': {'pretrain': metrics(ONE)}, 'a': {'a': metrics(ONE)}}, {}, tmp_path)
    paper.show(Table('Table 3: what a network without any pretraining reaches', ('auc',), {}), SimpleNamespace(lines=[], runs=[], remarks=[]), [])
    paper.show_tests(PairedTests('Table 4: p-values of all that was compared there', 'ours', {}), SimpleNamespace(lines=[], runs=[], remarks=[]))
    out = capsys.readouterr().out.splitlines()
    of_split = 'test, of oslo alone, positive class covid'
    assert {of_split, f'{of_split}: value and interval', 'Table 3: what a network without any pretraining reaches, %',
            'Table 4: p-values of all that was compared there'} <= {*out}


def test_names_of_stages_and_intervals_stay_whole_in_80_columns(capsys, tmp_path, monkeypatch):
    """With the time of a training, too; of a name that is too long the rest is below, and nothing is left out."""
    monkeypatch.setenv('COLUMNS', '80')
    entry = {'value': 0.9, 'low': 0.849, 'high': 0.949, 'n': 120, 'level': 0.95, 'positive': 'covid'}
    one = {'test': {'all': dict.fromkeys(tables.BRIEF, entry)}}
    stages = 'xray_r50_full_tern', 'a_name_of_more_than_18_letters'
    tables.show({name: {name: one} for name in stages}, {}, tmp_path, seconds=dict.fromkeys(stages, 3725.0))
    out = capsys.readouterr().out
    assert out.count('(0.849-0.949)') == 6 and out.count('1:02:05') == 2
    names = ''.join(re.findall('^│ *(\\w+) *│', out, re.M)[:3])
    assert names == ''.join(stages)
    assert max(map(len, out.splitlines()[1:9])) <= 80 and '…' not in out


def test_sites_are_shown_apart(capsys, tmp_path):
    """By hand: accuracy 3 of 4, all of oslo, half of rome."""
    out = shown(capsys, {'': {'.': metrics(TWO)}}, tmp_path)
    assert 'alone' not in out
    tables_of = [out.index(f'test{group}, positive') for group in ('', ', site oslo', ', site rome')]
    assert tables_of == sorted(tables_of)
    accuracy = re.findall(r'accuracy \S+ (\d\.\d+)', out)
    assert accuracy == ['0.750', '1.000', '0.500']


@pytest.mark.parametrize('level, words', [(0.95, '95 % interval'), (0.9, '90 % interval')])
def test_intervals_say_their_level_and_where_patients_are_few(capsys, tmp_path, level, words):
    """Of 8 patients, 2 of COVID: by stages too, and of a group without intervals no level is told."""
    rows = [('test', 'oslo', int(i < 2), 0.2 + 0.1 * (i % 5)) for i in range(8)]
    results = {'probe': {'probe': metrics(rows, level)}, 'fine': {'fine': metrics(rows, level)}}
    out = shown(capsys, results, tmp_path)
    assert f'value and {words}' in out and out.count(words) == 2
    assert out.count('interval: 8 patients, 2 of class covid; how often it holds the truth is known from 20 patients') == 1
    out = shown(capsys, {'': {'.': metrics(ONE, level)}}, tmp_path)
    assert '%' not in out and 'no interval: 1 patient of class noncovid and 1 patient of class covid, 2 needed' in out


def test_a_stage_that_answers_nothing_has_no_row(capsys, tmp_path):
    out = shown(capsys, {'pretrain': {'pretrain': {}}, 'probe': {'probe': metrics(ONE)}, 'fine': {'fine': metrics(TWO)}}, tmp_path)
    assert 'pretrain' not in out.split('predictions, metrics and plots')[0] and 'probe' in out and 'fine' in out
    out = shown(capsys, {'pretrain': {'pretrain': {}}}, tmp_path)
    assert 'nothing is scored' in out and 'what was learnt: ' in out and 'predictions, metrics' not in out


def test_sites_are_called_as_the_data_call_them_and_a_terminal_obeys_none(capsys, tmp_path):
    rows = [(split, f'[red]{site}\x1b[2J', *rest) for split, site, *rest in TWO]
    out = shown(capsys, {'': {'.': metrics(rows)}}, tmp_path)
    assert 'site [red]oslo [2J' in out and '\x1b[2J' not in out
