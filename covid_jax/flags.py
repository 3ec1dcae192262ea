"""The flags of a run: its config and the fields that are set, as absl and config_flags read them, its folder and its hosts.

They are defined where they are parsed, in values of their own: to import this file, twice too, defines nothing.
"""

import difflib
import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, FieldReference, config_flags

from covid_jax import UserError
from covid_jax.config import get
from covid_jax.ranges import NAMES

FIELD = re.compile(r'--?(?:no)?config\.([^=]+)')
QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
NAME = re.compile(rf"""\s*({QUOTED.pattern}|[^,]*)\s*(?:,|$)""")
SET_BY_OTHERS = ('fold', 'row')  # fields that a run or a config file sets, and no flag
MEANING = {
    'config': 'A config file: configs/cmc.py, or with a row of its paper, as configs/cmc.py:model4.',
    'config.FIELD': 'Another value of a field of the config; docs/config.md says what each means.',
    'workdir': 'Where the run lives; the same folder again goes on. Default: runs/<config>.',
    'distributed': 'On each host of a TPU pod or SLURM job, which jax finds by itself.',
    'coordinator': 'host:port of process 0, for a run over several hosts.',
    'num_processes': 'How many processes the run has.',
    'process_id': 'Which of them this one is, from 0.',
}


class Flags(NamedTuple):
    """config: with the fields that were set. workdir: where the run lives. The others are of a run over several hosts, where
    it is one: host:port of process 0, how many processes there are, which of them this is, or whether jax finds all that."""

    config: ConfigDict
    workdir: Path
    coordinator: str | None
    num_processes: int | None
    process_id: int | None
    distributed: bool


def parse(arguments: Sequence[str]) -> Flags:
    """The Flags of a command line, without its program. UserError, in one line, for all that a user can mistype."""
    values = _defined()
    with _one_line():
        _, *rest = values(['', *arguments], known_only=True)
    if not values.config:
        strange = [argument for argument in rest if argument.startswith('-') and not FIELD.match(argument)]
        if strange:
            raise UserError(f'{strange[0]!r} is not a flag, and which config? for example --config=configs/cmc.py')
        raise UserError('which config? for example --config=configs/cmc.py')
    if len(values.config) > 1:
        raise UserError(f'--config is given more than once, as {" and ".join(values.config)}: a command has one config')
    given = values.config[0]
    config = load(given)
    named = [found[1] for argument in rest if (found := FIELD.match(argument))]
    check_names(config, named)
    _check_tuples_once(config, named)
    rest = _with_names_as_text(rest)
    del values.config  # in its place the config that it names, each of whose fields is a flag
    with _one_line():
        config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=rest)
        _, *words = values(['', *rest])
    if words:
        raise UserError(f'{words[0]!r} is not a flag: fields are set as --config.FIELD=VALUE')
    return Flags(config, Path(values.workdir or default_workdir(given)), values.coordinator, values.num_processes,
                 values.process_id, values.distributed)


def check_names(config: ConfigDict, names: Iterable[str]) -> None:
    """UserError for one of these dotted names that is no field of the config, with the one that may be meant; and for a field
    that every stage that trains has for itself, so that the config's own would change nothing."""
    known = [name for name, _ in _fields(config) if name not in SET_BY_OTHERS]
    of_stage = {stage: {name for name, value in _fields(config[stage]) if not isinstance(value, FieldReference)}
                for stage in config.stages if config[stage].get('kind') == 'train'}
    for name in names:
        if name == 'row':
            raise UserError('--config.row is set by the config file: name a row as --config=FILE:ROW')
        if of_stage and all(name in fields for fields in of_stage.values()):
            raise UserError(f'each stage has its own {name}: set --config.{next(iter(of_stage))}.{name} (there are '
                            f'{", ".join(of_stage)})')
        if name not in known and name not in SET_BY_OTHERS:
            meant = _meant(name, known)
            raise UserError(f'no field --config.{name}' + (f': did you mean --config.{meant}?' if meant else ''))


def _check_tuples_once(config, named):
    """UserError for a tuple that is set twice, which config_flags would join."""
    for name, times in Counter(named).items():
        if times > 1 and isinstance(get(config, name), tuple):
            raise UserError(f'--config.{name} is given more than once: give one, with all that it holds')


