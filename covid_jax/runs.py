"""What finished runs answered: one run by fold and seed, two runs exam by exam."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from covid_jax import UserError, predictions
from covid_jax.predictions import Predictions
from covid_jax.runtime import workdir
from covid_jax.scans.scan import blame
from covid_jax.sources.exams import Exam
from covid_jax.text import some

BELOW = ('*', '*/*', '*/*/*')  # where a run's parts are: stage, fold, seed


class Part(NamedTuple):
    """A finished part of a run: one training, or what else a stage does, of one fold and seed.

    root: the folder of the run that it is of. folds, seeds: how many the stage has, 0 where an older version did not say.
    last: its stage is the run's last one. predictions: the labelled rows of a split, where they were asked for.
    """

    folder: Path
    root: Path
    stage: str = ''
    fold: int = 0
    seed: int = 0
    folds: int = 1
    seeds: int = 1
    last: bool = True
    predictions: Predictions | None = None


class Answers(NamedTuple):
    """What both runs answered of the same exams.

    exams: [n]; label: int [n]; a, b: float [n, seeds, classes], probabilities.
    """

    exams: list[Exam]
    label: np.ndarray
    a: np.ndarray
    b: np.ndarray

    def of_site(self, site: str) -> 'Answers':
        """The exams of a site."""
        rows = np.flatnonzero([exam.site == site for exam in self.exams])
        return Answers([self.exams[i] for i in rows], self.label[rows], self.a[rows], self.b[rows])

    def of_seed(self, index: int) -> 'Answers':
        """The answers of one seed."""
        return self._replace(a=self.a[:, [index]], b=self.b[:, [index]])


def parts(run: str | Path, split: str = '') -> list[Part]:
    """The trainings of a finished run, by fold and seed, with what they answered of a split where one is named.

    UserError where it is none, is not finished, or where its folder holds more than one.
    """
    run = Path(run)
    if (run / 'predictions.csv').is_file():
        return [Part(run, run, predictions=_labelled(run, split) if split else None)]
    if not run.is_dir():
        raise UserError(f'there is no folder {run}: give the folder of a finished run')
    below = sorted(folder for pattern in BELOW for folder in run.glob(pattern))
    for folder in below:
        if (folder / 'config.json').is_file() and not (folder / 'results.json').is_file():
            raise UserError(f'{folder} is not finished: run its command again, which goes on')
    found = [described(folder) for folder in below
             if (folder / 'results.json').is_file() and (folder / 'predictions.csv').is_file()]
    if not found:
        raise UserError(f'{run} holds no predictions.csv: give the folder of a finished run')
    _check_whole(run, found)
    return [part._replace(predictions=_labelled(part.folder, split) if split else None)
            for part in sorted(found, key=lambda part: (part.fold, part.seed))]


def match(run_a: str, parts_a: list[Part], run_b: str, parts_b: list[Part]) -> list[Answers]:
    """The answers of both runs, one Answers for each fold, its exams in the order of the first training of run_a.

    UserError where the runs are not of the same classes, folds, seeds or exams.
    """
    names_a = parts_a[0].predictions.names
    for part in (*parts_a, *parts_b):
        if part.predictions.names != names_a:
            raise UserError(f'{parts_a[0].folder} has the classes {", ".join(names_a)}, and {part.folder} has '
                            f'{", ".join(part.predictions.names)}: compare runs of the same classes')
    grid_a = _grid(parts_a)
    grid_b = _grid(parts_b)
    for what, one, other in zip(('folds', 'seeds'), grid_a, grid_b, strict=True):
        if one != other and max(len(one), len(other)) > 1:
            raise UserError(f'{run_a} has the {what} {_listed(one)}, and {run_b} has {_listed(other)}: compare the same {what}')
    folds = []
    seeds = len(grid_a[1])
    for start in range(0, len(parts_a), seeds):
        first = parts_a[start]
        exams = first.predictions.exams
        a, b = (_beside(first, parts[start:start + seeds]) for parts in (parts_a, parts_b))
        folds.append(Answers(exams, first.predictions.label, a, b))
    return folds


def pool(folds: list[Answers], run: str | Path) -> Answers:
    """The answers of all folds together, seed by seed. UserError where folds share exams."""
    exams = [exam for fold in folds for exam in fold.exams]
    if len({exam.id for exam in exams}) < len(exams):
        raise UserError(f'the folds of {run} share {len(exams) - len({e.id for e in exams})} exams of this split, so their answers '
                        'cannot be put together: compare --split=test, or one fold with one')
    return Answers(exams, np.concatenate([fold.label for fold in folds]),
                   np.concatenate([fold.a for fold in folds]),
                   np.concatenate([fold.b for fold in folds]))


def described(folder: Path) -> Part:
    """The Part of a folder with a results.json, without what it answered. UserError for a damaged file."""
    path = folder / 'results.json'
    kept = workdir.read(folder) or {}
    with blame(path):
        try:
            result = dict(json.loads(path.read_text(encoding='utf-8')))
        except (ValueError, TypeError):
            raise ValueError('it is damaged: give the command of its run again') from None
        stage = str(result['stage'])
        fold = int(result['fold'])
        seed = int(result['seed'])
        below = str(result.get('folder', _older_folder(folder, stage, fold, seed)))
        root = folder.parents[len(Path(below).parts) - 1] if Path(below).parts else folder
        return Part(folder, root, stage, fold, seed, int(result.get('folds', kept.get('folds') or 0)), int(result.get('seeds', 0)),
                    bool(result.get('last', not stage)))


def training_seconds(folder: Path) -> float:
    """What the training of a finished part took, all its calls together; 0 of one that trains nothing. UserError for a damaged file."""
    path = folder / 'seconds.json'
    with blame(path):
        return float(json.loads(path.read_text(encoding='utf-8'))['training'])


def whole(parts: list[Part], folds: int) -> bool:
    """Whether the parts of a stage are all that it has, of so many of its folds."""
    cells = {(part.fold, part.seed) for part in parts}
    here = {fold for fold, _ in cells}
    seeds = max(parts[0].seeds, len({seed for _, seed in cells}))
    return len(here) >= folds and len(cells) == len(here) * seeds


def _older_folder(folder, stage, fold, seed):
    """Where a part lies below its run, by the names of its folders."""
    names: list[str] = []
    for name in (f'seed{seed}', f'fold{fold}', stage):
        if name and folder.name == name:
            names.insert(0, name)
            folder = folder.parent
    return '/'.join(names)


def _labelled(folder, split):
    table = predictions.of_run(folder)
    path = folder / 'predictions.csv'
    if split not in table.splits:
        raise UserError(f'{path} has no exams of the split {split!r}: choose --split from {", ".join(table.splits) or "none"}')
    rows = table.of(split).labelled()
    if not rows.exams:
        raise UserError(f'{path} has no labels in the split {split!r}: there is nothing to compare with')
    return rows


def _check_whole(run, found):
    cells = {(part.fold, part.seed) for part in found}
    if len(cells) < len(found) or len({(part.root, part.stage) for part in found}) > 1:
        raise UserError(f'{run} holds several runs or stages ({some([part.folder for part in found], 3)}): give one of them')
    one_of_several = run.resolve().name == f'fold{found[0].fold}'
    if not whole(found, 1 if one_of_several else found[0].folds):
        raise UserError(f'{run} is not finished, it holds {some([part.folder.relative_to(run) for part in found], 20)} alone: run '
                        'its command again, which goes on')


def _grid(parts):
    """(folds, seeds), in order."""
    return tuple(sorted({getattr(part, name) for part in parts}) for name in ('fold', 'seed'))


def _listed(numbers):
    return ', '.join(map(str, numbers))


def _beside(first, parts):
    """What trainings answered, float [n, trainings, classes], in the order of the first one's exams."""
    members = [part.predictions for part in (first, *parts)]
    ordered = predictions.aligned(members, [part.folder for part in (first, *parts)])
    return np.stack([member.probability for member in ordered[1:]], 1)
