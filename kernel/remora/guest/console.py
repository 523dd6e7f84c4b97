"""The user's sys.stdout and sys.stderr, and descriptors 1 and 2 beneath them: all of it becomes output of the run that wrote it.

Law: Python text goes straight to the outbox. What C code and child processes write comes through two pipes that a thread reads;
`drain` takes what is still in them, so that nothing a run wrote comes after its result. In a forked child the streams write to
those pipes. The descriptors given at start stay the log of the guest itself.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import os
import select
import sys
import threading
from collections.abc import Iterable
from typing import Any

from . import origin
from .outbox import Outbox

_CHUNK = 1 << 20
_F_SETPIPE_SZ = 1031


class Console:
    """Both streams and both pipes."""

    def __init__(self, outbox: Outbox) -> None:
        """Redirect descriptors 1 and 2, and replace sys.stdout and sys.stderr."""
        self.outbox: Outbox | None = outbox
        # for `with` alone: an exception out of a signal handler cannot come between its acquiring and its releasing
        self._lock = threading.RLock()
        self._pipes = {_redirect(1): ("stdout", _decoder()), _redirect(2): ("stderr", _decoder())}
        self._taking = 0  # the thread that does
        self._waiting = select.poll()
        for pipe in self._pipes:
            self._waiting.register(pipe, select.POLLIN)
        sys.stdout, sys.stderr = Stream(self, "stdout", 1), Stream(self, "stderr", 2)
        threading.Thread(target=self._read_forever, name="remora-console", daemon=True).start()

    def write(self, name: str, descriptor: int, text: str) -> None:
        """Take text of a stream, after what came through the pipes before it."""
        if self.outbox is None:
            self._write_forked(descriptor, text)
            return
        # a destructor or a signal handler may print in the middle of a take
        if self._taking != threading.get_ident():
            self._take()
        self.outbox.text(origin.current(), name, text)

    def flush(self, descriptor: int) -> None:
        """Send what is at hand."""
        if self.outbox is not None:
            self.outbox.flush()
        else:
            _write_all(descriptor, self._lines.pop(descriptor, ""))

    def drain(self) -> None:
        """Take everything that was written to the descriptors so far, in this process or by its children."""
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None and not stream.closed:
                stream.flush()
        ctypes = sys.modules.get("ctypes")
        if ctypes is not None and hasattr(ctypes, "CDLL"):
            # C code's own buffers; without ctypes hardly anything in this process writes through them
            ctypes.CDLL(None).fflush(None)
        self._take()

    def forget(self) -> None:
        """Become the console of a forked child: its output goes to the parent through the pipes."""
        self.outbox = None
        self._lock = threading.RLock()
        self._lines: dict[int, str] = {}

    def _write_forked(self, descriptor: int, text: str) -> None:
        """Write whole lines at once, so that those of several children do not mix."""
        lines = self._lines.pop(descriptor, "") + text
        whole, newline, rest = lines.rpartition("\n")
        if rest:
            self._lines[descriptor] = rest
        _write_all(descriptor, whole + newline)

    def _read_forever(self) -> None:
        ready = select.poll()
        for pipe in self._pipes:
            ready.register(pipe, select.POLLIN)
        while True:
            ready.poll()
            self._take()
            if self.outbox is not None:
                self.outbox.relieve()

    def _take(self) -> None:
        """Take what is in the pipes now. Nothing in here waits, so whoever holds the lock lets go of it soon."""
        with self._lock:
            self._taking = threading.get_ident()
            try:
                for pipe, _ in self._waiting.poll(0):
                    name, decoder = self._pipes[pipe]
                    text = decoder.decode(_read(pipe))
                    if text and self.outbox is not None:
                        self.outbox.append(origin.latest(), name, text)
            finally:
                self._taking = 0


class Stream(io.TextIOBase):
    """A text stream into the console."""

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None

    def __init__(self, console: Console, name: str, descriptor: int) -> None:
        """Write as "stdout" or "stderr"."""
        super().__init__()
        self._console, self.name, self._descriptor = console, f"<{name}>", descriptor
        self._channel = name
        self.mode = "w"

    @property
    def buffer(self) -> Any:
        """Return a binary stream to the same place."""
        return _Bytes(self)

    def write(self, text: str) -> int:
        """Write text; from any thread."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            self._console.write(self._channel, self._descriptor, text)
        return len(text)

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write pieces of text as one."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Send what was written, if some time has passed since the last."""
        self._console.flush(self._descriptor)

    def isatty(self) -> bool:
        """Say no: the other end is a notebook."""
        return False

    def fileno(self) -> int:
        """Return the descriptor whose output goes to the same place."""
        return self._descriptor

    def writable(self) -> bool:
        """Say yes."""
        return True

    def reconfigure(self, **_options: Any) -> None:
        """Accept what a terminal's stream accepts; text stays text until it is in a frame."""

    def close(self) -> None:
        """Stay open: whoever closes it would close it for all code to come."""


class _Bytes(io.RawIOBase):
    """The binary face of a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._stream.write(raw.decode("utf-8", "replace"))
        return len(raw)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


def _redirect(descriptor: int) -> int:
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_NONBLOCK)
    # an ordinary user's pipes may be limited; a small one only makes children wait more often
    with contextlib.suppress(OSError):
        fcntl.fcntl(writer, _F_SETPIPE_SZ, _CHUNK)
    os.dup2(writer, descriptor)
    os.close(writer)
    return reader


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, _CHUNK)
    except BlockingIOError:
        return b""


def _write_all(descriptor: int, text: str) -> None:
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data:
        data = data[os.write(descriptor, data) :]
