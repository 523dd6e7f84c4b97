"""A machine elsewhere, as the backend has it: the same questions as to the agent of its own machine, answered over the link.

Law: images are built here and sent there; supervisors there are heard directly, over the link. What ends there while nobody hears
is told by the agent there. Calls come home (homecoming.py), logs of other runs stay where they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from remora import streams
from remora.errors import BackendError, Refused, RemoraError, StateError, Unavailable
from remora.resources import SandboxSpec
from remora.states import EndReason, RunState, SandboxState
from remora.streams import Peer
from remora.wire import Fields, FollowRun, Message, Record, Request, RunId, SandboxId

from ..agent import Agent, require_secrets
from ..hearing import UNFINISHED, Hearing, Listener
from ..images.fitting import Fitting
from ..opening import Opening
from ..order import OWNER
from .ahead import Ahead
from .folders import Folders
from .homecoming import Homecoming
from .homes import Homes
from .lines import Line
from .luggage import Luggage, Wanted
from .messages import AskEnd, AskPort, ExtendThere, Leave, OpenThere, StopThere, TakeUp
from .naming import naming
from .pastruns import send_past
from .ports import Ports
from .relay import Relay

_LOG = logging.getLogger(__name__)
_OURS = frozenset({"id", "kernel", "session", "identity", "spec", "on", "pool", "leaving", "used"})
"""What the backend says of a sandbox, and no machine."""
_AGAIN = 0.5
"""Seconds until the agent there is asked again."""
_REACH = 20.0
"""Seconds that a machine may take to be reached by who wants to end something there."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PATIENCE = 2.0
"""Seconds to wait for what is being heard of a machine."""
Start = Callable[[Luggage], Awaitable[Fields]]


