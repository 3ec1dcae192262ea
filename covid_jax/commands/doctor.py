"""covid-jax doctor --data=scans"""

from typing import Annotated

import typer

from covid_jax.text import printable

BROKEN = 1  # the exit code where something will not work


def run(workdir: Annotated[str, typer.Option(help='Where runs are to live: is there disk space?')] = 'runs',
        data: Annotated[str, typer.Option(help='A folder or a CSV file: are the data found?')] = '',
        source: Annotated[str, typer.Option(help='Of docs/data.md: folder, manifest, covid_ct, ... Folders of classes and CSV files need none.')] = '',
        classes: Annotated[str, typer.Option(help="As --config.data.classes, with commas: 'noncovid|normal,covid|ncp'.")] = '',
        ) -> None:
    """Versions, devices, memory, readers, data: what works on this machine. Exit code 1 where something will not.

    \b
    Example: covid-jax doctor --data=scans
    """
    from covid_jax import doctor

    well = True
    for check in doctor.checks(workdir, data, source, tuple(filter(None, classes.split(',')))):
        mark = 'NO' if not check.works else '!' if check.advice else 'ok'
        print(printable(f'{mark:<3} {check.what:<12} {check.found}{f": {check.advice}" if check.advice else ""}'), flush=True)
        well = well and check.works
    if not well:
        raise typer.Exit(BROKEN)
