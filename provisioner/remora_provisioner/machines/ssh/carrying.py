"""Bytes between a local socket and a command on another machine, both ways, until either of them has ended.

Law: knows neither SSH nor who asked for the command; nothing polls. Two directions are two threads, the command's errors a third,
of which the end is kept. A command that takes no input keeps nobody from leaving.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Protocol

_PIECE = 1 << 18
_SAID = 2000  # characters of the command's errors that are kept
_LAST = 2.0  # seconds for the last input to be taken, and for the command to end, once nobody is there any more


class Command(Protocol):
    """A command that runs on another machine."""

    def recv(self, nbytes: int, /) -> bytes:
        """Return some of its output; none at the end."""

    def recv_stderr(self, nbytes: int, /) -> bytes:
        """Return some of its errors; none at the end."""

    def sendall(self, data: bytes, /) -> None:
        """Give it input."""

    def shutdown_write(self) -> None:
        """Say that its input has ended."""


class Carrier:
    """Carries a command's bytes."""

    def __init__(self, sock: socket.socket, command: Command) -> None:
        """Join a local socket and a command that has been started."""
        self._sock, self._command = sock, command
        self._said = b""

    def run(self, ended: Callable[[], None]) -> None:
        """Carry until the other end of the socket is closed; `ended` is called, in another thread, if the command ends first."""
        errors = threading.Thread(target=self._keep_errors, daemon=True)
        errors.start()
        down = threading.Thread(target=self._carry_down, args=(errors, ended), daemon=True)
        down.start()
        up = threading.Thread(target=self._carry_up, daemon=True)
        up.start()
        watch = select.poll()
        watch.register(self._sock, 0)  # hanging up is always told, and so is the end of both directions
        watch.poll()
        up.join(_LAST)
        if not up.is_alive():  # sshd throws away what a command has not taken when the connection ends before the command
            down.join(_LAST)

    @property
    def said(self) -> str:
        """Return the end of what the command has written to its errors."""
        return self._said.decode(errors="replace")[-_SAID:].strip()

    def _carry_up(self) -> None:
        with contextlib.suppress(OSError):  # the command or its connection has ended, and the other direction tells
            while piece := self._sock.recv(_PIECE):
                self._command.sendall(piece)
            self._command.shutdown_write()

    def _carry_down(self, errors: threading.Thread, ended: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more
            while piece := self._command.recv(_PIECE):
                self._sock.sendall(piece)
            self._sock.shutdown(socket.SHUT_WR)
        errors.join()
        ended()

    def _keep_errors(self) -> None:
        while piece := self._command.recv_stderr(_PIECE):
            self._said = (self._said + piece)[-4 * _SAID :]
