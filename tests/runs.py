"""Folders as finished parts leave them, made by hand."""

import json

from covid_jax import evaluate, predictions
from covid_jax.runtime import workdir

HEADER = 'id,patient,site,split,label,p_noncovid,p_covid'
NAMES = ('noncovid', 'covid')


def finished(folder, rows, stage='', fold=0, seed=0, config=None, last=True):
    """Leaves predictions.csv, metrics.json, results.json and config.json of (id, split, label, probability of covid), and returns
    the metrics. A patient is what stands before '-' in an id."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'{name},{name.partition("-")[0]},here,{split},{label},{1 - p:.6f},{p:.6f}' for name, split, label, p in rows]
    (folder / 'predictions.csv').write_text('\n'.join([HEADER, *lines]) + '\n')
    metrics = evaluate.all_metrics(predictions.of_run(folder, NAMES))
    (folder / 'metrics.json').write_text(json.dumps(metrics))
    result = {'kind': 'train', 'stage': stage, 'last': last, 'fold': fold, 'seed': seed, 'metrics': metrics}
    (folder / 'results.json').write_text(json.dumps(result))
    workdir.keep({'data.classes': list(NAMES), **(config or {})}, folder, dataset='d')
    return metrics
