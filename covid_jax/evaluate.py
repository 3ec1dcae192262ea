"""A split -> Predictions -> metrics with intervals, and the files that hold them."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from covid_jax import UserError
from covid_jax import predictions as answers
from covid_jax.data import lineage, pipeline
from covid_jax.methods.method import Method, abstract_batch
from covid_jax.metrics.classification import classification_metrics, decide, frozen_threshold
from covid_jax.metrics.intervals import with_intervals
from covid_jax.predictions import Predictions
from covid_jax.report import calibration, pictures, submission
from covid_jax.runtime.files import write, write_csv
from covid_jax.runtime.mesh import put, replicated
from covid_jax.runtime.state import TrainState
from covid_jax.sources.exams import POSITIVE, class_names
from covid_jax.text import printable, some

FROZEN_HERE = 'the threshold was frozen on these exams'
TEST_VIEWS = 2  # what the views of test-time augmentation are drawn from, folded into a run's key; 0, 1 and 3 are of train.py
OF_POSITIVE = ('sensitivity', 'specificity', 'precision', 'auc', 'average_precision', 'threshold')

Answers = dict[str, np.ndarray]  # {name: [n, ...]}
Predict = Callable[..., dict[str, jax.Array]]  # (params, state, batch, key or None) -> {name: [batch, ...]}
Metrics = dict[str, dict[str, Any]]  # {metric: {'value', 'low', 'high', 'level', 'n', ...}}


class Running(Protocol):
    """What evaluation needs of a start.Run."""

    @property
    def config(self) -> ConfigDict: ...

    @property
    def mesh(self) -> jax.sharding.Mesh: ...


class Finished(Running, Protocol):
    """What `on` needs of one, as start.load opens it."""

    @property
    def folder(self) -> Path: ...

    @property
    def method(self) -> Method: ...

    @property
    def thresholds(self) -> Mapping[str, float | None]: ...

    @property
    def temperature(self) -> float | None: ...

    @property
    def sites(self) -> tuple[str, ...]: ...


def predictor(method: Method, mesh: jax.sharding.Mesh, features: bool = False) -> Predict:
    """Compiled (params, state, batch, key or None) -> {name: [batch, ...]} on every host: what method.predict answers, with
    'probability' [batch, classes] in place of its logits, and without its features where they are not asked for, unless these are
    all that it answers."""

    @partial(jax.jit, out_shardings=replicated(mesh))
    def answer(params, state, batch, key=None):
        answers = method.predict(params, state, batch, key)
        if 'logits' in answers:
            answers['probability'] = jax.nn.softmax(answers.pop('logits'))
            if not features:
                del answers['features']
        return answers

    return answer


def predict_split(predict: Predict, state: TrainState, dataset: pipeline.Dataset, split: str, batch: int,
                  mesh: jax.sharding.Mesh, key: jax.Array | None = None, passes: int = 0) -> Answers:
    """{name: [n, ...]}, the answers for the split's exams in order: plain, or the mean over `passes` random views drawn from
    `key` (CMC-COV19D section 3.4.2)."""
    keys = [jax.random.fold_in(key, t) for t in range(passes)] or [None]
    means = []
    with pipeline.eval_batches(dataset, split, batch, jax.process_index(), jax.process_count()) as batches:
        for host_rows in batches:
            rows = put(mesh, host_rows)
            drawn = [jax.device_get(predict(state.params, state.state, rows, k)) for k in keys]
            means.append(jax.tree.map(lambda *views: np.mean(views, 0), *drawn))
    n = len(dataset.of_split(split))  # the last batch is filled up
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *means)


def collect(run: Running, predict: Predict, state: TrainState, dataset: pipeline.Dataset, splits: Sequence[str],
            key: jax.Array | None = None) -> Predictions:
    """The Predictions of these splits, with the run's test-time augmentation where there is a key."""
    config = run.config
    passes = 0 if key is None else config.eval.tta
    present = [split for split in splits if len(dataset.of_split(split))]
    parts = [predict_split(predict, state, dataset, split, config.eval.batch, run.mesh, key, passes) for split in present]
    rows = np.concatenate([dataset.of_split(split) for split in present]) if present else np.zeros(0, int)
    columns = jax.tree.map(lambda *of_splits: np.concatenate(of_splits), *parts) if present else {}
    probability = columns.pop('probability', None)
    features = columns.pop('features', None)
    return Predictions(class_names(config.data.classes), [dataset.exams[i] for i in rows], dataset.label[rows], probability,
                       features, columns)


def score(predictions: Predictions, threshold: float | None = None, level: float | None = None) -> Metrics:
    """{metric: {value, low, high, level, n}} of the labelled rows; without a level no intervals."""
    p = predictions.labelled()
    metrics = partial(classification_metrics, names=p.names, threshold=threshold, positive=POSITIVE)
    if level is None:
        return metrics(p.label, p.probability)
    patients = [e.patient for e in p.exams]
    return with_intervals(metrics, p.label, p.probability, patients, level, p.names)


