"""covid-jax evaluate --run=runs/cmc --root=elsewhere.csv --out=elsewhere"""

from pathlib import Path
from typing import Annotated

import typer

from covid_jax import UserError
from covid_jax.commands.audit import in_own_words, told
from covid_jax.commands.compare import check_folder
from covid_jax.text import printable, some

LISTED = 3  # scans that are not read, in a line


def run(runs: Annotated[list[str], typer.Option('--run', help='A finished run, of all its folds and seeds; several are averaged.')],
        out: Annotated[str, typer.Option(help='A folder for predictions.csv, metrics.json, results.md and plots.')],
        root: Annotated[str, typer.Option(help='The folder, or the CSV file; of several sources one for each, with commas between them.')] = '',
        source: Annotated[str, typer.Option(help='Of docs/data.md: folder, manifest, covid_ct, ...; several with commas between them. '
                                            'Folders of classes and CSV files need none.')] = '',
        classes: Annotated[str, typer.Option(help="As --config.data.classes, with commas: 'noncovid|normal,covid|ncp'. Default: the run's.")] = '',
        group: Annotated[str, typer.Option(help='As --config.data.group: source or clusters.')] = 'source',
        prevalence: Annotated[float | None, typer.Option(help='Of the positive class, as 0.05: PPV and NPV are given there.')] = None,
        workers: Annotated[int, typer.Option(help='Processes that prepare scans; 0: one a core.')] = 0,
        phantom: Annotated[str, typer.Option(help='Of --source=phantom, fields of config.data.phantom: seed=7,sites=4,test=40.')] = '',
        ) -> None:
    """A finished run on another labelled set, beside its own test: metrics with intervals at the frozen threshold, by site, and the shortcuts.

    \b
    Example: covid-jax evaluate --run=runs/cmc --root=elsewhere.csv --prevalence=0.05 --out=elsewhere
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise UserError(f'--prevalence={prevalence:g} must be above 0 and below 1, as 0.05')
    if workers < 0:
        raise UserError(f'--workers={workers} must be at least 0')
    check_folder(out)
    if Path(out, 'config.json').exists():
        raise UserError(f'--out={out} is the folder of a run: give another')
    try:
        _evaluate(runs, Path(out), root, source or ('phantom' if phantom else ''), tuple(filter(None, classes.split(','))), group, prevalence,
                  workers, _fields(phantom))
    except UserError as e:
        raise UserError(in_own_words(e)) from None


def _evaluate(named, out, root, source, classes, group, prevalence, workers, phantom):
    from covid_jax import runs as finished

    folders = [part.folder for name in named for part in finished.parts(name)]
    if not root and source != 'phantom':
        raise UserError('which data? give --root, a folder or a CSV file')
    from covid_jax import evaluate, external, start  # what takes long to import
    from covid_jax.report import beside

    opened = [start.load(folder) for folder in folders]
    first, _ = opened[0]
    source = source or told(root, classes or first.config.data.classes)
    for run, _ in opened:
        run.config.data.workers = workers
    configs = [evaluate.data_of(run, source, root, group, classes or first.config.data.classes) for run, _ in opened]  # each checks its classes
    configs[0].data.phantom.update(phantom)
    outcome = external.validate(opened, configs[0], out / 'store', prevalence, _say)
    title = f'{", ".join(named)} on {root or source}: {len(outcome.answers.exams)} exams'
    external.write(out, outcome, title)
    beside.show(title, outcome.metrics, outcome.own, external.compared(outcome))
    if outcome.unread:
        _say(f'{len(outcome.unread)} are not answered ({some(outcome.unread, LISTED)}): {out / "quarantine.csv"} says why')
    _say(f'predictions.csv, metrics.json, results.md and plots: {out}')
    _say('Research software, not a medical device.')


def _fields(phantom):
    """{field: value} of 'seed=7,sites=4'. UserError for a field that there is not, or a value of another kind."""
    from covid_jax.config import DATA

    known = DATA['phantom']
    found = {}
    for pair in filter(None, phantom.split(',')):
        name, _, value = pair.partition('=')
        try:
            found[name] = type(known[name])(value)
        except (KeyError, ValueError):
            raise UserError(f'--phantom={phantom}: {pair!r} is no field, as {", ".join(f"{key}={each}" for key, each in known.items())}') from None
    return found


def _say(line):
    print(printable(in_own_words(line)), flush=True)
