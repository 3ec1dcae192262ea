"""What every config file starts from, how a row of a paper's table is named, and the config that a run keeps."""

import json
import os
from pathlib import Path

import ml_collections

from covid_jax import UserError

# Fields that change nothing of the training: a run may go on with others, and a finished one be evaluated again.
FREE = ('data.workers', 'data.store', 'train.log_every', 'eval.tta', 'eval.resamples')


def base():
    """Fields that every method has, for CT on the phantom at a size for a laptop. configs/*.py say what differs."""
    c = ml_collections.ConfigDict()
    c.seed = 0  # of initial weights, order, augmentation
    c.seeds = 1  # how many, from `seed` up
    c.folds = 1  # over 1: cross-validation, each patient in test once
    c.stages = ()  # names of overrides, run in turn
    c.ensemble = {'runs': ''}  # finished runs, or earlier stages, with commas: nothing is trained, they are averaged
    c.init_from = ''  # a run's folder, or an earlier stage: start from its parameters
    c.data = {
        'source': 'phantom',  # see docs/data.md; several, with commas between them, are sites of one data set
        'root': '',  # the folder, or the manifest's CSV file; one for each source, with commas between them
        'exclude': '',  # a text file of ids that are left out, one a line
        'classes': ('noncovid|non-covid|non_covid|normal|healthy|pneumonia|cap|cp', 'covid|covid-19|covid19|ncp'),
        'val': 0.2,  # share of patients, where the source names no val split
        'test': 0.2,
        'held_out': (),  # patients that are the test split
        'split_seed': 0,
        'store': '',  # where prepared scans are kept; '': in the run's folder
        'workers': 0,  # preparing processes; 0: one a core
        'phantom': {
            'seed': 0,
            'train': 360,
            'val': 60,
            'test': 120,
            'kind': 'ct',  # ct | slice (axial, of a ct) | xray (posterior-anterior, of a ct)
            'sites': 1,  # with a scanner each, 4 at most; 1: every phantom has its own
            'covid': 0.5,  # share of each split; the rest is normal and pneumonia
            'unlabelled': 0.0,  # share of the training phantoms whose label is not told
        },
    }
    c.prep = {
        'window': (-1000.0, 400.0),  # Hounsfield units that become 0 and 255
        'size': (24, 48, 48),  # depth, height, width
        'spacing': (),  # z, y, x in mm: resample to it, then crop or pad to size; (): resize the whole scan to size
        'lungs': '',  # crop: to the box around both lungs | mask: that, and 0 outside the lungs
        'margin': (5.0, 9.0, 9.0),  # z, y, x in mm by which the box is wider
    }
    c.model = {
        'name': 'ResNeSt14Small',
        'dtype': 'auto',
        'mean': 0.3529,
        'std': 0.2983,
        'remat': False,  # compute each block again in the backward pass: less memory, more time
        'pretrained': '',  # a file of weights, .safetensors or torch's .pth, or a run's folder; init_from goes before it
        'inflate': 'mean',  # how its 2D kernels become 3D: mean (copies in every slice) | centre (the middle slice)
        'taps': 0,  # slices that a kernel sees: 3 | 1, each slice by itself; 0: the network's own, and 1 for single images
        'stem_plane': 0,  # height and width of the first kernel; 0: the network's own
        'depth_strides': (),  # of the stem, its pool, and each stage; (): the network's own
        'sites': 0,  # sets of statistics of a network that normalises by site; 0: the network's own
    }
    c.method = {'name': 'supervised', 'depth': 20}
    c.train = {
        'batch': 0,  # scans; 0: the least multiple of twice the device count that is at least 8
        'epochs': 10.0,
        'optimizer': 'adam',  # adam | sgd
        'lr': 6e-4,
        'lr_steps': (0.8, 0.95),  # shares of the epochs after which the rate is divided by 10
        'weight_decay': 1e-5,  # L2, added to the gradient
        'eval_every': 1.0,  # epochs between validations; each saves a checkpoint
        'log_every': 10,  # steps
    }
    c.eval = {'batch': 0, 'tta': 0, 'resamples': 1000}
    return c


def row(arg, rows, **choices):
    """'model4,size=small' -> ('model4', {'size': 'small'}): a row of the paper's table and what it is asked to vary.

    rows: the names there are, the default first. choices: what each key may be, the default first. UserError for others.
    """
    name, *pairs = arg.split(',') if '=' not in arg.split(',')[0] else ['', *arg.split(',')]
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


def stage(config, overrides):
    """A stage of the config, for config[name]: each field follows the config's own, but for the overrides, a nested dict.

    Both are fields that can be set from the command line: --config.FIELD for all stages that follow it, and
    --config.STAGE.FIELD for one.
    """
    if unknown := overrides.keys() - config.keys():
        raise KeyError(f'a stage overrides {", ".join(unknown)}, which the config does not have')
    return ml_collections.ConfigDict({
        key: stage(value, overrides.get(key, {})) if isinstance(value, ml_collections.ConfigDict) else
        overrides[key] if key in overrides else config.get_oneway_ref(key) for key, value in config.items()})


def check(config, workdir, dataset=None):
    """UserError where workdir holds another run: one of another config, or of other scans, labels or splits.

    dataset: the digest of this run's data, once it is known.
    """
    path = Path(workdir) / 'config.json'
    if not path.exists():
        return
    kept = json.loads(path.read_text())
    if kept.pop('dataset') != dataset and dataset is not None:
        raise UserError(f'{workdir} was started with other scans, labels, splits or preparation: choose another --workdir')
    old, new = _flat(kept), _flat(json.loads(config.to_json()))
    fields = sorted({*old, *new} - set(FREE))
    differ = [f'{k}: {old.get(k)} there, {new.get(k)} now' for k in fields if old.get(k) != new.get(k)]
    if differ:
        raise UserError(f'{workdir} holds another run ({"; ".join(differ[:5])}): choose another --workdir')


def keep(config, workdir, dataset):
    """Writes workdir/config.json: the config and the digest of the data, which `check` has passed."""
    path = Path(workdir) / 'config.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps({**json.loads(config.to_json()), 'dataset': dataset}, indent=1, sort_keys=True))
    os.replace(temporary, path)


def kept_batch(workdir):
    """The batch size of the run that workdir holds, or None: a restart on other devices keeps it."""
    path = Path(workdir) / 'config.json'
    return json.loads(path.read_text())['train']['batch'] if path.exists() else None


def _flat(tree, prefix=''):
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
    return flat
