"""A folder here and its place there, in two folders of this machine, and connections between them that may break.

Law: both sides are the real ones, each in a thread of its own; nothing is left open when a meeting is over.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from remora.errors import RemoraError
from remora_provisioner.machines.exchange.home import FolderHome
from remora_provisioner.machines.exchange.receipts import Receipt
from remora_provisioner.machines.exchange.serving import serve

MOST = 1 << 30
Half = Callable[[socket.socket], object]
OLD = 1_600_000_000_000_000_000
"""A time long ago, in nanoseconds: a file of that age is believed to be what it was."""


class Pair:
    """The two sides."""

    def __init__(self, root: Path, *, writable: bool = True, most: int = MOST, machine: str = "gpubox") -> None:
        self.here, self.there, self.state = root / "here", root / "there", root / "state"
        self.here.mkdir(parents=True, exist_ok=True)
        self.home = FolderHome(self.here, root / "home", machine, writable=writable, most=most)
        self.raised_there: RemoraError | None = None
        self.moved = 0

    def exchange(
        self, most: int = 1 << 60, spoiled: Spoiled | None = None, say: Callable[[str], None] = lambda _: None
    ) -> Receipt:
        """Exchange over a connection that breaks after so many bytes; raises what the home's side raises."""
        self.raised_there = None
        cable = Cable(most, spoiled)
        other = threading.Thread(target=self.serve, args=[cable.there])
        other.start()
        try:
            return self.home.exchange(cable.here, say)
        finally:
            cable.here.close()
            other.join()
            cable.close()
            self.moved = cable.count

    def serve(self, sock: socket.socket) -> None:
        """Be the machine's side of one exchange; what it raises is kept."""
        try:
            serve(self.there, self.state, sock)
        except RemoraError as error:
            self.raised_there = error
        finally:
            sock.close()


class Spoiled:
    """A way that changes one byte of what it carries, and ends there."""

    def __init__(self, to_home: bool, at: int, bits: int) -> None:
        self.to_home, self._at, self._bits = to_home, at, bits

    def spoil(self, data: bytes) -> tuple[bytes, bool]:
        """Return the bytes as they are carried, and whether the end has come."""
        hit = self._at < len(data)
        if hit:
            data = data[: self._at] + bytes([data[self._at] ^ self._bits]) + data[self._at + 1 :]
        self._at -= len(data)
        return data, hit


class Cable:
    """Two sockets and what carries bytes between them: both ways together at most so many."""

    def __init__(self, most: int, spoiled: Spoiled | None = None) -> None:
        self.here, near = socket.socketpair()
        self.there, far = socket.socketpair()
        self._ends, self._most, self.count = (near, far), most, 0
        self._lock = threading.Lock()
        self._spoiled = spoiled
        ways = ((near, far), (far, near))
        self._threads = [threading.Thread(target=self._carry, args=way) for way in ways]
        for thread in self._threads:
            thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 18):
                with self._lock:
                    data = data[: self._most - self.count]
                    self.count += len(data)
                if self._spoiled and self._spoiled.to_home == (source is self._ends[1]):
                    data, ended = self._spoiled.spoil(data)
                    sink.sendall(data)
                    if ended:
                        break
                    continue
                sink.sendall(data)
                if self.count >= self._most:
                    for end in self._ends:
                        end.shutdown(socket.SHUT_RDWR)
                    return
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one end is closed already
            return

    def close(self) -> None:
        """Wait until nothing is carried any more."""
        for thread in self._threads:
            thread.join()
        for end in (*self._ends, self.here, self.there):
            end.close()


def meet(*halves: Half) -> list[RemoraError | None]:
    """Let two halves talk over one socket, each in its thread; return what each has raised."""
    ends = socket.socketpair()
    raised: list[RemoraError | None] = [None, None]

    def run(which: int) -> None:
        with ends[which]:
            try:
                halves[which](ends[which])
            except RemoraError as error:
                raised[which] = error

    threads = [threading.Thread(target=run, args=[which]) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def tree(folder: Path) -> dict[bytes, tuple[str, bytes]]:
    """Return what is in a folder: for each path what it is, and its content."""
    found: dict[bytes, tuple[str, bytes]] = {}
    top = os.fsencode(folder)
    for at, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(at, name)
            found[os.path.relpath(path, top)] = _described(path)
    return found


def _described(path: bytes) -> tuple[str, bytes]:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return "link", os.readlink(path)
    if stat.S_ISDIR(mode):
        return "folder", b""
    with open(path, "rb") as file:
        return ("program" if mode & stat.S_IXUSR else "file"), file.read()


def write(path: Path, data: bytes | str, *, old: bool = False) -> Path:
    """Write a file, with the folders above it; `old`: as if long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    if old:
        os.utime(path, ns=(OLD, OLD))
    return path
