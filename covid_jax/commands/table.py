"""covid-jax table --config=configs/cmc.py --workdir=runs"""

from pathlib import Path
from typing import Annotated

import typer

from covid_jax import UserError
from covid_jax.flags import names_of


def run(config: Annotated[str, typer.Option(help='The config file of the paper: configs/cmc.py.')],
        workdir: Annotated[Path, typer.Option(help='The folder that holds the runs, at any depth.')] = Path('runs'),
        ) -> None:
    """A paper's tables: each of its numbers beside those of the runs in a folder, '-' for what was not run."""
    file = config.partition(':')[0]
    found = names_of(file).get('TABLES')
    if not found:
        raise UserError(f'{file} has no TABLES: configs/cmc.py has those of its paper')
    from covid_jax import papers  # jax is imported for this alone
    from covid_jax.report import paper

    stages = papers.finished(workdir)
    for table in found:
        paper.show(table, *papers.lines(table, Path(file).stem, stages), papers.impossible(table))
