"""The line to a machine: reached when something is wanted, and again as long as somebody may want more.

Law: what goes over the line waits while it is down and loses nothing; only who waits for the machine to be reached is told that
it cannot be.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from remora.errors import Refused, RemoraError, Unavailable
from remora.wire import Fields

from ..opening import Opening
from .link import Link
from .ssh import Reached
from .ssh.reaching import shown

Reach = Callable[[Opening], Awaitable[socket.socket]]
"""Reaches the machine anew and returns a stream that leads to its agent. Raises Unavailable."""
_SOONEST, _LATEST = 0.5, 30.0
"""Seconds between tries to reach a machine again."""
_LAST = 2.0
"""Seconds for a program that has ended there to say why."""
_STEADY = 5.0
"""Seconds after which a link that breaks is worth another try at once."""


class Line:
    """A link to a machine, and whatever it takes to have it carried."""

    def __init__(self, name: str, reach: Reach) -> None:
        """Nothing is reached yet."""
        self.name, self._reach = name, reach
        self._link = Link(_nobody, first=True, changed=self._changed)
        self._keeping: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._waiting: list[Opening] = []
        """Who waits: all hear what is going on, the last one is asked."""
        self._silent: Opening | None = None
        """Who has left a question unanswered."""
        self._wanted = asyncio.Event()
        """Somebody has wanted the machine since the last try began."""
        self._carried_at = 0.0

    def dial(self, target: str) -> socket.socket:
        """Return a connected socket to something there, at once."""
        sock = self._link.dial(target)
        self._see_to_it()
        return sock

    def join(self, sock: socket.socket, target: str) -> None:
        """Let a connected socket lead to something there."""
        self._link.join(target, sock)
        self._see_to_it()

    def described(self) -> Fields:
        """Return how the link is: whether it is `reached`, its `round_trip` in seconds, bytes `sent` and `received`."""
        figures = self._link.figures
        known = {"round_trip": figures.round_trip, "sent": figures.sent, "received": figures.received}
        return {"reached": self._link.carried} | known

    async def reached(self, opening: Opening) -> None:
        """Return when the machine has been reached; Unavailable, and whatever reaching raises, if it cannot be."""
        if self._link.carried:
            return
        if self._first is None or self._first.done():
            self._first = asyncio.get_running_loop().create_future()
            self._first.add_done_callback(lambda first: first.cancelled() or first.exception())
        self._waiting.append(opening)
        self._see_to_it()
        try:
            await asyncio.shield(self._first)
        finally:
            self._waiting.remove(opening)
            self._give_up_unless_wanted()

    async def reached_within(self, seconds: float, otherwise: str, opening: Opening | None = None) -> None:
        """Do the same, for so long at most, and as an answer takes. Raises Unavailable, which says what is so until then."""
        alone, opening = opening is None, opening or Opening()
        try:
            async with asyncio.timeout(seconds) as limit:

                async def ask(text: str, secret: bool) -> str | None:
                    with contextlib.suppress(RuntimeError):  # nobody waits any more
                        limit.reschedule(None)
                    try:
                        return await opening.ask(text, secret)
                    finally:
                        with contextlib.suppress(RuntimeError):
                            limit.reschedule(asyncio.get_running_loop().time() + seconds)

                await self.reached(Opening(opening.say, ask=ask))
        except TimeoutError:
            raise Unavailable(f"{self.name} cannot be reached: {otherwise}", reason="unreachable") from None
        except RemoraError as error:
            if alone:
                raise Unavailable(f"{self.name} cannot be reached: {otherwise}", reason="unreachable") from error
            raise Unavailable(f"{error}. Until that is mended, {otherwise}", reason=error.reason) from error

    def close(self) -> None:
        """Give it up; what goes over the line ends."""
        if self._keeping is not None:
            self._keeping.cancel()
        self._link.close()

    def _give_up_unless_wanted(self) -> None:
        """End an attempt that nobody waits for any more; the next one begins anew."""
        if self._keeping is not None and not (self._waiting or self._link.carried or self._link.figures.connections):
            self._keeping.cancel()
            self._keeping = self._first = None

    def _see_to_it(self) -> None:
        """Have the machine reached; a pause between two tries ends, and one that was going to follow on a try is left out."""
        self._wanted.set()
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        """Have the link carried for as long as anything goes over it."""
        pause = _SOONEST
        try:
            while True:
                error = await self._carry()
                if error is None:
                    pause = _SOONEST
                elif self._waiting and self._silent is not None and self._silent not in self._waiting:
                    continue  # whoever was asked has gone, and somebody else is there now
                else:
                    self._settle(error)
                    if not self._link.figures.connections:
                        return
                await self._rest(pause)
                pause = min(2 * pause, _LATEST)
        finally:
            if self._keeping in (None, asyncio.current_task()):
                self._settle(Unavailable(f"{self.name} was given up", reason="unreachable"))

    async def _carry(self) -> RemoraError | None:
        """Reach the machine and carry the link until that breaks; return why, if it was not carried for any time."""
        self._carried_at, self._silent = 0.0, None
        self._wanted.clear()
        try:
            sock = await self._reach(Opening(self._say, ask=self._ask))
        except RemoraError as error:
            return error
        except (OSError, ValueError) as error:
            return Unavailable(f"{self.name} cannot be reached: {error}", reason="unreachable")
        text = ""
        with sock:
            try:
                await self._link.carry(sock)
            except (RemoraError, OSError) as error:
                text = str(error)
        if self._carried_at and asyncio.get_running_loop().time() - self._carried_at > _STEADY:
            return None
        text = text or await _last_words(sock) or self._link.figures.lost
        return Unavailable(f"{self.name} was reached, but its agent does not answer: {text}", reason="machine-gone")

    def _say(self, text: str) -> None:
        for opening in self._waiting:
            opening.say(text)

    async def _ask(self, text: str, secret: bool) -> str | None:
        """Ask who waits; somebody else if they leave over it."""
        while self._waiting:
            self._silent = self._waiting[-1]
            answer = await self._silent.ask(text, secret)
            if answer is not None:
                self._silent = None
            if answer is not None or self._silent in self._waiting:
                return answer
        return None

    async def _rest(self, seconds: float) -> None:
        """Wait before the next try, unless somebody wants the machine now."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wanted.wait(), seconds)

    def _changed(self, carried: bool) -> None:
        if carried:
            self._carried_at = asyncio.get_running_loop().time()
            self._settle(None)

    def _settle(self, error: RemoraError | None) -> None:
        """Tell whoever waits for the machine."""
        if self._first is not None and not self._first.done():
            if error is None:
                self._first.set_result(None)
            else:
                self._first.set_exception(error)


async def _last_words(sock: socket.socket) -> str:
    """Return what the program there complained about before it ended, if it has."""
    if not isinstance(sock, Reached):
        return ""
    with contextlib.suppress(TimeoutError):
        return shown((await asyncio.wait_for(sock.ended(), _LAST)).said)
    return ""


def _nobody(target: str) -> socket.socket:
    raise Refused(f"nothing of {target!r} can be reached from there")
