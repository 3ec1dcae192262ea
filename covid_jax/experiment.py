"""What is more than one training: the parts of a config, each in its own folder, tables at the end."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from covid_jax import UserError, choose, cross, ensemble, probe, ranges, rank, stages, start, summary, trainings, trunk
from covid_jax.data import pipeline
from covid_jax.predictions import of_run
from covid_jax.report import evidence, matrix, tables, written
from covid_jax.runs import training_seconds
from covid_jax.runtime import files, hosts, workdir
from covid_jax.stages import Part, parts
from covid_jax.text import printable, some
from covid_jax.train import train_and_evaluate

Say = Callable[[str], None]


class Kind(NamedTuple):
    """check(config): UserError for what can be known before anything is done. run(part, folder, ready, say) -> metrics, of a
    cross the cells of its matrix; ready: of a training alone."""

    check: Callable[[ConfigDict], None]
    run: Callable


def _train(part, folder, ready, say):
    run, survey = ready
    if run.config.data.negatives.count:
        run, survey = trainings.chosen(run, survey, say)
    return train_and_evaluate(run, survey, trainings.before(run), say)


KINDS = {
    'train': Kind(pipeline.check, _train),
    'ensemble': Kind(ensemble.check, lambda part, folder, ready, say: ensemble.average(part.config, folder)),
    'choose': Kind(choose.check, lambda part, folder, ready, say: choose.best(part.config, folder, say)),
    'probe': Kind(trunk.check, lambda part, folder, ready, say: probe.run(part.config, folder, say)),
    'rank': Kind(trunk.check, lambda part, folder, ready, say: rank.run(part.config, folder, say)),
    'cross': Kind(cross.check, lambda part, folder, ready, say: cross.run(part.config, folder, say)),
}
REPORTED = 'train', 'ensemble', 'choose', 'probe'  # what leaves a report
RESULTS = {'probe': evidence.LINEAR, 'ensemble': 'the mean of the runs'}  # what answers in predictions.csv, where no network does


def run(config: ConfigDict, folder: str | Path) -> dict[str, dict]:
    """Runs all that the config asks for below `folder`, each part where an earlier call left it; prints the table.

    Where config.ensemble.runs, config.choose.runs or config.cross.runs names finished runs, nothing is trained: they are averaged,
    the best is taken, or each is asked about the data of the others. Returns {part: {split: {group: {metric: ...}}}} of the last
    stage, the part's folder relative to `folder`; a matrix, which is printed last, has no metrics of its own. UserError where another
    process is at work in the folder, too.
    """
    folder = Path(folder)
    say = sayer()
    start.check_fields(config)
    hosts.check_equal(start.versions() | {name: value for name, value in workdir.fields(config).items() if name not in workdir.PATHS})
    todo = parts(config, folder)
    for part in todo:  # all of them, before the first trains
        with stages.named(part.stage):
            ranges.check(part.config)
            KINDS[part.config.kind].check(part.config)
    ready = trainings.prepare(todo, folder, say)
    with _alone(folder):
        return _run_all(todo, folder, ready, say)


def _run_all(todo, folder, ready, say):
    """What `run` returns, of parts that are ready."""
    results: dict[str, dict[str, dict]] = {}
    matrices = []
    for part in todo:
        if jax.process_index() == 0 and part.folder.parts:
            print(f'== {part.folder}', flush=True)
        metrics = _run_part(part, folder, ready.get(part.folder), todo, say)
        if part.config.kind == 'cross':
            matrices.append(metrics)
            metrics = {}
        results.setdefault(part.stage, {})[str(part.folder)] = metrics
    told = [part for part in todo if part.config.kind not in ('cross', 'rank')]  # which say themselves what they leave
    if jax.process_index() == 0:
        if told:
            tell(told, {part.stage: results[part.stage] for part in told}, folder)
        for cells in matrices:
            matrix.show(cells)
        reported = [folder / part.folder for part in todo if part.config.kind in REPORTED]
        if len(reported) > 1:
            written.write_whole(folder, reported)
    return results[todo[-1].stage]


def _alone(folder):
    """Holds the run's folder, for this process and the other hosts of its run. UserError on every host where another process has it."""
    stack = ExitStack()
    error = None
    if jax.process_index() == 0:
        try:
            stack.enter_context(workdir.held(folder))
        except UserError as e:
            error = e
    hosts.agree(error)
    return stack


def _run_part(part, folder, ready, todo, say):
    """What the part's kind gives, once all hosts have done it; its results.json. UserError on every host where one has met one, in
    what the first host does alone while the others wait for it; a training meets its errors on every host."""
    error = None
    found = None
    try:
        found = KINDS[part.config.kind].run(part, folder / part.folder, ready, say)
        if jax.process_index() == 0:
            write_results(folder / part.folder, part, {} if part.config.kind == 'cross' else found, todo)
            if part.config.kind in REPORTED:
                written.write(folder / part.folder)
    except UserError as e:
        if part.config.kind == 'train':
            raise
        error = e
    hosts.agree(error)
    return found


