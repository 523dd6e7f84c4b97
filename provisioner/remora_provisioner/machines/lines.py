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

Reach = Callable[[Opening], Awaitable[socket.socket]]
"""Reaches the machine anew and returns a stream that leads to its agent. Raises Unavailable."""
_SOONEST, _LATEST = 0.5, 30.0
"""Seconds between tries to reach a machine again."""
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
        self._opening = Opening()
        """Of whoever waits last: hears what is going on, and can be asked."""
        self._wanted = asyncio.Event()
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
        self._opening = opening
        self._wanted.set()
        self._see_to_it()
        await asyncio.shield(self._first)

    def close(self) -> None:
        """Give it up; what goes over the line ends."""
        if self._keeping is not None:
            self._keeping.cancel()
        self._link.close()

    def _see_to_it(self) -> None:
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
                else:
                    self._settle(error)
                    if not self._link.figures.connections:
                        return
                await self._rest(pause)
                pause = min(2 * pause, _LATEST)
        finally:
            self._settle(Unavailable(f"{self.name} was given up", reason="unreachable"))

    async def _carry(self) -> RemoraError | None:
        """Reach the machine and carry the link until that breaks; return why, if it was not carried for any time."""
        opening, self._opening = self._opening, Opening()
        self._carried_at = 0.0
        try:
            sock = await self._reach(opening)
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
        text = text or self._link.figures.lost
        return Unavailable(f"{self.name} was reached, but its agent does not answer: {text}", reason="machine-gone")

    async def _rest(self, seconds: float) -> None:
        """Wait before the next try, unless somebody wants the machine now."""
        self._wanted.clear()
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


def _nobody(target: str) -> socket.socket:
    raise Refused(f"nothing of {target!r} can be reached from there")
