"""What a comparison of two runs computes, of one training each, of seeds and of folds."""

import numpy as np
import pytest
from finished_runs import NAMES, exam, finish, leave, run, scores
from scipy import stats
from sklearn.metrics import roc_auc_score

from covid_jax import UserError
from covid_jax.compare import compare
from covid_jax.data import lineage
from covid_jax.metrics.classification import classification_metrics
from covid_jax.report.comparison import BOOTSTRAP, CORRECTED, DELONG, FOLDS, MCNEMAR, SEEDS

METRICS = ['accuracy', 'macro_f1', 'sensitivity', 'specificity', 'precision', 'auc', 'average_precision']


def of(comparison, test, group='all'):
    return {row.metric: row for row in comparison.of(group, test)}


def values_of(score, rows):
    """{metric: value} of a probability of covid, for exams of these numbers."""
    rows = np.asarray(rows)
    p = np.asarray(score)[rows]
    metrics = classification_metrics(rows % 2, np.stack([1 - p, p], 1), NAMES)
    return {name: metrics[name]['value'] for name in METRICS}


def test_one_training_each_by_hand(tmp_path):
    """20 covid and 20 normal: A misses 2 covid (e1, e3) and calls 4 normal covid (e0 to e6), B misses 5 covid (e1 to e9)."""
    exams = [exam(i) for i in range(40)]
    a, b = np.arange(40) % 2 * 0.5 + 0.25, np.arange(40) % 2 * 0.5 + 0.25
    a[[1, 3]], a[[0, 2, 4, 6]], b[[1, 3, 5, 7, 9]] = 0.125, 0.5, 0.375
    leave(tmp_path / 'a', exams, a)
    leave(tmp_path / 'b', exams, b)
    found = compare(tmp_path / 'a', tmp_path / 'b', resamples=50)
    rows = of(found, BOOTSTRAP)
    assert list(rows) == METRICS and (found.exams, found.patients, found.folds, found.seeds) == (40, 40, 1, (0,))
    expected = {'accuracy': (34 / 40, 35 / 40), 'sensitivity': (18 / 20, 15 / 20), 'specificity': (16 / 20, 1),
                'precision': (18 / 22, 1), 'macro_f1': ((32 / 38 + 36 / 42) / 2, (40 / 45 + 30 / 35) / 2)}
    for metric, (one, two) in expected.items():
        assert (rows[metric].a, rows[metric].b) == (pytest.approx((one,)), pytest.approx((two,)))
        assert rows[metric].difference.value == pytest.approx(one - two) and rows[metric].difference.p is not None
    mcnemar = of(found, MCNEMAR)['accuracy']  # A alone is right on e5, e7 and e9, B alone on e0, e2, e4 and e6
    assert found.discordant == (3, 4) and mcnemar.difference.p == 1 and mcnemar.difference.value == pytest.approx(-1 / 40)
    delong = of(found, DELONG)['auc']
    assert delong.difference.value == pytest.approx(roc_auc_score(np.arange(40) % 2, a) - 1) and delong.b == (1,)
    assert not found.of('all', FOLDS) and not found.of('all', SEEDS) and found.seen == (0, 0)
    assert {row.group for row in found.rows} == {'all'}


def test_each_of_several_sites_is_compared_by_itself(tmp_path):
    """All of rome is right in both; A is wrong on four of oslo."""
    exams = [exam(i, site='rome' if i < 40 else 'oslo') for i in range(80)]
    b = np.arange(80) % 2 * 0.5 + 0.25
    a = b.copy()
    a[[40, 42, 44, 46]] = 0.75
    leave(tmp_path / 'a', exams, a)
    leave(tmp_path / 'b', exams, b)
    found = compare(tmp_path / 'a', tmp_path / 'b', resamples=20)
    assert list(dict.fromkeys(row.group for row in found.rows)) == ['all', 'site oslo', 'site rome']
    oslo, rome = (of(found, BOOTSTRAP, f'site {site}')['accuracy'] for site in ('oslo', 'rome'))
    assert (oslo.a, oslo.b, oslo.difference.n) == ((0.9,), (1,), 40) and (rome.a, rome.difference.p) == ((1,), 1)
    assert of(found, BOOTSTRAP)['accuracy'].difference.value == pytest.approx(-0.05)


