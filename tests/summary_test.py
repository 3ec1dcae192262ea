"""What folds and seeds come to: numbers worked out by hand, and the same from scikit-learn."""

import csv

import numpy as np
import pytest
from finished_runs import BINARY as NAMES
from finished_runs import finished
from sklearn.metrics import roc_auc_score

from covid_jax import UserError, predictions, summary
from covid_jax.report import tables

# Two folds of four exams, two seeds: probability of covid.
EXAMS = {0: [('a', 'noncovid'), ('b', 'noncovid'), ('c', 'covid'), ('d', 'covid')],
         1: [('e', 'noncovid'), ('f', 'noncovid'), ('g', 'covid'), ('h', 'covid')]}
SCORES = {(0, 0): (0.1, 0.6, 0.4, 0.9), (0, 1): (0.1, 0.2, 0.8, 0.9), (1, 0): (0.6, 0.7, 0.8, 0.9), (1, 1): (0.3, 0.2, 0.4, 0.6)}


def folders(root, scores=SCORES, exams=EXAMS):
    made, metrics = {}, {}
    for (fold, seed), p in scores.items():
        folder = root / f'fold{fold}' / f'seed{seed}'
        rows = [(name, 'test', label, score) for (name, label), score in zip(exams[fold], p, strict=True)]
        metrics[fold, seed] = finished(folder, rows, fold=fold, seed=seed)
        made[fold, seed] = predictions.of_run(folder)
    return made, metrics


def test_mean_and_spread_over_folds_and_over_seeds(tmp_path):
    """Accuracies by hand: 2, 4, 2 and 3 of 4. Means of the folds 0.75, 0.625; of the seeds 0.5, 0.875."""
    found = summary.summarise(*folders(tmp_path), 'test')['all']['accuracy']
    assert found.values == {(0, 0): 0.5, (0, 1): 1.0, (1, 0): 0.5, (1, 1): 0.75}
    assert found.spread.mean == pytest.approx(0.6875)
    assert found.spread.over_folds == pytest.approx(0.125 / 2**0.5)
    assert found.spread.over_seeds == pytest.approx(0.375 / 2**0.5)


def test_pooled_is_of_all_folds_of_a_seed_and_then_the_mean_over_seeds(tmp_path):
    """Not the mean of the folds: scores of two folds are ranked together. And not of the seeds' mean probability."""
    found = summary.summarise(*folders(tmp_path), 'test')['all']['auc']
    label = [0, 0, 1, 1] * 2
    of_seeds = [roc_auc_score(label, SCORES[0, seed] + SCORES[1, seed]) for seed in (0, 1)]
    assert found.pooled['value'] == pytest.approx(np.mean(of_seeds)) and found.pooled['n'] == 8
    assert found.pooled['value'] != pytest.approx(found.spread.mean)
    together = np.mean([SCORES[0, seed] + SCORES[1, seed] for seed in (0, 1)], 0)
    assert found.pooled['value'] != pytest.approx(roc_auc_score(label, together))


def test_of_one_fold_the_pooled_value_is_the_mean(tmp_path):
    of_fold_0 = {key: p for key, p in SCORES.items() if key[0] == 0}
    found = summary.summarise(*folders(tmp_path, of_fold_0), 'test')['all']
    for metric in ('accuracy', 'macro_f1', 'auc'):
        assert found[metric].pooled['value'] == pytest.approx(found[metric].spread.mean)
        assert found[metric].spread.over_folds is None


def test_the_interval_is_over_patients_whose_seeds_stay_together(tmp_path, rng):
    """Two equal seeds are no more patients than one: the interval stays."""
    exams = {0: [(f'p{i}', NAMES[i % 2]) for i in range(40)]}
    p = tuple(np.clip(rng.normal(0.35 + 0.3 * (np.arange(40) % 2), 0.2), 0, 1))
    one = summary.summarise(*folders(tmp_path / 'one', {(0, 0): p}, exams), 'test')['all']
    two = summary.summarise(*folders(tmp_path / 'two', {(0, 0): p, (0, 1): p}, exams), 'test')['all']
    for metric in ('accuracy', 'auc', 'macro_f1'):
        assert one[metric].pooled['low'] < one[metric].pooled['value'] < one[metric].pooled['high']
        assert two[metric].pooled == pytest.approx(one[metric].pooled)


def test_what_is_undefined_in_one_part_has_no_mean(tmp_path):
    scores = {**SCORES, (0, 0): (0.1, 0.2, 0.3, 0.4)}  # nothing is called covid: no precision
    found = summary.summarise(*folders(tmp_path, scores), 'test')['all']
    assert found['precision'].spread is None and found['precision'].values[0, 0] is None
    assert found['precision'].pooled['value'] is not None  # all folds of a seed together do call some covid
    assert found['sensitivity'].spread is not None


def test_what_every_fold_tests_is_not_pooled(tmp_path):
    """A source that is not dealt into folds, and is the test split of each."""
    found = summary.summarise(*folders(tmp_path, exams={0: EXAMS[0], 1: EXAMS[0]}), 'test')['all']
    assert found['auc'].pooled == {} and found['auc'].spread is not None


def test_seeds_of_other_exams(tmp_path):
    made, metrics = folders(tmp_path)
    made[1, 1] = made[1, 1].at([0, 1, 2])
    with pytest.raises(UserError, match='seed 0 and seed 1 did not answer the same exams'):
        summary.summarise(made, metrics, 'test')


def test_the_files_hold_every_number(tmp_path):
    made, metrics = folders(tmp_path)
    results = {'': {f'fold{f}/seed{s}': m for (f, s), m in metrics.items()}}
    summaries = {'': summary.summarise(made, metrics, 'test')}
    tables.write(results, summaries, tmp_path)
    with open(tmp_path / 'results.csv', newline='') as f:
        rows = {(row['metric'], row['statistic'], row['part']): row['value'] for row in csv.DictReader(f)}
    assert [rows['accuracy', 'part', f'fold{f}/seed{s}'] for f, s in sorted(SCORES)] == ['0.5', '1', '0.5', '0.75']
    assert rows['accuracy', 'mean', ''] == '0.6875' and rows['accuracy', 's.d. over folds', ''] == '0.0883883'
    assert rows['accuracy', 's.d. over seeds', ''] == '0.265165' and float(rows['accuracy', 'pooled', '']) == 0.6875
    text = (tmp_path / 'results.md').read_text()
    assert '## test, positive class covid, 2 folds x 2 seeds' in text
    assert '| accuracy | 0.688 | 0.088 | 0.265 | 0.688 |' in text and '| fold0/seed1 | 1.000 |' in text
