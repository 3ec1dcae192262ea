"""What a linear probe reads from the features of a finished run, beside what simpler evidence reaches on the same scans.

    python -m covid_jax.main --config=configs/probe.py --config.init_from=runs/mine --workdir=runs/mine-probed

The trunk is used as it is; nothing of it is trained. The exams, their splits and their fold are the run's own; another labelled
data set is --config.data.source=... --config.data.root=..., prepared as the run's scans were. Without a source no other field of
`data` may be set, but workers and store. Of a run in folds or with seeds, --config.folds=5 --config.seeds=3 probes each part. A minute or
two, most of which is reading scans.
"""

from ml_collections import ConfigDict

from covid_jax.config import base

ROWS = ()


def get_config() -> ConfigDict:
    c = base()
    c.kind = 'probe'
    c.method = 'supervised'  # of no matter: the method is the run's
    c.supervised = {'frozen': False}
    c.data.source = ''  # the run's own data
    return c.lock()
