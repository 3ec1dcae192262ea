"""The loop: the same for every method."""

import itertools
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from clu import parameter_overview

from covid_jax import UserError, evaluate, shortcuts, sites, start, warm
from covid_jax.data import familiar, lineage, pipeline, splits
from covid_jax.data import order as orders
from covid_jax.methods.method import Method
from covid_jax.metrics import probes
from covid_jax.predictions import Predictions, marked, write_features
from covid_jax.report import looks, written
from covid_jax.runtime import checkpoint, files, optim, track, workdir
from covid_jax.runtime.hosts import highest
from covid_jax.runtime.interrupt import Interrupted, requests
from covid_jax.runtime.mesh import put, replicated
from covid_jax.runtime.state import TrainState, answering, jit_step
from covid_jax.runtime.writers import Writer, progress, stopwatch

# What is drawn from the run's key, folded in: the same numbers again would draw the same.
INIT = 0
AUGMENT = 1
TEST_VIEWS = evaluate.TEST_VIEWS
VAL_LOSS = 3


class Session(NamedTuple):
    """What a loop works with. order: of the training exams; total: steps in all; eval_every: steps between validations; key:
    the run's; loss, predict: the method's, compiled."""

    run: start.Run
    dataset: pipeline.Dataset
    order: orders.Order
    total: int
    eval_every: int
    key: jax.Array
    loss: Callable
    predict: Callable
    checkpoints: ocp.CheckpointManager


def train_and_evaluate(run: start.Run, survey: pipeline.Survey, before: list[lineage.Row],
                       say: Callable[[str], None] = print) -> dict | None:
    """Trains one network and evaluates it; goes on where an earlier call with the same folder was stopped.

    run: as from start.begin. survey: of its data, as from pipeline.survey, which start.check_survey passes. before: what the
    runs before it learnt from, as from lineage.inherited. say: is called with each line that a user should know.

    Returns {split: {group: {metric: {value, low, high, n}}}}, empty where the method does not classify; None on all hosts but
    the first.
    """
    config = run.config
    folder = run.folder
    dataset = pipeline.prepare(survey, config.data.store or folder / 'store', config.data.workers, say)
    sites.check(config, dataset.exams, say)  # again: a site may have lost all its scans
    announce(run, dataset, say)
    order = orders.make(dataset, config.train.order, config.train.batch, config.seed)
    total = optim.total_steps(config.train, order.epoch)
    if run.method.warm_up >= total:
        raise UserError(f'the training ends at step {total}, and what answers learns from step {run.method.warm_up} on: set '
                        '--config.train.epochs higher, or a shorter warm-up')
    key = jax.jit(partial(jax.random.key, config.seed), out_shardings=replicated(run.mesh))()
    latest, saved = checkpoint.newest(folder / 'checkpoints', say)
    state, tx = warm.initial_state(run, order.epoch, jax.random.fold_in(key, INIT), say)
    begun = workdir.read(folder) is not None

    with checkpoint.manager(folder / 'checkpoints') as checkpoints:
        if saved:
            state = checkpoint.restore(saved, state)
            del saved
        if jax.process_index() == 0:  # after the start: one that fails must not claim the folder
            describe(run, survey, dataset, before, state)
        eval_every = max(1, round(config.train.eval_every * order.epoch))
        loss = jax.jit(run.method.loss, out_shardings=replicated(run.mesh))
        predict = evaluate.predictor(run.method, run.mesh, config.eval.features)
        session = Session(run, dataset, order, total, eval_every, key, loss, predict, checkpoints)
        ahead = int(state.step) < total and not exhausted(session, int(state.step))
        if begun:
            say(resumed(folder, latest, ahead))
        if ahead:
            with requests() as asked:
                state = loop(session, jit_step(run.method, tx, run.mesh, config.train.average), state, asked)
        checkpoints.wait_until_finished()
        best = checkpoints.best_step()
        if best is not None and best != int(state.step):
            state = checkpoint.restore(checkpoint.at(checkpoints, best), state)
    return report(session, answering(state), lineage.leaks(dataset.exams, dataset.hashes, before))


def resumed(folder: Path, latest: int | None, ahead: bool) -> str:
    """What becomes of a run that was here before. latest: the step of its last checkpoint, if it has one; ahead: whether it is trained
    on."""
    if latest is None:
        return f'{folder} was stopped before its first checkpoint: it begins again'
    return f'{folder} goes on from step {latest}' if ahead else f'{folder} has been trained, to step {latest}: it is evaluated again'


