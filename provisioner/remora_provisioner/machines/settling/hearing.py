"""Reads what a machine says, line by line, without taking a byte more: what follows belongs to whoever speaks next.

Law: the other side may be hostile or broken. Every wait, line and total has a bound, and what is quoted is printable.
"""

from __future__ import annotations

import asyncio
import socket

from remora.errors import Unavailable

_AT_ONCE = 1024
_LINE = 65536
_QUOTED = 300
NOISE = 1 << 20
"""Bytes that a machine may print before it says something that was asked."""


class Hearing:
    """The lines that arrive at a socket."""

    def __init__(self, sock: socket.socket, name: str = "the machine") -> None:
        """Listen at a connected socket, which is made not to block; `name` is who is heard, for complaints."""
        sock.setblocking(False)
        self._sock, self._name = sock, name
        self.last = ""
        """The last line with something in it, for a complaint."""

    async def line(self, seconds: float) -> str:
        """Return the next line without its end. Unavailable if none comes in time, it is too long, or the machine is gone."""
        try:
            async with asyncio.timeout(seconds):
                line = await self._next()
        except TimeoutError:
            raise Unavailable(f"{self._name} did not go on in time{self._after()}", reason="machine-silent") from None
        self.last = line.strip() or self.last
        return line

    async def pass_over(self, marker: str, seconds: float) -> None:
        """Read until a line is the marker: a machine prints what it likes when somebody comes. Unavailable as with `line`."""
        heard = 0
        try:
            async with asyncio.timeout(seconds):
                while (line := await self._next()) != marker:
                    self.last = line.strip() or self.last
                    heard += len(line) + 1
                    if heard > NOISE:
                        raise Unavailable(f"{self._name} does not stop talking{self._after()}", reason="machine-noise")
        except TimeoutError:
            told = f"no shell of {self._name} answered within {seconds:.0f} s{self._after()}"
            raise Unavailable(f"{told}; is something in its login files waiting for input?", reason="machine-silent") from None

    async def _next(self) -> str:
        line = b""
        while True:
            seen = await self._peek()
            if not seen:
                raise self._gone("it closed the connection")
            head, end, _ = seen.partition(b"\n")
            self._sock.recv(len(head) + len(end))
            line += head
            if end:
                return line.decode(errors="replace").rstrip("\r")
            if len(line) > _LINE:
                self.last = printable(line[:_QUOTED].decode(errors="replace"))
                raise Unavailable(f"{self._name} does not stop talking{self._after()}", reason="machine-noise")

    async def _peek(self) -> bytes:
        while True:
            try:
                return self._sock.recv(_AT_ONCE, socket.MSG_PEEK)
            except BlockingIOError:
                await _readable(self._sock)
            except OSError as error:
                raise self._gone(error.strerror or str(error)) from error

    def _gone(self, why: str) -> Unavailable:
        text = f"the connection to {self._name} was lost: {why}{self._after()}"
        return Unavailable(text, reason="machine-gone", last_words=printable(self.last))

    def _after(self) -> str:
        return f"; its last words: {printable(self.last)}" if self.last else ""


def printable(text: str) -> str:
    """Return text of a stranger's as it may be shown: short, and without what a terminal would obey."""
    if text.count("\ufffd") > len(text) // 8:
        return "something that is no text"
    return "".join(c if c.isprintable() else " " for c in text[:_QUOTED]).strip()


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
