"""The sandboxes that one backend has on one machine elsewhere: which of them live, and what is heard of them over the link.

Law: supervisors there are heard directly; what ended there while nobody heard is told by the agent there. Nothing is believed of
a sandbox that this backend has not opened. Calls come home (homecoming.py), logs of other runs stay where they are.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from remora.errors import BackendError
from remora.resources import SandboxSpec
from remora.states import EndReason, RunState
from remora.streams import Peer
from remora.wire import Fields, FollowRun, Message, Record, RunId, SandboxId

from ..hearing import UNFINISHED, Hearing, Listener
from ..order import DOOR, OWNER
from .control import Control
from .doors import Door
from .homecoming import Homecoming
from .homes import Homes
from .lines import Line
from .messages import AskEnd, StopThere
from .pastruns import send_past
from .ports import Ports
from .relay import Relay

_PATIENCE = 2.0
"""Seconds to wait for what is being heard of a machine."""
REACH = 20.0
"""Seconds that a machine may take to be reached by who wants something of what is there."""


class Sandboxes(Hearing):
    """What is there, as it is heard."""

    def __init__(self, name: str, line: Line, runs: Path, place: Path, listener: Listener) -> None:
        """Hear of the machine of this name; `place` gets a socket for each sandbox, `runs` the logs of calls."""
        super().__init__(listener)
        self.name, self._line, self._place = name, line, place
        self._relays: dict[SandboxId, Relay] = {}
        self._doors: dict[SandboxId, Door] = {}
        self._homes = Homes(name, line.dial, place.parent)
        self.ports = Ports(lambda sandbox, port, sock: line.join(sock, f"port/{sandbox}/{port}"))
        self.control = Control(name, lambda: line.dial("agent"), lambda: sorted(self._relays), self._taken_up)
        self._ours: set[str] = set()
        """Sandboxes that this backend has opened there."""
        self._burials: dict[SandboxId, asyncio.Task[None]] = {}
        self._closed = False
        self._endings: set[asyncio.Task[None]] = set()
        self.calls = Homecoming(runs, self, self._homes, listener.recorded)
        """The calls that are there."""

    @property
    def busy(self) -> bool:
        """True while a sandbox there is taken for living."""
        return bool(self._relays)

    def owns(self, sandbox: str) -> bool:
        """Say whether the sandbox is one that this backend has opened there, and not known to have ended."""
        return sandbox in self._ours

    def has(self, sandbox: str) -> bool:
        """Say whether the sandbox lives, as far as is known."""
        return sandbox in self._relays

    def endpoint(self, sandbox: SandboxId) -> Fields:
        """Return how a client on the backend's machine reaches the sandbox's supervisor."""
        return {"socket": str(self._relays[sandbox].path), "folder": str(self._doors[sandbox].path)}

    async def heard(self, sandbox: SandboxId) -> Peer:
        """Return the connection to a living sandbox's supervisor, when it is there again. StateError if the sandbox has ended."""
        while sandbox not in self._peers and self.has(sandbox) and not self._closed:
            waiting = {*self._endings, *filter(None, [self._burials.get(sandbox)])}
            if not waiting:
                break
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        return self.peer(sandbox)

    def ended(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        """Pass on the end of a call that is home."""
        super()._note_run(sandbox, run, state, facts)

    async def catch_up(self) -> None:
        """Hear at once what supervisors there would tell in a moment, and what is still being taken up."""
        if self._endings:
            await asyncio.wait(self._endings, timeout=_PATIENCE)
        await super().catch_up()

    def take_up_soon(self, sandboxes: Mapping[SandboxId, SandboxSpec]) -> None:
        """Take up what lived when the backend went away, as soon as the machine is reached; it is taken for living until then."""
        for sandbox, spec in sandboxes.items():
            self._ours.add(sandbox)
            self._relay(sandbox)
            self._homes.note(sandbox, spec)
        self.soon(self.take_up())

    async def take_up(self) -> None:
        """Hear what has become of the sandboxes that are expected there."""
        await self.until_heard(self.control.begun)

    async def until_heard(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask the agent there, again if the link was begun anew over it; see `Control.until_heard`."""
        return await self.control.until_heard(ask)

    async def read_log(self, run: RunId, after: int, send: Callable[[Record], None]) -> None:
        """Let `send` have the records of a run after that number whose sandbox has ended. Raises Unavailable."""
        log, otherwise = FollowRun(run, after, False), f"what run {run} printed is there; ask again when {self.name} is back"
        await send_past(send, log, lambda: self._line.dial("log"), lambda: self._line.reached_within(REACH, otherwise))

    def soon(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let work go on beside, until the machine is let go of."""
        task = asyncio.get_running_loop().create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    def close(self) -> None:
        """Let go of the machine; what is there goes on."""
        self._closed = True
        self.control.close()
        for task in self._endings:
            task.cancel()
        self._homes.close()
        self.ports.close()
        self._line.close()

    # -- hearing

    def _taken_up(self, told: Fields) -> None:
        """Take note of what has become of sandboxes there."""
        for sandbox, known in told["ended"].items():
            if sandbox in self._relays:
                self._ended(sandbox, known)
        for sandbox in told["living"]:
            if sandbox not in self._ours:
                self.soon(self._end_stray(sandbox))
            else:
                self.soon(self._hear(sandbox))  # which takes as long as its supervisor likes

    async def _end_stray(self, sandbox: SandboxId) -> None:
        """End a sandbox that nobody wants any more."""
        await self.until_heard(lambda: self.control.ask(StopThere(sandbox, EndReason.STOPPED.value)))

    def _relay(self, sandbox: SandboxId) -> None:
        if sandbox not in self._relays:
            self._relays[sandbox] = Relay(
                self._place / sandbox / "socket", lambda sock: self._line.join(sock, f"sandbox/{sandbox}")
            )
            homes = self._homes
            self._doors[sandbox] = Door(
                self._place / sandbox / DOOR,
                lambda: homes.is_at_rest(sandbox),
                lambda run, waiting: homes.is_home(sandbox, run, waiting),
            )

    def _drop_relay(self, sandbox: SandboxId) -> None:
        """Leave nothing of the way to a sandbox that could not be opened, which may be half made."""
        for end in (self._relays.pop(sandbox, None), self._doors.pop(sandbox, None)):
            if end is not None:
                end.close()
        shutil.rmtree(self._place / sandbox, ignore_errors=True)

    async def _hear(self, sandbox: SandboxId) -> None:
        if sandbox in self._peers:
            return
        self._relay(sandbox)
        try:
            known = await self._watch(sandbox, self._line.dial(f"sandbox/{sandbox}"))
        except BackendError:
            return  # it has ended already, and `_lost` asks how
        self._tell(sandbox, known)

    def _heard(self, sandbox: SandboxId, message: Message) -> None:
        if isinstance(message, Record):
            self.calls.take(message)
        else:
            super()._heard(sandbox, message)

    def _note_run(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        if facts.get("form") == "call" and self.calls.note(sandbox, run, state, facts):
            return
        super()._note_run(sandbox, run, state, facts)
        if state not in UNFINISHED and sandbox in self._peers:
            self._homes.ended(sandbox, run)

    def _lost(self, sandbox: SandboxId) -> None:
        self._peers.pop(sandbox, None)
        if not self._closed:
            self._burials[sandbox] = self.soon(self._ask_end(sandbox))
            self._burials[sandbox].add_done_callback(lambda _: self._burials.pop(sandbox, None))

    async def _ask_end(self, sandbox: SandboxId) -> None:
        """Hear what became of a sandbox whose supervisor hung up: it has ended, or the link was begun anew."""
        known = await self.until_heard(lambda: self.control.ask(AskEnd(sandbox)))
        if known is None:
            return
        if not known and sandbox not in self._peers:
            await self._hear(sandbox)
        elif known:
            self._ended(sandbox, known)

    def _ended(self, sandbox: SandboxId, known: Fields) -> None:
        if sandbox in self._over:
            known = {"runs": known["runs"], "state": known["state"], "facts": {}}
        working = bool(self._open_runs.get(sandbox))
        for run, about in known["runs"].items():  # first, so that a backend which is killed now comes back to them
            self._note_run(sandbox, RunId(run), about["state"], about["facts"])
        for run in self._open_runs.pop(sandbox, set()):  # those that nobody there knows of any more
            if not self.calls.lost(sandbox, run):
                self._listener.run_changed(sandbox, run, RunState.ENDED.value, {"reason": EndReason.CRASHED.value})
        self._heard_sandbox(sandbox, known["state"], known["facts"])
        self._over.discard(sandbox)
        self.ports.close(sandbox)
        if relay := self._relays.pop(sandbox, None):
            (self._place / sandbox / OWNER).unlink(missing_ok=True)
            relay.close()
        self.soon(self._let_go(sandbox, working=working))

    async def _let_go(self, sandbox: SandboxId, *, working: bool) -> None:
        """Forget a sandbox that has ended, when its files are home."""
        await self._homes.last(sandbox, working=working)
        self._ours.discard(sandbox)
        if door := self._doors.pop(sandbox, None):
            door.close()
