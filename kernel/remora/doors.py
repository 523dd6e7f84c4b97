"""A folder's door, seen by a kernel: asks the backend, in the thread of the cell, whether the notebook's folder is at rest.

Law: a line there and a byte back, and nobody's loop in between (see `AT_REST`, `SAYS`). One question at a time.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from . import streams
from .wire import AT_REST, SAYS

Waiting = Callable[[], float | None]
"""Called while an answer is waited for; returns the seconds after which it wants to be called again."""


class Door:
    """Connected when it is first asked at, and again when the backend was started anew."""

    def __init__(self, path: str) -> None:
        """Ask at this socket; empty where nothing is asked, since both machines have the same folder."""
        self._path = path
        self._sock: socket.socket | None = None
        self._lock, self._asked = threading.Lock(), False

    def ask(self, about: str = "") -> bool:
        """Ask about now, or about the end of a run; say whether there will be an `answer`."""
        with self._lock:
            if self._asked or not self._path:
                return False
            self._asked = True
        try:
            if self._sock is None:
                self._sock = streams.dial(Path(self._path))
                self._sock.setblocking(True)
            self._sock.sendall((SAYS if about else b"") + about.encode() + b"\n")
        except OSError:
            self.forget()
            return False
        except BaseException:
            self.forget()
            raise
        return True

    def answer(self, waiting: Waiting, said: Callable[[str], None] = lambda _: None) -> bool:
        """Return whether nothing has to be moved, nor was; what is `said` meanwhile tells how far it has come.

        Raises OSError if the backend is gone, or after `leave`.
        """
        try:
            while (answer := self._byte(waiting)) == SAYS:
                said(self._line())
            self._asked = False
            return answer == AT_REST
        except BaseException:
            self.forget()  # an answer that comes later would be taken for the next one's
            raise

    def _byte(self, waiting: Waiting) -> bytes:
        assert self._sock is not None
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while not poll.poll(None if (pause := waiting()) is None else pause * 1000):
            pass
        answer = self._sock.recv(1)
        if not answer:
            raise ConnectionResetError("the backend is gone")
        return answer

    def _line(self) -> str:
        assert self._sock is not None
        line = b""
        while not line.endswith(b"\n") and (byte := self._sock.recv(1)):  # it has been sent as one
            line += byte
        return line.decode(errors="replace").strip()

    def leave(self) -> None:
        """Let nobody wait for an answer; from any thread."""
        if (sock := self._sock) is not None:
            with contextlib.suppress(OSError):  # it has just been closed
                sock.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Want no answer any more; from the thread that has asked. Safe twice."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        self._asked = False
