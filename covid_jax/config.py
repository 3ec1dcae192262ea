"""What every config file starts from, how a row of a paper's table is named, and how stages follow the config."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from covid_jax import UserError

# Of three classes; those of two are below, in DATA. COVID is the second of both.
TERNARY = ('normal|healthy|no finding|no findings', 'covid|covid-19|covid19|ncp', 'pneumonia|cap|cp')

# The sections that every config has, with what each field means.
DATA = {
    'source': 'phantom',  # see docs/data.md; several, with commas between them, are sites of one data set
    'root': '',  # the folder, or the manifest's CSV file; one for each source, with commas between them
    'exclude': '',  # a text file of ids that are left out, one a line
    'include': '',  # a text file of ids: of the train split these alone are learnt from
    'sites': (),  # the names of those that are taken; (): all that the sources have
    'use': 'auto',  # what of train is learnt from: labelled | all | classes, with commas; auto: what the method can read
    'imbalance': 0.0,  # exams of other classes for one with COVID, whose patients are left out at random until so; 0: as they are
    # the classes in order, covid the second: each its name, then other labels that count as it
    'classes': ('noncovid|non-covid|non_covid|normal|healthy|pneumonia|cap|cp', 'covid|covid-19|covid19|ncp'),
    'group': 'source',  # whose exams stay together. source: the patients that it names | clusters: near duplicates too
    'split': 'auto',  # source: what the sources name is kept | drawn: it is ignored | auto: source, but drawn in folds
    'val': 0.2,  # share of patients, where the source names no val split
    'test': 0.2,  # the same of the test split
    'held_out': (),  # patients that are the test split
    'held_out_sites': (),  # sites that are the test split: nothing of them is learnt from
    'split_seed': 0,  # of what is drawn of splits, folds and imbalance, the same for all seeds of the training
    'store': '',  # where prepared scans are kept; '': in the run's folder
    'workers': 0,  # preparing processes; 0: one a core
    'negatives': {  # which of train's labelled exams without COVID are learnt from
        'ranking': '',  # the folder of a ranking (covid_jax/rank.py), or the stage that makes one
        'count': 0.0,  # how many, or below 1 their share; 0: all
        'law': 'long-tail',  # long-tail | normal | top: by rank | random: all alike, which needs no ranking
        'by': 'joint',  # joint | difficulty | diversity
        'seed': 0,  # of the choice, the same for all seeds of the training
    },
    'phantom': {
        'seed': 0,  # other bodies
        'train': 360,  # how many
        'val': 60,  # how many
        'test': 120,  # how many
        'kind': 'ct',  # ct | slice (axial, of a ct) | xray (posterior-anterior, of a ct)
        'sites': 1,  # with a scanner each, 4 at most; 1: every phantom has its own
        'covid': 0.5,  # share of each split; the rest is normal and pneumonia
        'unlabelled': 0.0,  # share of the training phantoms whose label is not told
    },
}
PREP = {
    'window': (-1000.0, 400.0),  # Hounsfield units that become 0 and 255; (): each scan's least and greatest value
    'size': (24, 48, 48),  # depth, height, width
    'spacing': (),  # z, y, x in mm: resample to it, then crop or pad to size; (): resize the whole scan to size
    'lungs': '',  # crop: to the box around both lungs | mask: that, and 0 outside the lungs
    'margin': (5.0, 9.0, 9.0),  # z, y, x in mm by which the box is wider
    'blank': False,  # without the lungs: what a network reaches that does not see them
    # True: the shorter side of a scan becomes the height and width of size, the longer side follows, up to twice that
    'keep_aspect': False,
}
MODEL = {
    'name': 'ResNeSt14Small',  # of the network, see docs/networks.md
    # that it computes in: float32 | bfloat16 | float64 | auto: bfloat16 on TPU and GPU, float32 on CPU
    'dtype': 'auto',
    'mean': 0.3529,  # that is taken from an image in [0, 1]
    'std': 0.2983,  # by which it is then divided
    'remat': False,  # compute each block again in the backward pass: less memory, more time
    'pretrained': '',  # a file of weights, .safetensors or torch's .pth, or a run's folder; init_from goes before it
    'inflate': 'mean',  # how its 2D kernels become 3D: mean (copies in every slice) | centre (the middle slice)
    'taps': 0,  # slices that a kernel sees: 3 | 1, each slice by itself; 0: the network's own, and 1 for single images
    'stem_plane': 0,  # height and width of the first kernel; 0: the network's own
    'depth_strides': (),  # of the stem, its pool, and each stage; (): the network's own
    'sites': 0,  # sets of statistics of a network that normalises by site; 0: one for each that is trained on | 1: one for all
}
TRAIN = {
    'batch': 0,  # scans; 0: the least multiple of twice the device count that is at least 8
    'epochs': 10.0,  # passes over what is learnt from
    # shuffle | by_site: as many of each site in every batch | balanced: rarer classes repeated to be as many as the most frequent
    'order': 'shuffle',
    'optimizer': 'adam',  # adam | sgd
    'momentum': 0.0,  # of sgd
    'clip': 0.0,  # the largest global norm of the gradient; 0: any
    'lr': 6e-4,  # the learning rate, of a schedule the first
    'schedule': 'steps',  # steps | cosine: by epoch | constant
    'lr_steps': (0.8, 0.95),  # of steps: shares of the training after which the rate is divided by 10
    'period': 0.0,  # of cosine: epochs from lr to 0, after which it rises again; 0: all epochs
    'weight_decay': 1e-5,  # L2, added to the gradient
    # how much the average of weights and statistics over the steps keeps of itself in a step, as 0.99: it is what is validated, kept
    # and starts other runs; 0: the weights themselves are
    'average': 0.0,
    'patience': 0,  # validations without a better score after which training ends; 0: never
    'eval_every': 1.0,  # epochs between validations; each saves a checkpoint
    'log_every': 10,  # steps between what is told of the loss
}
VIEWS = {
    # cmc | cmt | cross_site | moco | self_trans | rubik | none: what training sees, and evaluation where eval.tta asks
    'name': 'cmc',
    'depth': 0,  # slices of a training view; 0: all slices of a prepared scan
    'plane': 0,  # height and width of what the network sees, in evaluation too; 0: those of prep.size
    # of cmt: these of its operations, one after another, as ('flip', 'hounsfield'); (): of each family one, or none, at random
    'ops': (),
}
EVAL = {
    'batch': 0,  # scans; 0: as in training
    'tta': 0,  # random views of each test scan that are averaged; 0: the scan itself
    # what chooses the checkpoint that is kept: a metric of the val split, or a scalar that the method names | loss: the
    # lowest there | last: none; auto: macro_f1, or loss where the method does not classify
    'select': 'auto',
    'level': 0.95,  # of the confidence intervals
    'features': False,  # True: features.npz is left, what the classifier sees of each exam
}


class Table(NamedTuple):
    """A table of a paper, as the TABLES of a config file have it.

    columns: metrics. rows: {row of the config, or stage of it: a cell for each column, as the paper prints it, '' where it gives
    none}; others: the same of what this config cannot run. positives, negatives: how many exams were tested, 0: unknown.
    percent: the paper's unit. group: 'all', 'site NAME' (a run without exams of that site is not in the table) or 'patients'.
    levels: of the intervals beside our numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]
    others: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    positives: int = 0
    negatives: int = 0
    percent: bool = True
    group: str = 'all'
    levels: tuple[float, ...] = (0.95,)


