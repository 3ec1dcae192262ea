"""In which order the exams of train are learnt from, and how long an epoch is: indices alone, nothing is read."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import grain
import numpy as np

from covid_jax import UserError

if TYPE_CHECKING:
    from covid_jax.data.pipeline import Dataset


class Order(NamedTuple):
    """positions: positions[step] are those in Dataset.exams that the step learns from, int [batch], for any step;
    epoch: how many steps it has."""

    positions: grain.MapDataset
    epoch: float


def make(dataset: 'Dataset', kind: str, batch: int, seed: int) -> Order:
    """The Order in which the exams of a pipeline.Dataset that are in train are learnt from, `batch` a step.

    kind: shuffle:  all of them in a new order each time, batches not minding where one time ends.
          by_site:  as many of each site in every batch, the rows of the sites taking turns, sites in their numbers' order.
                    Each site is shuffled on its own, a smaller one read again; an epoch is one pass over the largest. Of one
                    site it is shuffle.
          balanced: of rarer classes exams are repeated until all classes are as frequent as the most frequent. In an epoch
                    exams of that one come once, the others as often as each other, but for one time more or less.
    UserError for another kind, and where train does not allow it.
    """
    members = dataset.of_split('train')
    check(kind, batch, [dataset.sites[i] for i in dataset.site[members]], dataset.label[members])
    return ORDERS[kind](dataset, batch, seed)


def check(kind: str, batch: int, sites: Sequence[str], labels: Sequence[int]) -> None:
    """UserError for another kind, and where train does not allow it: its exams' sites, and their labels, -1 for none."""
    if kind not in ORDERS:
        raise UserError(f'--config.train.order={kind} must be one of {", ".join(ORDERS)}')
    names = sorted(set(sites))
    if kind == 'by_site' and batch % len(names):
        raise UserError(f'--config.train.batch={batch} does not divide over {len(names)} sites ({", ".join(names)}), as '
                        f'--config.train.order=by_site needs it: take a multiple of {len(names)}')
    if kind == 'balanced' and -1 in labels:
        raise UserError(f'--config.train.order=balanced: {list(labels).count(-1)} exams to learn from have no label: take '
                        '--config.data.use=labelled')
    if kind == 'balanced' and len(set(labels)) < 2:
        raise UserError('--config.train.order=balanced needs two classes to learn from, and there is one alone')


def _shuffle(dataset, batch, seed):
    members = dataset.of_split('train')
    positions = grain.MapDataset.source(members).seed(seed).shuffle().repeat().batch(batch, drop_remainder=True)
    return Order(positions, len(members) / batch)


def _by_site(dataset, batch, seed):
    members = dataset.of_split('train')
    sites = [members[dataset.site[members] == i] for i in np.unique(dataset.site[members])]
    positions = grain.MapDataset.mix(_streams(sites, seed)).batch(batch, drop_remainder=True)
    return Order(positions, max(map(len, sites)) * len(sites) / batch)


def _balanced(dataset, batch, seed):
    members = dataset.of_split('train')
    label = dataset.label[members]
    classes = [members[label == i] for i in np.unique(label)]
    most = max(map(len, classes))
    epoch = most * len(classes)
    streams = _streams(classes, seed)
    draws = [math.ceil(most / len(few)) * len(few) for few in classes]  # whole passes over the class, at least `most`

    def drawn(i, slot):
        which, turn = divmod(slot, most)
        return streams[which][i // epoch * draws[which] + turn]  # an epoch that begins anew begins a new pass

    slots = grain.MapDataset.range(epoch).seed(seed).shuffle().repeat()
    return Order(slots.map_with_index(drawn).batch(batch, drop_remainder=True), epoch / batch)


ORDERS = {'shuffle': _shuffle, 'by_site': _by_site, 'balanced': _balanced}


def _streams(groups, seed):
    """Each group endlessly, shuffled anew at every pass and on its own."""
    seeds = np.random.SeedSequence(seed).generate_state(len(groups))  # of one seed, groups of one size had one order
    return [grain.MapDataset.source(group).shuffle(int(s)).repeat() for group, s in zip(groups, seeds, strict=True)]