def groups(predictions: Predictions) -> tuple[dict[str, Predictions], list[str]]:
    """{'all': rows, 'site NAME': rows of each of several sites, 'patients': one row for each, where some have several exams},
    and the patients that are in none of the last."""
    grouped = {'all': predictions}
    if len(predictions.sites) > 1:
        grouped |= {f'site {site}': predictions.of(site=site) for site in predictions.sites}
    patients, torn = predictions.by_patient()
    if len({(e.split, e.patient) for e in predictions.exams}) < len(predictions.exams):
        grouped['patients'] = patients
    return grouped, torn


def on(run: tuple[Finished, TrainState], source: str, root: Path | str, *, store: Path | str | None = None, group: str = 'source',
       classes: Sequence[str] = (), say: Callable[[str], None] = print) -> tuple[Predictions, dict[str, Metrics]]:
    """Asks a finished run, of start.load, about the data of `data_of`, and scores its answers to those with a label, as `ask`. store: where
    prepared scans are kept, in the run's folder by default. UserError, too, for data that cannot be read, or have no labels."""
    finished, _ = run
    kept = Path(store or finished.folder / 'store')
    return ask(run, pipeline.survey_test(data_of(finished, source, root, group, classes), kept, say), kept, say)


def data_of(finished: Finished, source: str, root: Path | str, group: str = 'source', classes: Sequence[str] = ()) -> ConfigDict:
    """The config of a finished run with other data in place of its own. Splits of the source, and the run's lists of exams, do not matter.

    source, root, group: as in config.data. classes: as there, of the run's names: which labels of these data count as which; the run's own
    by default. UserError for classes of other names.
    """
    config = finished.config.copy_and_resolve_references()
    own = class_names(config.data.classes)
    config.data.update(source=source, root=str(root), group=group, exclude='', include='', sites=(),
                       classes=tuple(classes) or config.data.classes)
    if class_names(config.data.classes) != own:
        raise UserError(f'{finished.folder} has the classes {", ".join(own)}, not {", ".join(class_names(classes))}: give each of '
                        'these names the labels that count as it, as name|label|label')
    return config


def ask(run: tuple[Finished, TrainState], survey: pipeline.Survey, store: Path | str,
        say: Callable[[str], None] = print) -> tuple[Predictions, dict[str, Metrics]]:
    """What a finished run answers about all exams of a survey, as `answered` has it, and {group: {metric: ...}}, as `scored` has it."""
    finished, _ = run
    found, _ = answered(run, survey, store, say)
    return found, scored(found, finished.config.eval.level, finished.thresholds, finished.temperature)


def answered(run: tuple[Finished, TrainState], survey: pipeline.Survey, store: Path | str,
             say: Callable[[str], None] = print) -> tuple[Predictions, pipeline.Dataset]:
    """Asks a finished run about all exams of a survey, of pipeline.survey_test.

    The exams are prepared as the run's own were, and answered with its classes, its batch and its test-time augmentation, whose
    views are those of its own test. A site is the one of that name that the run knows, or an unknown one.

    Returns the answers, all of the split 'test', and the exams as they were prepared. Where the run, or one before it, learnt from
    patients of these exams, or chose its checkpoint on them, they are marked, as `predictions.marked` does. Scans that cannot be prepared
    are not answered, and are said. UserError for a run that does not classify or has no exams.csv.
    """
    finished, state = run
    config = finished.config
    if 'logits' not in jax.eval_shape(finished.method.predict, state.params, state.state, abstract_batch(config, config.eval.batch)):
        raise UserError(f'{finished.folder} does not classify: give a run whose method does')
    before = lineage.inherited(lineage.read(finished.folder), str(finished.folder))
    dataset = pipeline.prepare(survey._replace(prep=pipeline.prep_of(config)), store, config.data.workers, say)
    known = {site: i for i, site in enumerate(finished.sites)}
    dataset = dataset._replace(site=np.array([known.get(exam.site, -1) for exam in dataset.exams], np.int32), sites=finished.sites)
    key = jax.random.fold_in(jax.random.key(config.seed), TEST_VIEWS)
    found = collect(finished, predictor(finished.method, finished.mesh), state, dataset, ('test',), key)
    return answers.marked(found, lineage.leaks(dataset.exams, dataset.hashes, before))[0], dataset


def scored(found: Predictions, level: float, thresholds: Mapping[str, float | None], temperature: float | None) -> dict[str, Metrics]:
    """{group: {metric: ...}} of answers of the split 'test', as `all_metrics` has them, at thresholds and a temperature that were frozen
    before: nothing is fitted. Of all exams 'ece' and 'brier', too, and at the temperature these as '<name>_tempered'."""
    metrics = all_metrics(found, level, thresholds)['test']
    metrics['all'] |= calibration.scores(found, level)
    if temperature is not None:
        after = calibration.scores(calibration.at(found, temperature), level)
        metrics['all'] |= {f'{name}_tempered': entry for name, entry in after.items()}
    return metrics


