"""Rankings by the features of finished runs of a tiny network, through the real experiment, and what is chosen from them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, rubik_config, single_image_config
from scipy.stats import spearmanr, wasserstein_distance

from covid_jax import UserError, experiment, flags, rank, stages
from covid_jax.config import set_stages
from covid_jax.data import lineage, negatives
from covid_jax.predictions import Predictions
from covid_jax.ranking import select
from covid_jax.runtime.mesh import make_mesh
from covid_jax.sources.exams import Exam

TRAIN = 24  # phantoms to learn from, half with COVID


def selection():
    """A training on images, a ranking by its features, and trainings on what is chosen from it."""
    c = single_image_config(epochs=1.0)
    with c.unlocked():
        c.data.phantom.update(train=TRAIN, val=4, test=4)
        set_stages(c, {
            'one': {'data': {'use': 'all'}}, 'ranks': {'kind': 'rank', 'init_from': 'one'},
            'joint': {'data': {'negatives': {'ranking': 'ranks', 'count': 0.5}}},
            'random': {'data': {'negatives': {'law': 'random', 'count': 0.5}}}})
    return c


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The folder of such a run, and what it printed."""
    folder = tmp_path_factory.mktemp('selection') / 'run'
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr('builtins.print', lambda *words, **_: said.append(' '.join(map(str, words))))
        experiment.run(selection(), folder)
    return folder, '\n'.join(said)


def learnt(folder):
    """The ids that a run learnt from, with COVID and without."""
    rows = [row.exam for row in lineage.read(folder) if row.exam.split == 'train' and not row.run]
    return [{exam.id for exam in rows if (exam.label == 'covid') == covid} for covid in (True, False)]


def contents(folder, *names):
    return {name: (folder / name).read_bytes() for name in names}


