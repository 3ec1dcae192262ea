"""A finished run -> which exams without COVID are hard to tell from those with it, and unlike each other: a ranking to choose from.

Dual-track ranking (Li et al., IEEE JBHI 2020), sections IV.C and IV.D, by the features of any network.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from scipy.stats import spearmanr

from covid_jax import UserError, evaluate
from covid_jax.data import lineage, negatives
from covid_jax.data.pipeline import Dataset
from covid_jax.predictions import Predictions
from covid_jax.ranking import select
from covid_jax.ranking.emd import GROUNDS, emd_matrix, partial_emd_matrix
from covid_jax.report.ranking import ranking_png
from covid_jax.runtime import files, workdir
from covid_jax.sources.exams import POSITIVE
from covid_jax.trunk import opened

PARTIAL = 'partial'  # how the distance of unequal masses is called among the grounds
CHEAP = 10**10  # pairs times squares of bins that it takes a core about a minute to solve
SHOWN = 8  # exams of each track in the picture

Scores = tuple[np.ndarray, np.ndarray]  # difficulty, diversity


def run(config: ConfigDict, folder: str | Path, say: Callable[[str], None] = print) -> dict:
    """Ranks the exams of train without COVID by the features of config.init_from, on its own data, or on those of config.data where a
    source is named.

    The folder gets ranking.csv (see data/negatives.py), spearman.json, how alike the rankings by other distances are, and ranking.png.
    Every host comes to the same ranking, the first leaves it. Returns no metrics. UserError as trunk.opened; for train without exams of
    either kind; and for features that are no histograms, with the exam.
    """
    folder = Path(folder)
    asked, mine = opened(config, folder, ('ranking.ground', 'ranking.mass'), say)
    if (folder / negatives.FILE).exists():  # who has chosen from it goes on with it
        return {}
    predict = evaluate.predictor(asked.run.method, asked.run.mesh, features=True)
    seen = evaluate.collect(asked.run, predict, asked.state, asked.dataset, ('train',)).labelled()
    without, positives = parted(seen)
    distance = PARTIAL if config.ranking.mass == PARTIAL else config.ranking.ground
    mesh = asked.run.mesh
    by_distance = {name: scores(without, positives, name, mesh) for name in _variants(distance, without, positives)}
    ranking = ranked(without, by_distance[distance])
    alike = correlations(by_distance, distance)
    say(f'{len(without.exams)} exams without COVID are ranked by their distances to {len(positives.exams)} with it ({distance}); Spearman '
        f'correlation of the joint ranks with those by other distances: {_told(alike["joint"])}')
    if jax.process_index() == 0:
        workdir.keep(mine, folder, dataset=asked.survey.digest)
        lineage.write(folder, [*lineage.own(asked.dataset.exams, asked.dataset.hashes, asked.dataset.facts), *asked.before])
        evaluate.write_quarantine(folder, asked.dataset.broken)
        files.write(folder / 'spearman.json', json.dumps({'distance': distance, **alike}, indent=1))
        _draw(folder / 'ranking.png', ranking, asked.dataset)
        negatives.write(folder, ranking)
    return {}


def ranked(without: Predictions, found: Scores) -> negatives.Ranking:
    """The Ranking of exams without COVID by their difficulty and diversity. UserError for one that is not of train."""
    if others := [exam.id for exam in without.exams if exam.split != 'train']:
        raise UserError(f'{others[0]} is not of train, and no other exam is ranked')
    difficulty, diversity = found
    ranks = {'difficulty': select.joint_ranks(difficulty, diversity, 1), 'diversity': select.joint_ranks(difficulty, diversity, 0),
             'joint': select.joint_ranks(difficulty, diversity)}
    return negatives.Ranking(without.exams, difficulty, diversity, ranks)


def correlations(by_distance: Mapping[str, Scores], distance: str) -> dict[str, dict[str, float | None]]:
    """{track: {other distance: Spearman's correlation of the track's ranks with those by `distance`}}; None where it is undefined."""
    tracks = {'difficulty': {name: found[0] for name, found in by_distance.items()},
              'diversity': {name: found[1] for name, found in by_distance.items()},
              'joint': {name: select.joint_ranks(*found) for name, found in by_distance.items()}}
    return {track: {other: _spearman(of[distance], values) for other, values in of.items() if other != distance}
            for track, of in tracks.items()}


def _spearman(a, b):
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(spearmanr(a, b).statistic)


def _told(of_track):
    return ', '.join(f'{name} {"-" if value is None else format(value, ".2f")}' for name, value in of_track.items())


def parted(seen: Predictions) -> tuple[Predictions, Predictions]:
    """(those without COVID, in the order of their ids, so that ties are; those with it). UserError where there are too few."""
    label = seen.label
    order = np.argsort([exam.id for exam in seen.exams], kind='stable')
    without = seen.at(order[label[order] != POSITIVE])
    positives = seen.at(order[label[order] == POSITIVE])
    if len(without.exams) < 2 or not positives.exams:
        raise UserError(f'train has {len(without.exams)} exams without COVID and {len(positives.exams)} with it: a ranking takes two and one '
                        'or more; a run that learnt from some classes alone ranks with --config.data.source named')
    for exam, row in zip([*without.exams, *positives.exams], np.concatenate([without.features, positives.features]), strict=True):
        if not (row >= 0).all() or not row.any():
            what = 'are all 0' if not row.any() else 'are not all finite and at least 0'
            raise UserError(f'the features of {exam.id} {what}, and as masses of a histogram they have to be: rank by another network')
    return without, positives


def _variants(distance, without, positives):
    """The names of the distances that are compared, the one that is asked for first; that of unequal masses where it is cheap."""
    n = len(without.exams)
    m = len(positives.exams)
    work = n * m * without.features.shape[1]**2 + n * n * m * m
    names = dict.fromkeys((distance, *GROUNDS))
    if work <= CHEAP and m > 1:
        names[PARTIAL] = None
    return tuple(names)


def scores(without: Predictions, positives: Predictions, distance: str, mesh: Mesh) -> Scores:
    """Eq 5 and 6: the Scores of exams without COVID; their soft labels are compared by the distance that they are made of."""
    soft = _distances(without.features, positives.features, distance, mesh)
    if soft.shape[1] == 1:  # of mass 1 a single number says nothing
        return select.difficulty(soft), np.zeros(len(soft))
    return select.difficulty(soft), select.diversity(_distances(soft, soft, distance, mesh))


def _distances(p, q, distance, mesh):
    return partial_emd_matrix(p, q) if distance == PARTIAL else emd_matrix(p, q, distance, mesh)


def _draw(path, ranking: negatives.Ranking, dataset: Dataset):
    """The picture: exams evenly along each track, from its first to its last."""
    place = {exam.id: i for i, exam in enumerate(dataset.exams)}
    rows = {}
    for name, values, way in (('hardest to easiest', ranking.difficulty, 1), ('most to least diverse', ranking.diversity, -1)):
        order = np.argsort(way * values, kind='stable')
        taken = order[np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int)]
        images = [dataset.images[int(dataset.row[place[ranking.exams[i].id]])]['image'] for i in taken]
        rows[name] = [(image, f'{values[i]:.4g}') for image, i in zip(images, taken, strict=True)]
    ranking_png(path, rows)
