"""covid-jax table --config=configs/cmc.py --workdir=runs"""

from pathlib import Path
from typing import Annotated

import typer

from covid_jax import UserError
from covid_jax.flags import names_of
from covid_jax.text import printable


def run(config: Annotated[str, typer.Option(help='The config file of the paper: configs/cmc.py.')],
        workdir: Annotated[Path, typer.Option(help='The folder that holds the runs, at any depth.')] = Path('runs'),
        ) -> None:
    """A paper's tables: each of its numbers beside those of the runs in a folder, '-' for what was not run; and its p-values."""
    file = config.partition(':')[0]
    defined = names_of(file)
    if 'TABLES' not in defined:
        raise UserError(f'{file} has no TABLES: configs/cmc.py has those of its paper')
    from covid_jax import paired, papers, stages  # jax is imported for this alone
    from covid_jax.report import paper
    from covid_jax.runtime import workdir as kept

    def fields(stage):
        asked = stage.row.partition(':')[2]
        return kept.fields(stages.stage_config(defined['get_config'](asked), stage.name))

    found = papers.finished(workdir, lambda line: print(printable(line), flush=True))
    name = Path(file).stem
    if not any(stage.row.startswith(f'{name}:') for stage in found):
        print(f'no run below {workdir} is of {file}: of {len(found)} that are there, none names a row of it', flush=True)
    for table in defined['TABLES']:
        paper.show(table, papers.shown(table, name, found, fields), papers.impossible(table))
    for tests in defined.get('PAIRED_TESTS', ()):
        paper.show_tests(tests, paired.tested(tests, name, found, fields))
