"""`remora port`: what listens in a sandbox, opened on this machine."""

from __future__ import annotations

import json
from typing import Any

import click

from . import table
from .shell import choose
from .table import Row


@click.command()
@click.argument("sandbox")
@click.argument("number", metavar="[PORT]", required=False)
@click.option("--here", type=click.IntRange(1, 65535), metavar="PORT", help="Under which number it is opened here.")
@click.option("--socket", metavar="PATH", help="Open it at a Unix socket, for you alone, instead of a port.")
@click.option("--close", is_flag=True, help="Close it again; without PORT all of the sandbox.")
@table.as_json
def port(sandbox: str, number: str | None, here: int | None, socket: str | None, close: bool, as_json: bool) -> None:
    """Open a port of a sandbox here, until the sandbox ends; without PORT list those that are open."""
    from pathlib import Path

    from ..ports import ask, sentence

    name = str(choose(sandbox)["id"])
    if close:
        ask("close", name, number)
    elif number is None:
        table.show(
            ask("list", name)["ports"], _COLUMNS, as_json, f"no port of {name} is open here; `remora port {name} 6006` opens one"
        )
    else:
        path = str(Path(socket).expanduser().absolute()) if socket else None
        found: dict[str, Any] = ask("open", name, number, here=here, path=path)
        click.echo(json.dumps(found, indent=2) if as_json else sentence(found))


def _address(row: Row) -> str:
    return str(row["address"])


_COLUMNS: table.Columns = {"port": lambda row: str(row["port"]), "here": _address}
