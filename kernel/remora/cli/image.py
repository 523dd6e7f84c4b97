"""`remora image …`: what this machine has of images, what it takes, and giving it back."""

from __future__ import annotations

from typing import Any

import click

from ..errors import RemoraError
from . import table
from .table import Row

_LONGEST = 60


@click.group()
def image() -> None:
    """Show, check and remove what images have put on this machine."""


@image.command()
@table.as_json
def ls(as_json: bool) -> None:
    """List built steps of images, last used first, and published names."""
    answer = _ask("list", {})
    names = [one["name"] for one in answer["names"]]
    columns: table.Columns = {
        "key": lambda row: str(row["key"])[:12],
        "step": lambda row: str(row["kind"]),
        "what": _what,
        "size": lambda row: _size(row["size"]),
        "took": lambda row: _seconds(row["seconds"]),
        "used": lambda row: table.age(row["used"]),
    }
    table.show(answer["steps"], columns, as_json, "nothing was built yet; pip= or an image builds when it is first used")
    if not as_json and names:
        click.echo(f"Published: {', '.join(names)}")
    if not as_json:
        click.echo(f"On the disk, everything once: {_size(answer['size'])}")


@image.command()
@click.argument("what")
@table.as_json
def show(what: str, as_json: bool) -> None:
    """Show a published image, or a step by its key, with the exact packages of each step."""
    steps = _ask("show", {"what": what})["steps"]
    columns: table.Columns = {
        "key": lambda row: str(row["key"])[:12],
        "step": lambda row: str(row["kind"]),
        "packages": lambda row: " ".join(row["packages"]) or _what(row),
        "size": lambda row: _size(row["size"]),
    }
    table.show(steps, columns, as_json, "")


@image.command()
@click.argument("key")
def logs(key: str) -> None:
    """Print the log of a step, also of one that failed."""
    click.echo(_ask("log", {"what": key})["text"], nl=False)


@image.command()
@click.argument("what")
def rm(what: str) -> None:
    """Forget a published name or a step; `gc` then frees what only it had."""
    click.echo(_ask("remove", {"what": what})["removed"])


@image.command()
def verify() -> None:
    """Read everything and check it against its digest."""
    faults = _ask("verify", {})["faults"]
    for fault in faults:
        click.echo(fault)
    if faults:
        raise RemoraError(
            f"{len(faults)} things are damaged; `remora image gc --all` removes what no sandbox uses, builds make it anew"
        )
    click.echo("all is well", err=True)


@image.command()
@click.option("--most", metavar="SIZE", help="What may stay, such as 20GiB; by default REMORA_IMAGES_MOST.")
@click.option("--all", "everything", is_flag=True, help="Everything but published images and what living sandboxes run in.")
@table.as_json
def gc(most: str | None, everything: bool, as_json: bool) -> None:
    """Free the disk: of what nobody has, and of what was used longest ago."""
    from ..resources import parse_memory
    from ..settings import IMAGES_MOST

    limit = 0 if everything else parse_memory(most or IMAGES_MOST.text, "most" if most else IMAGES_MOST.name)
    freed = _ask("gc", {"most": limit} | ({"grace": 0.0} if everything else {}))
    if as_json:
        table.show([freed], {}, as_json, "")
    else:
        click.echo(f"freed {_size(freed['bytes'])}; {_size(freed['size'])} are left")


def _ask(op: str, args: dict[str, Any]) -> dict[str, Any]:
    from ..building import ask

    return ask(op, args)


def _what(row: Row) -> str:
    step = row["step"]
    words = (
        step.get("requirements")
        or step.get("packages")
        or step.get("commands")
        or [step.get("version") or step.get("source", "")]
    )
    text = " ".join(words)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _size(count: Any) -> str:
    from ..resources import format_bytes

    return format_bytes(float(count))


def _seconds(seconds: Any) -> str:
    from ..resources import format_seconds

    return format_seconds(float(seconds))
