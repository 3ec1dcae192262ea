"""Plain classification with any network on any data: what to run first on scans of your own, and the baseline of every table.

    python -m covid_jax.main --config=configs/supervised.py

trains ct,size=small on the phantom, in minutes on 2 CPU cores. On scans of your own, in 5 folds, with an interval around the
answers of all of them:

    python -m covid_jax.main --config=configs/supervised.py:ct --config.data.source=manifest --config.data.root=scans.csv \\
        --config.folds=5 --config.model.name=ResNet18 --workdir=runs/mine

    row    what an exam is                full size, network         small size, network
    ct     a volume                       64 x 224 x 224, ResNet50   24 x 48 x 48, ResNet14Small
    slice  one axial image                224 x 224, ResNet50        96 x 96, ResNet14Small
    xray   one chest X-ray, three classes 224 x 224, ResNet50        96 x 96, ResNet14Small

ROW,size=small is what a laptop trains, without a data source on the phantom; ROW,task=binary and ROW,task=ternary set the classes
(normal, covid, pneumonia). Any network is --config.model.name, and a prep.size of one slice makes it one of images. Nothing here
is of a paper: Adam, cross entropy (--config.supervised.loss=focal or ohem where one class is rare), crops and contrast as CMC-COV19D draws them.
"""

from ml_collections import ConfigDict

from covid_jax.config import TERNARY, base, row

ROWS = ('ct', 'slice', 'xray')
SIZES = {'full': {'ct': (64, 224, 224), 'slice': (1, 224, 224), 'xray': (1, 224, 224)},
         'small': {'ct': (24, 48, 48), 'slice': (1, 96, 96), 'xray': (1, 96, 96)}}
XRAY = {'mean': 0.5, 'std': 0.25}


def get_config(arg: str = '') -> ConfigDict:
    name, choice = row(arg or 'ct,size=small', ROWS, size=('full', 'small'), task=('auto', 'binary', 'ternary'))
    small = choice['size'] == 'small'
    c = base()
    c.row = ','.join((f'supervised:{name}', *(f'{key}={value}' for key, value in choice.items())))
    c.method = 'supervised'
    c.supervised = {
        'frozen': False,  # True: the classifier alone, on a network that starts from another run or a file
        'loss': 'cross_entropy',  # or focal, or ohem, where one class is rare
        'keep': 0.5,  # of ohem
    }
    c.prep.size = SIZES[choice['size']][name]
    c.model.name = 'ResNet14Small' if small else 'ResNet50'
    c.data.phantom.kind = name
    if choice['task'] == 'ternary' or (choice['task'] == 'auto' and name == 'xray'):
        c.data.classes = TERNARY
    if name == 'xray':
        c.model.update(XRAY)
    if small:
        c.train.epochs = 12.0 if name == 'ct' else 30.0
    else:
        c.data.source = 'folder'
        c.model.remat = name == 'ct'
        c.train.update(epochs=60.0, lr=3e-4)
    return c.lock()