def all_metrics(predictions: Predictions, level: float | None = None,
                thresholds: Mapping[str, float | None] | None = None) -> dict[str, dict[str, Metrics]]:
    """{split: {group: {metric: ...}}}. The threshold is frozen on the validation split, by exam, and by patient for them.

    thresholds: of an earlier run, {'all', 'patients': as frozen there}, in place of these."""
    metrics: dict[str, dict[str, Metrics]] = {split: {} for split in predictions.splits}
    grouped, _ = groups(predictions)
    for group, rows in grouped.items():
        unit = 'patients' if group == 'patients' else 'all'
        frozen = _frozen_here(grouped[unit]) if thresholds is None else _frozen_before(thresholds.get(unit))
        threshold = frozen['value']
        for split in rows.splits:
            entries = score(rows.of(split), threshold, level)
            entries['threshold_frozen'] = frozen
            if split == 'val' and thresholds is None:
                entries |= {name: _joined(entry, 'note', FROZEN_HERE) for name, entry in entries.items() if name.endswith('_frozen')}
            if one := one_answer(rows.of(split)):
                entries['accuracy'] = _joined(entries['accuracy'], 'reason', one)
            if 'seen' in rows.columns:
                entries['seen_before'] = seen_before(rows.of(split))
            metrics[split][group] = {name: _with_positive(name, entry, predictions.names) for name, entry in entries.items()}
    return metrics


def _frozen_here(rows):
    """The threshold that the validation split gives, as a metric's entry."""
    basis = rows.of('val').labelled()
    entry = {'value': frozen_threshold(basis.label, basis.probability, POSITIVE), 'low': None, 'high': None, 'n': len(basis.exams)}
    if entry['value'] is None:
        entry['reason'] = 'undefined: no validation split with both classes to freeze it on'
    return entry


def _frozen_before(threshold):
    """The threshold of an earlier run, in the same form; n: none of these exams."""
    entry = {'value': threshold, 'low': None, 'high': None, 'n': 0}
    if threshold is None:
        entry['reason'] = 'undefined: the run has frozen none on validation'
    return entry


def seen_before(predictions: Predictions) -> dict[str, Any]:
    """How many rows are of patients that an earlier run learnt from, as a metric's entry with the reason."""
    count = int(np.count_nonzero(predictions.columns['seen']))
    n = len(predictions.exams)
    entry: dict[str, Any] = {'value': count, 'low': None, 'high': None, 'n': n}
    if count:
        entry['reason'] = (f'{count} of {n} are of patients that an earlier run learnt from: these numbers are no test of new '
                           'patients')
    return entry


def one_answer(predictions: Predictions) -> str:
    """The sentence that says so, where rows of several classes are all decided for one of them; else ''."""
    p = predictions.labelled()
    decided = set(decide(p.probability, positive=POSITIVE)) if p.exams else set()
    if len(set(p.label)) < 2 or len(decided) > 1:
        return ''
    return f'all {len(p.exams)} are answered as {p.names[decided.pop()]}: nothing is told apart there'


def _joined(entry, field, sentence):
    """The entry with a sentence more in its reason or its note."""
    return {**entry, field: '; '.join(filter(None, (entry.get(field), sentence)))}


def _with_positive(name, entry, names):
    return {**entry, 'positive': names[POSITIVE]} if name.startswith(OF_POSITIVE) else entry


def write_report(folder: Path | str, predictions: Predictions, level: float | None = None,
                 broken: Mapping[str, str] = MappingProxyType({}), note: str = '') -> dict[str, dict[str, Metrics]]:
    """predictions.csv, metrics.json, calibration.json, submission files and plots, in the folder. Returns the metrics.

    Where patients have several exams, predictions_patients.csv holds one row for each. broken: {exam id: reason} of exams
    that could not be prepared; note: a sentence that every plot carries; level: of the intervals, which are left out without.
    """
    folder = Path(folder)
    p = predictions
    metrics = all_metrics(p, level)
    answers.write(folder / 'predictions.csv', p)
    grouped, torn = groups(p)
    if 'patients' in grouped:
        if torn:
            print(printable(f'{len(torn)} patients have images of different labels and are not in the metrics by patient: '
                            f'{some(torn)}'), flush=True)
        answers.write(folder / 'predictions_patients.csv', grouped['patients'], without=('id',))
    write(folder / 'metrics.json', json.dumps(metrics, indent=1))
    submission.write(folder / 'submission', p, broken)
    pictures.write(folder, p, {split: of_split['all']['threshold_frozen']['value'] for split, of_split in metrics.items()}, note)
    calibration.write(folder, p, level, note)
    return metrics


def write_quarantine(folder: Path | str, broken: Mapping[str, str]) -> None:
    """quarantine.csv, where exams could not be prepared: {exam id: reason}."""
    if broken:
        write_csv(Path(folder) / 'quarantine.csv', [('id', 'reason'), *broken.items()])