def tell(todo: list[Part], results: dict[str, dict[str, dict]], folder: Path) -> None:
    """Prints the tables of all stages that answer, and leaves them as results.csv and results.md."""
    answered = {stage: parts for stage, parts in results.items() if all(parts.values())}
    split = tables.shown_split(answered)
    summaries = {}
    for stage, metrics in answered.items():
        parts = [part for part in todo if part.stage == stage]
        if len(parts) == 1 or not all(split in of_part for of_part in metrics.values()):
            continue
        answers = {(part.fold, part.seed): of_run(folder / part.folder).of(split) for part in parts}
        of_parts = {(part.fold, part.seed): metrics[str(part.folder)] for part in parts}
        summaries[stage] = summary.summarise(answers, of_parts, split, parts[0].config.eval.level)
    last = [part for part in todo if part.stage == todo[-1].stage]
    found = beside(last, folder, split) if todo[-1].stage in answered and split else None
    seconds = {stage: fmean(training_seconds(folder / part) for part in parts) for stage, parts in results.items()}
    tables.show(results, summaries, folder, evidence.lines(found) if found else (), seconds)
    tables.write(results, summaries, folder, evidence.markdown(found) if found else '', seconds)


def beside(parts: Sequence[Part], folder: Path, split: str) -> evidence.Evidence | None:
    """What simpler evidence reaches beside a stage: of several folds and seeds all answers pooled, or, where the folds answer the
    same exams, the mean. A kind that some part lacks is not shown, and a note says so. None where no part left anything."""
    left = {(part.fold, part.seed): evidence.read(folder / part.folder) for part in parts}
    if not any(answers or notes for answers, notes in left.values()):
        return None
    lacking = {kind: [part.folder for part in parts if kind not in left[part.fold, part.seed][0]] for kind in evidence.KINDS}
    config = parts[0].config
    name = RESULTS.get(config.kind, 'the network')
    tables_of = {name: {(part.fold, part.seed): of_run(folder / part.folder) for part in parts}}
    tables_of |= {kind: {key: answers[kind] for key, (answers, _) in left.items()} for kind in evidence.KINDS if not lacking[kind]}
    try:
        pooled = {kind: _pooled({key: table.of(split) for key, table in of_parts.items()}) for kind, of_parts in tables_of.items()}
    except UserError:  # folds that share some of their exams
        return None
    result = evidence.SELF if evidence.SELF in pooled else name
    notes = (*_notes_of_all([notes for _, notes in left.values()]), *_notes_of_lacking(lacking, len(parts)))
    return evidence.gather(result, pooled.pop(result), pooled, config.eval.level, notes)


def _notes_of_all(notes_of_parts):
    """Each note once, with how many parts have it where not all do."""
    count = Counter(note for notes in notes_of_parts for note in notes)
    of = len(notes_of_parts)
    return [note if n == of else f'{note} ({n} of {of} parts)' for note, n in count.items()]


def _notes_of_lacking(lacking, of):
    """Why a kind of evidence that only some of so many parts have is not shown."""
    return [f'{kind} is not shown, for it is lacking in {some(folders)}' for kind, folders in lacking.items() if 0 < len(folders) < of]


def _pooled(tables_of_parts):
    whole = summary.pool(tables_of_parts)
    if whole is None:  # the folds answer the same exams, as seeds do
        whole = summary.pool({(0, i): table for i, table in enumerate(tables_of_parts.values())})
    return whole


def write_results(folder: Path, part: Part, metrics: dict | None, todo: Sequence[Part]) -> None:
    """results.json: what a part was, of how many folds and seeds, where it lies below the run's folder, and its metrics; and
    seconds.json of a part that trains nothing."""
    of_stage = [other for other in todo if other.stage == part.stage]
    result = {'kind': part.config.kind, 'stage': part.stage, 'last': part.stage == todo[-1].stage, 'fold': part.fold,
              'seed': part.seed, 'folds': len({other.fold for other in of_stage}), 'seeds': len({other.seed for other in of_stage}),
              'folder': part.folder.as_posix(), 'metrics': metrics}
    files.write(folder / 'results.json', json.dumps(result, indent=1))
    if not (folder / 'seconds.json').exists():
        files.write(folder / 'seconds.json', json.dumps({'training': 0.0}) + '\n')


def sayer() -> Say:
    """say(line): prints each line once, on the first host, however many parts say it. Lines may quote what data hold."""
    said = set()

    def say(line):
        if line not in said and jax.process_index() == 0:
            print(printable(line), flush=True)
        said.add(line)

    return say
