"""Rubik's cube Pro (Li et al., "Efficient and Effective Training of COVID-19 Classification Networks With Self-Supervised Dual-Track
Learning to Rank", IEEE JBHI 2020): features of whole scans without labels, learnt from the scans with COVID alone.

    python -m covid_jax.main --config=configs/rubik.py

trains rubik_pro,size=small on phantoms, in minutes on 2 CPU cores. At the paper's size, on scans of your own in {pos,neg}/<patient>/:

    python -m covid_jax.main --config=configs/rubik.py:rubik_pro --config.data.root=SCANS --workdir=runs/rubik_pro

    rubik_pro   cubes in another order, turned, and masked (section IV.B)
    rubik       Rubik's cube: without masks

--config.data.use=all learns from all scans. CC-CCII stands in for the paper's own scans, at its share of
COVID; it has neither Hounsfield units, so that no window is taken, nor millimetres:

    --config.data.source=cc_ccii --config.data.root=CC-CCII --config.data.imbalance=8 --config.prep.spacing="()"

No row has been run at full scale by this project (the paper: 20 minutes on a V100). Ranking of the negatives is to come.
"""

from ml_collections import ConfigDict

from covid_jax.config import base, row

ROWS = ('rubik_pro', 'rubik')
DEFAULT = 'rubik_pro,size=small'


def get_config(arg: str = '') -> ConfigDict:
    name, choice = row(arg or DEFAULT, ROWS, size=('full', 'small'))
    small = choice['size'] == 'small'
    c = base()
    c.row = f'rubik:{name},size={choice["size"]}'
    c.method = 'rubik'
    c.rubik = {'masking': name == 'rubik_pro', 'gap': (1, 3, 3) if small else (2, 10, 10)}
    c.prep.window = (-1350.0, 150.0)  # level -600, width 1500
    c.views.name = 'none'
    c.model.update(name='ResNet14Small' if small else 'ResNet18Hara', mean=0.0, std=1.0)
    c.train.update(batch=8, lr=1e-3, schedule='constant', weight_decay=0.0, epochs=60.0 if small else 100.0, eval_every=5.0)
    c.data.use = 'covid'
    c.eval.select = 'permutation_accuracy'
    if not small:
        c.data.source = 'pos_neg'
        c.prep.update(size=(56, 192, 256), spacing=(5.0, 1.0, 1.0), lungs='mask', margin=(5.0, 9.0, 9.0))
    return c.lock()
