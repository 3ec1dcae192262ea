"""Rubik's cube Pro and dual-track ranking (Li et al., "Efficient and Effective Training of COVID-19 Classification Networks With
Self-Supervised Dual-Track Learning to Rank", IEEE JBHI 2020): where few of many scans have COVID, learn from the others that matter.

    python -m covid_jax.main --config=configs/rubik.py

runs selection,size=small on phantoms, eight without COVID for one with it, in 26 minutes on 2 CPU cores (docs/results.md): features are learnt without
labels from the scans with COVID (stage rubik), the others are ranked by how hard they are to tell from these and how unlike each other
(rank), and a classifier learns from random weights with 14, 28 and 56 % of them, at random or by rank, and with all. One cell of the
paper's tables at its size, on scans of your own in {pos,neg}/<patient>/:

    python -m covid_jax.main --config=configs/rubik.py:joint_56 --config.data.root=SCANS --workdir=runs/joint_56

    random_N, all          Table III: N % of the scans without COVID at random, N of 14, 28, 56; all of them
    dif_N, div_N, joint_N  by difficulty, by diversity, by both, long-tailed
    joint_rubik_N          as joint_N, the classifier from the weights of stage rubik
    r50_N, r50_all         Table IV: joint_N and all with ResNet-50; the choice is by ResNet-18's features
    normal_N, top_N        Table V: other laws of choice by both ranks
    joint_rubik_all_N      as joint_N, the classifier from a Rubik's cube Pro learnt on all scans
    all_S, joint_56_S      Table VI: S of balanced (oversampling), ohem, focal
    all_rubik, all_rubik_pro   Table VII: all, the classifier from a Rubik's cube without and with masks, learnt on all scans
    selection, table3 ... table7   all cells of a table by one command: ranked once, chosen many times
    rubik_pro, rubik       the first stage alone, with masks and without

    covid-jax table --config=configs/rubik.py --workdir=runs

prints Tables III to VII. N % are 246, 500 and 1000 of the paper's 1785. CC-CCII stands in for the paper's own scans, at its share of
COVID; it has neither Hounsfield units, so that no window is taken, nor millimetres:

    --config.data.source=cc_ccii --config.data.root=CC-CCII --config.data.imbalance=8 --config.prep.spacing="()"

No row has been run at full scale by this project (the paper: 2.5 to 34 hours on a V100).
"""

import re
from itertools import product

from ml_collections import ConfigDict

from covid_jax.config import Table, base, row, set_stages

SHARES = {14: 246 / 1785, 28: 500 / 1785, 56: 1000 / 1785}
JOINT = 'long-tail', 'joint'
CHOICES = {'random': ('random', 'joint'), 'dif': ('long-tail', 'difficulty'), 'div': ('long-tail', 'diversity'), 'joint': JOINT,
           'joint_rubik': JOINT, 'normal': ('normal', 'joint'), 'top': ('top', 'joint'), 'joint_rubik_all': JOINT, 'r50': JOINT}
STRATEGIES = {'balanced': ('train', {'order': 'balanced'}), 'ohem': ('supervised', {'loss': 'ohem'}),
              'focal': ('supervised', {'loss': 'focal'})}
STARTS = {'joint_rubik': 'rubik', 'joint_rubik_all': 'rubik_all', 'all_rubik': 'cube_all', 'all_rubik_pro': 'rubik_all'}
PRETEXTS = {'rubik': ('covid', True), 'rubik_all': ('all', True), 'cube_all': ('all', False)}  # learnt on, with masks

