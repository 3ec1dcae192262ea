"""The loop: the same for every method."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from covid_jax import UserError, evaluate, methods
from covid_jax import config as configs
from covid_jax.data import pipeline
from covid_jax.models import pretrained, sites
from covid_jax.runtime import checkpoint, optim
from covid_jax.runtime.interrupt import Interrupted, requests
from covid_jax.runtime.mesh import default_batch, make_mesh, put, replicated
from covid_jax.runtime.state import create, jit_step
from covid_jax.runtime.writers import Writer, progress


def train_and_evaluate(config, workdir, store='', fold=0, say=print):
    """Trains one network and evaluates it; goes on where an earlier call with the same workdir was stopped.

    config: from a config file, unlocked or not; it is not changed. store: where prepared scans are kept, for runs that
    share them. say: is called with each line that a user should know about the data. Returns {split: {metric: {value, low,
    high, n}}}.
    """
    workdir = Path(workdir)
    mesh = make_mesh()
    config = resolve(config, workdir, mesh.size)
    configs.check(config, workdir)
    method = methods.make(config, mesh)
    dataset = pipeline.load(config, store or config.data.store or workdir / 'store', fold, say,
                            partial(check_data, config, workdir, say))
    check_sites(config.model, dataset.exams, say)
    announce(dataset, say)
    steps_per_epoch = len(dataset.of_split('train')) / config.train.batch
    total = max(1, round(config.train.epochs * steps_per_epoch))
    key = jax.jit(partial(jax.random.key, config.seed), out_shardings=replicated(mesh))()
    state, tx = initial_state(config, method, steps_per_epoch, key, mesh)
    predict = evaluate.predictor(method, mesh)
    latest = checkpoint.latest_step(workdir / 'checkpoints')
    if latest is None and config.init_from:
        state = start_from(config.init_from, state)
    elif latest is None and config.model.pretrained:
        state = start_from_weights(config.model, workdir, state)

    with checkpoint.manager(workdir / 'checkpoints') as checkpoints:
        if latest is not None:
            state = checkpoint.restore(checkpoints, latest, state)
        if jax.process_index() == 0:  # after the start: one that fails must not claim the folder
            configs.keep(config, workdir, dataset.digest)
            evaluate.write_quarantine(workdir, dataset)
        if int(state.step) < total:
            step = jit_step(method, tx, mesh)
            eval_every = max(1, round(config.train.eval_every * steps_per_epoch))
            with requests() as asked:
                state = loop(config, workdir, dataset, mesh, step, predict, state, key, total, eval_every, checkpoints,
                             asked)
        checkpoints.wait_until_finished()
        best = checkpoints.best_step()
        if best is not None and best != int(state.step):
            state = checkpoint.restore(checkpoints, best, state)

    tta_key = jax.random.fold_in(key, 2)
    present = [s for s in ('val', 'test') if len(dataset.of_split(s))]
    probabilities = {s: evaluate.predict_split(predict, state, dataset, s, config.eval.batch, mesh, tta_key, config.eval.tta)
                     for s in present}
    if jax.process_index() == 0:
        return evaluate.write_report(config, workdir, dataset, probabilities)


def check(config, workdir):
    """UserError for what can be known to be wrong before a scan is read: batch sizes, method, network, file of weights."""
    mesh = make_mesh()
    config = resolve(config, workdir, mesh.size)
    methods.make(config, mesh)
    if from_file(config, workdir):
        pretrained.find(config.model.pretrained, config.model.name)


def from_file(config, workdir):
    """Whether the run starts from a file of weights."""
    given = config.model.pretrained and not config.init_from and not Path(config.model.pretrained).is_dir()
    return given and not Path(workdir, 'checkpoints').exists()


def check_shapes(config, workdir):
    """UserError where the network does not take the config's scans, by tracing a step of training and of evaluation, or the
    file of weights."""
    mesh = make_mesh()
    config = resolve(config, workdir, mesh.size)
    method, key = methods.make(config, mesh), jax.eval_shape(jax.random.key, 0)
    params, state = jax.eval_shape(method.init, key, rows(config, 1))
    jax.eval_shape(method.loss, params, state, rows(config, config.train.batch), key, 0)
    jax.eval_shape(method.predict, params, state, rows(config, config.eval.batch))
    if from_file(config, workdir):
        read_weights(config.model, params, state)


def check_data(config, workdir, say, digest, exams):
    configs.check(config, workdir, digest)
    check_sites(config.model, exams, say)


def rows(config, n):
    """A batch of n scans, as shapes."""
    fields = {'label': jnp.int32, 'site': jnp.int32, 'draw': jnp.uint32, 'mask': jnp.bool}
    return {'image': jax.ShapeDtypeStruct((n, *config.prep.size, 1), jnp.uint8),
            **{name: jax.ShapeDtypeStruct((n,), dtype) for name, dtype in fields.items()}}


def resolve(config, workdir, devices):
    """A copy of the config with the batch sizes filled in. UserError where they do not divide over the devices."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.batch = config.train.batch or configs.kept_batch(workdir) or default_batch(devices)
        config.eval.batch = config.eval.batch or config.train.batch
    for name in ('train', 'eval'):
        batch = config[name].batch
        if batch < 1 or batch % devices:
            raise UserError(f'--config.{name}.batch={batch} does not divide over {devices} devices: '
                            f'take a multiple of {devices}')
    return config