def _with_names_as_text(arguments):
    """The arguments, in which the value of each tuple of names is that tuple as python writes it."""
    found = list(arguments)
    for at, argument in enumerate(found):
        named = FIELD.match(argument)
        if not named or not named[1].endswith(NAMES):
            continue
        if '=' in argument:
            flag, _, value = argument.partition('=')
            found[at] = f'{flag}={names_in(value)!r}'
        elif at + 1 < len(found):
            found[at + 1] = repr(names_in(found[at + 1]))
    return found


def names_in(value: str) -> tuple[str, ...]:
    """The names in the value of a flag, with brackets or without: "('001',1.10)" and "001,1.10" are '001' and '1.10', as they are written,
    for a shell takes the inner quotes away. A name that holds a comma is quoted, one that holds a quote is in the other quotes."""
    bare = value.strip()
    if bare[:1] + bare[-1:] in ('()', '[]'):
        bare = bare[1:-1].strip()
        if not bare:
            return ()
    names = [name.strip() for name in NAME.findall(bare)]
    if len(names) > 1:
        names.pop()  # what is behind the last comma, or behind the last name
    return tuple(name[1:-1] if QUOTED.fullmatch(name) else name for name in names)


def _fields(config, prefix='') -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of all sections and fields; the value of one that follows another field is a FieldReference."""
    for key, value in config.items(preserve_field_references=True):
        yield prefix + key, value
        if isinstance(value, ConfigDict):
            yield from _fields(value, f'{prefix}{key}.')


def _meant(name, known):
    """The known name that is like `name`: in its last part exactly, else as a whole, else in its last part; '' if none is."""
    by_last_part = {full.split('.')[-1]: full for full in known}
    last_part = name.split('.')[-1]
    if last_part in by_last_part:
        return by_last_part[last_part]
    if like := difflib.get_close_matches(name, known, 1):
        return like[0]
    like = difflib.get_close_matches(last_part, by_last_part, 1)
    return by_last_part[like[0]] if like else ''


def load(given: str) -> ConfigDict:
    """The config that --config names, as FILE or FILE:ROW."""
    file, _, row = given.partition(':')
    get_config = names_of(file).get('get_config')
    if get_config is None:
        raise UserError(f'{file} is no config file: it has no get_config')
    if row and not inspect.signature(get_config).parameters:
        raise UserError(f'{file} has no rows: write --config={file}')
    return get_config(row) if row else get_config()


def names_of(file: str) -> dict[str, Any]:
    """What a config file defines. UserError where there is none, and for one that is not python."""
    if not Path(file).is_file():
        raise UserError(f'there is no config file {file}')
    try:
        code = compile(Path(file).read_bytes(), file, 'exec')
    except (SyntaxError, ValueError):  # text, or bytes, that are not python
        raise UserError(f'{file} is no config file: it has no get_config') from None
    found: dict[str, Any] = {'__name__': file, '__file__': file}
    exec(code, found)  # the user's own program: what is wrong in it is told as python tells it
    return found


def default_workdir(given: str) -> Path:
    """runs/cmc-model4-size-small for --config=configs/cmc.py:model4,size=small."""
    file, _, row = given.partition(':')
    names = [Path(file).stem, *row.replace('=', '-').split(',')]
    return Path('runs', '-'.join(filter(None, names)))


def explained() -> str:
    """What each flag means, a line each."""
    return '\n'.join(f'  --{name:<14}  {meaning}' for name, meaning in MEANING.items())


def _defined():
    values = flags.FlagValues()
    flags.DEFINE_multi_string('config', [], MEANING['config'], flag_values=values)
    flags.DEFINE_string('workdir', None, MEANING['workdir'], flag_values=values)
    flags.DEFINE_bool('distributed', False, MEANING['distributed'], flag_values=values)
    flags.DEFINE_string('coordinator', None, MEANING['coordinator'], flag_values=values)
    flags.DEFINE_integer('num_processes', None, MEANING['num_processes'], flag_values=values)
    flags.DEFINE_integer('process_id', None, MEANING['process_id'], flag_values=values)
    return values


@contextmanager
def _one_line() -> Iterator[None]:
    """What absl and config_flags raise becomes a UserError."""
    try:
        yield
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
        raise UserError(' '.join(str(e).split())) from None
