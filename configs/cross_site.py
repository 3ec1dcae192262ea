"""Contrastive cross-site COVID-Net (Wang, Liu and Dou, JBHI 2020): one network for COVID-19 on CT slices of several hospitals.

    python -m covid_jax.main --config=configs/cross_site.py

trains ours,size=small on phantom slices of two scanners, in minutes on 2 CPU cores. A row of the paper's Table I at full scale, in its
4 folds and 3 runs, on your own copies of SARS-CoV-2-CT (Site A) and COVID-CT (Site B):

    python -m covid_jax.main --config=configs/cross_site.py:ours --config.data.root=SARS-CoV-2-CT,COVID-CT --workdir=runs/ours

    single_covidnet,site=a|b    the original COVID-Net, one site alone
    single_redesign,site=a|b    with normalisation, a head of a twelfth, and a rate that falls as a cosine
    joint_covidnet              both sites, 16 + 16 a batch
    joint_redesign              one set of statistics for both
    series_adapter              an adapter of each site after the stem and the upper branch
    parallel_adapter            beside them
    ms_net                      a classifier of each site, which teaches the one for all
    sepnorm                     statistics of each site
    ours                        that, and the contrastive loss

    covid-jax table --config=configs/cross_site.py --workdir=runs

prints Tables I to III, every number beside those of the runs in a folder. No row has been run at full scale by this project (the
paper: a TITAN Xp). ROW,bna=on normalises the dense layers too, as the authors' README does. What the paper or its code leave open is
--config.cross_site.alpha, temperature, pool, p33 and embedding_relu (docs/fidelity.md).

A hospital that is not in the training set is answered by the mean of those that are; how well, says a run that leaves one out:

    python -m covid_jax.main --config=configs/cross_site.py:ours --config.data.root=SARS-CoV-2-CT,COVID-CT --config.folds=1 \\
        --config.data.held_out_sites="('COVID-CT',)" --workdir=runs/unseen

ROW,size=small is any row at 64 x 64 with a COVIDNetRedesignSmall, on the phantom where no data source is set. Any number of sites can be
trained on: several sources, or the column `site` of a manifest; the batch must divide by it (--config.train.batch=48 for three).
single_* takes --config.data.sites="('NAME',)" of other data.
"""

from ml_collections import ConfigDict

from covid_jax.config import PairedTests, Table, base, row

SOURCES = 'sars_cov_2_ct,covid_ct'
SITES = {'a': 'SARS-CoV-2-CT', 'b': 'COVID-CT'}  # as these sources call them
PHANTOM_SITES = {'a': 'site0', 'b': 'site1'}
ROWS = ('ours', 'sepnorm', 'ms_net', 'parallel_adapter', 'series_adapter', 'joint_redesign', 'joint_covidnet', 'single_redesign',
        'single_covidnet')
IMAGENET = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}  # of three channels: a grey image is all of them

# Table I, accuracy, F1, recall, precision and AUC of Site A, then of Site B, as the paper prints them.
NUMBERS = """
    single_covidnet  77.12±0.98 76.03±1.13 70.97±2.37 80.04±2.87 84.08±0.92  63.12±2.09 61.09±1.28 57.73±2.94 64.03±3.91 71.09±2.18
    single_redesign  89.09±1.08 88.97±0.91 83.78±0.62 94.58±2.07 94.12±0.87  77.07±1.92 77.04±2.17 74.69±3.91 79.48±0.96 84.13±0.82
    joint_covidnet   68.72±1.94 69.17±1.93 69.41±3.91 68.27±1.21 74.78±2.91  63.27±2.82 59.78±3.12 54.19±4.17 64.27±3.81 68.12±2.11
    joint_redesign   78.42±2.19 77.86±2.01 74.07±3.16 80.82±1.05 85.72±3.54  69.67±0.92 66.89±4.91 66.94±5.86 64.98±3.17 72.48±2.17
    series_adapter   85.73±0.71 86.19±1.65 81.91±2.61 90.98±0.79 92.93±1.42  70.01±3.82 67.08±3.09 74.91±1.89 63.04±4.87 73.92±2.36
    parallel_adapter 82.13±1.91 82.39±1.78 80.02±2.47 83.51±1.87 89.99±0.97  74.93±1.83 73.46±1.68 71.81±2.47 79.84±1.75 80.29±1.76
    ms_net           87.98±1.31 88.73±1.20 84.91±2.83 93.78±2.76 94.37±0.79  76.23±1.81 76.54±1.73 74.07±1.29 79.29±1.48 82.19±1.47
    sepnorm          88.76±0.78 87.88±0.81 82.97±1.66 95.46±0.74 94.57±0.77  76.89±0.65 75.02±1.14 70.34±3.76 80.74±2.98 83.94±0.43
    ours             90.83±0.93 90.87±1.29 85.89±1.05 95.75±0.43 96.24±0.35  78.69±1.54 78.83±1.43 79.71±1.42 78.02±1.34 85.32±0.32
"""
COLUMNS = 'accuracy', 'f1_covid', 'sensitivity', 'precision', 'auc'


