"""CMT-CNN (Li et al., Pattern Recognition 2021): multi-task contrastive diagnosis on chest CT and X-ray.

    python -m covid_jax.main --config=configs/cmt.py

trains xray_r50_full_tern,size=small on phantom X-rays, in minutes on 2 CPU cores. A row of the paper's tables at full scale, in
its 5 folds, on your own copy of the data:

    python -m covid_jax.main --config=configs/cmt.py:xray_effb4_full_tern --config.data.root=chest-xray --workdir=runs/xray
    python -m covid_jax.main --config=configs/cmt.py:ct_effb4_full_bin --config.data.root=CC-CCII --workdir=runs/ct

    MODALITY_NETWORK_LOSS_TASK   ct: 128^3, 8 a batch | xray: 512^2, 64 a batch
                                 vgg19 | r50 | effb4, all from scratch
                                 full: Eq 8 | cls: without the contrastive loss | cst: with it alone, then a linear probe |
                                 all: the three of them, one after another
                                 bin: COVID or not | tern: normal, COVID, pneumonia
    MODALITY_sweep               lambda 0, 0.25, 0.5, 0.75, 1, and of each fold the best on its inner validation split
    fig4_MODALITY                Fig 4: a baseline, each transformation by itself, and all ordered pairs: 50 trainings a fold
                                 (scripts/fig4_cmt.py prints the matrix)

    covid-jax table --config=configs/cmt.py --workdir=runs

prints Tables 1 to 5, every number beside those of the runs in a folder. No row has been run at full scale by this project (the
paper: a TITAN X). All 18 binary rows of the paper are impossible: their accuracy is not between sensitivity and specificity.
The X-ray data of the paper are two collections, --config.data.source=chest_xray,chest_xray with two folders in
--config.data.root; part of its images were never released.

ROW,size=small is any row with a ResNet14Small, on phantoms where no data source is set. --config.cmt.attention=True adds the
decoder of Fig 5. Epochs and early stopping are ours: the paper gives none.
"""

from itertools import product

from ml_collections import ConfigDict

from covid_jax.augment.views import OPS
from covid_jax.config import TERNARY, Table, base, row, set_stages

NETWORKS = {'vgg19': 'VGG19', 'r50': 'ResNet50', 'effb4': 'EfficientNetB4'}
LOSSES = 'full', 'cls', 'cst', 'all'
TASKS = 'bin', 'tern'
MODALITIES = 'ct', 'xray'
LAMBDAS = {f'lambda{round(100 * value)}': value for value in (0.0, 0.25, 0.5, 0.75, 1.0)}
ROWS = (*map('_'.join, product(MODALITIES, NETWORKS, LOSSES, TASKS)),
        *(f'{modality}_sweep' for modality in MODALITIES), *(f'fig4_{modality}' for modality in MODALITIES))
DEFAULT = 'xray_r50_full_tern,size=small'
SOURCES = {'ct': 'cc_ccii', 'xray': 'chest_xray'}
SIZES = {'full': {'ct': (128, 128, 128), 'xray': (1, 512, 512)}, 'small': {'ct': (24, 48, 48), 'xray': (1, 96, 96)}}
BATCHES = {'full': {'ct': 8, 'xray': 64}, 'small': {'ct': 8, 'xray': 16}}


# Accuracy, sensitivity, specificity and AUC of the binary task, accuracy of the ternary one, as the paper prints them.
NUMBERS = """
    ct_vgg19_full   86.45 83.22 81.22 82.76  84.56
    ct_r50_full     91.66 90.44 89.16 84.18  89.75
    ct_effb4_full   93.46 90.57 90.84 89.22  91.45
    xray_vgg19_full 93.42 89.91 89.13 87.15  91.34
    xray_r50_full   95.66 90.85 90.98 89.74  92.52
    xray_effb4_full 97.23 92.97 91.91 92.13  93.49
    ct_vgg19_cls    83.12 78.66 78.79 78.15  81.24
    ct_r50_cls      85.67 82.42 82.43 90.45  83.87
    ct_effb4_cls    87.21 84.12 85.21 84.87  85.96
    xray_vgg19_cls  91.16 89.45 88.74 86.17  90.21
    xray_r50_cls    93.79 90.24 90.87 89.23  91.10
    xray_effb4_cls  94.81 92.16 91.01 91.47  92.53
    ct_vgg19_cst    82.53 76.55 76.34 77.73  80.56
    ct_r50_cst      84.76 81.43 79.67 79.54  80.25
    ct_effb4_cst    86.46 84.21 84.19 82.42  84.19
    xray_vgg19_cst  87.24 84.31 85.88 83.24  88.24
    xray_r50_cst    89.88 87.32 86.76 86.33  89.31
    xray_effb4_cst  91.72 88.77 90.17 89.97  90.47
"""
COLUMNS = 'accuracy', 'sensitivity', 'specificity', 'auc'
OTHERS = {'ct': {'Zhang et al.': ('92.49', '94.93', '91.13', ''), 'Ouyang et al.': ('87.50', '86.90', '90.10', ''),
                 'Kang et al.': ('93.90', '94.60', '91.70', ''), 'Zhang et al., ternary': ('92.49', '', '', '')},
          'xray': {'Oh et al.': ('88.90', '', '', ''), 'Apostolopoulos et al.': ('96.78', '98.66', '96.46', ''),
                   'Apostolopoulos et al., ternary': ('94.72', '', '', '')}}


