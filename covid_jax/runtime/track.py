"""A tracker of experiments beside the run's own files: it hears numbers and words of the config and the rows of metrics.jsonl.
Neither a scan nor a patient, a hospital, a path or the name of a folder goes there."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax.runtime.workdir import PATHS, fields
from covid_jax.text import printable

PROJECT = 'covid_jax'
NONE = 'none'
WAIT = 30  # seconds for a server to answer at the start


class Tracker(NamedTuple):
    """log(rows): tells it of these steps, {'step': ..., name: finite number}. close(): the run ends there."""

    log: Callable[[Sequence[Mapping[str, float]]], None]
    close: Callable[[], None]


SILENT = Tracker(lambda rows: None, lambda: None)


def check(name: str) -> None:
    """UserError where the tracker of this name is not installed. A folder of its name, which it left here, is no package."""
    found = importlib.util.find_spec(name) if name != NONE else None
    if name != NONE and (found is None or not found.origin):
        raise UserError(f'--config.track={name} needs {name}, which is not installed: pip install "covid-jax[{name}]"')


def told(config: ConfigDict) -> dict[str, Any]:
    """{'section.field': number, word or bool} of a config, without paths, and lists, which may name patients and hospitals."""
    return {name: value for name, value in fields(config).items() if name not in PATHS and isinstance(value, int | float | str)}


def tracker(config: ConfigDict, say: Callable[[str], None] = print) -> Tracker:
    """That of config.track. Where it fails this is said in one line, it hears no more, and the training goes on."""
    name = config.track
    if name == NONE:
        return SILENT
    hears = True

    def careful(action):
        nonlocal hears
        try:
            return action() if hears else None
        except Exception as error:  # whatever a tracker and its network may raise
            hears = False
            say(printable(f'{name} hears no more of this training, which goes on: {type(error).__name__}: {error}'))
            return None

    def log(rows):
        for row in rows:
            careful(lambda row=row: opened[0]({key: value for key, value in row.items() if key != 'step'}, step=row['step']))

    title = f'{config.row or config.method} fold {config.fold} seed {config.seed}'
    opened = careful(lambda: OPEN[name](title, told(config)))
    return Tracker(log, lambda: careful(lambda: opened[1]()))


# Each opens a run -> log(metrics, step=), close().


def _wandb(title, config):
    wandb = importlib.import_module('wandb')
    settings = wandb.Settings(disable_git=True, save_code=False, console='off', silent=True, init_timeout=WAIT,
                              x_disable_meta=True, x_disable_stats=True)
    run = wandb.init(project=PROJECT, name=title, config=config, settings=settings)
    return run.log, run.finish


def _trackio(title, config):
    run = importlib.import_module('trackio').init(project=PROJECT, name=title, config=config)
    return run.log, run.finish


def _mlflow(title, config):
    """By its client, which adds neither the user nor the command to what it is told."""
    client = importlib.import_module('mlflow').MlflowClient()
    known = client.get_experiment_by_name(PROJECT)
    run = client.create_run(known.experiment_id if known else client.create_experiment(PROJECT), run_name=title).info.run_id
    for name, value in config.items():
        client.log_param(run, name, value)

    def log(metrics, step):
        for name, value in metrics.items():
            client.log_metric(run, name, value, step=step)

    return log, lambda: client.set_terminated(run)


OPEN = {'trackio': _trackio, 'wandb': _wandb, 'mlflow': _mlflow}
