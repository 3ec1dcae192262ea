"""Self-Trans (He et al., "Sample-Efficient Deep Learning for COVID-19 Diagnosis Based on CT Scans", 2020): momentum contrast on slices
of other lungs, then on COVID-CT, then fine-tuning on a few hundred labelled slices.

    python -m covid_jax.main --config=configs/self_trans.py

runs the three stages of self_trans_r18,size=small on phantom slices, in minutes on 2 CPU cores. A row of the paper's tables at full
scale, on your own copies of LUNA16's slices and of COVID-CT (its own split), from ImageNet's weights in a file:

    python -m covid_jax.main --config=configs/self_trans.py:self_trans_d169 --config.data.root=COVID-CT \\
        --config.luna.data.root=LUNA16-slices --config.luna.model.pretrained=densenet169.pth --workdir=runs/self_trans
    python -m covid_jax.main --config=configs/self_trans.py:rand_crnet --config.data.root=COVID-CT --workdir=runs/crnet

    rand_NET        Table III: fine-tuning from random weights
    trans_NET       from a file of weights, --config.model.pretrained=FILE
    method1_NET     Table VI: random weights, momentum contrast on COVID-CT, fine-tuning
    method2_NET     the same from a file of weights; unfrozen_NET of Table VII is this row
    method3_NET     a file of weights, momentum contrast on LUNA16, fine-tuning
    method4_NET     a file of weights, fine-tuning beside the prediction of rotations
    self_trans_NET  a file of weights, momentum contrast on LUNA16, then on COVID-CT, fine-tuning
    frozen_NET      Table VII: method2 with a frozen trunk
    lnm_NET, imagenet_lnm_NET   Table IV: first plain classification of a folder of benign and malignant patches
                    (--config.lnm.data.root=FOLDER), from random weights, or from a file

    best            the best of fourteen recipes for COVID-CT without outside weights, as docs/results.md chose it on val: ResNet14Small
                    from random weights at 128 x 128; a drawn split, near duplicates one patient (--config.data.root=COVID-CT)

    NET: vgg16 r18 r50 d121 d169 effb0 effb1 crnet. The paper has the methods of r50 and d169. Weights start from the file where the
    first stage names it: --config.STAGE.model.pretrained, of a row of one stage --config.model.pretrained; '' starts afresh.

    covid-jax table --config=configs/self_trans.py --workdir=runs

prints Tables III to VII. The paper's F1 is that of the patients without COVID (docs/fidelity.md). No row has been run at full scale
by this project (the paper: four GPUs). Momentum contrast learns from the training images alone; ROW,ssl_split=all learns from all of
COVID-CT, as the authors' launch script does, test images too, and every output then says so. ROW,size=small is any row at 64 x 64 with
a ResNet14Small, on the phantom where no data source is set.
"""

from itertools import product

from ml_collections import ConfigDict

from covid_jax.config import Table, base, row, set_stages

NETWORKS = {'vgg16': 'VGG16', 'r18': 'ResNet18', 'r50': 'ResNet50', 'd121': 'DenseNet121', 'd169': 'DenseNet169', 'effb0': 'EfficientNetB0',
            'effb1': 'EfficientNetB1', 'crnet': 'CRNet'}
METHODS = ('rand', 'trans', 'method1', 'method2', 'method3', 'method4', 'self_trans', 'frozen', 'unfrozen', 'lnm', 'imagenet_lnm')
BEST = 'best'
ROWS = (*map('_'.join, product(METHODS, NETWORKS)), BEST)
DEFAULT = 'self_trans_r18,size=small'
PRETEXTS = {'method1': ('covid_ct',), 'method2': ('covid_ct',), 'method3': ('luna',), 'self_trans': ('luna', 'covid_ct'),
            'frozen': ('covid_ct',), 'unfrozen': ('covid_ct',)}  # stages of momentum contrast, in order
FROM_FILE = ('trans', 'method2', 'method3', 'method4', 'self_trans', 'frozen', 'unfrozen', 'imagenet_lnm')
NORMALISATION = {'mean': 0.45271412, 'std': 0.33165374}  # of both stages; the paper has ImageNet's in the first

# Accuracy, F1 and AUC as the paper prints them.
NUMBERS = """
    rand_vgg16 .66 .58 .74      trans_vgg16 .76 .76 .82
    rand_r18 .67 .66 .76        trans_r18 .74 .73 .82
    rand_r50 .69 .72 .76        trans_r50 .80 .81 .88
    rand_d121 .76 .77 .82       trans_d121 .79 .79 .88
    rand_d169 .80 .79 .86       trans_d169 .83 .81 .87
    rand_effb0 .72 .71 .76      trans_effb0 .77 .78 .89
    rand_effb1 .70 .62 .77      trans_effb1 .79 .79 .84
    rand_crnet .72 .76 .77      trans_crnet .73 .76 .79
    lnm_d169 .80 .82 .87        imagenet_lnm_d169 .81 .82 .89
    method1_r50 .69 .63 .66     method1_d169 .70 .63 .77
    method2_r50 .83 .83 .91     method2_d169 .86 .85 .91
    method3_r50 .75 .78 .85     method3_d169 .74 .76 .86
    method4_r50 .81 .81 .88     method4_d169 .83 .82 .88
    self_trans_r50 .84 .83 .91  self_trans_d169 .86 .85 .94
    frozen_r50 .70 .63 .77      frozen_d169 .79 .77 .83
    unfrozen_r50 .83 .83 .91    unfrozen_d169 .86 .85 .91
"""
COLUMNS = 'accuracy', 'f1_noncovid', 'auc', 'f1_covid', 'macro_f1'


