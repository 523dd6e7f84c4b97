"""What carries a link: a connected socket, or two descriptors, one to read from and one to write to, as a command's are.

Law: non-blocking bytes, and nothing else. Whoever makes one owns what it was made of.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Sequence

from remora.wire import Buffer

_QUEUE = 1 << 19  # bytes in the kernel: they go before anything that is sent after them
_COMING = 1 << 20  # bytes that have come and wait: the more at a time, the less often
_UNSENT = 25  # TCP_NOTSENT_LOWAT, which the standard library does not name


class Stream:
    """Two directions of bytes."""

    def __init__(self, reading: int, writing: int) -> None:
        """Own two descriptors, which may be the same."""
        self.reading, self.writing = reading, writing
        for descriptor in {reading, writing}:
            os.set_blocking(descriptor, False)

    @classmethod
    def over(cls, sock: socket.socket) -> Stream:
        """Make a stream of a connected socket."""
        _keep_short(sock)
        descriptor = sock.detach()
        return cls(descriptor, descriptor)

    @classmethod
    def of_command(cls, reading: int, writing: int) -> Stream:
        """Make a stream of the input and the output of a command, whatever they are."""
        with contextlib.suppress(OSError):  # no pipe, or one that may not be longer
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _COMING)
        return cls(reading, writing)

    def read_into(self, room: memoryview) -> int:
        """Read what is there; 0 at the end. Raises OSError."""
        return os.readv(self.reading, [room])

    def write(self, pieces: Sequence[Buffer]) -> int:
        """Write some of these pieces, and return how many bytes. Raises OSError."""
        return os.writev(self.writing, pieces)

    def close(self) -> None:
        """End both directions; safe twice."""
        for descriptor in {self.reading, self.writing} - {-1}:
            os.close(descriptor)
        self.reading = self.writing = -1


def _keep_short(sock: socket.socket) -> None:
    """Keep the queue in the kernel short."""
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE)
    else:  # a smaller buffer would hold less than a long link has under way
        sock.setsockopt(socket.IPPROTO_TCP, _UNSENT, _QUEUE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
