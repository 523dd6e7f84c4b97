"""The line to a machine: reached when something is wanted, and again as long as somebody may want more.

Law: what goes over the line waits while it is down and loses nothing; only who waits for the machine to be reached is told that
it cannot be.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from remora.errors import Refused, RemoraError
from remora.wire import Fields

from ..opening import Opening
from .link import Link

Reach = Callable[[Opening], Awaitable[socket.socket]]
"""Reaches the machine anew and returns a stream that leads to its agent. Raises Unavailable."""
_SOONEST, _LATEST = 0.5, 30.0
"""Seconds between tries to reach a machine again."""


class Line:
    """A link to a machine, and whatever it takes to have it carried."""

    def __init__(self, name: str, reach: Reach) -> None:
        """Nothing is reached yet."""
        self.name, self._reach = name, reach
        self._link = Link(_nobody, first=True)
        self._keeping: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    def dial(self, target: str) -> socket.socket:
        """Return a connected socket to something there, at once."""
        sock = self._link.dial(target)
        self._see_to_it(Opening())
        return sock

    def join(self, sock: socket.socket, target: str) -> None:
        """Let a connected socket lead to something there."""
        self._link.join(target, sock)
        self._see_to_it(Opening())

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
        self._see_to_it(opening)
        await asyncio.shield(self._first)

    def _see_to_it(self, opening: Opening) -> None:
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().create_task(self._keep(opening))

    def close(self) -> None:
        """Give it up; what goes over the line ends."""
        if self._keeping is not None:
            self._keeping.cancel()
        self._link.close()

    async def _keep(self, opening: Opening) -> None:
        """Have the link carried for as long as anything goes over it."""
        pause = _SOONEST
        while True:
            try:
                sock = await self._reach(opening)
            except RemoraError as error:
                self._arrived(error)
                if not self._link.figures.connections:
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LATEST)
                continue
            opening, pause = Opening(), _SOONEST
            self._arrived(None)
            with sock, contextlib.suppress(RemoraError, OSError):  # it broke: reach it again
                await self._link.carry(sock)

    def _arrived(self, error: RemoraError | None) -> None:
        if self._first is not None and not self._first.done():
            if error is None:
                self._first.set_result(None)
            else:
                self._first.set_exception(error)


def _nobody(target: str) -> socket.socket:
    raise Refused(f"nothing of {target!r} can be reached from there")
