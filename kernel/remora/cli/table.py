"""Listings: a table in a terminal, plain columns elsewhere, JSON when asked.

Law: what is listed is a list of dictionaries; JSON shows all of it, a table the columns that a person reads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Row], str]]
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def show(rows: Sequence[Row], columns: Columns, as_json: bool, nothing: str) -> None:
    """Print rows; `nothing` is said, on standard error, where there are none."""
    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
    elif not rows:
        click.echo(nothing, err=True)
    else:
        cells = [[read(row) for read in columns.values()] for row in rows]
        _rich(list(columns), cells) if sys.stdout.isatty() else _plain(list(columns), cells)


def _plain(heads: list[str], cells: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in ([head.upper() for head in heads], *cells):
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _rich(heads: list[str], cells: list[list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=SIMPLE_HEAD, pad_edge=False)
    for line in cells:
        table.add_row(*map(Text, line))
    Console().print(table)


def age(moment: Any) -> str:
    """Return how long ago a Unix time was."""
    from ..resources import format_seconds

    return f"{format_seconds(max(0.0, time.time() - float(moment)))} ago" if moment else ""


def took(row: Row) -> str:
    """Return how long something ran, or has been running."""
    from ..resources import format_seconds

    if not row.get("started"):
        return ""
    return format_seconds(max(0.0, float(row.get("ended") or time.time()) - float(row["started"])))
