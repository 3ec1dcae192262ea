"""Finished runs asked about a labelled data set that is not theirs -> their mean, scored beside what they reached on their own test."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError, evaluate, predictions, shortcuts, start
from covid_jax.data import familiar, lineage, pipeline, splits
from covid_jax.metrics.calibration import temperature
from covid_jax.metrics.prevalence import predictive_values
from covid_jax.predictions import Predictions
from covid_jax.report import beside, evidence, pictures
from covid_jax.runtime import files
from covid_jax.runtime.state import TrainState
from covid_jax.sources.exams import POSITIVE
from covid_jax.text import count, some

FOLDS = 5  # a shortcut probe answers a fifth of the patients, and learns from the others
NEW = 'new patients'  # the group of those that no run learnt from, where one did from some

Opened = tuple[start.Run, TrainState]  # as start.load gives them
Groups = dict[str, dict[str, dict[str, Any]]]  # {group: {metric: entry}}
Say = Callable[[str], None]


class Outcome(NamedTuple):
    """answers: the mean of the runs about each exam that all of them could be asked about, of the split 'test'; metrics: of these; own: of
    what the runs answered of their own test, {} where they have none; probes: {shortcut: what it answers of the same exams}; notes: what is
    to be said of them; unread: {id: reason} of what is not answered; level: of the intervals."""

    answers: Predictions
    metrics: Groups
    own: Groups
    probes: Mapping[str, Predictions]
    notes: tuple[str, ...]
    unread: Mapping[str, str]
    level: float


def validate(opened: Sequence[Opened], config: ConfigDict, store: Path | str, prevalence: float | None = None, say: Say = print) -> Outcome:
    """Asks finished runs about all exams of a config's data, and scores their mean on those with a label.

    Decisions are made at the threshold that the runs' own validation exams give, each answered by the mean of the runs that have it there.
    Nothing is fitted to the new data but the shortcut probes. Exams of patients that a run learnt from, or chose its checkpoint on, are
    counted as 'seen_before', and the others are a group of their own, NEW.

    Args:
        opened: finished runs, from start.load.
        config: as from evaluate.data_of, of each of them.
        store: a folder that keeps prepared scans.
        prevalence: of the positive class, in (0, 1), at which 'ppv' and 'npv' are given; None: they are not.
        say: is called with each line that a user should know.

    Raises:
        UserError: runs that do not classify; data that cannot be read, have no labels, or hold no patient that is new to the runs.
    """
    survey = pipeline.survey_test(config, store, say)
    _check_new(opened, survey)
    tables = []
    unread: dict[str, str] = {}
    for run in opened:
        found, dataset = evaluate.answered(run, survey, store, say)
        _say_kind(run[0].folder, dataset, say)
        tables.append(found)
        unread |= dataset.quarantine
    tables = [table.at([i for i, exam in enumerate(table.exams) if exam.id not in unread]) for table in tables]
    mean = predictions.means(tables)
    level = config.eval.level
    then = predictions.means([predictions.of_run(run.folder, mean.names) for run, _ in opened])
    thresholds, heat = _frozen(then)
    metrics = evaluate.scored(mean, level, thresholds, heat)
    if 'seen' in mean.columns:
        unseen = mean.at(np.flatnonzero(mean.columns['seen'] == 0))._replace(columns={})
        metrics[NEW] = evaluate.scored(unseen, level, thresholds, heat)['all']
    tested = then.of('test')
    own = evaluate.scored(tested, level, thresholds, heat) if tested.labelled().exams else {}
    for group in (*metrics.values(), *own.values()) if prevalence else ():
        group |= predictive_values(group.get('sensitivity_frozen', group['sensitivity']), group.get('specificity_frozen', group['specificity']),
                                   prevalence)
    probes, notes = _probes(dataset, unread, config.data, mean.names)
    return Outcome(mean, metrics, own, probes, notes, unread, level)


def write(folder: Path | str, outcome: Outcome, title: str) -> None:
    """Leaves, in the folder: predictions.csv, metrics.json {'test', 'own test': Groups, 'shortcuts': {probe: {'auc': entry}}}, results.md,
    quarantine.csv, the probes' answers and the plots."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    predictions.write(folder / 'predictions.csv', outcome.answers)
    evaluate.write_quarantine(folder, outcome.unread)
    evidence.leave(folder, outcome.probes, outcome.notes)
    shortcut = evidence.entries(outcome.probes, outcome.level).get('test', {})
    files.write(folder / 'metrics.json', json.dumps({'test': outcome.metrics, 'own test': outcome.own, 'shortcuts': shortcut}, indent=1))
    files.write(folder / 'results.md', beside.markdown(title, outcome.metrics, outcome.own, compared(outcome)))
    pictures.write(folder, outcome.answers, {'test': outcome.metrics['all']['threshold_frozen']['value']})


