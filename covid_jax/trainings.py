"""All that a config trains: checked, built and surveyed before the first of it begins."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from covid_jax import UserError, stages, start, warm
from covid_jax.data import lineage, negatives, pipeline
from covid_jax.runtime import hosts, workdir
from covid_jax.stages import Part

Say = Callable[[str], None]
Ready = tuple[start.Run, pipeline.Survey]  # a training, and what is known of its data


def prepare(todo: list[Part], folder: Path, say: Say) -> dict[Path, Ready]:
    """{folder of a part: (its Run, the survey of its data)} of all that is trained.

    UserError for what is wrong with any of them, before a scan is prepared: the configs first, then what they start from, the
    networks, and last the data. Runs of equal shapes are traced once, equal data are surveyed once.
    """
    runs = {}
    for part in todo:
        if part.config.kind == 'train':
            with stages.named(part.stage):
                runs[part.folder] = start.begin(part.config, folder / part.folder)
    planned = {os.path.normpath(run.folder) for run in runs.values()}
    to_rank = {os.path.normpath(folder / part.folder) for part in todo if part.config.kind == 'rank'}
    for run in runs.values():
        source = warm.source_run(run.config)
        if source and os.path.normpath(source) not in planned and not warm.begun(run.folder) and not warm.begun(source):
            raise UserError(f'{source} is to be started from and {_lacks(source)}')
    traced: set[str] = set()
    for run in runs.values():
        _trace(run, traced)
    surveys = {}
    learnt: dict[str, list[lineage.Row]] = {}
    ready = {}
    for name, run in runs.items():
        config = run.config
        fields = {field: value for field, value in workdir.section(config, 'data').items() if not field.startswith('data.negatives.')}
        data = json.dumps([fields, config.prep.to_json(), config.folds, config.fold, run.method.labelled])
        if data not in surveys:
            surveys[data] = pipeline.survey(config, config.data.store, run.method.labelled, say)
        candidates = surveys[data]
        survey = candidates if _is_awaited(run, to_rank) else pipeline.narrowed(candidates, config.data, say)
        settled = start.settle(run, survey.exams)
        inherited = before(run, learnt)
        start.check_survey(settled, survey, inherited, say)
        _trace(settled, traced)  # again, if it has another number of sites than its network by itself
        learnt[os.path.normpath(run.folder)] = [*lineage.own(survey.exams, survey.hashes), *inherited]
        ready[name] = (run, candidates) if config.data.negatives.count else (settled, survey)
    return ready


def _is_awaited(run, to_rank):
    """Whether the ranking that a run chooses from is one of the folders to_rank, and is yet to be made. UserError where it is gone."""
    asked = run.config.data.negatives
    if not asked.count or not asked.ranking or Path(asked.ranking, negatives.FILE).exists():
        return False
    if os.path.normpath(asked.ranking) in to_rank and not warm.begun(run.folder):
        return True
    raise UserError(f'{asked.ranking} holds no {negatives.FILE}, from which {run.folder} is to choose: give the folder of a ranking, or '
                    'choose another --workdir')


def _trace(run, traced):
    """Traces a run, unless one of equal shapes is among those traced."""
    if (shape := _traced_fields(run)) not in traced:
        start.trace(run)
        traced.add(shape)


def before(run: start.Run, planned: Mapping[str, list[lineage.Row]] = MappingProxyType({})) -> list[lineage.Row]:
    """What the runs before this one learnt from, as exams.csv has it: its own, once it has begun, or that of the run that it
    starts from, and of what it chooses from. planned: {folder: rows} of runs that may be yet to be trained."""
    if warm.begun(run.folder):  # its source may be gone by now
        return [row for row in lineage.read(run.folder) if row.run]
    asked = run.config.data.negatives
    ranked = lineage.inherited_from([asked.ranking]) if asked.count and asked.ranking else []
    return [*_of_source(run, planned), *ranked]


def _of_source(run, planned):
    """The same of the run that it starts from alone."""
    source = warm.source_run(run.config)
    if not source:
        return []
    if Path(source, 'exams.csv').exists():
        return lineage.inherited(lineage.read(source), source)
    if os.path.normpath(source) in planned:
        return lineage.inherited(planned[os.path.normpath(source)], source)
    if run.config.allow_leak:
        return []
    raise UserError(f'{source} holds no exams.csv, so nobody knows what it learnt from: set --config.allow_leak=True to start '
                    'from it all the same')


def _traced_fields(run):
    """All on which it depends whether a step can be traced, and a file of weights is read."""
    sections = 'method', run.config.method, 'model', 'views', 'prep', 'train.batch', 'eval', 'data.classes', 'init_skip'
    fields = {name: value for name, value in workdir.fields(run.config).items()
              if name.startswith(sections) and name != 'views.ops'}  # alike in shape: Fig 4 of CMT-CNN has 49 of them
    return json.dumps([fields, warm.from_file(run.config) and not warm.begun(run.folder)])


def chosen(run: start.Run, survey: pipeline.Survey, say: Say) -> Ready:
    """A training and the survey of what it learns from, chosen by a ranking that is there by now. UserError on every host."""
    error = None
    try:
        survey = pipeline.narrowed(survey, run.config.data, say)
    except UserError as e:
        error = e
    hosts.agree(error)
    hosts.check_same(survey.digest)
    run = start.settle(run, survey.exams)
    start.check_survey(run, survey, before(run), say)
    return run, survey


def _lacks(source):
    """Why nothing can start from a folder."""
    if not Path(source).is_dir():
        return 'is no folder: give the folder of a finished run'
    parts = sorted(path.parent for path in Path(source).rglob('results.json'))
    if parts:
        return f'holds {len(parts)} finished parts: give one of them, as {parts[0]}'
    return 'holds no checkpoint: give the folder of a finished run'
