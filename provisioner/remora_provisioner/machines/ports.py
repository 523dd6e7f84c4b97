"""Ports of sandboxes elsewhere, opened on the user's machine; and on the machine of the sandbox what leads to them.

Law: bytes pass through unread. What listens here listens on the loopback alone, or at a Unix socket that is its user's alone; it
ends with its sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import select
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from remora import streams
from remora.errors import InputError, OptionError, RemoraError, Unavailable
from remora.wire import Fields, SandboxId

_HERE = ("127.0.0.1", "::1")
_LISTENS = "0A"
_QUEUE = 64
_ANY = re.compile(r"0+|0100007F|0{24}01000000|0{16}FFFF00000100007F")
"""How the kernel writes the addresses by which a listener is reached on the loopback."""
Join = Callable[[SandboxId, int, socket.socket], None]
"""Lets a connected socket lead to a port of a sandbox."""


def check_port(port: object) -> int:
    """Return the number of a port; OptionError if it is none."""
    number = int(port) if isinstance(port, int) or (isinstance(port, str) and port.isdecimal() and port.isascii()) else 0
    if not 0 < number < 1 << 16:
        raise OptionError(f"{str(port)[:40]!r} is no port; write a number from 1 to 65535, such as 6006")
    return number


# ---- on the machine of the sandbox


def connected(port: int) -> socket.socket:
    """Return a socket that is connected to what listens on this machine's loopback; Unavailable if nothing does.

    It does not wait: on the loopback it is known at once.
    """
    for address in _HERE:
        with contextlib.suppress(OSError):
            return _connected(address, port)
    raise Unavailable(f"nothing listens on port {port} there yet; start what is to listen, then connect again")


def _connected(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex((address, port))
        if code == errno.EINPROGRESS and _is_writable(sock):
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code not in (0, errno.EINPROGRESS):  # a listener that is slow to accept is waited for by whoever reads
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _is_writable(sock: socket.socket) -> bool:
    asked = select.poll()
    asked.register(sock, select.POLLOUT)
    return bool(asked.poll(0))


def listens(port: int) -> bool:
    """Say whether something listens on a port of this machine's loopback, without connecting to it."""
    rows = [row.split() for name in ("tcp", "tcp6") for row in _table(Path("/proc/net") / name)]
    ends = [row[1].rpartition(":") for row in rows if row[3] == _LISTENS]
    return any(int(number, 16) == port and _ANY.fullmatch(address) for address, _, number in ends)


def _table(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()[1:]
    except OSError:  # a kernel without IPv6
        return []


# ---- on the user's machine


def of_this_machine(port: int, here: int | None, path: str | None) -> Fields:
    """Return how a port of a sandbox of this machine is reached: it is one of the machine's own. InputError if more is asked."""
    if here not in (None, port) or path is not None:
        raise InputError(
            f"sandboxes here share this machine's loopback: it is port {port} already; leave --here and --socket out"
        )
    return {"port": port, "address": f"http://{_HERE[0]}:{port}", "here": port, "listens": listens(port)}


class Opened:
    """One port that is open here."""

    def __init__(self, port: int, listening: socket.socket, path: Path | None, join: Callable[[socket.socket], None]) -> None:
        """Give each connection to `join`, from now on; `path` is where a Unix socket listens."""
        self.port, self._listening, self._path, self._join = port, listening, path, join
        listening.setblocking(False)
        asyncio.get_running_loop().add_reader(listening, self._accept)

    def described(self) -> Fields:
        """Return `port`, and `address` of what listens here: a URL, or the path of a socket."""
        if self._path is not None:
            return {"port": self.port, "address": str(self._path), "here": None}
        here = self._listening.getsockname()[1]
        return {"port": self.port, "address": f"http://127.0.0.1:{here}", "here": here}

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sock, _ = self._listening.accept()
            if self._path is not None and streams.other_end(sock) not in (os.getuid(), 0):
                sock.close()
                return
            if self._path is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(RemoraError):  # it is closed: as many as can be are open, or the link has been given up
                self._join(sock)

    def close(self) -> None:
        """Listen no more; connections go on until one side ends them."""
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class Ports:
    """The ports of one machine's sandboxes that are open here."""

    def __init__(self, join: Join) -> None:
        """Have connections led to sandboxes by `join`."""
        self._join = join
        self._opened: dict[tuple[SandboxId, int], Opened] = {}

    def open(self, sandbox: SandboxId, port: int, here: int | None, path: str | None) -> Fields:
        """Open a port of a sandbox here, at once; again returns what is open.

        Under the number `here`, by default its own if that is free, else any; or at the Unix socket `path`. Raises InputError if
        what was asked for cannot be had.
        """
        known = self._opened.get((sandbox, port))
        if known is not None and here in (None, known.described()["here"]) and path in (None, known.described()["address"]):
            return known.described()
        place = None if path is None else Path(path)
        listening = _on_loopback(port, here) if place is None else _at(place)
        opened = Opened(port, listening, place, lambda sock: self._join(sandbox, port, sock))
        if known is not None:
            known.close()
        self._opened[sandbox, port] = opened
        return opened.described()

    def listed(self, sandbox: SandboxId) -> list[Fields]:
        """Return what is open of a sandbox."""
        return [opened.described() for (one, _), opened in sorted(self._opened.items()) if one == sandbox]

    def close(self, sandbox: SandboxId | None = None, port: int | None = None) -> None:
        """Close one port, all of a sandbox, or all."""
        for key in [*self._opened]:
            if sandbox in (None, key[0]) and port in (None, key[1]):
                self._opened.pop(key).close()


def _on_loopback(port: int, here: int | None) -> socket.socket:
    wanted = port if here is None else here
    try:
        return socket.create_server((_HERE[0], wanted), backlog=_QUEUE)
    except OSError as error:
        if here is not None:
            raise InputError(
                f"port {here} cannot be opened here ({error.strerror}); leave --here out, or give another"
            ) from error
        return socket.create_server((_HERE[0], 0), backlog=_QUEUE)


def _at(path: Path) -> socket.socket:
    """Return what listens at a path, for this user alone; it does not replace anything."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with streams.short_path(path) as short:
            sock.bind(short)
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
        sock.listen(_QUEUE)
    except OSError as error:
        sock.close()
        raise InputError(f"{path} cannot be a socket ({error.strerror}); give a path at which nothing is yet") from error
    return sock
