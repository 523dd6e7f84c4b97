"""One run as its supervisor sees it: its state, its log and its followers. Everything that is shown goes through `record`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remora.errors import Refused, RemoraError, StateError
from remora.states import ENDED, RUN_TABLE, EndReason, RunEvent, RunState, advance
from remora.streams import Peer
from remora.wire import Buffer, Fields, Record, Request, RunId, StartRun

from .masking import Mask, Veil
from .runlog import Follower, RunLog

LOG_NAME = "log"
_LATE = 0.5
"""Seconds that text which may be half of a secret waits for the rest when its run has ended."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class AwaitEnd(Request):
    """Asks a supervisor; answered when the run has ended, which need not have begun."""

    run: RunId


def run_folder(runs: Path, run: str) -> Path:
    """Return the folder of a run's log; Refused for an id that would lead elsewhere, since sandboxes may make them up."""
    if not _PLAIN_NAME.fullmatch(run):
        raise Refused(f"{run!r} is no id of a run; letters, digits, - and _ make one", reason="no-such-run")
    return runs / run


class SpareLog:
    """An empty log in a folder of its own, made ahead of the next run: making files takes longer than running a small cell."""

    def __init__(self, place: Path) -> None:
        """Make it in `place`, which is on the file system of the run logs."""
        self._place = place
        self._log: RunLog | None = None

    def prepare(self) -> None:
        """Make it if there is none; where there is no room, the next run will say so."""
        if self._log is None:
            with contextlib.suppress(StateError):
                self._log = RunLog(self._place / LOG_NAME)

    def take(self, folder: Path) -> RunLog:
        """Return the log of a run in its folder, new or continued. Raises StateError if it cannot be written."""
        log, self._log = self._log, None
        if log is not None:
            try:
                os.rename(self._place, folder)
            except OSError:  # a call's folder is there already, with its input
                log.close()
            else:
                log.path = folder / LOG_NAME
                return log
        return RunLog(folder / LOG_NAME)

    def close(self) -> None:
        """Close it; safe twice."""
        if self._log is not None:
            self._log.close()
            self._log = None


class SupervisedRun:
    """A run that a sandbox has taken; it stays known after its end, for late output and late followers."""

    def __init__(self, request: StartRun, log: RunLog, changed: Callable[[SupervisedRun], None], mask: Mask) -> None:
        """Keep the run's log, into which nothing is written before `note_queued`."""
        self.id = RunId(request.run)
        self.name, self.form = mask.text(request.name), request.form
        self.request: StartRun | None = request
        self.state = RunState.QUEUED
        self.cut: EndReason | None = None
        self.limit: float | None = request.body.get("timeout")
        """Seconds after its start at which the run ends with the reason "timeout"."""
        self.cell_limit: float | None = request.body.get("cell_timeout")
        """Seconds that one cell of a notebook may take before the run ends so."""
        self._deadline: asyncio.TimerHandle | None = None
        self._cell_deadline: asyncio.TimerHandle | None = None
        self.facts: dict[str, Any] = {"name": self.name, "form": request.form, "queued": time.time()}
        self._changed = changed
        self._followers: set[Follower] = set()
        self._log, self._path, self._veil = log, log.path, Veil(mask)
        self._late: asyncio.TimerHandle | None = None
        self._warned = False

    def note_queued(self) -> None:
        """Write down that the run is queued, and tell the watchers."""
        self.record("state", {"state": self.state.value, **self.facts})
        self._changed(self)

    @property
    def ended(self) -> bool:
        """True when the run has come to an end, its own or another."""
        return self.state in ENDED

    def call_after(self, seconds: float, function: Callable[..., None], *arguments: object) -> None:
        """Have a function called unless the run ends before; it takes the place of the one before."""
        self._deadline = _replaced(self._deadline, seconds, function, *arguments)

    def time_cell(self, content: Fields, late: Callable[[], None]) -> None:
        """Have `late` called when the cell of a notebook that starts now takes too long; one that ends is in time."""
        if self.cell_limit:
            limit = self.cell_limit if content.get("status") == "started" else None
            self._cell_deadline = _replaced(self._cell_deadline, limit, late)

    def record(self, kind: str, content: Fields, buffers: tuple[Buffer, ...] = ()) -> None:
        """Append to the log, then send to who follows."""
        entry = Record(self.id, self._log.seq + 1, time.time(), kind, content, buffers=buffers)
        pieces = self._log.append(entry)
        for follower in self._followers:
            follower.push(entry, pieces, self._log.size)
        self._log.sync_soon()
        if self._log.trouble and not self._warned:
            self._warned = True
            self.record(
                "notice",
                {"text": f"run log: {self._log.trouble}; output goes on, but is kept only in memory until there is room"},
            )

    def take(self, kind: str, content: Fields, buffers: tuple[Buffer, ...] = ()) -> None:
        """Record what the guest has to say of the run, without the values of secrets."""
        for masked in self._veil.through(kind, content):
            self.record(kind, masked, self._veil.over(buffers))
        if self.ended and self._late is None:  # no end will come that lets out what waits
            self._late = asyncio.get_running_loop().call_later(_LATE, self._let_out)

    def _let_out(self) -> None:
        """Record text that might have been the beginning of a secret, and was not."""
        self._late = _replaced(self._late, None)
        for content in self._veil.rest():
            self.record("output", content)

    def advance(self, event: RunEvent, **facts: Any) -> None:
        """Change the state, write it down, and tell the watchers."""
        if self.state in ENDED:
            return
        self.state = advance(RUN_TABLE, self.state, event)
        self.facts |= facts | {"started" if self.state is RunState.RUNNING else "ended": time.time()}
        if self.state in ENDED:
            self.request = None
            for timer in (self._deadline, self._cell_deadline):
                _replaced(timer, None)
        self.record("state", {"state": self.state.value, **facts})
        self._changed(self)

    def finish(self, content: Fields, buffers: tuple[Buffer, ...] = ()) -> None:
        """Take the guest's result: the run's own end, unless it was cut before."""
        self._let_out()
        self.take("result", content, buffers)
        if content.get("ok"):
            self.advance(RunEvent.SUCCEEDED)
        else:
            self.advance(RunEvent.RAISED, reason=content.get("reason") or "error")

    def end(self, reason: EndReason, error: RemoraError) -> None:
        """End the run before its code did."""
        if not self.ended:
            self._let_out()
            self.record("result", {"ok": False, "reason": reason.value, "ended": error.to_dict()})
            self.advance(RunEvent.CUT, reason=reason.value)

    async def follow(self, peer: Peer, after: int, ended: Callable[[], bool]) -> None:
        """Send the peer every record after that number, until it has all and `ended` says so, or the peer is gone."""
        follower = Follower(peer, self._path, after, ended, self._log.held)
        self._followers.add(follower)
        try:
            await follower.run()
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """Close the log."""
        self._let_out()
        self._log.close()


def _replaced(
    timer: asyncio.TimerHandle | None, seconds: float | None, function: Callable[..., None] | None = None, *arguments: object
) -> asyncio.TimerHandle | None:
    """Cancel a timer and return the one in its place, if any."""
    if timer is not None:
        timer.cancel()
    if seconds is None or function is None:
        return None
    return asyncio.get_running_loop().call_later(seconds, function, *arguments)