# Precision, recall and F1 as the paper prints them, and the hours of a table's columns on a V100.
NUMBERS = """
    random_14 81.0 68.0 73.9 2.5           random_28 68.8 88.0 77.2 4.6           random_56 82.0 82.0 82.0 9.5
    dif_14 65.7 88.0 75.2 2.5              dif_28 72.1 88.0 79.3 4.6              dif_56 81.1 86.0 83.5 9.5
    div_14 79.2 76.0 77.6 2.5              div_28 81.6 80.0 80.8 4.6              div_56 92.9 78.0 84.8 9.5
    joint_14 74.5 82.0 78.1 2.5            joint_28 74.2 92.0 82.1 4.6            joint_56 93.0 80.0 86.0 9.5
    joint_rubik_14 60.3 88.0 71.5 2.5      joint_rubik_28 65.2 90.0 75.6 4.6      joint_rubik_56 74.6 88.0 80.7 9.5
    r50_14 80.9 76.0 78.4 2.9              r50_28 90.2 74.0 81.3 5.4              r50_56 83.0 88.0 85.4 11.3
    normal_14 77.6 76.0 76.8 -             normal_28 70.8 92.0 80.0 -             normal_56 85.7 84.0 84.8 -
    top_14 41.8 66.0 51.2 -                top_28 60.0 78.0 67.8 -                top_56 84.6 88.0 86.3 -
    joint_rubik_all_14 75.9 88.0 81.5 -    joint_rubik_all_28 78.9 90.0 84.1 -    joint_rubik_all_56 97.7 84.0 90.3 -
    all 81.5 88.0 84.6 19.6                all_balanced 86.3 88.0 87.1 34.3       all_ohem 91.3 84.0 87.5 19.6
    all_focal 86.0 86.0 86.0 19.6          joint_56_balanced 93.3 84.0 88.4 15.8  joint_56_ohem 88.2 90.0 89.1 9.5
    joint_56_focal 95.2 80.0 87.0 9.5      r50_all 84.0 84.8 84.8 23.5            all_rubik 86.0 86.0 86.0 -
    all_rubik_pro 89.6 86.0 87.8 -
"""


def chosen(*ways: str) -> tuple[str, ...]:
    """The rows of these ways to choose, at each share."""
    return tuple(f'{way}_{share}' for way, share in product(ways, SHARES))


TABLE_ROWS = {
    'table3': (*chosen('random', 'dif', 'div', 'joint', 'joint_rubik'), 'all'),
    'table4': (*chosen('r50'), 'r50_all'),
    'table5': (*chosen('random', 'normal', 'top', 'joint', 'joint_rubik_all'), 'all'),
    'table6': ('all', *(f'all_{way}' for way in STRATEGIES), 'joint_56', *(f'joint_56_{way}' for way in STRATEGIES)),
    'table7': ('all', 'all_rubik', 'all_rubik_pro'),
}
SELECTION = (*chosen('random', 'joint'), 'all')
CELLS = tuple(dict.fromkeys(cell for cells in TABLE_ROWS.values() for cell in cells))
ROWS = ('selection', *CELLS, *TABLE_ROWS, 'rubik_pro', 'rubik')
DEFAULT = 'selection,size=small'
COLUMNS = 'precision', 'sensitivity', 'f1_covid', 'hours'


def printed(name: str) -> Table:
    """A table with what the paper prints in it: hours in three of them."""
    words = NUMBERS.split()
    found = {words[i]: tuple(word.strip('-') for word in words[i + 1:i + 5]) for i in range(0, len(words), 5)}
    columns = COLUMNS if name in TIMED else COLUMNS[:-1]
    return Table(TITLES[name], columns, {cell: found[cell][:len(columns)] for cell in TABLE_ROWS[name]}, positives=50, negatives=468)


TITLES = {'table3': 'Table III: which of the scans without COVID', 'table4': 'Table IV: ResNet-50', 'table5': 'Table V: laws of choice',
          'table6': 'Table VI: beside what is done while learning', 'table7': 'Table VII: what all scans start from'}
TIMED = 'table3', 'table4', 'table6'
TABLES = tuple(map(printed, TABLE_ROWS))


