"""A finished run -> which exams without COVID are hard to tell from those with it, and unlike each other: a ranking to choose from.

Dual-track ranking (Li et al., IEEE JBHI 2020), sections IV.C and IV.D, by the features of any network: as masses of histograms where none
is below 0, and else as values.
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
from covid_jax.predictions import Predictions
from covid_jax.ranking import select
from covid_jax.ranking.emd import GROUNDS, emd_matrix, partial_emd_matrix
from covid_jax.report.ranking import ranking_png
from covid_jax.runtime import files, workdir
from covid_jax.runtime.hosts import highest
from covid_jax.sources.exams import POSITIVE
from covid_jax.trunk import opened

PARTIAL = 'partial'  # how the distance of unequal masses is called among the grounds
CHEAP = 10**10  # pairs times squares of bins that it takes a core about a minute to solve
SHOWN = 8  # exams of each track in the picture

Scores = tuple[np.ndarray, np.ndarray]  # difficulty, diversity


def run(config: ConfigDict, folder: str | Path, say: Callable[[str], None] = print) -> dict:
    """Ranks the exams of train without COVID by the features of config.init_from, on its own data, or on those of config.data where a
    source is named.

    The folder gets ranking.csv (see data/negatives.py), spearman.json, how alike the rankings by other distances are, and ranking.png. A
    ranking that is there stays, for somebody may have chosen from it. Every host comes to the same one, the first leaves it. Returns no
    metrics. UserError as trunk.opened; for train without exams of either kind; and for features that the distance is not for, with the
    exam.
    """
    folder = Path(folder)
    asked, mine = opened(config, folder, ('ranking.ground', 'ranking.mass'), say)
    if highest(int((folder / negatives.FILE).exists())):
        return {}
    predict = evaluate.predictor(asked.run.method, asked.run.mesh, features=True)
    seen = evaluate.collect(asked.run, predict, asked.state, asked.dataset, ('train',)).labelled()
    without, positives = parted(seen)
    distance = PARTIAL if config.ranking.mass == PARTIAL else config.ranking.ground
    mesh = asked.run.mesh
    taken = scores(without, positives, distance, mesh)
    ranking = ranked(without, taken)
    alike = correlations(distance, {distance: taken, **_others(distance, without, positives, mesh)})
    say(f'{folder}: {len(without.exams)} exams without COVID are ranked by their distances to {len(positives.exams)} with it ({distance}); '
        f'Spearman correlation of the joint ranks with those by other distances: {_told(alike["joint"])}')
    if jax.process_index() == 0:
        workdir.keep(mine, folder, dataset=asked.survey.digest)
        lineage.write(folder, [*lineage.own(asked.dataset.exams, asked.dataset.hashes, asked.dataset.facts), *asked.before])
        evaluate.write_quarantine(folder, asked.dataset.quarantine)
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


def correlations(distance: str, by_distance: Mapping[str, Scores | None]) -> dict[str, dict[str, float | None]]:
    """{track: {other distance: Spearman's correlation of the track's ranks with those by `distance`}}; None where it is undefined, as for a
    distance that these features do not have."""
    tracks = {'difficulty': _difficulty, 'diversity': _diversity, 'joint': _joint}
    return {name: {other: _spearman(track(by_distance[distance]), track(found)) if found else None
                   for other, found in by_distance.items() if other != distance} for name, track in tracks.items()}


def _difficulty(found):
    return found[0]


def _diversity(found):
    return found[1]


def _joint(found):
    return select.joint_ranks(*found)


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
                        'or more')
    return without, positives


def scores(without: Predictions, positives: Predictions, distance: str, mesh: Mesh) -> Scores:
    """Eq 5 and 6: the Scores of exams without COVID; their soft labels are compared by the distance that they are made of. UserError for
    features that it is not for, with the exam."""
    for table in (without, positives):
        _check(table, table.features, distance, 'the features of')
    soft = _distances(without.features, positives.features, distance, mesh)
    if soft.shape[1] == 1:  # a histogram of one bin has nothing to move
        return select.difficulty(soft), np.zeros(len(soft))
    _check(without, soft, distance, 'the distances to all exams with COVID of')
    return select.difficulty(soft), select.diversity(_distances(soft, soft, distance, mesh))


def _check(table, rows, distance, what):
    """UserError for rows that are no histograms, or, where the distance is of values, not finite."""
    bad = ~np.isfinite(rows).all(1)
    why = 'are not all finite'
    if not bad.any() and distance != 'value':
        bad = (rows < 0).any(1) | ~rows.any(1)
        why = 'are all 0' if not rows[np.argmax(bad)].any() else 'are not all at least 0'
    if bad.any():
        raise UserError(f'{what} {table.exams[np.argmax(bad)].id} {why}, and are no histogram: rank by another network, or by values, '
                        '--config.ranking.ground=value')


def _others(distance, without, positives, mesh):
    """{name: Scores by another distance, None where the features do not have it}; of unequal masses where it is cheap."""
    n = len(without.exams)
    m = len(positives.exams)
    work = n * m * without.features.shape[1]**2 + n * n * m * m
    names = [name for name in (*GROUNDS, *([PARTIAL] if work <= CHEAP and m > 1 else [])) if name != distance]
    found: dict[str, Scores | None] = {}
    for name in names:
        try:
            found[name] = scores(without, positives, name, mesh)
        except UserError:
            found[name] = None
    return found


def _distances(p, q, distance, mesh):
    return partial_emd_matrix(p, q) if distance == PARTIAL else emd_matrix(p, q, distance, mesh)


def drawn(ranking: negatives.Ranking) -> dict[str, list[int]]:
    """{what a row of the picture shows: places of the exams in it}, evenly along each track, from its first to its last."""
    rows = {'hardest to easiest': ranking.ranks['difficulty'], 'most to least diverse': ranking.ranks['diversity']}
    even = np.linspace(0, len(ranking.exams) - 1, min(SHOWN, len(ranking.exams))).round().astype(int)
    return {name: np.argsort(rank)[even].tolist() for name, rank in rows.items()}


def _draw(path, ranking, dataset):
    """The picture of a ranking."""
    row = {exam.id: int(i) for exam, i in zip(dataset.exams, dataset.row, strict=True)}
    means = dict(zip(drawn(ranking), (ranking.distance, ranking.diversity), strict=True))
    ranking_png(path, {name: [(dataset.images[row[ranking.exams[i].id]]['image'], f'{means[name][i]:.4g}') for i in places]
                       for name, places in drawn(ranking).items()})