class PairedTests(NamedTuple):
    """A paper's p-values of paired tests of one row against others, as the PAIRED_TESTS of a config file have them.

    ours: the row. rows: {other row: {group, 'all' or 'site NAME': p as the paper prints it}}. metrics: of which our p are shown, all
    that the paper's may be of where it names none.
    """

    title: str
    ours: str
    rows: dict[str, dict[str, str]]
    metrics: tuple[str, ...] = ('accuracy', 'auc')


def base() -> ConfigDict:
    """Fields that every method has, for CT on the phantom at a size for a laptop. configs/*.py say what differs."""
    c = ConfigDict({'data': DATA, 'prep': PREP, 'model': MODEL, 'train': TRAIN, 'views': VIEWS, 'eval': EVAL})
    c.seed = 0  # of initial weights, order, augmentation
    c.seeds = 1  # how many, from `seed` up
    c.folds = 1  # over 1: cross-validation, each patient in test once
    c.fold = 0  # which of the folds: set by the run, in each of its parts
    c.stages = ()  # names of overrides, run in turn
    c.row = ''  # of the paper's tables, as configs/*.py name it: covid-jax table puts the run there
    c.track = 'none'  # where losses and scores go beside the folder: trackio | wandb | mlflow, which is then to be installed
    c.kind = 'train'  # what a part does: train | ensemble | choose | probe | rank | cross
    c.ranking = {
        'ground': 'index',  # what a move of mass costs. index: the places between | value: how far values are apart | uniform: 1
        'mass': 'normalise',  # of two exams: normalise: it is made equal | partial: it is left as it is
    }
    c.ensemble = {'runs': ''}  # finished runs, or earlier stages, with commas: nothing is trained, they are averaged
    c.choose = {
        'runs': '',  # finished runs, or earlier stages, with commas: nothing is trained, the best of them is taken
        'by': 'macro_f1',  # the metric of val that it is the best by
    }
    c.cross = {
        'runs': '',  # finished runs, or earlier stages, with commas: nothing is trained, each is asked about the data of the others
        'sources': '',  # further data that they are asked about, with commas, as in data.source
        'roots': '',  # the folder of each of these sources, with commas
    }
    c.init_from = ''  # a run's folder, or an earlier stage: start from its parameters and statistics
    c.init_skip = 'auto'  # modules of the network that start afresh, with commas; auto: the classifier of another task
    c.allow_leak = False  # True: start from a run that learnt from this one's validation or test patients; outputs say so
    return c


