"""A socket of this machine at which a kernel asks whether a folder is at rest: when a cell begins, and for its end.

Law: a question is a line, empty or with the id of a run, its answer one byte, with lines for a person before it if they were
asked for; a thread that does nothing else answers at once, and waits no longer than whoever asks. Of a cell that takes
milliseconds, ways through the loops of two processes were a third. The answer no is always safe.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from remora.wire import AT_REST, SAYS, RunId

from .relay import Relay

_NO = b"-"
_LINE = 200
_VISITORS = 16
"""Who is there at once: whoever else comes does without."""


class Waiting(Protocol):
    """Who waits for the end of a run."""

    def say(self, text: str) -> None:
        """Say in a line how far it has come; does not block."""

    def until(self, sock: socket.socket) -> None:
        """Return when there is something to be read; raises ConnectionAbortedError when nobody waits any more."""


class Door:
    """The door of one sandbox's folder."""

    def __init__(self, path: Path, is_at_rest: Callable[[], bool], is_home: Callable[[RunId, Waiting], bool]) -> None:
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
        if len(self._visitors) >= _VISITORS:
            sock.close()
            return
        self._visitors.add(sock)
        threading.Thread(target=self._answer, args=(sock,), name="machines-door", daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock, sock.makefile("rb") as lines:
            while line := lines.readline(_LINE):
                about = line.decode("ascii", "replace").strip()
                run = about.removeprefix(SAYS.decode())
                if run and not run.isalnum():
                    break
                visitor = _Visitor(sock, listens=run != about)
                at_rest = self._is_home(RunId(run), visitor) if run else self._is_at_rest()
                sock.send(AT_REST if at_rest else _NO)
        self._visitors.discard(sock)


class _Visitor:
    """One question, from a kernel that listens to lines before the answer or does not."""

    def __init__(self, sock: socket.socket, *, listens: bool) -> None:
        self._sock, self._listens = sock, listens

    def say(self, text: str) -> None:
        if self._listens:
            with contextlib.suppress(OSError):  # whoever asked has left, or does not listen
                self._sock.send(SAYS + text.replace("\n", " ").encode() + b"\n", socket.MSG_DONTWAIT)

    def until(self, sock: socket.socket) -> None:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(self._sock, 0)  # a closed other end is always told, and nothing but that
        told = {descriptor for descriptor, _ in poll.poll()}
        if sock.fileno() not in told:
            raise ConnectionAbortedError("whoever has asked is gone")
