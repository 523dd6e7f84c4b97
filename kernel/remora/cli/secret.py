"""`remora secret …`: names of secrets, set and forgotten. Values come in here and are never shown."""

from __future__ import annotations

import sys

import click

from ..errors import InputError, OptionError
from . import table


@click.group()
def secret() -> None:
    """Set, list and remove secrets, which cells and functions get by `secret=NAME`."""


@secret.command("set")
@click.argument("name")
@click.argument("pairs", nargs=-1, metavar="[VARIABLE[=VALUE]]…")
@click.option("--from-dotenv", "file", metavar="FILE", help="Take the variables of a .env file.")
def set_(name: str, pairs: tuple[str, ...], file: str | None) -> None:
    """Add a secret, or variables to it.

    A VARIABLE without a value is asked for, without showing what is typed; standard input is read where that is no terminal.
    Others on this machine may see the words of a command while it runs, and the shell keeps them.
    """
    from ..giving import dotenv_file
    from ..vault import check_name, vault

    check_name(name)
    found = dotenv_file(file) if file is not None else {}
    words = pairs or (() if file is not None else (_which(),))
    if sum("=" not in word for word in words) > 1 and not sys.stdin.isatty():
        raise OptionError("standard input holds one value; name one variable without =")
    for word in words:
        variable, is_pair, value = word.partition("=")
        found[variable] = value if is_pair else _asked(variable)
    vault().set(name, found)
    click.echo(f"{name}: {', '.join(sorted(found))}")


def _which() -> str:
    if not sys.stdin.isatty():
        raise OptionError("no variable is named; write it like remora secret set NAME VARIABLE, or with --from-dotenv FILE")
    return str(click.prompt("Variable", err=True))


def _asked(variable: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"{variable} (is not shown)", hide_input=True, err=True))
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError:
        raise InputError(f"the value of {variable} on standard input is no text") from None


@secret.command()
@table.as_json
def ls(as_json: bool) -> None:
    """List the names of secrets and of their variables, never values."""
    from ..vault import vault

    rows = [{"name": name, "variables": variables} for name, variables in vault().names().items()]
    columns: table.Columns = {
        "name": lambda row: str(row["name"]),
        "variables": lambda row: ", ".join(row["variables"]),
    }
    table.show(rows, columns, as_json, "there are no secrets; `remora secret set NAME` adds one")


@secret.command()
@click.argument("name")
@click.argument("variables", nargs=-1, metavar="[VARIABLE]…")
def rm(name: str, variables: tuple[str, ...]) -> None:
    """Forget a secret, or only these variables of it. Sandboxes that live keep what they were given."""
    from ..vault import vault

    vault().remove(name, variables)
    click.echo(f"{name}: removed{' ' + ', '.join(variables) if variables else ''}", err=True)
