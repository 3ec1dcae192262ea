"""covid-jax export runs/cmc --out=exported"""

from typing import Annotated

import typer

from covid_jax import UserError
from covid_jax.commands.compare import check_folder
from covid_jax.text import printable


def run(folder: Annotated[str, typer.Argument(metavar='RUN', help='A finished run; of several folds or seeds, the folder of one.')],
        out: Annotated[str, typer.Option(help='A folder for model.stablehlo, model.json and example.py.')],
        onnx: Annotated[bool, typer.Option('--onnx', help='model.onnx too; it asks for the extra [onnx].')] = False,
        ) -> None:
    """A finished run as files that answer without this package, on any platform that jax knows."""
    check_folder(out)
    from covid_jax import export, start  # what takes long to import
    from covid_jax import runs as finished

    parts = finished.parts(folder)
    if len(parts) > 1:
        raise UserError(f'{folder} holds {len(parts)} networks: export one of them, as {parts[0].folder}')
    opened, state = start.load(parts[0].folder)
    export.write(out, opened, state, onnx, _say)
    _say('Research software, not a medical device.')


def _say(line):
    print(printable(line), flush=True)