def printed(begins: str, ends: str) -> dict[str, tuple[str, ...]]:
    """{row: cells of COLUMNS} of the lines of NUMBERS whose names begin and end so; of the ternary task the accuracy."""
    found = {}
    for name, *binary, ternary in map(str.split, NUMBERS.strip().splitlines()):
        if name.startswith(begins) and name.endswith(ends):
            found[f'{name}_bin'] = tuple(binary)
            found[f'{name}_tern'] = ternary, '', '', ''
    return found


TABLES = (
    Table('Table 1: CMT-CNN on CT, 5 folds', COLUMNS, printed('ct', 'full')),
    Table('Table 2: CMT-CNN on X-rays, 5 folds', COLUMNS, printed('xray', 'full')),
    Table('Table 3: the classification loss alone', COLUMNS, printed('', 'cls')),
    Table('Table 4: the contrastive loss alone', COLUMNS, printed('', 'cst')),
    Table('Table 5: CT beside the literature', COLUMNS, printed('ct_effb4', 'full'), OTHERS['ct']),
    Table('Table 5: X-rays beside the literature', COLUMNS, printed('xray_effb4', 'full'), OTHERS['xray']),
)


def get_config(arg: str = '') -> ConfigDict:
    name, choice = row(arg or DEFAULT, ROWS, size=('full', 'small'))
    modality = name.removeprefix('fig4_').partition('_')[0]
    # the sweep and Fig 4 are of the binary task with the best network
    _, network, loss, task = name.split('_') if name.count('_') == 3 else (modality, 'effb4', 'full', 'bin')
    c = sized(modality, network, choice['size'])
    c.row = f'cmt:{name},size={choice["size"]}'
    normal, covid, pneumonia = TERNARY
    c.data.classes = TERNARY if task == 'tern' else (f'noncovid|non-covid|non_covid|{normal}|{pneumonia}', covid)
    cls = {'cmt': {'weight': 0.0}}
    cst = {'contrastive': {'cmt': {'classification': False}}, name.replace('all', 'cst'): {'kind': 'probe', 'init_from': 'contrastive'}}
    if loss == 'cls':
        c.update(cls)
    elif loss == 'cst':
        set_stages(c, cst)
    elif loss == 'all':
        set_stages(c, {name.replace('all', 'full'): {}, name.replace('all', 'cls'): cls, **cst})
    elif name.endswith('sweep'):
        stages = {stage: {'cmt': {'weight': value}} for stage, value in LAMBDAS.items()}
        set_stages(c, stages | {'best': {'kind': 'choose', 'choose': {'runs': ','.join(stages), 'by': 'accuracy'}}})
    elif name.startswith('fig4'):
        set_stages(c, {'baseline': {'cmt': {'weight': 0.0}, 'views': {'name': 'none'}}, **of_fig4()})
    return c.lock()


def sized(modality: str, network: str, size: str) -> ConfigDict:
    """What all rows have in common: section 4.1."""
    small = size == 'small'
    c = base()
    c.method = 'cmt'
    c.cmt = {
        'classification': True,  # False: the contrastive loss alone, and no classifier
        'weight': 0.25,  # of the contrastive loss, lambda of Eq 8; 0: the classification alone
        'temperature': 0.1,
        'classified': 'both',  # both views | the first | clean: the scan itself, in a third pass
        # width of r, a dense layer and ReLU on the network's features; 0: r is these features, as VGG's first dense layer is
        'latent': 0 if small or network == 'vgg19' else 4096,
        'attention': False,  # the decoder of Fig 5 between trunk and head
    }
    c.views.name = 'cmt'
    c.prep.window = ()  # min-max, then 0.5 is subtracted
    c.prep.size = SIZES[size][modality]
    c.model.update(name='ResNet14Small' if small else NETWORKS[network], mean=0.5, std=1.0)
    c.train.update(batch=BATCHES[size][modality], lr=1e-3, schedule='constant', weight_decay=0.0, epochs=30.0 if small else 100.0,
                   patience=10)
    c.data.phantom.kind = modality
    if not small:
        c.data.source = SOURCES[modality]
        c.folds = 5
        c.model.remat = modality == 'ct'
    return c


def of_fig4() -> dict[str, dict]:
    """{stage: overrides} of the transformations, each by itself, and of all ordered pairs."""
    single = {name: (name,) for name in OPS}
    pairs = {f'{first}_{second}': (first, second) for first, second in product(OPS, OPS) if first != second}
    return {stage: {'views': {'ops': ops}} for stage, ops in (single | pairs).items()}
