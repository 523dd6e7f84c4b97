"""A socket of this machine at which a kernel asks whether a folder is at rest: when a cell begins, and for its end.

Law: a question is a line, empty or with the id of a run, its answer one byte, with lines for a person
before it where something is moved; a thread that does nothing else answers at once.
Of a cell that takes milliseconds, ways through the loops of two processes were a third. The answer no is always safe.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from remora.wire import AT_REST, SAYS, RunId

from .relay import Relay

_NO = b"-"
_LINE = 200
IsHome = Callable[[RunId, Callable[[str], None]], bool]
"""Waits for the end of a run, and meanwhile says in a line how far it has come, which must not block."""


class Door:
    """The door of one sandbox's folder."""

    def __init__(self, path: Path, is_at_rest: Callable[[], bool], is_home: IsHome) -> None:
        """Listen at this path, for this user alone, on a running loop.

        `is_at_rest` answers at once, `is_home` at the end of a run; both may block. On an OSError of theirs the door hangs up.
        """
        self._is_at_rest, self._is_home = is_at_rest, is_home
        self._visitors: set[socket.socket] = set()
        self._relay = Relay(path, self._enter)

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._relay.path

    def close(self) -> None:
        """Listen no more; who waits for an answer gets it, and then nobody is there any more."""
        self._relay.close()
        for sock in [*self._visitors]:
            with contextlib.suppress(OSError):  # it has just left
                sock.shutdown(socket.SHUT_RD)

    def _enter(self, sock: socket.socket) -> None:
        self._visitors.add(sock)
        threading.Thread(target=self._answer, args=(sock,), name="machines-door", daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock, sock.makefile("rb") as lines:
            while line := lines.readline(_LINE):
                run = line.decode("ascii", "replace").strip()
                at_rest = self._is_home(RunId(run), lambda text: _say(sock, text)) if run else self._is_at_rest()
                sock.send(AT_REST if at_rest else _NO)
        self._visitors.discard(sock)


def _say(sock: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):  # whoever asked has left, or does not listen
        sock.send(SAYS + text.replace("\n", " ").encode() + b"\n", socket.MSG_DONTWAIT)
