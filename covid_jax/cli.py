"""covid-jax plan --config=configs/cmc.py --topology=v5e:2x4

The covid-jax command: a thin layer, with the flags of covid_jax.main.
"""

from pathlib import Path

from absl import flags

from covid_jax import UserError
from covid_jax.main import CONFIG, WORKDIR, cli, default_workdir

TOPOLOGY = flags.DEFINE_string('topology', '', 'A TPU slice, which need not be there: v5e:2x4. Default: this host.')


def show_plans():
    """What a step of every training of the config takes: parameters, memory, FLOPs, collectives."""
    if CONFIG.value is None:
        raise UserError('a plan of what? for example --config=configs/cmc.py')
    from covid_jax import experiment, plan, start

    config, workdir = CONFIG.value, Path(WORKDIR.value or default_workdir())
    if config.ensemble.runs:
        raise UserError('--config.ensemble.runs averages finished runs, which takes no training step')
    shown = set()
    for part in experiment.parts(config, workdir):
        if part.config.kind != 'train' or part.stage in shown:  # a stage's folds and seeds take the same
            continue
        shown.add(part.stage)
        if part.stage:
            print(f'== {part.stage}', flush=True)
        devices = plan.slice_devices(TOPOLOGY.value) if TOPOLOGY.value else None
        plan.show(plan.make(start.build(part.config, workdir / part.folder, devices)))


COMMANDS = {'plan': show_plans}


def run(argv):
    if len(argv) != 2 or argv[1] not in COMMANDS:
        raise UserError(f'which command? covid-jax {"|".join(COMMANDS)} --config=configs/cmc.py; fields are set as '
                        f'--config.FIELD=VALUE')
    COMMANDS[argv[1]]()


def main():
    flags.FLAGS.set_gnu_getopt()  # the command stands before its flags
    cli(run)


if __name__ == '__main__':
    main()
