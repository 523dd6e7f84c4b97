"""When the status line of a cell is worth showing, and with what on it.

Law: deciding is pure: time comes from the clock that is handed over, nothing here waits, starts a thread or knows a kernel.
Whoever drives it reports what happens, and calls `tick` at the time that `next_tick` names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import RLock
from typing import Any

from .cancelling import CancelButton
from .statusline import Bundle, Final, StatusLine, figures, render

SILENCE = 0.3  # seconds in which a running cell shows nothing, whatever it does
PATIENCE = 1.0  # seconds after which any cell shows its line
MUCH = 1_000_000  # bytes moved, above which a cell shows its line
INTERVAL = 0.34  # least seconds between two updates of a running cell: at most four in a second, the last one included

Publish = Callable[[Bundle, dict[str, Any], str, bool], None]
"""Sends a display: bundle, metadata, display id, and whether it updates what that id shows. From any thread."""


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
