"""A paper's table beside the runs in a folder: which run stands in which row, and with what numbers."""

import pytest
from finished_runs import finished

from covid_jax import UserError, evaluate, papers, predictions
from covid_jax.config import Table
from covid_jax.report import paper

TABLE = Table('Table 1', ('accuracy', 'auc'), {'model1': ('91.71 [89.30, 94.12]', ''), 'model4': ('94.65', '98.8')},
              {'Li et al.': ('93.46', '')}, levels=(0.95, 0.9))
RIGHT = [(f'{i}', 'test', ('noncovid', 'covid')[i % 2], 0.2 + 0.6 * (i % 2)) for i in range(40)]
HALF = [(name, split, label, p if i % 4 < 2 else 1 - p) for i, (name, split, label, p) in enumerate(RIGHT)]


def shown(folder, table=TABLE, config='cmc', fields=lambda stage: {}):
    found = papers.shown(table, config, papers.finished(folder), fields)
    return {(line.row, line.metric, line.run): line for line in found.lines}, found.runs


def test_a_run_stands_in_its_row_with_its_intervals(tmp_path):
    finished(tmp_path / 'deep' / 'a', HALF, config={'row': 'cmc:model4,size=small'})
    found, runs = shown(tmp_path)
    line = found['model4', 'accuracy', 1]
    assert (line.paper, line.ours) == ('94.65', '50.00')
    for level, interval in zip((0.95, 0.9), line.intervals, strict=True):
        entry = evaluate.score(predictions.of_run(tmp_path / 'deep' / 'a', ('noncovid', 'covid')), level=level)['accuracy']
        assert interval == f'[{100 * entry["low"]:.2f}, {100 * entry["high"]:.2f}]'
    assert line.intervals[0] != line.intervals[1]
    (run,) = runs
    assert run == f'{tmp_path}/deep/a: size=small; 40 exams of test, here'
    assert found['model1', 'accuracy', 0].ours == '-' and found['model1', 'accuracy', 0].paper == '91.71 [89.30, 94.12]'
    assert found['Li et al.', 'accuracy', 0].intervals == ('-', '-') and found['model1', 'auc', 0].paper == ''


def test_two_runs_of_one_row_and_a_run_of_another_paper(tmp_path):
    finished(tmp_path / 'a', HALF, config={'row': 'cmc:model4'})
    finished(tmp_path / 'b', RIGHT, config={'row': 'cmc:model4'})
    finished(tmp_path / 'c', RIGHT, config={'row': 'cmt:model1'})
    finished(tmp_path / 'd', RIGHT)  # of a version that named no row
    found, runs = shown(tmp_path)
    assert [found['model4', 'accuracy', n].ours for n in (1, 2)] == ['50.00', '100.00'] and len(runs) == 2
    assert ('model1', 'accuracy', 0) in found


def test_a_stage_stands_in_the_row_of_its_name_and_the_last_one_in_that_of_the_run(tmp_path):
    for stage, rows, last in (('model1', HALF, False), ('finetune', RIGHT, True)):
        finished(tmp_path / 'run' / stage, rows, stage, last=last, config={'row': 'cmc:model4'})
    found, _ = shown(tmp_path)
    assert found['model1', 'accuracy', 1].ours == '50.00' and found['model4', 'accuracy', 2].ours == '100.00'


def test_folds_and_seeds_are_a_mean_and_a_spread(tmp_path):
    """By hand: folds right by 1 and by 0.5: the mean 0.75, the standard deviation 0.5 / sqrt(2) = 0.3536."""
    for fold, rows in enumerate((RIGHT[:20], HALF[20:])):
        finished(tmp_path / 'run' / f'fold{fold}' / 'seed0', rows, fold=fold, folds=2, config={'row': 'cmc:model4'})
    found, (run,) = shown(tmp_path)
    assert found['model4', 'accuracy', 1].ours == '75.00 ± 35.36'
    assert found['model4', 'accuracy', 1].intervals[0].startswith('75.00 [')
    assert run.endswith('run: 40 exams of test, here; 2 folds x 1 seed, ± over the folds, before each interval the metric of all '
                        'folds pooled')


