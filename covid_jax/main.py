"""Trains and evaluates what a config says; the same command again goes on where it was stopped.

Start-up over several hosts, dispatch, exit codes. Heavy imports wait until they are needed: the processes that prepare scans
import this file too.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from covid_jax import UserError, commands
from covid_jax.runtime import cluster
from covid_jax.runtime.interrupt import Interrupted, leave
from covid_jax.text import printable

HELP = {'-h', '-help', '--help', '--helpshort', '--helpfull'}
USER_ERROR = 2  # exit codes; of a signal 128 and its number, as a shell has it
NOBODY_READS = 141
FATAL = '3'  # of XLA's levels of its own lines


def train(arguments: list[str]) -> None:
    """python -m covid_jax.main: runs the config that the flags name."""
    from covid_jax.flags import explained, parse

    if HELP & {*arguments}:
        print(f'{__doc__.splitlines()[0]}\n\n{commands.EXAMPLES}\nFlags:\n{explained()}')
        return
    given = parse(arguments)
    hosts = given.coordinator, given.num_processes, given.process_id
    cluster.check(*hosts)
    several = given.distributed or None not in hosts
    if several and not cluster.is_supervised():
        sys.exit(cluster.supervised(lambda line: _say(line, 0)))
    import jax

    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        jax.config.update('jax_compilation_cache_dir', str(Path('~/.cache/covid_jax').expanduser()))
    if several:
        cluster.join(*hosts)
    from covid_jax import experiment

    try:
        experiment.run(given.config, given.workdir)
    except (RuntimeError, ValueError) as e:
        if several and cluster.is_lost(e):
            _say(cluster.GONE, cluster.LOST)
            os._exit(cluster.LOST)  # an exit would wait for the other host
        raise


def run_and_exit(command: Callable[[list[str]], None]) -> None:
    """Runs a command with the process's arguments; what a user can cause ends in one line and an exit code."""
    with leave(_end) as left:
        try:
            _run(command)
        except UserError as e:
            sys.exit(_say(e, USER_ERROR))
        except Interrupted as e:
            number, step = e.args
            sys.exit(_say(f'saved at step {step}: the same command goes on', 128 + number))
        except BrokenPipeError:  # as of head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes when it ends
            sys.exit(NOBODY_READS)
        except BaseException:  # a library that is interrupted while it is loaded makes an error of its own of that
            if number := left():
                sys.exit(_end(number))
            raise


def _end(number):
    """Says that a signal of this number ended the command; the exit code."""
    return _say('interrupted: the same command goes on', 128 + number)


def _run(command):
    """Runs the command without what the libraries say of themselves: each step of each save, the processors that there are not,
    a compilation that takes minutes. What they raise is told all the same, and so is a processor that is there and not used."""
    import logging

    from absl import app
    from absl import logging as absl_logging

    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', FATAL)  # read when jax is imported, which the command does

    def quietly(argv):
        absl_logging.set_verbosity(absl_logging.ERROR)
        logging.getLogger('jax._src.xla_bridge').setLevel(logging.WARNING)
        command(argv[1:])
        sys.stdout.flush()

    app.run(quietly, flags_parser=_none_of_absl)


def _none_of_absl(argv):
    """absl's own flags keep their defaults; the command parses ours."""
    from absl import flags

    flags.FLAGS(argv[:1])
    return argv


def _say(message, code):
    print(f'covid_jax: {printable(message)}', file=sys.stderr, flush=True)
    return code


def main() -> None:
    run_and_exit(train)


if __name__ == '__main__':
    main()
