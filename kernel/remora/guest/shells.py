"""Shells for people, in a terminal of their own inside the sandbox; they run beside whatever else runs there.

Law: a shell is a child process; one thread reads its terminal, and waits when the other side has not printed what it got.
When whoever opened it goes away, its terminal is hung up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from queue import SimpleQueue

from ..wire import Answer, AskGuest, Message, ShellBytes

_WINDOW = 1 << 18  # bytes that may be on their way to the person
_PIECE = 1 << 16
_SHELLS = ("/bin/bash", "/bin/sh")
# The child of Popen leads a session already; the terminal becomes its own before the shell takes over.
_TAKE_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Shell:
    """One open shell."""

    def __init__(self, question: AskGuest, put: Callable[[Message], None]) -> None:
        """Start the shell that the question asks for; OSError if there is none. The answer comes when it has ended."""
        self._question, self._put = question, put
        self.name = str(question.args["shell"])
        self._sent = self._taken = 0
        self._room = threading.Condition()
        self._typed: SimpleQueue[bytes] = SimpleQueue()
        self._master, slave = pty.openpty()
        try:
            self.resize([int(n) for n in question.args.get("size") or (80, 24)])
            self._process = self._start(slave, str(question.args.get("terminal") or "xterm-256color"))
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)

    def _start(self, slave: int, terminal: str) -> subprocess.Popen[bytes]:
        shell = next((path for path in _SHELLS if os.access(path, os.X_OK)), None)
        if shell is None:
            raise FileNotFoundError("the sandbox has neither bash nor sh")
        command = [sys.executable, "-I", "-S", "-c", _TAKE_TERMINAL, shell, "-i"]
        environment = {**os.environ, "TERM": terminal, "SHELL": shell}
        return subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True)

    def serve(self, ended: Callable[[Shell], None]) -> None:
        """Pass on what the shell prints until it has ended, then answer; for a thread of its own."""
        typing = threading.Thread(target=self._type, name="remora-typing", daemon=True)
        typing.start()
        while data := self._read():
            with self._room:
                self._room.wait_for(lambda: self._sent - self._taken < _WINDOW)
            self._sent += len(data)
            self._put(ShellBytes(self.name, buffers=(data,)))
        code = self._process.wait()
        ended(self)
        self._typed.put(b"")
        typing.join()
        os.close(self._master)
        self._put(Answer(self._question.ask, {"code": code if code >= 0 else 128 - code}))

    def _read(self) -> bytes:
        try:
            return os.read(self._master, _PIECE)
        except OSError:  # the last process has closed the terminal
            return b""

    def take(self, message: ShellBytes) -> None:
        """Take what was typed, the window's size, or word of how much was printed."""
        with self._room:
            self._taken = max(self._taken, message.taken)
            self._room.notify()
        if message.size is not None:
            self.resize(message.size)
        for data in message.buffers:
            self._typed.put(bytes(data))

    def _type(self) -> None:
        """Type what has come; on a thread of its own, since a program that does not read lets its terminal wait."""
        while data := self._typed.get():
            with contextlib.suppress(OSError):
                while data:
                    data = data[os.write(self._master, data) :]

    def resize(self, size: list[int]) -> None:
        """Tell the shell how large its window is, in columns and rows."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))

    def hang_up(self) -> None:
        """End the shell, as closing its window does."""
        with self._room:
            self._taken = self._sent
            self._room.notify()
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGHUP)


class Shells:
    """All open shells of one sandbox."""

    def __init__(self, put: Callable[[Message], None]) -> None:
        """Send by `put`."""
        self._put = put
        self._open: dict[str, Shell] = {}

    def open(self, question: AskGuest) -> None:
        """Open a shell; OSError if that cannot be done. Called by the thread that receives, as all of this."""
        shell = self._open[str(question.args["shell"])] = Shell(question, self._put)
        threading.Thread(target=shell.serve, args=(self._ended,), name="remora-shell", daemon=True).start()

    def take(self, message: ShellBytes) -> None:
        """Pass on what comes for a shell; a size of nothing hangs it up."""
        shell = self._open.get(message.shell)
        if shell is None:
            return
        if message.size == []:
            shell.hang_up()
        else:
            shell.take(message)

    def _ended(self, shell: Shell) -> None:
        self._open.pop(shell.name, None)
