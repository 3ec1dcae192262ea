"""covid-jax audit DATA"""

import ast
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from absl import logging

from covid_jax import UserError
from covid_jax.text import printable

SPOILT = 1  # the exit code where something would spoil a result
CLASSES = re.compile(r'--config\.data\.classes="?(\(.*?\))"?(?=[ ,:;]|$)')


def run(data: Annotated[str, typer.Argument(metavar='DATA', help='The folder, or the CSV file; of several sources one for '
                                            'each, with commas between them.')],
        source: Annotated[str, typer.Option(help='Of docs/data.md: folder, manifest, covid_ct, ...; several with commas '
                                            'between them. Folders of classes and CSV files need none.')] = '',
        classes: Annotated[str, typer.Option(help="As --config.data.classes, with commas: 'noncovid|normal,covid|ncp'."
                                             )] = '',
        split: Annotated[str, typer.Option(help='As --config.data.split: auto, source or drawn.')] = 'auto',
        group: Annotated[str, typer.Option(help='As --config.data.group: source or clusters.')] = 'source',
        workers: Annotated[int, typer.Option(help='Processes that read scans; 0: one a core.')] = 0,
        out: Annotated[str, typer.Option(help='The folder for audit.html, the same with thumbnails; without it the one '
                                         'that you are in.')] = '',
        store: Annotated[str, typer.Option(help='A folder that keeps hashes and thumbnails for the next time.')] = '',
        ) -> None:
    """What is in a data set, what is there twice or not read, and what tells the label: exit code 1 where it would
    spoil a result."""
    from covid_jax import ranges
    from covid_jax.config import base

    config = base()
    config.data.update(root=data, split=split, group=group, workers=workers)
    if classes:
        config.data.classes = tuple(classes.split(','))
    try:
        ranges.check(config)
        config.data.source = source or told(data, config.data.classes)
        _check_roots(config.data)
        found = _audit(config, store, out)
    except UserError as e:
        raise UserError(in_own_words(e)) from None
    if found.spoils:
        raise typer.Exit(SPOILT)


def told(path: str, classes: Sequence[str]) -> str:
    """The source that the path is by its looks. UserError where it cannot be told."""
    from covid_jax import sources
    from covid_jax.sources.listing import found_in

    if not os.path.exists(path):
        raise UserError(f'there is nothing at {path}')
    if not (name := sources.told(path, classes)):
        found = f' ({found_in(Path(path))})' if os.path.isdir(path) else ''
        raise UserError(f'{path}{found} is no CSV file, and no folder of folders of scans that are called after '
                        f'classes: say what it is by --source, one of '
                        f'{", ".join(sources.SOURCES)}, or what the classes are called by --classes')
    hint = '' if name == 'manifest' else ': a public data set may have a source that knows its patients'
    print(f'{path} is read as --source={name}{hint}', flush=True)
    return name


def _check_roots(data):
    """UserError for a path that is not there, or not one for each source."""
    if data.source == 'phantom':
        raise UserError('the phantom is made, not read: there is nothing to audit')
    roots = _roots(data)
    if len(roots) != len(data.source.split(',')):
        raise UserError(f'--source={data.source} and {data.root}: give each source its folder or file, with commas '
                        'between them')
    for root in roots:
        if not os.path.exists(root):
            raise UserError(f'there is nothing at {root or "a path that is empty"}')


def _roots(data):
    return data.root.split(',') if ',' in data.source else [data.root]


def _audit(config, store, out):
    from covid_jax import sources

    sources.check(config.data)
    page = _page(out, config.data)
    for option, folder in (('out', page), ('store', store)):
        if folder:
            _check_folder(option, folder)
    from covid_jax.audit import audit  # what takes long to import
    from covid_jax.report.audit import show, write

    logging.set_verbosity(logging.ERROR)  # tensorflow_datasets tells of every file
    with tempfile.TemporaryDirectory() as temporary:
        found = audit(config, store or temporary, lambda line: print(in_own_words(line), flush=True))
        show(found)
        if page:
            write(page, f'Audit of {config.data.source} {config.data.root}', found)
            print(f'the same with thumbnails: {Path(page) / "audit.html"}', flush=True)
        else:
            print('no audit.html is written into the data: --out=DIR says where it may go', flush=True)
    return found


def _page(out, data):
    """The folder of audit.html: the one that is asked for, else the current one, '' where that one is, or is in, a
    folder of the data."""
    return out or ('' if any(_is_in(Path.cwd(), Path(root)) for root in _roots(data)) else '.')


def _is_in(here, root):
    """Whether a folder is of a source's data; of a table's where scans lie in it or, as in that of a class, below it."""
    from covid_jax.sources.manifests import places

    if root.is_dir():
        return here.is_relative_to(root.resolve())
    of_scans = places(root)
    shared = os.path.commonpath(of_scans) if of_scans else root
    above = any(place.is_relative_to(here) for place in of_scans) and here.is_relative_to(shared)
    return above or any(map(here.is_relative_to, of_scans))


def _check_folder(option, folder):
    """UserError where no file can be written to a folder of this name. A folder that is not there yet is made, and left
    as it was."""
    made = [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise UserError(f'--{option}={folder}: {e.strerror}: give a folder that can be written to') from None
    finally:
        for path in made:
            if path.is_dir():
                path.rmdir()


def in_own_words(message: object) -> str:
    """The message, with this command's options in place of those of a training."""
    def with_commas(found):
        return f'--classes="{",".join(ast.literal_eval(found[1]))}"'

    return CLASSES.sub(with_commas, printable(message)).replace('--config.data.', '--')
