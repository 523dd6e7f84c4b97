"""`remora machine …`: the machines elsewhere that `on=` may name."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..wire import Fields
from . import table
from .doctor import FAIR, GOOD, Finding, of_trial, show
from .table import Row

_CLOCK = 2.0
"""Seconds by which clocks may differ without a word."""


@click.group()
def machine() -> None:
    """Add, list, check and remove machines, which cells use by `on=NAME`. Hosts of ~/.ssh/config need not be added."""


@machine.command()
@click.argument("words", nargs=-1, required=True, metavar="[NAME] [USER@]HOST[:PORT]")
@click.option("--identity", "-i", type=click.Path(path_type=Path), help="The file with the key to sign in with.")
@click.option("--rented", is_flag=True, help="It costs while it is there: nothing runs on it for ever unseen.")
@click.option("--no-check", is_flag=True, help="Do not try whether it can be reached.")
def add(words: tuple[str, ...], identity: Path | None, rented: bool, no_check: bool) -> None:
    """Add a machine, and try whether it can be reached."""
    if len(words) > 2:
        raise click.UsageError("give a name and a destination, such as gpubox ada@gpu.example.org")
    key = str(identity.expanduser().absolute()) if identity else None
    asked = {"name": words[0] if len(words) == 2 else None, "destination": words[-1], "identity": key, "rented": rented}
    name = _ask("add", asked)["name"]
    click.echo(f"{name} was added", err=True)
    if not no_check:
        _show(_ask("check", {"name": name}))


@machine.command()
@table.as_json
def ls(as_json: bool) -> None:
    """List the machines that were added, the hosts of the SSH configuration, and what is known of them."""
    rows = _ask("list", {})["machines"]
    columns: table.Columns = {
        "name": lambda row: str(row["name"]),
        "destination": lambda row: str(row["destination"] or "of ~/.ssh/config"),
        "link": _link,
        "sandboxes": lambda row: str(row.get("sandboxes") or ""),
        "rented": lambda row: "yes" if row.get("rented") else "",
    }
    table.show(rows, columns, as_json, "there are no machines; `remora machine add NAME user@host` adds one")


@machine.command()
@click.argument("name")
@table.as_json
def check(name: str, as_json: bool) -> None:
    """Reach a machine, bring it what it lacks, and say what it is."""
    found = _ask("check", {"name": name})
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _show(found)


@machine.command()
@click.argument("name")
@click.option("--clean", is_flag=True, help="Remove all that is kept there, too.")
def rm(name: str, clean: bool) -> None:
    """Forget a machine that was added. What is kept there stays without --clean. Not while sandboxes live there."""
    from ..resources import format_bytes

    freed = _ask("remove", {"name": name, "clean": clean}).get("freed")
    click.echo(f"{name} was removed" if freed is None else f"{name} was cleaned: {format_bytes(freed)} freed", err=True)


def _ask(op: str, args: Fields) -> Fields:
    from ..building import ask

    return ask(op, args, lambda words: click.echo(f"remora: {words}", err=True), "machines")


def _show(found: Fields) -> None:
    from ..resources import format_bytes, format_seconds

    free, clock = found["free"], found["clock"] or 0.0
    texts = {
        "system": f"Linux {found['kernel']}, {found['architecture']}, {found['libc']}",
        "cores": str(found["cores"] or "not known"),
        "memory": format_bytes(found["memory"]) if found["memory"] else "not known",
        "disk": f"{format_bytes(free)} free, in {found['place']}" if free else f"in {found['place']}",
        "kept": ", ".join(f"{kind} {format_bytes(size)}" for kind, size in found["kept"].items() if size) or "nothing",
        "link": f"reached in {format_seconds(found['seconds'])}, {format_bytes(found['sent'])} sent",
    }
    lines = [Finding(name, GOOD, text) for name, text in texts.items()]
    if abs(clock) > _CLOCK:
        text = f"{format_seconds(abs(clock))} {'ahead' if clock > 0 else 'behind'}"
        lines.append(Finding("clock", FAIR, text, "files that come home bear times of that clock; set it by NTP"))
    lines += [Finding("place", FAIR, f"not used: {tried}") for tried in found["tried"]]
    show([*lines, *of_trial(found["trial"])])


def _link(row: Row) -> str:
    if not row.get("reached"):
        return ""
    trip = row.get("round_trip")
    return f"{trip * 1000:.1f} ms" if trip is not None else "reached"