@pytest.mark.parametrize('part', [{'folds': 2}, {'seeds': 2}, {'seeds': 2, 'seed': 1}])
def test_a_run_whose_parts_are_not_all_there(tmp_path, part):
    finished(tmp_path / 'run' / 'fold0' / f'seed{part.get("seed", 0)}', RIGHT, config={'row': 'cmc:model4'}, **part)
    found, (run,) = shown(tmp_path)
    assert found['model4', 'accuracy', 1].ours == '-' and run.endswith(': not finished, give its command again')


def test_folders_that_are_only_called_like_seeds_are_runs_of_their_own(tmp_path):
    for seed, row in enumerate(('model4', 'model1')):
        finished(tmp_path / f'seed{seed}', RIGHT, seed=seed, config={'row': f'cmc:{row}'})
    found, listed = shown(tmp_path)
    assert found['model1', 'accuracy', 1].ours == found['model4', 'accuracy', 2].ours == '100.00' and len(listed) == 2


def test_what_was_set_otherwise_than_in_the_row_is_said(tmp_path):
    finished(tmp_path / 'a', RIGHT, config={'row': 'cmc:model4', 'cmc.mixup': 0, 'model.name': 'ResNet18', 'seed': 3})
    own = {'cmc.mixup': 0.5, 'model.name': 'ResNeSt50', 'seed': 0, 'train.lr': 1e-3}
    _, (run,) = shown(tmp_path, fields=lambda stage: own)
    assert run.endswith('here; but cmc.mixup=0, model.name=ResNet18')


def test_few_patients_and_missing_intervals_are_said(tmp_path):
    finished(tmp_path / 'a', RIGHT[:8], config={'row': 'cmc:model4'})
    finished(tmp_path / 'b', RIGHT[::2], config={'row': 'cmc:model1'})
    remarks = papers.shown(TABLE, 'cmc', papers.finished(tmp_path), lambda stage: {}).remarks
    assert any(remark.startswith('interval: 8 patients') for remark in remarks)
    assert any('no examples of class covid' in remark for remark in remarks)


@pytest.mark.parametrize('text', ['{', '[1]', '{"stage": "", "fold": [1], "seed": 0}', '{"stage": "", "fold": null, "seed": 0}'])
def test_a_damaged_run_is_left_out_and_named(tmp_path, text):
    for name in 'ab':
        finished(tmp_path / name, RIGHT, config={'row': 'cmc:model4'})
    (tmp_path / 'a' / 'results.json').write_text(text)
    said = []
    assert [stage.root.name for stage in papers.finished(tmp_path, said.append)] == ['b']
    assert len(said) == 1 and 'a/results.json' in said[0] and '\n' not in said[0]
    path = tmp_path / 'b' / 'predictions.csv'
    path.write_bytes(path.read_bytes()[:-5])
    found, (run,) = shown(tmp_path)
    assert found['model4', 'accuracy', 1].ours == '-' and run.startswith('left out: ') and 'is cut off' in run


def test_numbers_of_the_paper_that_cannot_be():
    table = Table('T', ('accuracy', 'sensitivity', 'specificity'), {'a': ('96.85', '96.47', '97.08')},
                  {'Li et al.': ('93.46', '90.57', '90.84'), 'none': ('', '90.0', '')})
    (sentence,) = papers.impossible(table)
    assert sentence.startswith('Li et al.: accuracy 93.46 % is not between')
    fractions = Table('T', ('precision', 'sensitivity', 'f1_covid'), {'a': ('.840', '.848', '.850')}, positives=50, negatives=468,
                      percent=False)
    assert any('sensitivity' in sentence for sentence in papers.impossible(fractions))
    means = Table('T', ('precision', 'sensitivity', 'f1_covid'), {'below': ('90.0 ± 1.0', '50.0 ± 2.0', '60.0 ± 1.0'),
                                                                  'above': ('90.0 ± 1.0', '50.0 ± 2.0', '65.0 ± 1.0')})
    assert [sentence[:5] for sentence in papers.impossible(means)] == ['above']  # the harmonic mean is 64.3


def of_site(site, rows):
    return [(f'{site}/{name}', *row) for name, *row in rows]


SITE_A = TABLE._replace(group='site oslo')