def printed(site: str) -> dict[str, tuple[str, ...]]:
    """{row: cells of COLUMNS} of a site, 'a' or 'b'."""
    first = len(COLUMNS) * (site == 'b')
    cells = {name: numbers for name, *numbers in map(str.split, NUMBERS.strip().splitlines())}
    return {name: tuple(numbers[first:first + len(COLUMNS)]) for name, numbers in cells.items()}


TABLES = tuple(Table(f'Table I, Site {site.upper()}: {name}, 4 folds, 3 runs', COLUMNS, printed(site), group=f'site {name}')
               for site, name in SITES.items())

# p of a paired t-test of ours against a row, at Site A and at Site B; the paper does not say of which metric.
PAIRED = (('Table II: ours against plainer learning', {'single_redesign': ('0.002', '0.004'), 'joint_redesign': ('0.007', '0.005'),
                                                       'sepnorm': ('0.023', '0.009')}),
          ('Table III: ours against other joint learning', {'series_adapter': ('0.009', '1e-5'), 'parallel_adapter': ('0.012', '0.014'),
                                                            'ms_net': ('0.021', '0.008')}))
PAIRED_TESTS = tuple(PairedTests(title, 'ours', {name: {f'site {site}': p for site, p in zip(SITES.values(), of_sites, strict=True)}
                                                 for name, of_sites in rows.items()}) for title, rows in PAIRED)


def get_config(arg: str = '') -> ConfigDict:
    name, choice = row(arg or 'ours,size=small', ROWS, size=('full', 'small'), site=('a', 'b'), bna=('off', 'on'))
    small = choice['size'] == 'small'
    single = name.startswith('single')
    original = name.endswith('covidnet')
    c = base()
    c.method = 'cross_site'
    c.cross_site = {
        'alpha': 1.0 if name == 'ours' else 0.0,  # weight of the contrastive loss, Eq 5; 0: none, and no embedding network
        'temperature': 0.05,
        'embedding': (1024, 128),  # widths of the embedding network
        'embedding_relu': False,  # True: after its last layer too (authors' code)
        'head_norm': choice['bna'] == 'on',  # the dense layers normalise by site too (authors' code, bna)
        'pool': 0,  # rows and columns that the last map is pooled to; 0: the network's own
        'p33': True,  # False: a slip of the authors' code, see models/covidnet.py
        'adapter': name.removesuffix('_adapter') if name.endswith('_adapter') else '',  # of each site: series | parallel
        'teachers': name == 'ms_net',  # a classifier for each site, which trains the one for all
        'warm_up': 50 if small else 500,  # steps that the teachers train before it does
    }
    c.row = f'cross_site:{name},' + ','.join(f'{key}={value}' for key, value in choice.items() if key != 'site' or single)
    c.model.name = ('COVIDNet' if original else 'COVIDNetRedesign') + ('Small' if small else '')
    c.model.sites = 1 if name in ('single_redesign', 'joint_redesign') else 0
    with c.model.ignore_type():
        c.model.update(IMAGENET)
    c.prep.update(size=(1, 72, 72) if small else (1, 256, 256), keep_aspect=True)
    c.views.update(name='cross_site', plane=64 if small else 224)
    c.train.update(batch=32, order='by_site', epochs=30.0 if small else 100.0, lr=1e-3 if small else 1e-4,
                   schedule='cosine', weight_decay=0.0 if name == 'ms_net' else 1e-7, clip=2.0)
    if original:
        c.train.update(schedule='steps', lr_steps=(0.3, 0.6, 0.9))
    c.data.phantom.update(kind='slice', sites=2)
    if single:
        c.data.sites = ((PHANTOM_SITES if small else SITES)[choice['site']],)
    if not small:
        c.folds = 4
        c.seeds = 3
        c.data.update(source=SOURCES, split='drawn', group='clusters')  # of Site A no patients are known
    return c.lock()
