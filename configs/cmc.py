"""CMC-COV19D (Hou et al., ICCV workshops 2021): contrastive mixup classification of chest CT.

    python -m covid_jax.main --config=configs/cmc.py

trains the main row (classification, contrastive and mixup loss), small, on the phantom: about 4 minutes on 2 CPU cores,
measured in docs/results.md. Paper, full scale, COV19-CT-DB validation: accuracy 94.65, macro F1 94.54 (Table 1, Model4);
not measured by this project. Rows so far:

    configs/cmc.py:supervised        the same network and data with cross entropy alone; not measured
"""

from covid_jax.config import base, row

ROWS = ('cmc', 'supervised')


def get_config(arg=''):
    name, _ = row(arg, ROWS, size=('small',))
    c = base()
    c.method = {
        'name': name,
        'depth': 20,  # slices of a training view
        'contrastive': True,
        'temperature': 0.1,  # the paper gives none; authors' code
        'base_temperature': None,  # 0.07: rescaled as the authors' code does
        'mixup': 0.5,  # Beta(a, a) of the mixing weight; 0: no mixup
        'projection': 128,
    }
    c.eval.tta = 3
    return c.lock()