def compared(outcome: Outcome) -> evidence.Evidence | None:
    """The runs beside what the shortcut probes reach on the same exams."""
    return evidence.gather('the network', outcome.answers.labelled(), outcome.probes, outcome.level, outcome.notes)


def _say_kind(folder, dataset, say):
    """Says how many exams are of another kind than what the run in the folder learnt from: they are answered, and worth little."""
    known = familiar.read(folder)
    others = {name: reason for name, seen in dataset.seen.items() if (reason := familiar.other_kind(known, seen))}
    if others:
        name, reason = next(iter(others.items()))
        say(f'{count(len(others), "exam is", "exams are")} of another kind than what {folder} learnt from, as {name} ({reason}): covid-jax '
            'predict would not answer, and these numbers are no test of the run')


def _check_new(opened, survey):
    """UserError where each labelled exam is of a patient that one or another run learnt from."""
    labelled = {exam.id for exam in survey.exams if exam.label}
    leaks = set()
    for run, _ in opened:
        before = lineage.inherited(lineage.read(run.folder), str(run.folder))
        leaks |= lineage.leaks(survey.exams, survey.hashes, before).keys()
    if labelled <= leaks:
        names = some([str(run.folder) for run, _ in opened])
        raise UserError(f'{names} learnt from, or chose a checkpoint on, patients of each of the {len(labelled)} labelled exams: '
                        'give data that are new to them')


def _frozen(then):
    """The thresholds, as Run.thresholds, and the temperature that the validation exams give."""
    val = then.of('val')
    known = val.labelled()
    heat = temperature(known.label, known.probability, POSITIVE) if known.exams else None
    return start.thresholds_in(evaluate.all_metrics(val)), heat


def _probes(dataset, unread, data, names):
    """{shortcut: what it answers of each exam, learnt from exams of other patients}, and notes."""
    kept = [i for i, exam in enumerate(dataset.exams) if exam.id not in unread]
    exams = [dataset.exams[i] for i in kept]
    label = dataset.label[kept]
    _, seen = shortcuts.features(dataset._replace(exams=[exam._replace(split='train') for exam in dataset.exams]))
    site = np.array([exam.site for exam in exams])
    told = {name: np.zeros((len(exams), len(names))) for name in (*seen, *([evidence.SITE] if len(np.unique(site)) > 1 else []))}
    for fold in range(FOLDS):
        try:
            split = _split(exams, data, fold)
        except UserError as error:
            return {}, (f'no probe: {error}',)
        if not shortcuts.teaches(split, label):
            return {}, ('no probe: too few patients of each class to learn one from',)
        test = split == 'test'
        for name, probability in told.items():
            answer = (shortcuts.of_site(site, split, label, len(names)) if name == evidence.SITE else
                      shortcuts.linear(split, label, seen[name][kept], len(names)))
            probability[test] = answer[test]
    said = f'a probe answers the exams of a fifth of the patients, and learns from the others, {FOLDS} times: these data have no training exams'
    return {name: Predictions(names, exams, label, probability).labelled() for name, probability in told.items()}, (said,)


def _split(exams, data, fold):
    """The split of each exam in a fold, str [n], of patients that are drawn."""
    drawn = data.copy_and_resolve_references()
    drawn.update(held_out=(), held_out_sites=(), split='drawn')
    placed = splits.assign_sources([[exam._replace(split='') for exam in exams]], drawn, FOLDS, fold, lambda line: None)
    return np.array([exam.split for exam in placed])
