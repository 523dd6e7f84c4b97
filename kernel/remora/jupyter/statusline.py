"""The status line of a cell: its facts, and how they look.

Law: plain values and texts; when a line is worth showing is decided in progress.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from html import escape
from typing import Any

from ..resources import format_bytes, format_seconds

Bundle = dict[str, Any]


class Final(StrEnum):
    """How a cell came to its end."""

    DONE = "done"
    FAILED = "failed"
    ENDED = "ended"
    """By something other than its own code: the reason says what."""
    CANCELLED = "cancelled"
    DETACHED = "detached"


@dataclass(frozen=True)
class StatusLine:
    """What there is to say about a cell that runs elsewhere."""

    session: str = "main"
    machine: str = "here"
    jail: str = ""
    gpu: str = ""
    stage: str = ""
    elapsed: float = 0.0
    """Seconds."""
    sent: int = 0
    fetched: int = 0
    """Bytes, both."""
    cost: str = ""
    """With its currency; empty on an own machine."""
    message: str = ""
    """What the user should know about this sandbox, such as a weaker isolation."""
    hint: str = ""
    """What the user can do now; of a running cell only."""
    state: Final | None = None
    """None while it runs."""
    reason: str = ""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds since the start at which each stage was entered."""


_SIGNS = {
    None: ("▸", "--jp-brand-color1"),
    Final.DONE: ("✓", "--jp-success-color1"),
    Final.FAILED: ("✗", "--jp-error-color1"),
    Final.ENDED: ("■", "--jp-error-color1"),
    Final.CANCELLED: ("■", "--jp-warn-color1"),
    Final.DETACHED: ("↗", "--jp-info-color1"),
}
_LINE = (
    "white-space:nowrap;overflow:hidden;text-overflow:ellipsis;line-height:1.6;"
    "font-family:var(--jp-ui-font-family,sans-serif);font-size:var(--jp-ui-font-size1,13px);color:var(--jp-ui-font-color2,inherit)"
)


def render(line: StatusLine) -> tuple[Bundle, dict[str, Any]]:
    """Return the mime bundle of the line, and the display's metadata with its figures."""
    return {"text/plain": text(line), "text/html": html(line)}, {"remora": figures(line)}


def text(line: StatusLine) -> str:
    """Return the line as plain text, such as "Remora · main · here · 12.3 s · sent 1.2 MiB"."""
    return " · ".join(["Remora", *_parts(line)])


def html(line: StatusLine) -> str:
    """Return the line as one element: the theme's colours, a sign and words beside them, nothing from outside."""
    sign, colour = _SIGNS[line.state]
    # A line that changes every second must not be read out each time; the result is read once.
    live = 'role="group" aria-live="off"' if line.state is None else 'role="status"'
    parts = " · ".join(escape(" ".join(part.split())) for part in _parts(line))
    return (
        f'<div {live} aria-label="{escape(text(line))}" title="{escape(text(line))}" style="{_LINE}">'
        f'<span aria-hidden="true" style="color:var({colour},inherit)">{sign}</span> <b>Remora</b> · {parts}</div>'
    )


def figures(line: StatusLine) -> dict[str, Any]:
    """Return everything that is known as plain JSON values, for metadata."""
    known = asdict(line) | {"state": line.state.value if line.state else "running", "elapsed": round(line.elapsed, 3)}
    known["stages"] = {name: round(seconds, 3) for name, seconds in line.stages.items()}
    return {name: value for name, value in known.items() if value not in ("", {})}


def _parts(line: StatusLine) -> list[str]:
    moved = [f"{word} {format_bytes(count)}" for word, count in (("sent", line.sent), ("fetched", line.fetched)) if count]
    jail = f"jail {line.jail}" if line.jail and line.jail != "bubblewrap" else ""
    shown = [line.session, line.machine, line.gpu, jail, _result(line), *moved, line.cost, line.message]
    return [part for part in (*shown, line.hint if line.state is None else "") if part]


def _result(line: StatusLine) -> str:
    """Return how it stands or ended, and how long it took."""
    if line.state is None:
        return " · ".join(part for part in (line.stage, format_seconds(int(line.elapsed)).replace(".0", "")) if part)
    took = f"{line.elapsed:.1f} s" if line.elapsed < 60 else format_seconds(line.elapsed)
    reason = f" ({line.reason.replace('-', ' ')})" if line.reason else ""
    words = {Final.DONE: took, Final.DETACHED: f"detached after {took}, runs on"}
    return words.get(line.state, f"{line.state.value}{reason} after {took}")
