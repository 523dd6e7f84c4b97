"""What the SSH protocol is spoken over: a socket, or a channel of a jump host, that reads ahead and can be cut off.

Law: knows bytes and deadlines only. Reading ahead spares two system calls a packet; once `settled`, a read waits for as long
as it takes, so that an idle connection wakes nobody.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

_AHEAD = 1 << 17
_GREETING = 1 << 16  # bytes in which a server must have said that it speaks SSH


class Line:
    """One connection, as paramiko wants a socket to be."""

    def __init__(self, below: Any) -> None:
        """Speak over a connected socket, or over what looks like one."""
        self._below = below
        self._ahead, self._at = b"", 0
        self._settled = self._closed = False
        self._heard = b""
        self.greeted = self.late = self.over = False

    # -- what paramiko calls

    def recv(self, most: int) -> bytes:
        """Return at most so many bytes; none at the end."""
        if self._at == len(self._ahead):
            self._ahead, self._at = self._read(), 0
            if not self.greeted:
                self._listen()
        piece = self._ahead[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def send(self, data: bytes) -> int:
        """Send some of these bytes, and return how many."""
        return int(self._below.send(data))

    def settimeout(self, seconds: float | None) -> None:
        """Let reads and writes give up after a while, until the line is settled."""
        if not self._settled:
            self._below.settimeout(seconds)

    def close(self) -> None:
        """End it, also for a thread that reads; safe twice."""
        self._closed = self.over = True
        with contextlib.suppress(OSError):
            self._below.shutdown(socket.SHUT_RDWR)
        self._below.close()

    # -- what the connection's owner calls

    def settle(self) -> None:
        """Let reads wait for ever from now on; nothing, if it has ended already."""
        self._settled = True
        with contextlib.suppress(OSError):
            self._below.settimeout(None)

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """End the line, and note that it was late, if what is done inside takes longer."""
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @property
    def heard(self) -> str:
        """Return the beginning of what was said in place of a greeting, fit to be shown."""
        text = re.sub(r"[^ -~]+", " ", self._heard[:200].decode(errors="replace")).strip()[:60]
        return text or "something that is no text" * bool(self._heard)

    def _cut(self) -> None:
        self.late = True
        self.close()

    def _read(self) -> bytes:
        try:
            data: bytes = self._below.recv(_AHEAD)
        except TimeoutError:
            raise
        except OSError:
            data = b""
        self.over = self.over or not data
        return data

    def _listen(self) -> None:
        self._heard += self._ahead
        self.greeted = re.search(rb"(?m)^SSH-", self._heard) is not None
        if not self.greeted and len(self._heard) > _GREETING:
            self._ahead = b""  # an endless greeting is the end