def get_config(arg: str = '') -> ConfigDict:
    name, choice = row(arg or DEFAULT, ROWS, size=('full', 'small'))
    small = choice['size'] == 'small'
    c = classifying(small)
    c.row = f'rubik:{name},size={choice["size"]}'
    if name in ('rubik_pro', 'rubik'):
        return alone(c, pretext('covid', name == 'rubik_pro', small)).lock()
    cells = TABLE_ROWS.get(name, SELECTION if name == 'selection' else (name,))
    ranked = any(map(is_ranked, cells))
    needed = {STARTS.get(parsed(cell)[0]) for cell in cells} | ({'rubik'} if ranked else set())
    if needed == {None}:
        c.update(overrides(name, ranked))
        return c.lock()
    stages = {stage: {'seeds': 1, **pretext(*of_stage, small)} for stage, of_stage in PRETEXTS.items() if stage in needed}
    if ranked:
        stages['rank'] = {'kind': 'rank', 'init_from': 'rubik', 'seeds': 1}
    set_stages(c, {**stages, **{cell: overrides(cell, ranked) for cell in cells}})
    return c.lock()


def parsed(cell: str) -> tuple[str, int]:
    """The way to choose and the share in per cent: ('joint', 56) of 'joint_56' and of 'joint_56_ohem'; others as they are, and 0."""
    found = re.match(r'(.+?)_(\d\d)(_|$)', cell)
    return (found[1], int(found[2])) if found else (cell, 0)


def is_ranked(cell: str) -> bool:
    """Whether the row's scans without COVID are chosen by their ranks."""
    way, share = parsed(cell)
    return share > 0 and way != 'random'


def overrides(cell: str, ranked: bool) -> dict:
    """What a cell of the tables has of its own. ranked: whether its run has a ranking, from which random choices are made, too."""
    way, share = parsed(cell)
    found: dict = {'supervised': {}, 'train': {}, 'model': {}, 'data': {}}
    if share:
        law, by = CHOICES[way]
        found['data']['negatives'] = {'ranking': 'rank' if ranked else '', 'count': SHARES[share], 'law': law, 'by': by}
    if way in STARTS:
        found['init_from'] = STARTS[way]
    if way.startswith('r50'):
        found['model']['name'] = 'ResNet50Hara'
    strategy = cell.rpartition('_')[2]
    if strategy in STRATEGIES:
        section, fields = STRATEGIES[strategy]
        found[section].update(fields)
    return found


def classifying(small: bool) -> ConfigDict:
    """Plain classification as section V.A has it."""
    c = base()
    c.method = 'supervised'
    c.supervised = {'frozen': False, 'rotation': False, 'loss': 'cross_entropy', 'keep': 0.5}
    c.prep.window = (-1350.0, 150.0)  # level -600, width 1500
    c.views.name = 'rubik'
    c.model.update(name='ResNet14Small' if small else 'ResNet18Hara', mean=0.0, std=1.0)
    c.train.update(batch=8, lr=1e-3, schedule='constant', weight_decay=0.0, epochs=20.0 if small else 100.0)
    c.eval.select = 'f1_covid'
    c.data.phantom.update(train=540, val=90, test=270, covid=1 / 9)
    if not small:
        c.data.source = 'pos_neg'
        c.prep.update(size=(56, 192, 256), spacing=(5.0, 1.0, 1.0), lungs='mask', margin=(5.0, 9.0, 9.0))
    return c


def pretext(use: str, masking: bool, small: bool) -> dict:
    """A Rubik's cube as a stage before classification."""
    return {'method': 'rubik', 'rubik': {'masking': masking, 'gap': (1, 3, 3) if small else (2, 10, 10)},
            'views': {'name': 'none'}, 'data': {'use': use}, 'eval': {'select': 'permutation_accuracy'},
            'train': {'epochs': (150.0 if use == 'covid' else 20.0) if small else 100.0, 'eval_every': 10.0 if small else 5.0}}


def alone(c: ConfigDict, overrides: dict) -> ConfigDict:
    """The config with a method that is its only stage."""
    del c['supervised']
    c.update(overrides)
    return c
