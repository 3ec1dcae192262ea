"""Scans that no split knows -> what one finished run, or the mean of several, answers about each."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from covid_jax import UserError, predictions
from covid_jax.data import familiar, parts
from covid_jax.data.prep import Prep, together
from covid_jax.evaluate import Predict, predictor
from covid_jax.metrics.calibration import temperature, tempered
from covid_jax.metrics.classification import decide, frozen_threshold
from covid_jax.metrics.conformal import bounds, left_open
from covid_jax.runtime import files
from covid_jax.runtime.mesh import put
from covid_jax.runtime.state import TrainState
from covid_jax.sources.exams import POSITIVE, Exam
from covid_jax.start import Run
from covid_jax.text import printable, some

GROUP = 256  # scans that are prepared before the networks see them: what a disk holds for a while
YES = {True: 'yes', False: 'no'}
LEVEL = 0.9  # of the exams of each class that the true class is left open in

Opened = tuple[Run, TrainState]  # as start.load gives them
Say = Callable[[str], None]


class Basis(NamedTuple):
    """What the validation exams of the runs freeze. threshold: of the positive class, None where they are not of both kinds; temperature,
    None alike; bounds: float [classes], as conformal.bounds has them; exams: how many of each class."""

    threshold: float | None
    temperature: float | None
    bounds: np.ndarray
    exams: list[int]


class Answer(NamedTuple):
    """path: as it was given; probability: float [classes], calibrated, None of a scan that cannot be read; decision: the name of a class, at the
    frozen threshold; possible: the names of those that are left open; reason: why there is no answer, else ''; familiar: whether it is like
    what the runs learnt from, None where nobody can tell."""

    path: str
    probability: np.ndarray | None
    decision: str
    possible: tuple[str, ...]
    reason: str
    familiar: bool | None = None

    @property
    def uncertain(self) -> bool:
        """Whether the scan should be left to a person: none of the classes is left open, or more than one."""
        return not self.reason and len(self.possible) != 1


class Means(NamedTuple):
    """probability: float [n, classes], the mean over the runs, NaN where there is none; broken: {exam id: why there is none}; unlike: the ids
    that are of another kind than what the runs learnt from; far: {exam id: its distance from what each run learnt from, in units of the
    run's limit}, of runs that know."""

    probability: np.ndarray
    broken: dict[str, str]
    unlike: set[str]
    far: dict[str, list[float]]


def predict(opened: Sequence[Opened], paths: Sequence[str | Path], level: float = LEVEL, site: str = '', workers: int = 0,
            say: Say = print) -> tuple[list[Answer], Basis]:
    """What the mean of the runs answers about the scan at each path, in order, and what it is judged by.

    A path is what `decode` reads. It is prepared as each run prepared its own scans, seen by its test-time augmentation, and
    answered whatever other scans are asked about; one that is of another kind than what a run learnt from (grey values for Hounsfield
    units, an image for volumes) is not answered. Threshold, temperature and what is left open are those of the validation
    exams of all runs, each answered by the mean of the runs that did not learn from it.

    Args:
        opened: finished runs of the same classes, from start.load.
        paths: of scans.
        level: of the exams of each class that the true class is left open in, in (0, 1).
        site: as the runs know it, whose statistics then normalise; '' or another: those of all sites.
        workers: processes that prepare scans, 0 for one a core.
        say: is called with each line that a user should know.

    Raises:
        UserError: runs of other classes, or that do not classify; a disk that is full. A scan that cannot be read is an
            answer with its reason.
    """
    names = _classes(opened)
    basis = frozen([predictions.of_run(run.folder, names) for run, _ in opened], level)
    _say_basis(basis, names, level, say)
    known = [familiar.read(run.folder) for run, _ in opened]
    for (run, _), of_run in zip(opened, known, strict=True):
        _say_known(run.folder, of_run, say)
    answer = [predictor(run.method, run.mesh) for run, _ in opened]
    found: list[Answer] = []
    for start in range(0, len(paths), GROUP):
        exams = [Exam(str(i), '', site, '', '', str(path)) for i, path in enumerate(paths[start:start + GROUP])]
        found += _answers(exams, _means(opened, answer, known, exams, workers), basis, names)
    return found, basis


def frozen(tables: Sequence[predictions.Predictions], level: float) -> Basis:
    """The Basis of what runs answered of their validation exams; one of several runs is judged by their mean."""
    of_exam: dict[str, list[np.ndarray]] = {}
    label: dict[str, int] = {}
    for table in tables:
        rows = table.of('val').labelled()
        for exam, index, p in zip(rows.exams, rows.label, rows.probability, strict=True):
            of_exam.setdefault(exam.id, []).append(p)
            label[exam.id] = int(index)
    classes = len(tables[0].names)
    truth = np.array([label[name] for name in of_exam], int)
    mean = np.array([np.mean(each, 0) for each in of_exam.values()]).reshape(-1, classes)
    return Basis(frozen_threshold(truth, mean, POSITIVE), temperature(truth, mean, POSITIVE), bounds(truth, mean, level),
                 np.bincount(truth, minlength=classes).tolist())


def _classes(opened):
    """The classes of the runs, which are the same."""
    first, _ = opened[0]
    for run, _ in opened:
        if run.classes != first.classes:
            raise UserError(f'{run.folder} has the classes {", ".join(run.classes)}, and {first.folder} {", ".join(first.classes)}: '
                            'give runs of the same classes')
    return first.classes


def _say_basis(basis, names, level, say):
    if basis.threshold is None:
        say('no validation exams of both kinds: no threshold is frozen, the most probable class decides, and probabilities are not calibrated')
    open_ = [f'{name} ({count})' for name, count, bound in zip(names, basis.exams, basis.bounds, strict=True) if bound == -np.inf]
    if open_:
        say(f'too few validation exams of {some(open_)} to leave the class out at {level:g}: it stays possible of every scan')


def _say_known(folder, known, say):
    if known is None:
        say(f'{folder} has no {familiar.FILE}: whether scans are like those that it learnt from is not judged; give its training command '
            'again, which writes it')
    elif np.isnan(known.limit):
        say(f'{folder} learnt from less than {familiar.FEWEST} patients: whether scans are like theirs is not judged')


def readable(text: str) -> str:
    """A text that any file can hold: a byte of a name that is no letter stands as its number."""
    return text.encode('utf-8', 'backslashreplace').decode()


def _means(opened, answer, known, exams, workers):
    """What the runs answer of some exams, and how far these are from what each run knows."""
    means = Means(np.zeros((len(exams), len(opened[0][0].classes))), {}, set(), {})
    with tempfile.TemporaryDirectory() as folder:
        made: dict[Prep, dict[str, Path]] = {}
        for (run, _), of_run in zip(opened, known, strict=True):
            if run.prep not in made:
                made[run.prep] = _prepared(exams, run.prep, Path(folder, run.prep.hash), workers, means.broken)
            _judge(exams, of_run, made[run.prep], means)
        for (run, state), ask in zip(opened, answer, strict=True):
            good = {name: file for name, file in made[run.prep].items() if name not in means.broken}
            means.probability[:] += _asked(run, state, ask, exams, good) / len(opened)
    return means


def _judge(exams, known, part, means):
    """Adds to `means` which exams a run refuses, and how far the others are from what it learnt from."""
    for exam in exams:
        if exam.id in means.broken:
            continue
        image = np.load(part[exam.id], mmap_mode='r')
        seen = parts.Seen(*json.loads(part[exam.id].with_suffix(parts.SEEN).read_text()))
        if reason := familiar.refusal(known, seen, image):
            means.broken[exam.id] = f'{exam.path}: {reason}'
            means.unlike.add(exam.id)
        elif known is not None and not np.isnan(known.limit):
            means.far.setdefault(exam.id, []).append(familiar.distance(known, familiar.describe(image)))


def _prepared(exams, prep, folder, workers, broken):
    """{exam id: its file} of the scans that can be prepared so; why the others cannot is added to `broken`."""
    folder.mkdir()
    part = {exam.id: folder / f'{exam.id}.npy' for exam in exams}
    left = [exam for exam in exams if exam.id not in broken]
    broken |= parts.make(left, part, prep, workers, alone=True)
    return {exam.id: part[exam.id] for exam in left if exam.id not in broken}


def _asked(run: Run, state: TrainState, ask: Predict, exams: list[Exam], part: dict[str, Path]) -> np.ndarray:
    """float [n, classes], what a run answers of the exams that have a file; NaN of the others."""
    config = run.config
    size = config.eval.batch
    views = [jax.random.fold_in(jax.random.key(config.seed), t) for t in range(config.eval.tta)] or [None]
    found = np.full((len(exams), len(run.classes)), np.nan)
    rows = [i for i, exam in enumerate(exams) if exam.id in part]
    for start in range(0, len(rows), size):
        here = rows[start:start + size]
        filled = [*here, *[here[-1]] * (size - len(here))]
        images = [np.load(part[exams[i].id], mmap_mode='r') for i in filled]
        site = run.sites.index(exams[0].site) if exams[0].site in run.sites else -1
        batch = put(run.mesh, {**together(images, run.prep.canvas), 'label': np.full(size, -1, np.int32),
                               'site': np.full(size, site, np.int32), 'draw': np.zeros(size, np.uint32)})  # the same views of each scan
        answers = [jax.device_get(ask(state.params, state.state, batch, view)) for view in views]
        if 'probability' not in answers[0]:
            raise UserError(f'{run.folder} does not classify: give a run whose method does')
        found[here] = np.mean([each['probability'] for each in answers], 0)[:len(here)]
    return found


def _answers(exams, means, basis, names):
    found = []
    for exam, p in zip(exams, means.probability, strict=True):
        if exam.id in means.broken:
            found.append(Answer(exam.path, None, '', (), printable(means.broken[exam.id]), False if exam.id in means.unlike else None))
            continue
        calibrated = tempered(p[None], basis.temperature)[0] if basis.temperature else p
        decision = names[int(decide(p[None], basis.threshold, POSITIVE)[0])]
        possible = tuple(name for name, is_open in zip(names, left_open(p, basis.bounds), strict=True) if is_open)
        far = means.far.get(exam.id)
        found.append(Answer(exam.path, calibrated, decision, possible, '', bool(np.mean(far) <= 1) if far else None))
    return found


def write(folder: Path | str, answers: Sequence[Answer], basis: Basis, runs: Sequence[Run], level: float) -> None:
    """answers.csv, a row for each scan, and answers.json, the same with what it is judged by, in the folder."""
    names = runs[0].classes
    answers = [a._replace(path=readable(a.path)) for a in answers]
    Path(folder).mkdir(parents=True, exist_ok=True)
    header = ['path', *(f'p_{name}' for name in names), 'decision', 'uncertain', 'possible', 'familiar', 'reason']
    rows = [[a.path, *([''] * len(names) if a.probability is None else [f'{p:.4f}' for p in a.probability]), a.decision,
             '' if a.reason else YES[a.uncertain], '|'.join(a.possible), '' if a.familiar is None else YES[a.familiar], a.reason]
            for a in answers]
    files.write_csv(Path(folder) / 'answers.csv', [header, *rows])
    told: dict[str, Any] = {
        'runs': [str(run.folder) for run in runs], 'classes': list(names), 'positive': names[POSITIVE],
        'threshold': basis.threshold, 'temperature': basis.temperature, 'level': level,
        'validation_exams': dict(zip(names, basis.exams, strict=True)),
        'scans': [{'path': a.path, 'probability': None if a.probability is None else dict(zip(names, map(float, a.probability), strict=True)),
                   'decision': a.decision or None, 'uncertain': None if a.reason else a.uncertain, 'possible': list(a.possible),
                   'familiar': a.familiar, 'reason': a.reason or None} for a in answers],
        'note': 'Research software, not a medical device.'}
    files.write(Path(folder) / 'answers.json', json.dumps(told, indent=1))
