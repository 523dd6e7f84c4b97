"""Calls on another machine come home: their logs are copied here as they grow, and their files before their end is told.

Law: a record is in the copy before anybody hears of it. Whoever follows a call elsewhere finds here what he finds of one that ran
here. What is half copied bears a mark, so that the next backend goes on with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from remora.errors import BackendError, Refused, RemoraError, RunEnded, StateError
from remora.states import ENDED, EndReason, RunState
from remora.streams import Peer
from remora.wire import Fields, FollowRun, Record, RunId, SandboxId, StartRun

from .. import recovery
from ..hearing import UNFINISHED
from ..runlog import RunLog
from ..runs import LOG_NAME, run_folder
from .homes import Homes

_LOG = logging.getLogger(__name__)
_MARK = "coming"
"""The file in a run's folder that names the sandbox from which its log is still coming."""


class Origin(Protocol):
    """The machine that calls come home from."""

    async def heard(self, sandbox: SandboxId) -> Peer:
        """Return the connection to a living sandbox's supervisor, when it is there again. StateError if the sandbox has ended."""

    def present(self, sandbox: SandboxId) -> Peer | None:
        """Return the connection to a sandbox's supervisor; None if there is none now."""

    async def read_log(self, run: RunId, after: int, send: Callable[[Record], None]) -> None:
        """Let `send` have the records of a run after that number whose sandbox has ended. Raises Unavailable."""

    async def until_heard(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Do what is asked of the machine, again if the link was begun anew over it."""

    def ended(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        """Pass on the end of a call that is home."""

    def soon(self, work: Coroutine[Any, Any, None]) -> object:
        """Let work go on beside."""


def coming_from(runs: Path, run: RunId) -> SandboxId | None:
    """Return the sandbox that a call was handed to and is still to come home from; None for any other run."""
    try:
        return SandboxId((run_folder(runs, run) / _MARK).read_text())
    except (OSError, Refused, TypeError):  # the name of the run may be anything
        return None


def _makes_sense(record: Any) -> bool:
    """Say whether an entry from a machine that may say anything is one that a log can have."""
    if not isinstance(record.content, dict) or not isinstance(record.at, (int, float)):
        return False
    return bool(record.type != "state" or str(record.content.get("state")) in {state.value for state in RunState})


@dataclass
class _Copy:
    run: RunId
    sandbox: SandboxId
    log: RunLog
    follows: object = None
    """The connection over which the records come."""
    last: Record | None = None
    """The record of the run's end, which waits until all else is here."""
    end: tuple[str, Fields] | None = None
    home: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def seq(self) -> int:
        """Return the number of the last record that has come."""
        return self.log.seq if self.last is None else self.last.seq


class Homecoming:
    """The calls that are on one machine, or on their way home from it."""

    def __init__(self, runs: Path, origin: Origin, homes: Homes, record: Callable[[Record], None]) -> None:
        """Copy logs into folders below `runs`; `record` takes entries, and (numbered below 0) lines for who waits."""
        self._runs, self._origin, self._homes, self._record = runs, origin, homes, record
        self._copies: dict[RunId, _Copy] = {}

    async def hand_over(self, sandbox: SandboxId, start: StartRun) -> None:
        """Start a call there, once, whatever becomes of the link.

        Raises StateError if the sandbox ended before it took the call, or if the copy of its log cannot be written.
        """
        run = RunId(start.run)
        log = RunLog(run_folder(self._runs, run) / LOG_NAME)
        copy = self._copies[run] = _Copy(run, sandbox, log)
        try:
            (self._runs / run / _MARK).write_text(sandbox)
            while not await self._handed_over(copy, await self._origin.heard(sandbox), start):
                pass
        except (RemoraError, OSError) as error:
            if copy.end is None and copy.seq < 0:
                self.forget(run)
                raise error if isinstance(error, RemoraError) else StateError(f"{log.path} cannot be written: {error}") from error

    async def _handed_over(self, copy: _Copy, peer: Peer, start: StartRun) -> bool:
        """Say whether the supervisor has the call; False: the link was begun anew over it."""
        copy.follows = peer  # who starts a run is sent its records
        try:
            await peer.request(start)
        except Refused as error:
            if error.reason != "run-exists":
                raise
            copy.follows = None
            self._see_to(copy)
        except BackendError:
            if not peer.gone.done():
                raise
            return False
        return True

    def forget(self, run: RunId) -> None:
        """Expect a call no more: nobody took it, or nobody wants it."""
        if copy := self._copies.pop(run, None):
            copy.log.close()
            copy.home.cancel()
            (self._runs / run / _MARK).unlink(missing_ok=True)

    def take(self, record: Record) -> None:
        """Take what came of a call, each record once and in order."""
        copy = self._copies.get(record.run)
        if copy is None or copy.last is not None or record.seq != copy.seq + 1 or not _makes_sense(record):
            return
        if record.type == "state" and RunState(record.content["state"]) in ENDED:
            copy.last = record
            self._settle(copy)
        else:
            copy.log.append(record)
            self._record(record)

    def note(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> bool:
        """Take what a machine says of a run; say whether its end is told later, when it is home."""
        copy = self._copies.get(run) or self._reopened(sandbox, run)
        if copy is None or copy.sandbox != sandbox:
            return False
        if state not in UNFINISHED:
            copy.end = (state, facts)
            self._settle(copy)
        self._see_to(copy)
        return copy.end is not None

    def lost(self, sandbox: SandboxId, run: RunId) -> bool:
        """Take note that nobody there knows of a run any more; say whether its end is told later, or has been now."""
        copy = self._copies.get(run) or self._reopened(sandbox, run)
        if copy is not None and copy.end is None:
            self._give_up(copy)
        return copy is not None

    async def all_home(self, sandbox: SandboxId, seconds: float) -> None:
        """Return when the calls are home that have ended in a sandbox, or after so long."""
        coming = [copy.home for copy in self._copies.values() if copy.sandbox == sandbox and copy.end is not None]
        if coming:
            await asyncio.wait(coming, timeout=seconds)

    def _reopened(self, sandbox: SandboxId, run: RunId) -> _Copy | None:
        """Go on with what an earlier backend has begun to copy."""
        if coming_from(self._runs, run) != sandbox:
            return None
        copy = self._copies[run] = _Copy(run, sandbox, RunLog(self._runs / run / LOG_NAME))
        return copy

    def _see_to(self, copy: _Copy) -> None:
        """Have the records come, unless they do."""
        if copy.last is not None:
            return
        peer = self._origin.present(copy.sandbox)
        if copy.follows is not (peer or self):
            copy.follows = peer or self
            self._origin.soon(self._read(copy) if peer is None else self._follow(copy, peer))

    async def _follow(self, copy: _Copy, peer: Peer) -> None:
        try:
            await peer.request(FollowRun(copy.run, copy.seq))
        except RemoraError as error:  # the sandbox is heard again, or has ended, and this run is noted again
            _LOG.info("the log of %s does not come now: %s", copy.run, error)

    async def _read(self, copy: _Copy) -> None:
        """Read the log of a run whose sandbox has ended; one without an end gets it here."""
        if copy.end is None:
            copy.follows = None
            return
        await self._origin.until_heard(lambda: self._origin.read_log(copy.run, copy.seq, self.take))
        if copy.last is None:
            self._give_up(copy)

    def _give_up(self, copy: _Copy) -> None:
        self.forget(copy.run)
        text = "the machine knows nothing of this call any more"
        end = recovery.finish(self._runs, copy.run, RunEnded(text, reason=EndReason.CRASHED.value))
        self._origin.ended(copy.sandbox, copy.run, *end)

    def _settle(self, copy: _Copy) -> None:
        if copy.last is not None and copy.end is not None:
            self._origin.soon(self._come_home(copy, copy.last, *copy.end))

    async def _come_home(self, copy: _Copy, last: Record, state: str, facts: Fields) -> None:
        """Have the files come, then tell of the end."""
        if self._copies.get(copy.run) is not copy:
            return
        if self._origin.present(copy.sandbox) is not None:
            await self.exchange(copy.sandbox, copy.run)
        if self._copies.get(copy.run) is copy:
            copy.log.append(last)
            self.forget(copy.run)
            self._record(last)
            self._origin.ended(copy.sandbox, copy.run, state, facts)

    async def exchange(self, sandbox: SandboxId, run: RunId) -> None:
        """Bring the folder to agreement before or after a call, and tell who waits for it what has moved."""
        try:
            line = await self._homes.agree(sandbox)
        except (RemoraError, OSError) as error:
            line = f"files were not exchanged: {error}"
        if line:
            self._record(Record(run, -1, time.time(), "notice", {"text": line}))