def test_all_of_train_without_covid_is_ranked_and_half_is_learnt_from(run):
    """The choices are those that the file gives by hand."""
    folder, said = run
    with (folder / 'ranks' / 'ranking.csv').open(newline='') as f:
        rows = list(csv.DictReader(f))
    positives, without = learnt(folder / 'one')
    assert len(positives) == len(without) == TRAIN // 2 and {row['id'] for row in rows} == without
    assert [int(row['rank_joint']) for row in rows] == list(range(1, len(rows) + 1))
    by_difficulty = sorted(rows, key=lambda row: float(row['distance']))
    assert [int(row['rank_difficulty']) for row in by_difficulty] == list(range(1, len(rows) + 1))
    most_diverse = sorted(rows, key=lambda row: -float(row['diversity']))
    assert [int(row['rank_diversity']) for row in most_diverse] == list(range(1, len(rows) + 1))

    taken = select.choose(np.arange(1, len(rows) + 1), len(rows) // 2, 'long-tail', 0)
    assert learnt(folder / 'joint') == [positives, {rows[i]['id'] for i in taken}]
    of_random = learnt(folder / 'random')
    assert of_random[0] == positives and len(of_random[1]) == len(rows) // 2
    assert 'of 12 exams of train without COVID 6 are learnt from: long-tail, by joint of' in said
    assert {row.exam.split for row in lineage.read(folder / 'joint')} == {'', 'train', 'val', 'test'}
    assert (folder / 'ranks' / 'ranking.png').read_bytes().startswith(b'\x89PNG')
    stages_table = (folder / 'results.md').read_text()
    assert '| stage | accuracy | macro_f1 | auc | training |' in stages_table and '| joint | ' in stages_table


def test_the_correlations_with_other_distances_stand_beside(run):
    folder, said = run
    found = json.loads((folder / 'ranks' / 'spearman.json').read_text())
    assert found['distance'] == 'index' and 'Spearman correlation of the joint ranks with those by other distances: value' in said
    for track in ('difficulty', 'diversity', 'joint'):
        assert set(found[track]) == {'value', 'uniform', 'partial'}
        assert all(value is None or -1 <= value <= 1 for value in found[track].values())


def test_it_is_ranked_once(run, tmp_path):
    """A run that goes on keeps its ranking, though the weights that it came from were others by now, and its choices; without it a
    training that has begun is refused, and one that has not waits for the next."""
    shutil.copytree(run[0], tmp_path / 'run')
    folder = tmp_path / 'run'
    ranking = negatives.read(folder / 'ranks')
    ranking.ranks['joint'] = len(ranking.exams) + 1 - ranking.ranks['joint']
    negatives.write(folder / 'ranks', ranking)
    before = contents(folder, 'ranks/ranking.csv', 'one/exams.csv', 'random/exams.csv')
    shutil.rmtree(folder / 'joint')
    experiment.run(selection(), folder)
    assert contents(folder, *before) == before
    taken = select.choose(np.arange(1, 13), 6, 'long-tail', 0)
    assert learnt(folder / 'joint')[1] == {negatives.read(folder / 'ranks').exams[i].id for i in taken} != learnt(run[0] / 'joint')[1]

    shutil.rmtree(folder / 'ranks')
    shutil.rmtree(folder / 'joint')
    experiment.run(selection(), folder)  # which ranks again, and waits for it
    assert learnt(folder / 'joint') == learnt(run[0] / 'joint')
    assert contents(folder, 'ranks/ranking.csv') == contents(run[0], 'ranks/ranking.csv')

    shutil.rmtree(folder / 'ranks')
    with pytest.raises(UserError, match=r'ranks holds no ranking.csv, from which .*joint is to choose'):
        experiment.run(selection(), folder)


def test_another_choice_in_the_same_folder_is_refused(run):
    c = selection()
    c.joint.data.negatives.seed = 1
    with pytest.raises(UserError, match='data.negatives.seed: 0 there, 1 now'):
        experiment.run(c, run[0])


def test_a_run_of_its_own_is_ranked_and_chosen_from(run, tmp_path, capsys):
    """By configs/rank.py, of the training's own data; then by a training that names the folder."""
    c = flags.load(str(ROOT / 'configs' / 'rank.py'))
    c.init_from = str(run[0] / 'one')
    c.ranking.ground = 'uniform'
    experiment.run(c, tmp_path / 'ranked')
    found = negatives.read(tmp_path / 'ranked')
    assert {exam.id for exam in found.exams} == learnt(run[0] / 'one')[1]
    assert json.loads((tmp_path / 'ranked' / 'spearman.json').read_text())['distance'] == 'uniform'
    of_stage = json.loads((run[0] / 'ranks' / 'spearman.json').read_text())
    a, b = ({exam.id: ranks for exam, ranks in zip(r.exams, r.ranks['difficulty'], strict=True)}
            for r in (found, negatives.read(run[0] / 'ranks')))
    np.testing.assert_allclose(spearmanr([a[name] for name in a], [b[name] for name in a]).statistic, of_stage['difficulty']['uniform'],
                               atol=1e-6)
    with pytest.raises(UserError, match='holds another run .ranking.ground: uniform there, index now'):
        c.ranking.ground = 'index'
        experiment.run(c, tmp_path / 'ranked')

    c = single_image_config(epochs=1.0)
    c.data.phantom.update(train=TRAIN, val=4, test=4)
    c.data.negatives.update(ranking=str(tmp_path / 'ranked'), count=2, law='top')
    experiment.run(c, tmp_path / 'chosen')
    assert learnt(tmp_path / 'chosen')[1] == {exam.id for exam in found.exams[:2]}
    c.data.negatives.ranking = str(tmp_path / 'nowhere')
    with pytest.raises(UserError, match=r'nowhere holds no ranking.csv'):
        experiment.run(c, tmp_path / 'other')
    c.data.negatives.ranking = str(tmp_path / 'ranked')
    c.data.split_seed = 1
    c.data.split = 'drawn'
    with pytest.raises(UserError, match='are not in train here'):
        experiment.run(c, tmp_path / 'other')


def table(features, labels, split='train'):
    exams = [Exam(f'e{i}', f'e{i}', 'here', 'x', split, '') for i in range(len(labels))]
    return Predictions(('noncovid', 'covid'), exams, np.array(labels), None, np.array(features, np.float32))


def test_difficulty_and_diversity_are_the_means_of_distances_that_scipy_finds():
    """Of the features of five exams without COVID and three with it; the second distance between rows of the first."""
    features = np.random.default_rng(0).gamma(1, size=(8, 6))
    without, positives = rank.parted(table(features, [0, 1, 0, 0, 1, 0, 1, 0]))
    assert [exam.id for exam in without.exams] == ['e0', 'e2', 'e3', 'e5', 'e7']

    def emd(p, q):
        places = np.linspace(0, 1, len(p))
        return wasserstein_distance(places, places, p, q)

    soft = np.array([[emd(p, q) for q in positives.features] for p in without.features])
    apart = np.array([[emd(p, q) for q in soft] for p in soft])
    difficulty, diversity = rank.scores(without, positives, 'index', make_mesh())
    np.testing.assert_allclose(difficulty, soft.mean(1), atol=1e-6)
    np.testing.assert_allclose(diversity, apart.sum(1) / 4, atol=1e-6)
    ranks = rank.ranked(without, (difficulty, diversity)).ranks
    both = 0.5 * (1 + soft.mean(1).argsort().argsort()) + 0.5 * (1 + (-apart.sum(1)).argsort().argsort())
    assert ranks['joint'].tolist() == (1 + both.argsort(kind='stable').argsort()).tolist()


def test_equal_exams_are_ranked_in_the_order_of_their_names():
    """Of one exam with COVID, whose soft labels are single numbers."""
    same = table(np.ones((4, 3)), [0, 0, 0, 1])
    same = same._replace(exams=[exam._replace(id=name) for exam, name in zip(same.exams, 'cabd', strict=True)])
    without, positives = rank.parted(same)
    ranking = rank.ranked(without, rank.scores(without, positives, 'index', make_mesh()))
    assert [exam.id for exam in ranking.exams] == ['a', 'b', 'c']
    assert all(of.tolist() == [1, 2, 3] for of in ranking.ranks.values())


def test_the_picture_goes_from_first_to_last():
    """Eight of nine, evenly."""
    without, _ = rank.parted(table(np.ones((10, 3)), [0] * 9 + [1]))
    ranking = rank.ranked(without, (np.arange(9.0), np.array([4.0, 5, 6, 7, 8, 0, 1, 2, 3])))
    found = rank.drawn(ranking)
    assert found['hardest to easiest'] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert found['most to least diverse'] == [4, 3, 2, 1, 8, 7, 6, 5]


def refused(features, distance, message):
    without, positives = rank.parted(table(features, [0, 1, 1, 0]))
    with pytest.raises(UserError, match=message):
        rank.scores(without, positives, distance, make_mesh())
    return without, positives


def test_what_is_no_ranking():
    """An exam of test among the candidates; features without mass, below 0, or not finite, with the exam; one class alone."""
    with pytest.raises(UserError, match='e0 is not of train'):
        rank.ranked(table(np.ones((2, 3)), [0, 0], 'test'), (np.zeros(2), np.zeros(2)))
    fine = [1, 2, 3]
    for row, why in (([0, 0, 0], 'are all 0'), ([1, -1, 1], 'are not all at least 0'), ([np.nan, 1, 1], 'are not all finite'),
                     ([np.inf, 1, 1], 'are not all finite')):
        refused([fine, fine, row, [1, 1, 1]], 'index', f'the features of e2 {why}, and are no histogram')
    refused([fine, fine, fine, [1, 1, 1]], 'index', 'the distances to all exams with COVID of e0 are all 0')
    refused([fine, fine, [np.inf, 1, 1], [1, 1, 1]], 'value', 'the features of e2 are not all finite')
    for labels in ([0, 1, 1], [0, 0, 0]):
        with pytest.raises(UserError, match='a ranking takes two and one or more'):
            rank.parted(table(np.ones((3, 3)), labels))


def test_features_of_any_sign_are_ranked_as_values():
    """By how far their sorted values are apart."""
    features = np.random.default_rng(1).normal(size=(6, 5))
    without, positives = rank.parted(table(features, [0, 1, 0, 1, 0, 0]))
    distance, _ = rank.scores(without, positives, 'value', make_mesh())
    apart = [[np.abs(np.sort(p) - np.sort(q)).mean() for q in positives.features] for p in without.features]
    np.testing.assert_allclose(distance, np.mean(apart, 1), atol=1e-6)


def test_another_distance_that_the_features_do_not_have_has_no_correlation():
    """An exam that is nowhere less than any with COVID is at distance 0 to all of them where masses are left as they are."""
    without, positives = rank.parted(table([[1, 2, 3], [1, 1, 2], [2, 1, 1], [1, 0, 5], [5, 1, 1]], [0, 1, 1, 0, 0]))
    with pytest.raises(UserError, match='the distances to all exams with COVID of e0 are all 0'):
        rank.scores(without._replace(features=10 * without.features), positives, 'partial', make_mesh())
    found = {name: rank.scores(without, positives, name, make_mesh()) for name in ('index', 'value')} | {'partial': None}
    assert {name: of['partial'] for name, of in rank.correlations('index', found).items()} == {
        'difficulty': None, 'diversity': None, 'joint': None}


def test_a_rubiks_cube_ranks_for_all_seeds_once(tmp_path):
    """Each fold its own training exams."""
    c = rubik_config()
    with c.unlocked():
        set_stages(c, {'cubes': {'seeds': 1}, 'rank': {'kind': 'rank', 'init_from': 'cubes', 'seeds': 1},
                       'chosen': {'data': {'negatives': {'ranking': 'rank', 'count': 2}}}})
    c.folds = 2
    c.seeds = 3
    parts = [(part.stage, part.folder, part.config.data.negatives.ranking) for part in stages.parts(c, 'W')]
    assert [folder for stage, folder, _ in parts if stage == 'rank'] == [Path('rank/fold0'), Path('rank/fold1')]
    assert [ranking for stage, _, ranking in parts if stage == 'chosen'] == ['W/rank/fold0'] * 3 + ['W/rank/fold1'] * 3


def test_a_ranking_of_folds_is_chosen_from_fold_by_fold(tmp_path):
    """As configs/rank.py leaves it, a folder for its one seed in that of each fold, and as a stage of one seed among several does."""
    asked = flags.load(str(ROOT / 'configs' / 'rank.py'))
    asked.folds = 2
    asked.init_from = 'plain'
    for part in stages.parts(asked, tmp_path / 'ranked'):
        (tmp_path / 'ranked' / part.folder).mkdir(parents=True)
    c = single_image_config(epochs=1.0)
    c.folds = 2
    c.seeds = 2
    for ranked, expected in ((tmp_path / 'ranked', ['fold0/seed0', 'fold1/seed0']), (tmp_path / 'stage', ['fold0', 'fold1'])):
        c.data.negatives.update(ranking=str(ranked), count=2)
        found = [part.config.data.negatives.ranking for part in stages.parts(c, 'W')]
        assert found == [str(ranked / fold) for fold in expected for _ in range(2)]


@pytest.mark.slow
def test_two_folds_from_a_training_to_a_choice(tmp_path):
    """Three runs by three commands: each fold ranks what it learnt from, by its own network, and chooses from its own ranking."""
    c = single_image_config(epochs=1.0)
    c.data.phantom.update(train=TRAIN, val=4, test=4)
    c.folds = 2
    experiment.run(c, tmp_path / 'plain')
    asked = flags.load(str(ROOT / 'configs' / 'rank.py'))
    asked.folds = 2
    asked.init_from = str(tmp_path / 'plain')
    experiment.run(asked, tmp_path / 'ranked')
    c.data.negatives.update(ranking=str(tmp_path / 'ranked'), count=2, law='top')
    experiment.run(c, tmp_path / 'chosen')
    for fold in ('fold0/seed0', 'fold1/seed0'):
        ranking = negatives.read(tmp_path / 'ranked' / fold)
        ids = [exam.id for exam in ranking.exams]
        assert set(ids) == learnt(tmp_path / 'plain' / fold)[1]
        assert learnt(tmp_path / 'chosen' / fold)[1] == set(ids[:2])
    assert learnt(tmp_path / 'chosen/fold0/seed0') != learnt(tmp_path / 'chosen/fold1/seed0')


def test_a_ranking_that_learnt_from_what_is_tested_is_a_leak(run, tmp_path):
    """Whatever it ranks: here exams of train, by a network that has seen the patients of test."""
    c = single_image_config(epochs=1.0)
    c.data.phantom.update(train=TRAIN, val=4, test=4)
    shutil.copytree(run[0] / 'ranks', tmp_path / 'ranks')
    table = lineage.read(run[0] / 'joint')
    seen = [row._replace(exam=row.exam._replace(split='train'), run='other') for row in table if row.exam.split == 'test' and not row.run]
    lineage.write(tmp_path / 'ranks', [*lineage.read(run[0] / 'ranks'), *seen])
    c.data.negatives.update(ranking=str(tmp_path / 'ranks'), count=2)
    with pytest.raises(UserError, match=r'4 test exams are of patients that .*other learnt from'):
        experiment.run(c, tmp_path / 'chosen')


def test_a_wrong_word_of_a_stage_is_refused_before_anything_trains(tmp_path):
    c = selection()
    with c.unlocked():
        c.ranks.ranking.ground = 'places'
    with pytest.raises(UserError, match='--config.ranks.ranking.ground=places must be index, value or uniform'):
        experiment.run(c, tmp_path)
    c.ranks.ranking.update(ground='value', mass='partial')
    with pytest.raises(UserError, match='mass=partial is known of --config.ranks.ranking.ground=index alone'):
        experiment.run(c, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_stage_chooses_from_a_ranking_alone():
    c = selection()
    with c.unlocked():
        c.joint.data.negatives.ranking = 'one'
    with pytest.raises(UserError, match="stage 'joint' chooses from 'one', which ranks nothing: name a stage of kind rank"):
        stages.parts(c, 'W')