def row(arg: str, rows: Sequence[str], **choices: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """'model4,size=small' -> ('model4', {'size': 'small'}): a row of the paper's table and what it is asked to vary.

    rows: the names there are, the default first. choices: what each key may be, the default first. UserError for others.
    """
    name, *pairs = arg.split(',')
    if '=' in name:  # no row is named
        pairs.insert(0, name)
        name = ''
    if name and name not in rows:
        raise UserError(f'no row is called {name!r}; there are: {", ".join(rows)}')
    values = {key: allowed[0] for key, allowed in choices.items()}
    for pair in pairs:
        key, _, value = pair.partition('=')
        if value not in choices.get(key, ()):
            known = ', '.join(f'{k}={v}' for k, allowed in choices.items() for v in allowed)
            raise UserError(f'{pair!r} is not known to this config; there are: {known}')
        values[key] = value
    return name or rows[0], values


def get(config: ConfigDict, name: str) -> Any:
    """The field of a dotted name, as 'train.lr'."""
    for part in name.split('.'):
        config = config[part]
    return config


def put(config: ConfigDict, name: str, value: Any) -> None:
    """Sets the field of a dotted name; sections that are not there are made."""
    *sections, last = name.split('.')
    for section in sections:
        if section not in config:
            config[section] = ConfigDict()
        config = config[section]
    config[last] = value


def set_stages(config: ConfigDict, stages: Mapping[str, dict]) -> None:
    """Gives the config its stages, {name: overrides}, to be run in this order. UserError for a name that is a section."""
    if taken := sorted(stages.keys() & config.keys()):
        raise UserError(f'a stage may not be called {taken[0]!r}: the config has a field of that name')
    made = {name: stage(config, overrides) for name, overrides in stages.items()}
    config.update(made)
    config.stages = tuple(made)


def stage(config: ConfigDict, overrides: dict) -> ConfigDict:
    """A stage of the config, for config[name]: each field follows the config's own, but for the overrides, a nested dict.

    Both are fields that can be set from the command line: --config.FIELD for all stages that follow it, and
    --config.STAGE.FIELD for one. A stage of another method has that method's section in place of the config's, with the
    fields that the overrides spell out.
    """
    method = overrides.get('method', config.method)
    if method == config.method:
        return _follow(config, overrides)
    followed = _follow(config, {key: value for key, value in overrides.items() if key != method})
    if config.method in followed:
        del followed[config.method]
    followed[method] = overrides.get(method, {})
    return followed


def _follow(config, overrides):
    if unknown := overrides.keys() - config.keys():
        raise KeyError(f'a stage overrides {", ".join(unknown)}, which the config does not have')
    followed = ConfigDict()
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            followed[key] = _follow(value, overrides.get(key, {}))
        elif key in overrides:
            followed[key] = overrides[key]
        else:
            followed[key] = config.get_oneway_ref(key)
    return followed