def test_a_table_of_one_site_has_the_runs_of_both_and_those_of_it_alone(tmp_path):
    """By hand: of oslo all are right in the joint run, half in that of oslo alone. Rome's run is in no table of oslo."""
    finished(tmp_path / 'a', of_site('oslo', RIGHT) + of_site('rome', HALF), config={'row': 'cmc:model4'})
    finished(tmp_path / 'b', of_site('oslo', HALF), config={'row': 'cmc:model1,site=a'})
    finished(tmp_path / 'c', of_site('rome', RIGHT), config={'row': 'cmc:model1,site=b'})
    found, runs = shown(tmp_path, SITE_A)
    assert found['model4', 'accuracy', 2].ours == '100.00' and found['model1', 'accuracy', 1].ours == '50.00'
    assert not any(run == 0 for row, _, run in found if row in ('model1', 'model4')) and len(runs) == 2
    assert runs[0].endswith('b: site=a; 40 exams of test, oslo') and runs[1].endswith('a: 40 exams of test, oslo')
    alone = evaluate.score(predictions.of_run(tmp_path / 'b', ('noncovid', 'covid')), level=0.95)['accuracy']
    assert found['model1', 'accuracy', 1].intervals[0] == f'[{100 * alone["low"]:.2f}, {100 * alone["high"]:.2f}]'
    other, _ = shown(tmp_path, TABLE._replace(group='site rome'))
    assert (other['model4', 'accuracy', 2].ours, other['model1', 'accuracy', 1].ours) == ('50.00', '100.00')
    nowhere, none = shown(tmp_path, TABLE._replace(group='site lima'))
    assert nowhere['model1', 'accuracy', 0].ours == '-' and none == []


def test_why_a_table_is_empty_comes_before_its_dashes(tmp_path, capsys):
    """Of runs of another site; where one run stands in the table, what is to be said comes after it."""
    finished(tmp_path / 'b', of_site('oslo', HALF), config={'row': 'cmc:model1'})
    for group, first in (('site lima', True), ('site oslo', False)):
        table = TABLE._replace(group=group)
        paper.show(table, papers.shown(table, 'cmc', papers.finished(tmp_path), lambda stage: {}), [])
        out = capsys.readouterr().out
        assert ('has no exams of site lima' in out.partition(table.title)[0]) == first and out.count('has no exams of') == first


def test_a_site_in_folds(tmp_path):
    """By hand: of oslo right by 1 and by 0.5, whether rome is there or not. A fold without oslo has no mean."""
    for fold, rows in enumerate((RIGHT[:20], HALF[20:])):
        more = {'fold': fold, 'folds': 2}
        finished(tmp_path / f'a/fold{fold}/seed0', of_site('oslo', rows), config={'row': 'cmc:model1'}, **more)
        both = of_site('oslo', rows) + of_site('rome', RIGHT[:20] if fold else RIGHT[20:])
        finished(tmp_path / f'b/fold{fold}/seed0', both, config={'row': 'cmc:model4'}, **more)
    found, runs = shown(tmp_path, SITE_A)
    assert found['model1', 'accuracy', 1].ours == found['model4', 'accuracy', 2].ours == '75.00 ± 35.36'
    assert all('40 exams of test, oslo; 2 folds' in run for run in runs)
    finished(tmp_path / 'b/fold1/seed0', of_site('rome', RIGHT), config={'row': 'cmc:model4'}, fold=1, folds=2)
    found, runs = shown(tmp_path, SITE_A)
    assert found['model4', 'accuracy', 2].ours == '-' and runs[1].endswith('b has a fold without exams of oslo')


def test_an_unfinished_run_of_another_site_is_not_in_the_table(tmp_path):
    finished(tmp_path / 'a/fold0/seed0', of_site('rome', RIGHT), folds=2, config={'row': 'cmc:model4'})
    found, runs = shown(tmp_path, SITE_A)
    assert found['model4', 'accuracy', 0].ours == '-' and runs == []
    _, runs = shown(tmp_path, TABLE._replace(group='site rome'))
    assert runs[0].endswith('not finished, give its command again')


def test_a_folder_without_runs(tmp_path):
    assert papers.finished(tmp_path) == []
    with pytest.raises(UserError, match='there is no folder'):
        papers.finished(tmp_path / 'nowhere')
