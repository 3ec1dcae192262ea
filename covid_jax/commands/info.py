"""covid-jax info runs/cmc"""

import json
from typing import Annotated

import typer

from covid_jax.text import printable


def run(run: Annotated[str, typer.Argument(metavar='RUN', help='The folder of a finished run, of all its folds and seeds, or of one of them.')],
        as_json: Annotated[bool, typer.Option('--json', help='All that is known, for programs.')] = False,
        ) -> None:
    """What a finished run is, what it learnt from and reached, and which commands take it.

    \b
    Example: covid-jax info runs/cmc
    """
    from covid_jax import info  # numpy is imported for this alone, and jax is not

    found = info.info(run)
    if as_json:
        print(json.dumps(found, indent=1), flush=True)
        return
    told = list(info.lines(found))
    width = max(len(name) for name, _ in told)
    for name, text in told:
        print(printable(f'{name:<{width}}  {text}'), flush=True)
