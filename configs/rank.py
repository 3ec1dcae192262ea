"""A finished run -> which exams without COVID are worth learning from, by the features of its network, of any method.

    python -m covid_jax.main --config=configs/rank.py --config.init_from=runs/mine --workdir=runs/mine-ranked

Exams of train alone are ranked: its own, or those of another labelled data set, --config.data.source=... --config.data.root=...,
prepared as the run's scans were. A run that learnt without labels, of exams with COVID alone, ranks with a source named: the same one.
The folder gets ranking.csv, ranking.png and spearman.json. Any training on the same data and splits then chooses from it:

    --config.data.negatives.ranking=runs/mine-ranked --config.data.negatives.count=0.28

covid_jax/config.py has the other fields of the choice (data.negatives) and of the distances (ranking). configs/rubik.py has the
paper's features, the ranking and the training as stages of one run.
"""

from ml_collections import ConfigDict

from covid_jax.config import base

ROWS = ()


def get_config() -> ConfigDict:
    c = base()
    c.kind = 'rank'
    c.method = 'supervised'  # of no matter: the method is the run's
    c.supervised = {'frozen': False}
    c.data.source = ''  # the run's own data
    return c.lock()
