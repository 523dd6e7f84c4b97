"""The status line of a cell: its facts, how they look, and when they are worth showing.

Law: deciding is pure: time comes from the clock that is handed over, nothing here waits, starts a thread or knows a kernel.
Whoever drives it reports what happens, and calls `tick` at the time that `next_tick` names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cache
from html import escape
from importlib.util import find_spec
from threading import RLock
from typing import Any, Protocol

from ..resources import format_bytes, format_seconds

SILENCE = 0.3  # seconds in which a running cell shows nothing, whatever it does
PATIENCE = 1.0  # seconds after which any cell shows its line
MUCH = 1_000_000  # bytes moved, above which a cell shows its line
INTERVAL = 0.34  # least seconds between two updates of a running cell: at most four in a second, the last one included

Bundle = dict[str, Any]
Publish = Callable[[Bundle, dict[str, Any], str, bool], None]
"""Sends a display: bundle, metadata, display id, and whether it updates what that id shows. From any thread."""


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


# ---- how it looks ----------------------------------------------------------------------------------------------------------

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


# ---- when it is shown ------------------------------------------------------------------------------------------------------


def earns(line: StatusLine) -> bool:
    """Tell whether the line is to be seen: the cell takes long, moves much, needs a word, or came to a bad end."""
    failed = line.state not in (None, Final.DONE, Final.DETACHED)
    return failed or bool(line.hint) or line.elapsed >= PATIENCE or line.sent + line.fetched > MUCH


def next_change(line: StatusLine, shown_at: float | None, changed: bool) -> float:
    """Return the elapsed seconds at which a running cell's line is to be shown next, if nothing else happens."""
    if shown_at is None:
        return SILENCE if earns(replace(line, elapsed=0.0)) else PATIENCE
    if changed:
        return shown_at + INTERVAL
    step = 60 if line.elapsed >= 3600 else 1
    return max(shown_at + INTERVAL, (line.elapsed // step + 1) * step)


class Progress:
    """Follows one cell, and publishes its line when that is due. Every method may be called from any thread."""

    def __init__(
        self, line: StatusLine, publish: Publish, clock: Callable[[], float], display_id: str, cancel: CancelButton | None = None
    ) -> None:
        """Start now; `cancel` is shown beside the line of a cell that takes long."""
        self.line = line
        self._publish, self._clock, self._display_id, self._cancel = publish, clock, display_id, cancel
        self._lock = RLock()
        self._began = clock()
        self._shown_at: float | None = None
        self._changed = self._displayed = False
        self._hinted = ""  # what the text beside the widget says, too: the user should read it wherever the line is shown
        self._held = False  # while what is shown would wipe out output that the cell keeps until its next

    @property
    def figures(self) -> dict[str, Any]:
        """Return what is known now as plain JSON values, for the cell's metadata, whether the line was shown or not."""
        return figures(self.line)

    def stage(self, name: str, seconds: float | None = None) -> None:
        """Enter a stage, `seconds` after the start; by default now."""
        new = {name: self._clock() - self._began if seconds is None else seconds} if name else {}
        self._change(stage=name, stages={**self.line.stages, **new})

    def stage_words(self, name: str, words: str) -> None:
        """Enter a stage and say more about it, or only say something else about the present one."""
        with self._lock:
            new = {} if name in self.line.stages else {name: self._clock() - self._began}
            self._change(stage=words or name, stages={**self.line.stages, **new})

    def place(self, **facts: str) -> None:
        """Set what is known of the place, by the names of StatusLine: machine, session, jail, gpu, cost, message."""
        self._change(**facts)

    def sent(self, count: int) -> None:
        """Add bytes that went there."""
        with self._lock:
            self._change(sent=self.line.sent + count)

    def fetched(self, count: int) -> None:
        """Add bytes that came home."""
        with self._lock:
            self._change(fetched=self.line.fetched + count)

    def hint(self, words: str) -> None:
        """Say what the user can do now; an empty text takes it back."""
        self._change(hint=words)

    def cleared(self, wait: bool = False) -> None:
        """Learn that the cell clears its output, the line with it; with `wait` that happens at its next output."""
        with self._lock:
            self._held = wait
            self._displayed = self._displayed and wait

    def output(self) -> None:
        """Learn that the cell has shown something; needed only after `cleared(wait=True)`, harmless at any time."""
        with self._lock:
            self._displayed = self._displayed and not self._held
            self._held = False

    def tick(self, now: float) -> None:
        """Publish the line if that is due at this time of the clock."""
        with self._lock:
            due = self.next_tick(now)
            if due is not None and due <= now:
                self.line = replace(self.line, elapsed=now - self._began)
                self._show()

    def next_tick(self, now: float) -> float | None:
        """Return the time of the clock at which `tick` has something to do, or None if it never will."""
        with self._lock:
            if self.line.state is not None or self._held:
                return None
            line = self.line if self._shown_at is not None else replace(self.line, elapsed=now - self._began)
            return self._began + next_change(line, self._shown_at, self._changed)

    def finish(self, state: Final, reason: str = "", *, aside: bool = False) -> bool:
        """State the result, once, in the place of the line or, if only now earned, anew; return whether it is shown.

        `aside`: having failed alone earns no line of its own, since the caller states it with the failure.
        """
        with self._lock:
            if self.line.state is not None:
                return True
            took = self._clock() - self._began
            self.line = replace(self.line, state=state, reason=reason, elapsed=took, hint="")
            shown = self._shown_at is not None or earns(replace(self.line, state=None) if aside else self.line)
            if shown:
                self._show()
            if self._cancel is not None:
                self._cancel.close()
            return shown

    def _change(self, **facts: Any) -> None:
        with self._lock:
            if self.line.state is not None:
                return
            self.line = replace(self.line, **facts)
            self._changed = True
            self.tick(self._clock())

    def _show(self) -> None:
        bundle, metadata = render(self.line)
        running = self.line.state is None
        self._shown_at, self._changed = self.line.elapsed, False
        if self._cancel is not None and running and self.line.elapsed >= PATIENCE:
            if self._cancel.opened and self._displayed and self.line.hint == self._hinted:
                self._cancel.update(bundle["text/html"])
                return
            self._hinted = self.line.hint
            bundle |= self._cancel.open(bundle["text/html"])
        self._publish(bundle, metadata, self._display_id, self._displayed)
        self._displayed = True


# ---- Cancel ----------------------------------------------------------------------------------------------------------------


class Comms(Protocol):
    """Hears what front ends say while a cell runs; listening.py has the real ones."""

    def serve(self, comm: str, handle: Callable[[dict[str, Any]], None]) -> None:
        """Have what is said to this comm handled at once."""

    def forget(self, comm: str) -> None:
        """Take note that the comm is closed."""


class CancelButton:
    """A line with a button, as a widget in the same display: gone from the notebook as soon as the result takes its place."""

    def __init__(self, on_click: Callable[[], object], comms: Comms | None = None) -> None:
        self._on_click, self._comms = on_click, comms
        self._box: Any = None

    @property
    def opened(self) -> bool:
        """Tell whether the widget is there."""
        return self._box is not None

    def open(self, line: str) -> Bundle:
        """Make the widget around this HTML, if there is none, and return the part of a mime bundle that shows it."""
        if self._box is None:
            self._make(line)
        view = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
        return {"application/vnd.jupyter.widget-view+json": view}

    def _make(self, line: str) -> None:
        import ipywidgets  # costs 0.2 s and is needed for slow cells only

        button = ipywidgets.Button(
            description="Cancel", tooltip="End this cell's run", layout={"width": "auto", "height": "24px"}
        )
        button.on_click(self._clicked)
        self._box = ipywidgets.HBox([ipywidgets.HTML(line), button])
        if self._comms is not None:
            self._comms.serve(button.model_id, self._heard)

    def _heard(self, message: dict[str, Any]) -> None:
        """Take what the button's view says, past the kernel's own way, which a running cell may block."""
        box, said = self._box, message["content"].get("data", {}).get("content")
        if box is not None and isinstance(said, dict) and said.get("event") == "click":
            box.children[1].click()

    def update(self, line: str) -> None:
        """Show other HTML beside the button."""
        self._box.children[0].value = line

    def close(self) -> None:
        """Take the widget away; safe twice."""
        box, self._box = self._box, None
        for widget in (*box.children, box) if box is not None else ():
            if self._comms is not None:
                self._comms.forget(widget.model_id)
            widget.close()

    def _clicked(self, button: Any) -> None:
        button.disabled, button.description = True, "Cancelling…"
        self._on_click()


def cancel_widget(on_click: Callable[[], object], *, live: bool, comms: Comms | None = None) -> CancelButton | None:
    """Return a Cancel button if widgets are `live` while a cell runs here and ipywidgets can be imported, else None."""
    return CancelButton(on_click, comms) if live and _has_widgets() else None


@cache
def _has_widgets() -> bool:
    return find_spec("ipywidgets") is not None
