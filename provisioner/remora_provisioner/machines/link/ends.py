"""The local end of one connection of a link: a Unix socket whose other end somebody here reads and writes.

Law: asyncio, non-blocking sockets only. Nothing is read that the link does not take, and bytes count as read when the socket has
taken them, so that one slow reader holds up nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice

from remora.wire import Buffer

from .core import Bundle
from .pace import CHUNK

_READS, _PIECES = 8, 64
_USUAL = 1 << 15  # bytes that are read at once of who does not send much
_QUEUE = 1 << 20  # bytes in the system: so many go before the reader has to be waited for


class End:
    """One socket, between its reader here and its connection over there."""

    def __init__(
        self, number: int, sock: socket.socket, bundle: Bundle, moved: Callable[[], None], closed: Callable[[int], None]
    ) -> None:
        """Own the socket; say `moved` when the bundle was given something to send, `closed` once the socket is closed."""
        self.number, self.target = number, ""
        self.gone = False
        self._sock, self._bundle, self._moved, self._closed = sock, bundle, moved, closed
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Buffer] = deque()
        self._new = 0
        self._room = _USUAL
        self._reading = self._writing = False
        self._read_all = self._finished = self._closing = False
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE)
        self.resume()

    # -- from here to there

    def resume(self) -> None:
        """Read again."""
        if not (self._reading or self._read_all or self._closing or self.gone):
            self._reading = True
            self._loop.add_reader(self._sock, self._readable)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                self._read_some()
            except ConnectionError:
                self._end_reading()
        self._moved()

    def _read_some(self) -> None:
        for _ in range(_READS):
            data = self._sock.recv(self._room)
            if not data:
                self._end_reading()
                return
            full, self._room = len(data) == self._room, CHUNK if len(data) >= _USUAL else _USUAL
            if not self._bundle.send(self.number, data):
                self._pause()
                return
            if not full:
                return

    def _end_reading(self) -> None:
        self._pause()
        self._read_all = True
        self._bundle.finish(self.number)
        self._settle()

    # -- from there to here

    def arrived(self, data: Buffer) -> None:
        """Take bytes that have come; a view is good until `flush` returns."""
        self._waiting.append(data)
        self._new += 1

    def finish(self) -> None:
        """Let the reader see the end, behind all that has come."""
        self._finished = True

    def close_soon(self) -> None:
        """Close the socket behind all that has come; what its reader still writes goes nowhere."""
        self._closing = True
        self._pause()

    def flush(self) -> None:
        """Give the reader what it takes, and keep the rest."""
        if not self._writing:
            self._write()
        for back in range(1, min(self._new, len(self._waiting)) + 1):
            if isinstance(view := self._waiting[-back], memoryview):
                self._waiting[-back] = bytes(view)
        self._new = 0

    def _write(self) -> None:
        try:
            while self._waiting and not self.gone:
                self._took(self._sock.sendmsg(list(islice(self._waiting, _PIECES))))
        except BlockingIOError:
            pass
        except OSError:  # whoever had the other end has closed it
            self._bundle.drop(self.number)
            self.close()
            return
        self._watch_room()
        if not self._waiting:
            self._settle()

    def _writable(self) -> None:
        self._write()
        self._moved()

    def _took(self, count: int) -> None:
        self._bundle.read(self.number, count, self._loop.time())
        while count:
            piece = self._waiting.popleft()
            if len(piece) > count:
                self._waiting.appendleft(memoryview(piece)[count:])
                return
            count -= len(piece)

    def _watch_room(self) -> None:
        if bool(self._waiting) is self._writing or self.gone:
            return
        self._writing = bool(self._waiting)
        if self._writing:
            self._loop.add_writer(self._sock, self._writable)
        else:
            self._loop.remove_writer(self._sock)

    def _settle(self) -> None:
        if self.gone or self._waiting:
            return
        if self._closing or (self._finished and self._read_all):
            self.close()
        elif self._finished:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket at once; safe twice."""
        if self.gone:
            return
        self.gone = True
        self._pause()
        if self._writing:
            self._loop.remove_writer(self._sock)
        self._waiting.clear()
        self._sock.close()
        self._closed(self.number)
