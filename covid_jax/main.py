"""python -m covid_jax.main --config=configs/cmc.py --workdir=runs/cmc

Flags, start-up over several hosts, dispatch. Heavy imports wait until they are needed: the processes that prepare scans
import this file too.
"""

import difflib
import os
import runpy
import sys
import threading
from pathlib import Path

from absl import app, flags, logging
from ml_collections import FieldReference, config_flags

from covid_jax import UserError

CONFIG = config_flags.DEFINE_config_file('config', None, 'A config file: configs/cmc.py, or with a row configs/cmc.py:ROW.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Where the run lives; the same folder again goes on. Default: runs/<config>.')
COORDINATOR = flags.DEFINE_string('coordinator', None, 'host:port of process 0, for a run over several hosts.')
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes the run has.')
DISTRIBUTED = flags.DEFINE_bool('distributed', False, 'On each host of a TPU pod or SLURM job, which jax finds by itself.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this one is, from 0.')


def default_workdir():
    name = Path(flags.FLAGS['config'].config_filename)
    file, _, arg = name.name.partition(':')
    return Path('runs', '-'.join(filter(None, [Path(file).stem, *arg.replace('=', '-').split(',')])))


def main(argv):
    if argv[1:]:
        raise UserError(f'{argv[1]!r} is not a flag: fields are set as --config.FIELD=VALUE')
    if CONFIG.value is None:
        raise UserError('which method? for example --config=configs/cmc.py')
    import jax

    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        jax.config.update('jax_compilation_cache_dir', str(Path('~/.cache/covid_jax').expanduser()))
    given = [f.value is not None for f in (COORDINATOR, NUM_PROCESSES, PROCESS_ID)]
    if any(given) and not all(given):
        raise UserError('--coordinator, --num_processes and --process_id go together')
    if DISTRIBUTED.value or all(given):
        jax.distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    from covid_jax import experiment

    logging.set_verbosity(logging.ERROR)  # orbax tells every step of every save
    experiment.run(CONFIG.value, WORKDIR.value or default_workdir())


def parse(argv):
    """absl's flags, but what a user mistypes is one line."""
    check_config(argv)
    try:
        return flags.FLAGS(argv, known_only=False)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
        raise UserError(' '.join(str(e).split())) from None


def check_config(argv):
    """UserError for a config file or a row that is not there, and for a field that the config does not have."""
    names = [a.lstrip('-').partition('=')[0] for a in argv]
    if 'config' not in names[1:]:
        return
    at = names.index('config', 1)
    file, _, row = (argv[at].partition('=')[2] or ''.join(argv[at + 1:at + 2])).partition(':')
    if not Path(file).is_file():
        raise UserError(f'there is no config file {file}')
    try:
        config = runpy.run_path(file)['get_config'](row)
    except (SyntaxError, KeyError):
        raise UserError(f'{file} is no config file: it has no get_config') from None
    known = list(_fields(config))
    own = {stage: set(_fields(config[stage], own=True)) for stage in config.stages}
    trained = [stage for stage in own if config[stage].get('kind') == 'train']
    for name in names[1:]:
        field = name.removeprefix('config.')
        if not name.startswith('config.'):
            continue
        if trained and all(field in own[stage] for stage in trained):
            raise UserError(f'each stage has its own {field}: set --config.{trained[0]}.{field} (there are '
                            f'{", ".join(trained)})')
        if field not in known:
            last = {k.split('.')[-1]: k for k in known}
            name = field.split('.')[-1]
            close = [last[name]] if name in last else difflib.get_close_matches(field, known, 1)
            close = close or [last[k] for k in difflib.get_close_matches(name, last, 1)]
            raise UserError(f'no field --config.{field}' + (f': did you mean --config.{close[0]}?' if close else ''))


def _fields(config, prefix='', own=False):
    """The names of all fields, or of those that follow no other field."""
    for key, value in config.items(preserve_field_references=True):
        if not own or not isinstance(value, FieldReference):
            yield prefix + key
        if hasattr(value, 'items'):
            yield from _fields(value, f'{prefix}{key}.', own)


def cli(run=main):
    """Runs run(argv) with the flags parsed; what a user can cause ends in one line."""
    try:
        app.run(run, flags_parser=parse)
    except UserError as e:
        sys.exit(_say(e, 2))
    except KeyboardInterrupt:
        forced = threading.Timer(5, os._exit, [130])  # should a thread or process that an exit waits for not end:
        forced.daemon = True  # all files are whole at any time
        forced.start()
        sys.exit(_say('interrupted: the same command goes on', 130))
    except Exception as e:
        if type(e).__name__ == 'Interrupted':  # imported with jax alone
            sys.exit(_say(f'saved at step {e.args[1]}: the same command goes on', 128 + e.args[0]))
        raise


def _say(message, code):
    print(f'covid_jax: {message}', file=sys.stderr, flush=True)
    return code


if __name__ == '__main__':
    cli()
