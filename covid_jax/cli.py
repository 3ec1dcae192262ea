"""The covid-jax command: a thin layer over covid_jax.commands. Those that take a config understand the flags of covid_jax.main."""

import sys
from typing import Any

import typer

from covid_jax import UserError, commands
from covid_jax.commands import (
    audit,
    compare,
    doctor,
    evaluate,
    explain,
    export,
    info,
    plan,
    predict,
    prepare,
    report,
    table,
)
from covid_jax.flags import explained
from covid_jax.main import run_and_exit

VERBATIM = '\b\n'  # the lines of a paragraph after it stay as they are
OTHERS = {'allow_extra_args': True, 'ignore_unknown_options': True}  # flags that typer does not know go on to covid_jax.flags
OF_A_CONFIG: Any = {'context_settings': OTHERS, 'epilog': f'{VERBATIM}Flags of every command that takes a config:\n{explained()}'}
USAGE_ERROR: Any = typer.BadParameter.__base__  # of typer's own copy of click or of click, by version

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
                  epilog=f'{VERBATIM}Examples:\n{commands.EXAMPLES}')


@app.callback()
def _covid_jax():
    """Published methods for diagnosing COVID-19 from chest CT and X-ray. Research software, not a medical device."""


app.command('audit')(audit.run)
app.command('compare')(compare.run)
app.command('doctor')(doctor.run)
app.command('evaluate')(evaluate.run)
app.command('explain')(explain.run)
app.command('export')(export.run)
app.command('info')(info.run)
app.command('plan', **OF_A_CONFIG)(plan.run)
app.command('predict')(predict.run)
app.command('prepare', **OF_A_CONFIG)(prepare.run)
app.command('report')(report.run)
app.command('table')(table.run)


def run(arguments: list[str]) -> None:
    """Runs a command. UserError for what typer itself refuses."""
    group = typer.main.get_command(app)
    try:
        with group.make_context('covid-jax', list(arguments)) as context:
            group.invoke(context)
    except USAGE_ERROR as e:
        refusal = e.format_message().rstrip('.')
        named = [command.name for command in app.registered_commands if command.name in arguments[:1]]
        help_ = (f'covid-jax {named[0]} --help says what it takes' if named else
                 'for example: covid-jax plan --config=configs/cmc.py, and covid-jax --help names all')
        raise UserError(f'{refusal}; {help_}') from None
    except typer.Exit as e:
        sys.exit(e.exit_code)


def main() -> None:
    run_and_exit(run)


if __name__ == '__main__':
    main()
