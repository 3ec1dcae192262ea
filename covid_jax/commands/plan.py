"""covid-jax plan --config=configs/cmc.py --topology=v5e:2x4"""

from typing import Annotated

import typer

from covid_jax import UserError
from covid_jax.flags import parse


def run(context: typer.Context,
        topology: Annotated[str, typer.Option(help='A TPU slice, which need not be there: v5e:2x4. Default: this host.')] = '',
        ) -> None:
    """What a step of every training of a config takes: parameters, memory, FLOPs, what moves between devices."""
    given = parse(context.args)
    if given.config.ensemble.runs:
        raise UserError('--config.ensemble.runs averages finished runs, which takes no training step')
    from covid_jax import plan, stages, start  # jax is imported for this alone

    shown = set()
    for part in stages.parts(given.config, given.workdir):
        if part.config.kind != 'train' or part.stage in shown:  # a stage's folds and seeds take the same
            continue
        shown.add(part.stage)
        if part.stage:
            print(f'== {part.stage}', flush=True)
        devices = plan.slice_devices(topology) if topology else None
        plan.show(plan.make(start.build(part.config, given.workdir / part.folder, devices)))
