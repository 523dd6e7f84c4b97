"""`remora ps` and `remora runs`: what lives, and what ran."""

from __future__ import annotations

from typing import Any

import click

from ..resources import device_name
from . import table
from .table import Row

_LIMIT = 50


def _list(limit: int) -> dict[str, Any]:
    from .. import client as clients
    from ..wire import ListAll

    client = clients.client()
    return client.run(client.request(ListAll(limit))).result


def _purpose(row: Row) -> str:
    if row.get("pool"):
        return "functions"
    return "a notebook's run" if row.get("session") == "notebook" else f"session {row.get('session', '')}"


def _devices(row: Row) -> str:
    return ", ".join(map(device_name, row.get("devices") or ()))


def _folder(row: Row) -> str:
    return str((row.get("spec") or {}).get("folder") or "")


@click.command()
@table.as_json
def ps(as_json: bool) -> None:
    """List the sandboxes that live."""
    columns: table.Columns = {
        "sandbox": lambda row: str(row["id"]),
        "state": lambda row: str(row["state"]),
        "for": _purpose,
        "machine": lambda row: str(row.get("on", "here")),
        "jail": lambda row: str(row.get("jail", "")),
        "devices": _devices,
        "started": lambda row: table.age(row.get("started")),
        "folder": _folder,
    }
    listed = _list(_LIMIT)
    rows = sorted(listed["sandboxes"], key=lambda row: row.get("started") or 0)
    table.show(rows, columns, as_json, "no sandbox lives; a remote cell, a function or `remora run` starts one")
    for run in () if as_json else listed["runs"]:
        if run.get("waits"):
            click.echo(f"run {run['id']} ({run.get('name', '')}) {run['waits']}")


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1), default=_LIMIT, show_default=True, help="How many, newest first.")
@table.as_json
def runs(limit: int, as_json: bool) -> None:
    """List runs, newest first."""
    columns: table.Columns = {
        "run": lambda row: str(row["id"]),
        "state": _state,
        "form": lambda row: str(row.get("form", "")),
        "name": lambda row: str(row.get("name", "")),
        "sandbox": lambda row: str(row.get("sandbox") or ""),
        "started": lambda row: table.age(row.get("started") or row.get("queued")),
        "took": table.took,
    }
    table.show(_list(limit)["runs"][:limit], columns, as_json, "nothing has run yet")


def _state(row: Row) -> str:
    reason = str(row.get("reason") or "")
    if row.get("waits"):
        return f"{row['state']}: {row['waits']}"
    return f"{row['state']} ({reason})" if reason and reason != "error" else str(row["state"])
