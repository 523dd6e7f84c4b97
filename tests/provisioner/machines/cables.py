"""A line between two sockets that delays, limits, goes silent and breaks, without any rights on the machine.

Law: bytes come through in order and whole, or not at all; whoever opens a Cable closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque

_PIECE = 1 << 14


class Cable:
    """One stream between `one` and `other`, which are for the two sides of a link to carry."""

    def __init__(self, *, delay: float = 0.0, rate: float = 0.0, breaks_after: int | None = None) -> None:
        """Start; `delay` (seconds) and `rate` (bytes a second) are for each way, `breaks_after` (bytes) for both together."""
        self.one, mine = socket.socketpair()
        self.other, theirs = socket.socketpair()
        self._ours = (mine, theirs)
        self._delay, self._rate, self._left = delay, rate, breaks_after
        self._open = asyncio.Event()
        self._open.set()
        for sock in self._ours:
            sock.setblocking(False)
        self._tasks: list[asyncio.Task[None]] = []
        for source, target in ((mine, theirs), (theirs, mine)):
            queue: deque[tuple[float, bytes]] = deque()
            more = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._take(source, queue, more)))
            self._tasks.append(asyncio.create_task(self._give(target, queue, more)))

    def silence(self) -> None:
        """Let nothing through any more, and say nothing."""
        self._open.clear()

    def cut(self) -> None:
        """Break."""
        for task in self._tasks:
            task.cancel()
        for sock in self._ours:
            sock.close()

    async def close(self) -> None:
        """Break, and wait until all is gone."""
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in (self.one, self.other):
            sock.close()

    async def _take(self, source: socket.socket, queue: deque[tuple[float, bytes]], more: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        free = 0.0
        data = b"-"
        while data:
            data = await _read(source)
            free = max(free, loop.time()) + (len(data) / self._rate if self._rate else 0.0)
            queue.append((free + self._delay, data))
            more.set()
            if free > loop.time():
                await asyncio.sleep(free - loop.time())

    async def _give(self, target: socket.socket, queue: deque[tuple[float, bytes]], more: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await more.wait():
                when, data = queue.popleft()
                if when > loop.time():
                    await asyncio.sleep(when - loop.time())
                await self._open.wait()
                await loop.sock_sendall(target, data[: self._left])
                if self._left is not None:
                    self._left = max(self._left - len(data), 0)
                if self._left == 0 or not data:
                    break
                if not queue:
                    more.clear()
        self.cut()


async def _read(source: socket.socket) -> bytes:
    """Return what comes next; nothing at the end, however it came about."""
    try:
        return await asyncio.get_running_loop().sock_recv(source, _PIECE)
    except OSError:
        return b""