def describe(run: start.Run, survey: pipeline.Survey, dataset: pipeline.Dataset, before: list[lineage.Row],
             state: TrainState) -> None:
    """Writes what a run is into its folder: config.json, quarantine.csv, exams.csv, network.txt."""
    workdir.keep(workdir.fields(run.config), run.folder, dataset=survey.digest, sites=list(dataset.sites),
                 versions=start.versions())
    evaluate.write_quarantine(run.folder, dataset.quarantine)
    lineage.write(run.folder, [*lineage.own(dataset.exams, dataset.hashes, dataset.facts), *before])
    overview = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    files.write(run.folder / 'network.txt', overview + '\n')


def announce(run: start.Run, dataset: pipeline.Dataset, say: Callable[[str], None]) -> None:
    """What the splits that are empty mean."""
    for name, why in (('val', 'the last checkpoint is evaluated, no threshold is frozen'), ('test', 'no test metrics')):
        if not len(dataset.of_split(name)) and run.method.labelled:
            say(f'no {name} split: {why}')
    if run.config.train.patience and not len(dataset.of_split('val')):
        say('no val split: --config.train.patience has nothing to wait for')


def loop(session: Session, step: Callable, state: TrainState, asked: Callable[[], int]) -> TrainState:
    """Steps until the last, with validation and a checkpoint every `eval_every`; Interrupted after a saved stop.

    step: as from jit_step. asked() -> the number of the signal that asks to stop, or 0.
    """
    run = session.run
    config = run.config
    host = jax.process_index()
    hosts = jax.process_count()
    done = int(state.step)
    writing = closing(Writer(run.folder, done, track.tracker(config))) if host == 0 else nullcontext()
    save_seconds = stopwatch(run.folder)
    next_validation = min(done - done % session.eval_every + session.eval_every, session.total)
    compiling = done + 1, next_validation  # steps in which something is compiled
    rows = []
    augment_key = jax.random.fold_in(session.key, AUGMENT)
    train = pipeline.train_batches(session.dataset, session.order, config.train.batch, done, host, hosts)
    shown = progress(session.total, done, config.train.batch, host == 0)
    with train as batches, writing as writer, shown as say:
        for batch in batches:
            state, scalars = step(state, put(run.mesh, batch), augment_key)
            rows.append({'step': done, **scalars})
            done += 1
            evaluating = done % session.eval_every == 0 or done == session.total
            logging = evaluating or done % config.train.log_every == 0 or done in compiling
            stop = asked() if hosts == 1 else logging and highest(asked())
            score = None
            if logging or stop:
                check_finite(state)
            if evaluating:
                score, validation = validate(session, answering(state))
                rows[-1] |= validation
            if logging or stop:
                rows = [{name: value if name == 'step' else float(value) for name, value in row.items()}
                        for row in jax.device_get(rows)]
                if writer:
                    writer.write(rows)
                    save_seconds()
                say(done, told(run.method, rows[-1]), done in compiling)
                rows = []
            if evaluating or stop:  # after the rows: a restart keeps the rows of the steps before it
                checkpoint.save(session.checkpoints, state, score)
            if stop:
                session.checkpoints.wait_until_finished()
                raise Interrupted(stop, done)
            if done == session.total or evaluating and exhausted(session, done):
                break
    return state


def exhausted(session: Session, step: int) -> bool:
    """Whether so many validations as config.train.patience says have passed without a better score."""
    patience = session.run.config.train.patience * session.eval_every
    return 0 < patience <= checkpoint.since_better(session.checkpoints, step)


def check_finite(state: TrainState) -> None:
    """UserError for a training that has met a loss or a gradient that is not finite."""
    if (bad := int(state.bad)) >= 0:
        raise UserError(f'the loss or its gradient is not finite at step {bad}: run again with a lower '
                        f'--config.train.lr and another --workdir')


def told(method: Method, row: Mapping[str, float]) -> str:
    """What a user sees of the scalars of a step: its loss, what the nearest neighbours tell where it was validated without labels, and
    what it means that a scalar is below what the method takes for healthy."""
    neighbours = [f'val/{name}' for name in start.OF_NEIGHBOURS if f'val/{name}' in row]
    text = f'loss {row["loss"]:.4f}' + ''.join(f'  {name} {row[name]:.3f}' for name in neighbours)
    return text + ''.join(f'  {name} {row[name]:.3f}: {meaning}' for name, (least, meaning) in method.least.items() if row[name] < least)


