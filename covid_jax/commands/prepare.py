"""covid-jax prepare --config=configs/cmc.py --workdir=runs/cmc"""

import typer

from covid_jax.flags import parse
from covid_jax.text import printable, some

LISTED = 3  # scans that could not be prepared, in a line


def run(context: typer.Context) -> None:
    """Prepares the scans of a config into its store and stops: its training, with the same flags, then starts at once.

    \b
    Example: covid-jax prepare --config=configs/cmc.py --workdir=runs/cmc
    """
    given = parse(context.args)
    from covid_jax.prepare import prepare  # what takes long to import

    for made in prepare(given.config, given.workdir, _say):
        _say(f'{made.scans} scans are prepared: {made.store}')
        if made.broken:
            _say(f'{len(made.broken)} could not be ({some((f"{name}: {why}" for name, why in made.broken.items()), LISTED)})')


def _say(line):
    print(printable(line), flush=True)
