"""covid-jax audit --source=folder --root=DATA"""

import tempfile
from typing import Annotated

import typer
from absl import logging

from covid_jax import UserError
from covid_jax.commands.compare import check_folder
from covid_jax.text import printable

SPOILT = 1  # the exit code where something would spoil a result


def run(source: Annotated[str, typer.Option(help='Of docs/data.md: folder, manifest, covid_ct, ...; several with commas between them.')],
        root: Annotated[str, typer.Option(help='The folder, or the CSV file; one for each source, with commas between them.')],
        classes: Annotated[str, typer.Option(help="As --config.data.classes, with commas: 'noncovid|normal,covid|ncp'.")] = '',
        split: Annotated[str, typer.Option(help='As --config.data.split: auto, source or drawn.')] = 'auto',
        group: Annotated[str, typer.Option(help='As --config.data.group: source or clusters.')] = 'source',
        out: Annotated[str, typer.Option(help='A folder for audit.html, the same with thumbnails.')] = '',
        store: Annotated[str, typer.Option(help='A folder that keeps hashes and thumbnails for the next time.')] = '',
        ) -> None:
    """What is in a data set, what is there twice or not read, and what tells the label: exit code 1 where it would spoil a result."""
    from covid_jax.config import base, check_ranges

    config = base()
    config.data.update(source=source, root=root, split=split, group=group)
    if classes:
        config.data.classes = tuple(classes.split(','))
    try:
        check_ranges(config)
        found = _audit(config, store, out)
    except UserError as e:
        raise UserError(_own(e)) from None
    if found.spoils:
        raise typer.Exit(SPOILT)


def _audit(config, store, out):
    from covid_jax import sources

    sources.check(config.data)
    if out:
        check_folder(out)
    from covid_jax.audit import audit  # what takes long to import
    from covid_jax.report.audit import show, write

    logging.set_verbosity(logging.ERROR)  # tensorflow_datasets tells of every file
    with tempfile.TemporaryDirectory() as temporary:
        found = audit(config, store or temporary, lambda line: print(_own(line), flush=True))
        show(found.tables, found.spoils, found.looks, found.unread)
        if out:
            write(out, f'Audit of {config.data.source} {config.data.root}', *found)
            print(f'audit.html: {out}', flush=True)
    return found


def _own(message):
    """The message, with this command's options in place of those of a training."""
    return printable(message).replace('--config.data.', '--')
