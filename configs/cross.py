"""The matrix of data sets: a network for each data set, and each network asked about the others.

    python -m covid_jax.main --config=configs/cross.py

learns from phantoms of many scanners and from phantoms of two, and asks both about phantoms of four known ones as well, in minutes
on 2 CPU cores. On published slices, in 5 folds, with COVID-CT-MD as a data set that is tested on alone and left out where it has no
folder:

    python -m covid_jax.main --config=configs/cross.py:ct --config.covid_ct.data.root=COVID-CT \\
        --config.sars.data.root=SARS-CoV-2-CT --config.matrix.cross.roots=COVID-CT-MD --workdir=runs/cross

Patients of COVID-CT are articles and figures, those of SARS-CoV-2-CT clusters of near duplicates; splits are drawn. Finished runs
of your own, with data that no run is of: --config.cross.runs=RUN,RUN --config.cross.sources=manifest --config.cross.roots=scans.csv.

Which label counts as which class is read of all data sets alike, from --config.data.classes (of the matrix alone:
--config.matrix.data.classes). Its names must be those of the runs.

ROW,size=small is a 96 x 96 ResNet14Small, the default; ROW,size=full a 224 x 224 ResNet50. Nothing here is of a paper: Adam, cross
entropy, crops and contrast as CMC-COV19D draws them.
"""

from ml_collections import ConfigDict

from covid_jax.config import base, row, set_stages

ROWS = ('phantom', 'ct')
STAGES = {
    'phantom': {
        'many_scanners': {'data': {'phantom': {'seed': 0, 'sites': 1}}},  # each phantom its own
        'two_scanners': {'data': {'phantom': {'seed': 100, 'sites': 2}}},
        'matrix': {'kind': 'cross', 'cross': {'runs': 'many_scanners,two_scanners', 'sources': 'phantom'},
                   'data': {'phantom': {'seed': 200, 'train': 0, 'val': 0, 'test': 120, 'sites': 4}}},
    },
    'ct': {
        'covid_ct': {'data': {'source': 'covid_ct', 'root': '', 'split': 'drawn'}},
        'sars': {'data': {'source': 'sars_cov_2_ct', 'root': '', 'split': 'drawn', 'group': 'clusters'}},
        'matrix': {'kind': 'cross', 'cross': {'runs': 'covid_ct,sars', 'sources': 'covid_ct_md_slices'}},
    },
}


def get_config(arg: str = '') -> ConfigDict:
    name, choice = row(arg, ROWS, size=('small', 'full'))
    small = choice['size'] == 'small'
    c = base()
    c.row = f'cross:{name},size={choice["size"]}'
    c.method = 'supervised'
    c.supervised = {'frozen': False}
    c.prep.size = (1, 96, 96) if small else (1, 224, 224)
    c.model.name = 'ResNet14Small' if small else 'ResNet50'
    c.train.epochs = 30.0 if small else 60.0
    c.train.lr = 6e-4 if small else 3e-4
    c.data.phantom.kind = 'slice'
    c.folds = 5 if name == 'ct' else 1
    set_stages(c, {stage: {'kind': 'train', **fields} for stage, fields in STAGES[name].items()})
    return c.lock()