def announce(dataset, say):
    for name, why in (('val', 'the last checkpoint is evaluated, no threshold is frozen'), ('test', 'no test metrics')):
        if not len(dataset.of_split(name)):
            say(f'no {name} split: {why}')


def check_sites(model, exams, say):
    """UserError where the network normalises by another number of sites than are trained on."""
    normalised = model.sites or sites(model.name)
    if normalised < 2:
        return
    trained = sorted({e.site for e in exams if e.split == 'train'})
    if normalised != len(trained):
        raise UserError(f'{model.name} normalises {normalised} sites, not the {len(trained)} to train on ({", ".join(trained)}): '
                        f'set --config.model.sites={len(trained)}')
    if unseen := sorted({e.site for e in exams if e.split} - {*trained}):
        say(f'no scan of {", ".join(unseen)} is trained on: there the answer is the average of the answers at '
            f'{", ".join(trained)}')


def initial_state(config, method, steps_per_epoch, key, mesh):
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), rows(config, 1))
    init = partial(method.init, batch=batch)
    tx = optim.make(config.train, steps_per_epoch, method.frozen(jax.eval_shape(init, key)[0]))
    return jax.jit(lambda k: create(*init(k), tx), out_shardings=replicated(mesh))(jax.random.fold_in(key, 0)), tx


def start_from(source, state):
    params, kept = checkpoint.initial_params(source, state.params)
    if jax.process_index() == 0:
        print(f'started from {source}; freshly initialised: {", ".join(kept) or "nothing"}', flush=True)
    return state.replace(params=params)


def start_from_weights(model, workdir, state):
    """The state with the network of a file of weights, or of a run's folder; pretrained.txt says what became of each."""
    if Path(model.pretrained).is_dir():
        return start_from(model.pretrained, state)
    variables, new, report = read_weights(model, state.params, state.state)
    new = jax.tree.map(lambda x, old: jax.device_put(x, old.sharding), new, variables)
    if jax.process_index() == 0:
        print(f'started from {model.pretrained}: {pretrained.summary(report)}; see pretrained.txt', flush=True)
        (workdir / 'pretrained.txt').write_text(pretrained.table(report))
    params = {**state.params, 'network': new.pop('params')}
    return state.replace(params=params, state={**state.state, **new})


def read_weights(model, params, state):
    """The network's variables, the same from its file of weights, and the report on each tensor."""
    variables = {'params': params['network']} | {k: x for k, x in state.items() if k == 'batch_stats'}
    return variables, *pretrained.convert(variables, pretrained.load(model.pretrained, model.name), model.name, model.inflate)


def loop(config, workdir, dataset, mesh, step, predict, state, key, total, eval_every, checkpoints, asked):
    """Steps until `total`, with validation and a checkpoint every `eval_every`; Interrupted after a saved stop."""
    hosts = jax.process_index(), jax.process_count()
    first, batch_size = hosts[0] == 0, config.train.batch
    done = int(state.step)
    writer = Writer(workdir, done) if first else None
    rows = []
    augment_key = jax.random.fold_in(key, 1)
    train = pipeline.train_batches(dataset, batch_size, config.seed, done, *hosts)
    with train as batches, progress(total, done, batch_size, first) as tell:
        for batch in batches:
            state, scalars = step(state, put(mesh, batch), augment_key)
            rows.append({'step': done, **scalars})
            done += 1
            evaluating = done % eval_every == 0 or done == total
            logging = evaluating or done % config.train.log_every == 0
            stop = asked() if hosts[1] == 1 else logging and agreed(asked())
            score = None
            if logging or stop:
                check_finite(state)
            if evaluating:
                score, validation = validate(config, dataset, mesh, predict, state)
                rows[-1] |= validation
            if logging or stop:
                rows = [{name: value if name == 'step' else float(value) for name, value in row.items()}
                        for row in jax.device_get(rows)]
                if first:
                    writer.write(rows)
                tell(done, f'loss {rows[-1]["loss"]:.4f}')
                rows = []
            if evaluating or stop:  # after the rows: a restart keeps the rows of the steps before it
                checkpoint.save(checkpoints, state, score)
            if stop:
                checkpoints.wait_until_finished()
                raise Interrupted(stop, done)
            if done == total:
                break
    if first:
        writer.close()
    return state


def check_finite(state):
    if (bad := int(state.bad)) >= 0:
        raise UserError(f'the loss or its gradient is not finite at step {bad}: run again with a lower '
                        f'--config.train.lr and another --workdir')


def agreed(number):
    """The highest signal number that any host was asked with: all stop at the same step, or none."""
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def validate(config, dataset, mesh, predict, state):
    """Macro F1 of the validation split (None where it is undefined) and the row's scalars."""
    if not len(dataset.of_split('val')):
        return None, {}
    probability = evaluate.predict_split(predict, state, dataset, 'val', config.eval.batch, mesh)
    metrics = evaluate.split_metrics(config, dataset, 'val', probability)
    values = {f'val/{name}': jnp.float32(m['value']) for name, m in metrics.items() if m['value'] is not None}
    return metrics['macro_f1']['value'], values
