"""A machine elsewhere, as the backend has it: the same questions as to the agent of its own machine, answered over the link.

Law: images are built here and sent there. What is heard of sandboxes there is known by `Sandboxes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from remora.errors import Refused, StateError, Unavailable
from remora.resources import SandboxSpec
from remora.states import EndReason, SandboxState
from remora.streams import Peer
from remora.wire import Fields, FollowRun, RunId, SandboxId

from ..agent import Agent, require_secrets
from ..hearing import Listener
from ..images.fitting import Fitting
from ..opening import Opening
from ..order import OWNER
from .ahead import Ahead
from .folders import Folders
from .lines import Line
from .luggage import Wanted
from .messages import AskPort, ExtendThere, OpenThere, StopThere
from .sandboxes import REACH, Sandboxes

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Elsewhere(Sandboxes):
    """One machine elsewhere."""

    def __init__(self, name: str, line: Line, here: Agent, folders: Folders, place: Path, listener: Listener) -> None:
        """Have the machine of this name; `place` gets a socket for each of its sandboxes, `here` builds images."""
        super().__init__(name, line, here.runs, place, listener)
        self._here = here
        self._ahead = Ahead(name, line.dial, self.control, here, folders)
        self._openings: dict[SandboxId, Opening] = {}

    async def open(self, sandbox: SandboxId, spec: SandboxSpec, facts: Fields, opening: Opening) -> list[str]:
        """Start a sandbox there and return the lines that its user should read."""
        require_secrets(spec, opening)
        asked = False

        async def start(fitting: Fields) -> Fields:
            nonlocal asked
            asked = True
            answer = await self.control.ask(OpenThere(sandbox, spec.to_dict(), fitting, facts, _for_sandbox(opening)))
            return dict(answer.result)

        async def stop() -> None:
            await self.control.ask(StopThere(sandbox, EndReason.STOPPED.value))

        self._ours.add(sandbox)
        self._openings[sandbox] = opening
        try:
            with self._room():
                wanted = Wanted(spec, await self._built(spec, opening), opening)
                told = await opening.during(self._ahead.open(wanted, start, stop))
                self._relay(sandbox)
                (self._place / sandbox / OWNER).write_text(str(facts.get("kernel", "")))
        except BaseException:
            self._ours.discard(sandbox)
            self._drop_relay(sandbox)
            if asked:
                self.soon(self._end_stray(sandbox))  # it may be carried out all the same
            raise
        finally:
            del self._openings[sandbox]
        self._homes.note(sandbox, spec)
        self._heard_sandbox(sandbox, SandboxState.STARTING.value, told["facts"])
        self.soon(self._hear(sandbox))
        self._homes.fetch_soon(sandbox)  # while the kernel connects
        return [*told["notices"]]

    async def _built(self, spec: SandboxSpec, opening: Opening) -> Fitting:
        """Reach the machine, build the image here, and return how a sandbox would be fitted out here."""
        await opening.during(self._line.reached(opening))
        await opening.during(self.control.begun())
        return await self._here.fit(spec, opening)

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

    async def extend(self, sandbox: SandboxId, spec: SandboxSpec, opening: Opening) -> list[str]:
        """Fit a living sandbox out with the image of this spec."""
        with self._room():
            wanted = Wanted(spec, await self._built(spec, opening), opening)
            fitting = await opening.during(self._ahead.bring(wanted))
        answer = await opening.during(self.control.ask(ExtendThere(sandbox, fitting, _for_sandbox(opening))))
        return [*answer.result["notices"]]

    async def stop(self, sandbox: SandboxId, reason: EndReason) -> None:
        """End a sandbox, and return when nothing of it is left. Raises Unavailable if the machine cannot be reached now."""
        if sandbox in self._openings:
            self._openings[sandbox].give_up()
        if not self.has(sandbox):
            return
        otherwise = f"sandbox {sandbox} goes on there; stop it when {self.name} is back"
        await self._line.reached_within(REACH, otherwise)
        if reason is EndReason.IDLE:
            await self.calls.all_home(sandbox, REACH)
        try:
            async with asyncio.timeout(REACH):
                await self.until_heard(lambda: self.control.ask(StopThere(sandbox, reason.value)))
        except TimeoutError as error:
            raise Unavailable(f"{self.name} cannot be reached: {otherwise}", reason="unreachable") from error
        if sandbox in self._burials:
            await asyncio.wait({self._burials[sandbox]}, timeout=REACH)

    async def exchange(self, sandbox: SandboxId, opening: Opening, *, whole: bool) -> Fields:
        """Bring the notebook's folder here and there to agreement. Raises Unavailable."""
        for last in (False, False, True):
            await self._line.reached_within(REACH, f"files wait until {self.name} is back", opening)
            try:
                return await self._homes.exchange(sandbox, opening.say, whole=whole)
            except Unavailable:  # the agent there was started anew over it
                if last or not self.has(sandbox):
                    raise
        raise AssertionError("unreachable")

    async def open_port(self, sandbox: SandboxId, port: int, here: int | None, path: str | None) -> Fields:
        """Open a port of a sandbox here; see `Ports.open`. The answer says also whether something `listens` there yet."""
        await self._line.reached_within(REACH, f"open the port when {self.name} is back")
        told = (await self.control.ask(AskPort(sandbox, port))).result
        if not self.has(sandbox):  # it may have ended while we asked
            raise Refused(f"the sandbox {sandbox} has ended", reason="sandbox-ended")
        return self.ports.open(sandbox, port, here, path) | {"listens": bool(told.get("listens"))}

    async def follow(self, peer: Peer, request: FollowRun) -> None:
        """Send the log of a run whose sandbox has ended. Raises Unavailable, also if the machine goes away meanwhile."""
        await self.read_log(RunId(request.run), request.after, peer.send)

    def described(self) -> Fields:
        """Return what is known of the machine and of the link to it; seconds and bytes."""
        return {"sandboxes": len(self._relays), "facts": self.control.facts, **self._line.described()}

    async def leave(self) -> None:
        """Let the agent there end, if nothing is left for it to do."""
        await self.control.leave()


def _for_sandbox(opening: Opening) -> Fields:
    return {"environment": opening.environment}