def test_an_interval_of_two_folds_stays_where_differences_lie(tmp_path):
    """Student's law of one degree of freedom: 12.7 standard errors, far beyond 1; p is as it is."""
    runs = [run(tmp_path / 'a', 1, folds=2), run(tmp_path / 'b', 0.1, folds=2)]
    for a, b, side in (*runs, 1), (*runs[::-1], -1):
        found = compare(a, b, resamples=20)
        rows = [row.difference for row in found.of('all', FOLDS) if row.difference.low is not None]
        assert all(-1 <= d.low <= d.value <= d.high <= 1 for d in rows) and any(abs(d.value + side * 12.7 * d.error) > 1 for d in rows)
        assert any(side == (d.high if side > 0 else d.low) for d in rows)


def test_patients_and_not_exams_are_drawn(tmp_path):
    """Three exams of each patient, answered alike: the interval is that of one exam each."""
    for name, quality in (('a', 1), ('b', 0.5)):
        score = scores(60, quality, 3)
        leave(tmp_path / 'once' / name, [exam(i) for i in range(60)], score)
        thrice = [exam(i)._replace(id=f'e{i}.{j}') for i in range(60) for j in range(3)]
        leave(tmp_path / 'thrice' / name, thrice, np.repeat(score, 3))
    once, thrice = (compare(tmp_path / name / 'a', tmp_path / name / 'b', resamples=50) for name in ('once', 'thrice'))
    assert (thrice.exams, thrice.patients) == (180, 60)
    for metric in METRICS:
        assert of(thrice, BOOTSTRAP)[metric].difference[:5] == pytest.approx(of(once, BOOTSTRAP)[metric].difference[:5])


def test_means_over_seeds_and_their_t_test(tmp_path):
    """As a plain loop: patients are drawn, and every seed of both runs answers them; exams 60 to 63 are the imagined patients',
    of whom A alone has 60 and 61 right, and B alone 62 and 63."""
    a, b = run(tmp_path / 'a', 1, seeds=(0, 1, 2)), run(tmp_path / 'b', 0.5, seeds=(0, 1, 2))
    found = compare(a, b, resamples=25, seed=5)
    each = [[np.round(scores(60, quality, 100 * seed), 6) for seed in (0, 1, 2)] for quality in (1, 0.5)]
    random = np.random.default_rng(5)
    names = [sorted(range(label, 60, 2), key=lambda i: f'p{i}') for label in (0, 1)]
    names = [[*names[0], 60, 62], [*names[1], 61, 63]]
    drawn = [[stratum[i] for stratum in names for i in random.integers(32, size=32)] for _ in range(25)]
    whole = [[values_of(score, range(60)) for score in run] for run in each]
    more = (0.4, 0.6, 0.6, 0.4), (0.6, 0.4, 0.4, 0.6)
    each = [[np.append(score, extra) for score in run] for run, extra in zip(each, more, strict=True)]
    resampled = [[[values_of(score, rows) for score in run] for run in each] for rows in drawn]
    for metric in METRICS:
        values = [[of_seed[metric] for of_seed in run] for run in whole]
        boot, over_seeds = of(found, BOOTSTRAP)[metric], of(found, SEEDS)[metric]
        for row in (boot, over_seeds):
            assert row.a == pytest.approx(values[0]) and row.b == pytest.approx(values[1])
            assert row.difference.value == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
        samples = [np.mean([s[metric] for s in a]) - np.mean([s[metric] for s in b]) for a, b in resampled]
        assert boot.difference[2:4] == pytest.approx(np.quantile(samples, [0.025, 0.975]))
        assert over_seeds.difference.p == pytest.approx(stats.ttest_rel(*values).pvalue)
    assert found.discordant is None and not found.of('all', MCNEMAR) and not found.of('all', DELONG)
    assert found.seeds == (0, 1, 2) and found.test_share is None


