"""covid-jax compare runs/a runs/b"""

import os
from pathlib import Path
from typing import Annotated

import typer

from covid_jax import UserError


def run(run_a: Annotated[str, typer.Argument(metavar='RUN_A', help='The folder of a finished run, of all its folds and seeds.')],
        run_b: Annotated[str, typer.Argument(metavar='RUN_B', help='Another, on the same exams.')],
        split: Annotated[str, typer.Option(help='Whose exams are compared.')] = 'test',
        resamples: Annotated[int, typer.Option(help='How often patients are drawn.')] = 1000,
        level: Annotated[float, typer.Option(help='Of the confidence intervals.')] = 0.95,
        out: Annotated[str, typer.Option(help='A folder for compare.csv and compare.md.')] = '',
        ) -> None:
    """How much two finished runs differ, exam by exam: differences with intervals, tests, and what these cannot tell."""
    from covid_jax.compare import compare  # numpy and scipy are imported for this alone, and jax is not
    from covid_jax.report import comparison

    if out:
        check_folder(out)
    found = compare(run_a, run_b, split, resamples, level)
    comparison.show(found)
    if out:
        comparison.write(out, found)
        print(f'compare.csv and compare.md: {out}', flush=True)


def check_folder(out: str) -> None:
    """UserError where no folder of this name can be written to."""
    there = next(path for path in (Path(out).absolute(), *Path(out).absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f'--out={out}: {there} is no folder that can be written to, give another')