def printed(*names: str) -> dict[str, tuple[str, ...]]:
    """{row: cells of COLUMNS} of these rows, in per cent."""
    words = NUMBERS.split()
    found = {words[i]: words[i + 1:i + 4] for i in range(0, len(words), 4)}
    return {name: (*(f'{100 * float(cell):.0f}' for cell in found[name]), '', '') for name in names}


def of_both(*methods: str) -> tuple[str, ...]:
    """The rows of ResNet-50 and DenseNet-169."""
    return tuple('_'.join(pair) for pair in product(methods, ('r50', 'd169')))


TABLES = (
    Table('Table III: from random weights and from ImageNet', COLUMNS, printed(*map('_'.join, product(('rand', 'trans'), NETWORKS)))),
    Table('Table IV: what DenseNet-169 starts from', COLUMNS, printed('rand_d169', 'trans_d169', 'lnm_d169', 'imagenet_lnm_d169')),
    Table('Table V: transfer, and Self-Trans', COLUMNS, printed(*of_both('trans', 'self_trans'))),
    Table('Table VI: what is learnt without labels', COLUMNS, printed(*of_both('method1', 'method2', 'method3', 'method4', 'self_trans'))),
    Table('Table VII: a frozen trunk', COLUMNS, printed(*of_both('frozen', 'unfrozen'))),
)


def get_config(arg: str = '') -> ConfigDict:
    name, choice = row(arg or DEFAULT, ROWS, size=('full', 'small'), ssl_split=('train', 'all'))
    small = choice['size'] == 'small'
    c = best(small) if name == BEST else of_the_paper(name, small, choice['ssl_split'] == 'all')
    c.row = ','.join((f'self_trans:{name}', *(f'{key}={value}' for key, value in choice.items())))
    return c.lock()


def of_the_paper(name: str, small: bool, all_images: bool) -> ConfigDict:
    """A row METHOD_NETWORK; all_images: what is learnt without labels is learnt from test images too."""
    method, _, net = name.rpartition('_')
    network = 'ResNet14Small' if small else NETWORKS[net]
    weights = f'{network}.pth' if method in FROM_FILE and not small else ''  # --config.STAGE.model.pretrained says where it is
    c = finetuning(network, small)
    c.supervised.rotation = method == 'method4'
    c.supervised.frozen = method == 'frozen'
    first: list[dict] = []
    if method in PRETEXTS:
        for stage in PRETEXTS[method]:
            first.append({'name': stage, **pretext(stage, small, all_images)})
    elif method.endswith('lnm'):
        patches: dict = {'imbalance': 0.0}
        if not small:  # phantoms keep their own classes
            patches |= {'source': 'folder', 'classes': ('benign', 'malignant')}
        first.append({'name': 'lnm', 'folds': 1, 'seeds': 1, 'supervised': {'frozen': False, 'rotation': False}, 'data': patches})
    if not first:
        c.model.pretrained = weights
        return c
    c.allow_leak = method in PRETEXTS and all_images
    stages = {}
    before = ''
    for overrides in first:
        stage = overrides.pop('name')
        start = {'init_from': before} if before else {'model': {'pretrained': weights}}
        stages[stage] = overrides | start
        before = stage
    set_stages(c, {**stages, 'finetune': {'init_from': before, 'init_skip': 'classifier'}})
    return c


def finetuning(network: str, small: bool) -> ConfigDict:
    """Plain classification as section IV.B has it."""
    c = base()
    c.method = 'supervised'
    c.supervised = {'frozen': False, 'rotation': False}
    c.prep.size = (1, 72, 72) if small else (1, 256, 256)
    c.views.update(name='self_trans', plane=64 if small else 224)
    c.model.update(name=network, **NORMALISATION)
    c.train.update(batch=16, lr=1e-3 if small else 1e-4, schedule='cosine', period=10.0, epochs=30.0 if small else 50.0, weight_decay=0.0)
    c.eval.select = 'auc'
    c.data.phantom.kind = 'slice'
    if not small:
        c.data.source = 'covid_ct'
    return c


def best(small: bool) -> ConfigDict:
    """What scripts/best_covid_ct.py found; small: at 64 x 64, on the phantom."""
    c = finetuning('ResNet14Small', small=True)
    if not small:
        c.prep.size = (1, 144, 144)
        c.views.plane = 128
        c.data.update(source='covid_ct', split='drawn', group='clusters')
    return c


def pretext(stage: str, small: bool, all_images: bool) -> dict:
    """Momentum contrast: overrides of the stage called luna or covid_ct."""
    data: dict = {}  # of covid_ct: what is classified after it
    if stage == 'luna':
        data = {'source': 'phantom' if small else 'luna16', 'root': '', 'split': 'auto', 'imbalance': 0.0}
        data['phantom'] = {'seed': 9, 'train': 200, 'val': 0, 'test': 0, 'unlabelled': 1.0}
    elif all_images:
        data = {'split': 'drawn', 'val': 0.0, 'test': 0.0}  # nothing is kept from it
    train = {'batch': 32 if small else 128, 'optimizer': 'sgd', 'momentum': 0.9, 'lr': 0.015, 'weight_decay': 1e-4, 'period': 0.0,
             'epochs': 20.0 if small else 200.0, 'eval_every': 10.0}
    once = {'folds': 1, 'seeds': 1} if stage == 'luna' else {}
    return {'method': 'moco', 'moco': {'queue': 128 if small else 512, 'temperature': 0.07, 'momentum': 0.999, 'groups': 4, 'projection': 128},
            'data': data, 'train': train, 'views': {'name': 'moco'}, 'eval': {'select': 'last'}, **once}