def test_folds_are_tested_by_their_means_and_put_together(tmp_path):
    """Four folds of 15 exams, two seeds: the share of patients is 1 / 3, so the variance is (1/4 + 1/3) times that of folds."""
    a, b = run(tmp_path / 'a', 1, 4, (0, 1)), run(tmp_path / 'b', 0.5, 4, (0, 1))
    found = compare(a, b, resamples=30, level=0.9)
    folds = [[i for i in range(60) if i // 2 % 4 == fold] for fold in range(4)]

    def answered(quality, seed):
        return [np.round(scores(60, quality, 100 * seed + fold), 6) for fold in range(4)]

    share = np.mean([len(fold) / (60 - len(fold)) for fold in folds])
    assert (found.folds, found.seeds, found.exams) == (4, (0, 1), 60) and found.test_share == pytest.approx(share)
    whole = [[[values_of(answered(quality, seed)[fold], rows) for seed in (0, 1)] for fold, rows in enumerate(folds)]
             for quality in (1, 0.5)]
    for metric in METRICS:
        values = [[np.mean([of_seed[metric] for of_seed in fold]) for fold in run] for run in whole]
        plain, corrected = of(found, FOLDS)[metric], of(found, CORRECTED)[metric]
        expected = stats.ttest_rel(*values)
        assert plain.a == corrected.a == pytest.approx(values[0]) and plain.b == pytest.approx(values[1])
        assert plain.difference.p == pytest.approx(expected.pvalue)
        assert plain.difference[2:4] == pytest.approx(expected.confidence_interval(0.9))
        assert corrected.difference.error == pytest.approx(plain.difference.error * np.sqrt(1 + 4 * share))
    for metric, row in of(found, BOOTSTRAP).items():
        for ours, quality in ((row.a, 1), (row.b, 0.5)):
            pooled = np.zeros((2, 60))  # of each seed, put together by hand
            for seed in (0, 1):
                for fold, rows in enumerate(folds):
                    pooled[seed, rows] = answered(quality, seed)[fold][rows]
            assert ours == pytest.approx([values_of(score, range(60))[metric] for score in pooled], abs=1e-6)
    assert found.discordant is None and not found.of('all', MCNEMAR) and not found.of('all', DELONG)


def test_folds_of_one_seed_are_one_answer_for_each_exam(tmp_path):
    a, b = run(tmp_path / 'a', 1, 4), run(tmp_path / 'b', 0.5, 4)
    found = compare(a, b, resamples=30)
    right = []
    for quality in (1, 0.5):
        score = np.zeros(60)
        for fold in range(4):
            rows = [i for i in range(60) if i // 2 % 4 == fold]
            score[rows] = np.round(scores(60, quality, fold), 6)[rows]
        right.append((score >= 0.5) == np.arange(60) % 2)
    assert found.discordant == ((right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum())
    assert of(found, DELONG)['auc'].a == of(found, BOOTSTRAP)['auc'].a


def test_a_metric_that_a_fold_leaves_undefined_has_no_t_test(tmp_path):
    """No exam of fold 1 is called covid by A: its precision there is undefined."""
    a, b = run(tmp_path / 'a', 1, 2), run(tmp_path / 'b', 1, 2)
    leave(a / 'fold1' / 'seed0', [exam(i) for i in range(60) if i // 2 % 2], np.full(30, 0.25))
    found = compare(a, b, resamples=20)
    row = of(found, FOLDS)['precision']
    assert row.a[1] is None and row.difference.value is None and row.difference.reason == 'undefined in 1 of 2'
    assert of(found, FOLDS)['accuracy'].difference.p is not None


def test_what_was_learnt_from_is_counted_in_patients(tmp_path):
    """Fold 0 tests 2 patients (in 4 exams) and learns from 4 (in 8), fold 1 tests 2 and learns from 2; B learns from 8."""
    for name, patients in (('a', (4, 2)), ('b', (8, 8))):
        for fold, many in enumerate(patients):
            folder = tmp_path / name / f'fold{fold}'
            tested = [exam(2 * fold + i)._replace(id=f'{fold}.{i}.{j}') for i in (0, 1) for j in (0, 1)]
            leave(folder, tested, [0.25, 0.25, 0.75, 0.75])
            learnt = [exam(i, 'train', f'q{i % many}') for i in range(100, 100 + 2 * many)]
            finish(folder, fold=fold, folds=2, learnt=[*learnt, exam(50, 'val'), exam(51, ''), *map(exam, (0, 1))])
    assert compare(tmp_path / 'a', tmp_path / 'b', resamples=2).test_share == pytest.approx((2 / 4 + 2 / 2) / 2)
    before = lineage.inherited(lineage.own([exam(i, 'train') for i in range(200, 230)], ['h'] * 30), 'earlier')
    for fold in (0, 1):  # what an earlier run learnt from does not count
        folder = tmp_path / 'a' / f'fold{fold}'
        lineage.write(folder, lineage.read(folder) + before)
    assert compare(tmp_path / 'b', tmp_path / 'a', resamples=2).test_share == pytest.approx(0.75)
    for fold in (0, 1):  # but where there is nothing else, as in an ensemble
        lineage.write(tmp_path / 'a' / f'fold{fold}', before)
    assert compare(tmp_path / 'a', tmp_path / 'b', resamples=2).test_share == pytest.approx(2 / 8)
    (tmp_path / 'a' / 'fold1' / 'exams.csv').unlink()
    found = compare(tmp_path / 'a', tmp_path / 'b', resamples=2)
    assert found.test_share is None and found.of('all', FOLDS) and not found.of('all', CORRECTED)


def test_three_classes_are_decided_by_the_most_probable(tmp_path):
    """The third class is never the answer: where it is the truth both are wrong, and covid against the rest is ranked."""
    names = (*NAMES, 'pneumonia')
    exams = [exam(i)._replace(label=names[i % 3]) for i in range(60)]
    for name, quality in (('a', 1), ('b', 0.5)):
        leave(tmp_path / name, exams, scores(60, quality, 1), names)
    found = compare(tmp_path / 'a', tmp_path / 'b', resamples=20)
    score = np.round(scores(60, 1, 1), 6)
    label = np.arange(60) % 3
    assert found.classes == names and of(found, BOOTSTRAP)['auc'].a == pytest.approx((roc_auc_score(label == 1, score),))
    assert of(found, BOOTSTRAP)['accuracy'].a == pytest.approx((np.mean((score > 0.5) == label),))


def test_exams_that_an_earlier_run_learnt_from_are_counted(tmp_path):
    exams = [exam(i) for i in range(4)]
    leave(tmp_path / 'a', exams, [0.1, 0.2, 0.3, 0.4], columns={'seen': np.array([1, 0, 1, 0])})
    leave(tmp_path / 'b', exams, [0.1, 0.2, 0.3, 0.4])
    assert compare(tmp_path / 'a', tmp_path / 'b', resamples=2).seen == (2, 0)


def test_what_cannot_be_compared_is_one_line(tmp_path):
    leave(tmp_path / 'a', [exam(0)], [0.5])
    (tmp_path / 'link').symlink_to(tmp_path / 'a')
    for arguments, message in (((tmp_path / 'a', tmp_path / 'link'), 'given twice'),
                               ((tmp_path / 'a', tmp_path / 'b', 'test', 0), '--resamples=0'),
                               ((tmp_path / 'a', tmp_path / 'b', 'test', 10, 95), '--level=95'),
                               ((tmp_path / 'a', tmp_path / 'b'), 'there is no folder')):
        with pytest.raises(UserError, match=message) as e:
            compare(*arguments)
        assert '\n' not in str(e.value)
