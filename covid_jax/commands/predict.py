"""covid-jax predict scans/* --run=runs/cmc --out=answers"""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from covid_jax import UserError
from covid_jax.commands.compare import check_folder
from covid_jax.text import printable

SHOWN = 20  # answers that the console shows


def run(paths: Annotated[list[str], typer.Argument(metavar='PATH...', help='Scans: a folder of DICOM or slices, a volume, an image, a zip.')],
        runs: Annotated[list[str], typer.Option('--run', help='A finished run, of all its folds and seeds; several are averaged.')],
        out: Annotated[str, typer.Option(help='A folder for answers.csv and answers.json.')],
        level: Annotated[float, typer.Option(help='How often the true class must be among those that are left open.')] = 0.9,
        site: Annotated[str, typer.Option(help='The hospital, as the run knows it.')] = '',
        workers: Annotated[int, typer.Option(help='Processes that prepare scans; 0: one a core.')] = 0,
        ) -> None:
    """What finished runs answer about scans: calibrated probability, decision, where it should be left to a person, and whether the scan is
    like those that the runs learnt from."""
    if not 0 < level < 1:
        raise UserError(f'--level={level} must be between 0 and 1, as 0.9')
    check_folder(out)
    from covid_jax import predict, start  # what takes long to import
    from covid_jax import runs as finished
    from covid_jax.sources.exams import POSITIVE

    opened = [start.load(part.folder) for name in runs for part in finished.parts(name)]
    begun = time.monotonic()
    answers, basis = predict.predict(opened, paths, level, site, workers, _say)
    predict.write(out, answers, basis, [each for each, _ in opened], level)
    for answer in answers[:SHOWN]:
        _say(f'{answer.path}: {told(answer, POSITIVE, opened[0][0].classes[POSITIVE])}')
    if len(answers) > SHOWN:
        _say(f'... and {len(answers) - SHOWN} more')
    _say(f'{len(answers)} scans, {len(answers) / (time.monotonic() - begun):.2g} scans/s; answers.csv and answers.json: {Path(out)}')
    _say('Research software, not a medical device.')


def told(answer: Any, positive: int, name: str) -> str:
    """An Answer of predict.py in words. positive, name: the number and the name of the class whose probability is told."""
    if answer.reason:
        return f'no answer, {answer.reason}'
    doubt = f'; uncertain, possible: {", ".join(answer.possible) or "none of the classes"}' if answer.uncertain else ''
    unlike = '; unlike the training data, do not rely on it' if answer.familiar is False else ''
    return f'{answer.decision}, probability of {name} {answer.probability[positive]:.3f}{doubt}{unlike}'


def _say(line):
    print(printable(line), flush=True)