class Elsewhere(Hearing):
    """The sandboxes that one backend has on one machine elsewhere."""

    def __init__(self, name: str, line: Line, here: Agent, folders: Folders, place: Path, listener: Listener) -> None:
        """Have the machine of this name; `place` gets a socket for each of its sandboxes, `here` builds images."""
        super().__init__(listener)
        self.name, self._line, self._here, self._folders, self._place = name, line, here, folders, place
        self._relays: dict[SandboxId, Relay] = {}
        self._homes = Homes(name, line.dial, place.parent)
        self.ports = Ports(lambda sandbox, port, sock: line.join(sock, f"port/{sandbox}/{port}"))
        self._ours: set[str] = set()
        """Sandboxes that this backend has opened there; nothing is believed of any other."""
        self._openings: dict[SandboxId, Opening] = {}
        self._burials: dict[SandboxId, asyncio.Task[None]] = {}
        self._closed = False
        self._control: Peer | None = None
        self._controlling = asyncio.Lock()
        self._ahead = Ahead(name, line.dial, here, folders)
        self._farms = ""
        self.facts: Fields = {}
        self.terms: Callable[[], Fields] = dict
        """Says what this backend wants of the machine, see terms.py."""
        self.learned: Callable[[Fields], None] = lambda facts: None
        """Told what the machine has, whenever it says so."""
        self._endings: set[asyncio.Task[None]] = set()
        self.calls = Homecoming(here.runs, self, self._homes, listener.recorded)
        """The calls that are there."""

    def endpoint(self, sandbox: SandboxId) -> Fields:
        """Return how a client on the backend's machine reaches the sandbox's supervisor."""
        return {"socket": str(self._relays[sandbox].path)}

    # -- making

    async def open(self, sandbox: SandboxId, spec: SandboxSpec, facts: Fields, opening: Opening) -> list[str]:
        """Start a sandbox there and return the lines that its user should read."""
        require_secrets(spec, opening)
        asked = False

        async def start(luggage: Luggage) -> Fields:
            nonlocal asked
            asked = True
            there = asdict(luggage.fitting_for(self._farms))
            answer = await self._ask(OpenThere(sandbox, spec.to_dict(), there, facts, _for_sandbox(opening)))
            return dict(answer.result)

        self._ours.add(sandbox)
        self._openings[sandbox] = opening
        try:
            with self._room():
                fitting = await self._built(spec, opening)
                told = await opening.during(self._opened(sandbox, start, Wanted(spec, fitting, opening)))
        except BaseException:
            self._ours.discard(sandbox)
            if asked:
                self.soon(self._end_stray(sandbox))  # it may be carried out all the same
            raise
        finally:
            del self._openings[sandbox]
        self._relay(sandbox)
        self._homes.note(sandbox, spec)
        (self._place / sandbox / OWNER).write_text(str(facts.get("kernel", "")))
        self._heard_sandbox(sandbox, SandboxState.STARTING.value, told["facts"])
        self.soon(self._hear(sandbox))
        self._homes.fetch_soon(sandbox)  # while the kernel connects
        return [*told["notices"]]

    async def _opened(self, sandbox: SandboxId, start: Start, wanted: Wanted) -> Fields:
        """Start a sandbox with what was needed last time, while it is looked what is needed now; another one if that differs."""
        before = self._ahead.before(wanted)
        if before is None:
            luggage = await self._ahead.look(wanted)
        else:
            told, luggage = await asyncio.gather(start(before), self._ahead.look(wanted))
            if "lacking" not in told:
                if before.is_same(luggage):
                    return told
                await self._ask(StopThere(sandbox, EndReason.STOPPED.value))
        told = await start(await self._ahead.bring(luggage, wanted, self._ask))
        if "lacking" in told:
            raise Unavailable(f"{self.name} does not keep what it is sent; see what it has of disk space, and try again")
        return told

    async def _built(self, spec: SandboxSpec, opening: Opening) -> Fitting:
        """Reach the machine, build the image here, and return how a sandbox would be fitted out here."""
        await opening.during(self._line.reached(opening))
        await opening.during(self._taken_up())
        return await self._here.fit(spec, opening)

    async def _end_stray(self, sandbox: SandboxId) -> None:
        """End a sandbox that nobody wants any more."""
        await self.until_heard(lambda: self._ask(StopThere(sandbox, EndReason.STOPPED.value)))

    async def exchange(self, sandbox: SandboxId, run: RunId | None, opening: Opening, *, whole: bool) -> Fields:
        """Bring the notebook's folder here and there to agreement, at the end of a run if one is named. Unavailable."""
        for last in (False, False, True):
            await self._line.reached_within(_REACH, f"files wait until {self.name} is back", opening)
            try:
                return await (self._homes.exchange(sandbox, whole=whole) if run is None else self._homes.fetch(sandbox, run))
            except Unavailable:  # the agent there was started anew over it
                if last or not self.has(sandbox):
                    raise
        raise AssertionError("unreachable")

    async def open_port(self, sandbox: SandboxId, port: int, here: int | None, path: str | None) -> Fields:
        """Open a port of a sandbox here; see `Ports.open`. The answer says also whether something `listens` there yet."""
        await self._line.reached_within(_REACH, f"open the port when {self.name} is back")
        told = (await self._ask(AskPort(sandbox, port))).result
        if not self.has(sandbox):  # it may have ended while we asked
            raise Refused(f"the sandbox {sandbox} has ended", reason="sandbox-ended")
        return self.ports.open(sandbox, port, here, path) | {"listens": bool(told.get("listens"))}

    def _unreachable(self, otherwise: str) -> Unavailable:
        return Unavailable(f"{self.name} cannot be reached: {otherwise}", reason="unreachable")

    async def extend(self, sandbox: SandboxId, spec: SandboxSpec, opening: Opening) -> list[str]:
        """Fit a living sandbox out with the image of this spec."""
        with self._room():
            wanted = Wanted(spec, await self._built(spec, opening), opening)
            luggage = await opening.during(self._ahead.look(wanted))
            luggage = await opening.during(self._ahead.bring(luggage, wanted, self._ask))
        there = asdict(luggage.fitting_for(self._farms))
        answer = await opening.during(self._ask(ExtendThere(sandbox, there, _for_sandbox(opening))))
        return [*answer.result["notices"]]

    async def stop(self, sandbox: SandboxId, reason: EndReason) -> None:
        """End a sandbox, and return when nothing of it is left. Raises Unavailable if the machine cannot be reached now."""
        if sandbox in self._openings:
            self._openings[sandbox].give_up()
        if not self.has(sandbox):
            return
        otherwise = f"sandbox {sandbox} goes on there; stop it when {self.name} is back"
        await self._line.reached_within(_REACH, otherwise)
        if reason is EndReason.IDLE:
            await self.calls.all_home(sandbox, _REACH)
        try:
            async with asyncio.timeout(_REACH):
                await self.until_heard(lambda: self._ask(StopThere(sandbox, reason.value)))
        except TimeoutError as error:
            raise self._unreachable(otherwise) from error
        if sandbox in self._burials:
            await asyncio.wait({self._burials[sandbox]}, timeout=_REACH)

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        """Say so if this machine's disk has no room for what is kept of what is sent. Raises StateError."""
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            place = self._place.parent
            raise StateError(f"{place} cannot be used ({error.strerror}); free space or set REMORA_STATE_DIR") from error

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

    # -- talking with the agent there

    async def _ask(self, request: Request) -> Any:
        with naming(self.name):
            return await (await self._taken_up()).request(request)

    async def _taken_up(self) -> Peer:
        """Return the connection to the agent there; the first thing on a new one is to hear what has become of sandboxes."""
        async with self._controlling:
            if self._control is None or self._control.gone.done():
                control = await streams.adopt(self._line.dial("agent"), lambda *_: None)
                asked = sorted(self._relays)
                try:
                    told = (await control.request(TakeUp(asked, self.terms()))).result
                except BaseException:
                    control.close()
                    raise
                self._control, self._farms, self.facts = control, told["farms"], told["facts"]
                self.learned(self.facts)
                for sandbox in asked:
                    if sandbox in told["ended"]:
                        self._ended(sandbox, told["ended"][sandbox])
                for sandbox in told["living"]:
                    if sandbox not in self._ours:
                        self.soon(self._end_stray(sandbox))
                    else:
                        self.soon(self._hear(sandbox))  # which takes as long as its supervisor likes
            return self._control

    # -- hearing

    @property
    def busy(self) -> bool:
        """True while a sandbox there is taken for living."""
        return bool(self._relays)

    def described(self) -> Fields:
        """Return what is known of the machine and of the link to it; seconds and bytes."""
        return {"sandboxes": len(self._relays), "facts": self.facts, **self._line.described()}

    async def leave(self) -> None:
        """Let the agent there end, if nothing is left for it to do."""
        if self._control is not None and not self._control.gone.done():
            with contextlib.suppress(RemoraError, TimeoutError):
                await asyncio.wait_for(self._control.request(Leave()), _PATIENCE)

    def close(self) -> None:
        """Let go of the machine; what is there goes on."""
        self._closed = True
        for task in self._endings:
            task.cancel()
        self._homes.close()
        self.ports.close()
        self._line.close()

    def owns(self, sandbox: str) -> bool:
        """Say whether the sandbox is one that this backend has opened there, and not known to have ended."""
        return sandbox in self._ours

    def has(self, sandbox: str) -> bool:
        """Say whether the sandbox lives, as far as is known."""
        return sandbox in self._relays

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
        await self.until_heard(self._taken_up)

    async def until_heard(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask the agent there, again if the link was begun anew over it; return the answer's result, None if all is over."""
        while not self._closed:
            try:
                return getattr(await ask(), "result", None)
            except Refused:
                return None
            except RemoraError:
                await asyncio.sleep(_AGAIN)
        return None

    def _relay(self, sandbox: SandboxId) -> None:
        if sandbox not in self._relays:
            self._relays[sandbox] = Relay(
                self._place / sandbox / "socket", lambda sock: self._line.join(sock, f"sandbox/{sandbox}")
            )

    async def _hear(self, sandbox: SandboxId) -> None:
        if sandbox in self._peers:
            return
        self._relay(sandbox)
        try:
            known = await self._watch(sandbox, self._line.dial(f"sandbox/{sandbox}"))
        except BackendError:
            return  # it has ended already, and `_lost` asks how
        self._tell(sandbox, known)

    def _heard_sandbox(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        super()._heard_sandbox(sandbox, state, {name: value for name, value in facts.items() if name not in _OURS})

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

    def soon(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let work go on beside, until the machine is let go of."""
        task = asyncio.get_running_loop().create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    def _lost(self, sandbox: SandboxId) -> None:
        self._peers.pop(sandbox, None)
        if not self._closed:
            self._burials[sandbox] = self.soon(self._ask_end(sandbox))
            self._burials[sandbox].add_done_callback(lambda _: self._burials.pop(sandbox, None))

    async def _ask_end(self, sandbox: SandboxId) -> None:
        """Hear what became of a sandbox whose supervisor hung up: it has ended, or the link was begun anew."""
        known = await self.until_heard(lambda: self._ask(AskEnd(sandbox)))
        if known is None:
            return
        if not known and sandbox not in self._peers:
            await self._hear(sandbox)
        elif known:
            self._ended(sandbox, known)

    def _ended(self, sandbox: SandboxId, known: Fields) -> None:
        if sandbox in self._over:
            known = {"runs": known["runs"], "state": known["state"], "facts": {}}
        for run, about in known["runs"].items():  # first, so that a backend which is killed now comes back to them
            self._note_run(sandbox, RunId(run), about["state"], about["facts"])
        for run in self._open_runs.pop(sandbox, set()):  # those that nobody there knows of any more
            if not self.calls.lost(sandbox, run):
                self._listener.run_changed(sandbox, run, RunState.ENDED.value, {"reason": EndReason.CRASHED.value})
        self._heard_sandbox(sandbox, known["state"], known["facts"])
        self._over.discard(sandbox)
        self._ours.discard(sandbox)
        self._homes.drop(sandbox)
        self.ports.close(sandbox)
        if relay := self._relays.pop(sandbox, None):
            (self._place / sandbox / OWNER).unlink(missing_ok=True)
            relay.close()

    async def follow(self, peer: Peer, request: FollowRun) -> None:
        """Send the log of a run whose sandbox has ended. Raises Unavailable, also if the machine goes away meanwhile."""
        await self.read_log(RunId(request.run), request.after, peer.send)

    async def read_log(self, run: RunId, after: int, send: Callable[[Record], None]) -> None:
        """Let `send` have the records of a run after that number whose sandbox has ended. Raises Unavailable."""
        log, otherwise = FollowRun(run, after, False), f"what run {run} printed is there; ask again when {self.name} is back"
        await send_past(send, log, lambda: self._line.dial("log"), lambda: self._line.reached_within(_REACH, otherwise))


def _for_sandbox(opening: Opening) -> Fields:
    return {"environment": opening.environment}