def validate(session: Session, state: TrainState) -> tuple[float | None, dict[str, jax.Array]]:
    """The score of a checkpoint by config.eval.select, higher is better, or None; and the validation split's scalars.

    Selected is a metric of the validation split (macro F1 by default, where the method classifies), the lowest 'loss' there
    (the default of other methods), what the nearest neighbours tell from the features of such a one, or the highest of a scalar of
    the loss that the method names in `scores`.
    """
    run = session.run
    dataset = session.dataset
    if not len(dataset.of_split('val')):
        return None, {}
    predictions = evaluate.collect(run, session.predict, state, dataset, ('val',))
    if predictions.probability is None:
        metrics = {}
        if len({*dataset.label[dataset.of_split('train')]} - {-1}) > 1:
            metrics = of_neighbours(evaluate.collect(run, session.predict, state, dataset, ('train',)), predictions)
    else:
        metrics = evaluate.score(predictions)
    values = {name: m['value'] for name, m in metrics.items() if m['value'] is not None}
    select = run.config.eval.select
    if select == 'auto':
        select = 'loss' if predictions.probability is None else 'macro_f1'
    if select != 'last' and select not in metrics:
        values |= val_losses(session, state)
    score = values.get(select)
    if select == 'loss' and score is not None:
        score = -score
    return score, {f'val/{name}': jnp.float32(value) for name, value in values.items()}


def of_neighbours(learnt: Predictions, asked: Predictions) -> evaluate.Metrics:
    """{metric of start.OF_NEIGHBOURS: entry}, what the 20 nearest neighbours by cosine among the features of labelled rows tell of other
    rows. {} where the first are not of two classes, and where none of the second has a label."""
    known = learnt.labelled()
    told = asked.labelled()
    if len(set(known.label)) < 2 or not told.exams:
        return {}
    vote = probes.knn(known.features, known.label, len(known.names))
    entries = evaluate.score(told._replace(probability=vote(told.features)))
    return {name: entries[name.removeprefix('knn_')] for name in start.OF_NEIGHBOURS}


def val_losses(session: Session, state: TrainState) -> dict[str, float]:
    """{scalar: mean} of the loss over whole batches of the validation split, the same views each time; a split of less than a
    batch fills one with repeats. Exams that the loss cannot judge are left out: of a site that is not trained on, and without
    a label where it reads labels; and those of classes that are not learnt from. Empty where none is left."""
    run = session.run
    dataset = session.dataset
    sites = {e.site for e in dataset.exams if e.split == 'train'}
    judged = [e.site in sites and (e.label != '' or not run.method.labelled) and splits.is_used(e, run.config.data)
              for e in dataset.exams]
    exams = [e if can else e._replace(split='') for e, can in zip(dataset.exams, judged, strict=True)]
    dataset = dataset._replace(exams=exams)
    n = len(dataset.of_split('val'))
    batch = run.config.train.batch
    if not n:
        return {}
    whole = max(1, n // batch)
    key = jax.random.fold_in(session.key, VAL_LOSS)
    found = []
    hosts = jax.process_index(), jax.process_count()
    with pipeline.eval_batches(dataset, 'val', batch, *hosts) as batches:
        for b in itertools.islice(batches, whole):
            value, (_, scalars) = session.loss(state.params, state.state, put(run.mesh, b), key, state.step)
            found.append({'loss': value, **scalars})
    return jax.tree.map(lambda *x: float(np.mean(x)), *jax.device_get(found))


def report(session: Session, state: TrainState, leaks: Mapping[str, str]) -> dict | None:
    """Evaluates val and test and leaves all that a run leaves of it. Returns the metrics, as train_and_evaluate does."""
    run = session.run
    config = run.config
    splits = ('val', 'test', 'train') if config.eval.features else ('val', 'test')
    key = jax.random.fold_in(session.key, TEST_VIEWS)
    answers = evaluate.collect(run, session.predict, state, session.dataset, splits, key)
    if jax.process_index() > 0:
        return None
    answers, note = marked(answers, leaks)
    if config.eval.features:
        write_features(run.folder / 'features.npz', answers)
    evaluated = answers.at([i for i, e in enumerate(answers.exams) if e.split != 'train'])
    if evaluated.probability is None or not evaluated.exams:
        return {}
    familiar.write(run.folder, familiar.learn(session.dataset))
    shortcuts.report(run.folder, session.dataset, evaluated.names, config.eval.level)
    metrics = evaluate.write_report(run.folder, evaluated, config.eval.level, session.dataset.broken, note)
    if jax.process_count() == 1:  # maps are made by one host, which has to have all of the state
        looks.write(run.folder, run, state, session.dataset, written.shown(evaluated, metrics))
    return metrics
