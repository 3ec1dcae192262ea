"""covid-jax report runs/cmc"""

from pathlib import Path
from typing import Annotated

import typer

from covid_jax import UserError
from covid_jax.text import count, printable


def run(run: Annotated[str, typer.Argument(metavar='RUN', help='The folder of a finished run, or of one of its folds and seeds.')]) -> None:
    """A finished run as one page, report.html, and as report.json, from which check lists are filled. A training leaves both itself.

    \b
    Example: covid-jax report runs/cmc
    """
    from covid_jax import runs
    from covid_jax.report import checklists, looks, written  # matplotlib is imported for these

    folder = Path(run)
    alone = (folder / 'config.json').is_file()
    parts = [folder] if alone else [part.folder for part in runs.parts(folder)]
    for part in parts:
        if not looks.there(part) and (part / 'predictions.csv').is_file() and (part / 'checkpoints').is_dir():
            _look(part)
        found = written.write(part)
        _say(f'{part / "report.html"}: {checklists.sentence(found)}')
    if not alone and len(parts) > 1:
        written.write_whole(folder, parts)
        _say(f'{folder / "report.html"}: {count(len(parts), "part")}')
    _say('Research software, not a medical device.')


def _look(folder):
    """Makes looks.npz of a run that has none, where its data and its checkpoint are at hand."""
    from covid_jax import predictions, start, trunk  # jax is imported for this alone
    from covid_jax.data import pipeline
    from covid_jax.report import looks, record, written

    answers = predictions.of_run(folder)
    shown = written.shown(answers, record.load(folder / 'metrics.json'))
    if not shown:
        return
    try:
        opened, state = start.load(folder)
        store = opened.config.data.store or folder / 'store'
        survey = pipeline.survey(opened.config, store, opened.method.labelled, lambda line: None)
        dataset = trunk.known_sites(pipeline.prepare(survey, store, opened.config.data.workers, lambda line: None), opened)
    except UserError as error:
        _say(f'{folder}: no scans are shown, {error}')
        return
    looks.write(folder, opened, state, dataset, shown)


def _say(line):
    print(printable(line), flush=True)
