"""How code inside a sandbox reaches Remora outside, without a network.

It sends one end of a socket pair through an inherited descriptor, and the supervisor joins that end to the backend or to another
sandbox's supervisor.

Law: only the doors named in the order are opened, and other sandboxes, and the doors of their folders, only if they were opened
from in here; whoever is behind a door is told first who asks, but for a folder's, which answers all alike. Bytes pass unread.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
from pathlib import Path

from remora import frames, streams
from remora.wire import Inside, SandboxId

from .order import DOOR, OWNER, SOCKET, Order

_ROOM = 1 << 16


class Uplink:
    """Answers one sandbox's requests for connections."""

    def __init__(self, sock: socket.socket, doors: tuple[str, ...], sandbox: str) -> None:
        """Serve `sock` for this sandbox; a door is a socket's path, or a folder of sandboxes, here or elsewhere."""
        self._socket, self._doors, self._sandbox = sock, doors, SandboxId(sandbox)
        self._joins: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self._requested)

    def close(self) -> None:
        """Cut every connection; safe twice."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        for join in self._joins:
            join.cancel()

    def _requested(self) -> None:
        try:
            data, control, _, _ = self._socket.recvmsg(_ROOM, socket.CMSG_SPACE(4))
        except OSError:
            return
        for _, kind, payload in control:
            if kind == socket.SCM_RIGHTS:
                self._take(data, [*array.array("i", payload[: len(payload) // 4 * 4])])
        if not data and not control:
            asyncio.get_running_loop().remove_reader(self._socket)

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        """Answer through the one stream socket that came; anything else is closed at once."""
        first, *more = descriptors
        for descriptor in more:
            os.close(descriptor)
        try:
            theirs = socket.socket(fileno=first)
        except OSError:
            os.close(first)
            return
        if theirs.type != socket.SOCK_STREAM or theirs.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            theirs.close()
            return
        self._answer(data, theirs)

    def _answer(self, data: bytes, theirs: socket.socket) -> None:
        unjoined = contextlib.ExitStack()  # a task may be cancelled before it begins, and then closes nothing
        unjoined.enter_context(theirs)
        try:
            target = Path(os.path.normpath(json.loads(data)["to"]))
            if not any(self._opens(door, target) for door in self._doors):
                raise PermissionError(target)
            ours = unjoined.enter_context(streams.dial(target))
            if target.name != DOOR:
                ours.sendall(b"".join(frames.encode(Inside(self._sandbox))))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            unjoined.close()  # whoever asked sees a connection that is closed at once
            return
        task = asyncio.get_running_loop().create_task(_join(theirs, ours, unjoined))
        self._joins.add(task)
        task.add_done_callback(self._joins.discard)
        task.add_done_callback(lambda _: unjoined.close())

    def _opens(self, door: str, target: Path) -> bool:
        if str(target) == door:
            return True
        return target.name in (SOCKET, DOOR) and str(target.parent.parent) == door and self._is_ours(target.parent)

    def _is_ours(self, directory: Path) -> bool:
        """Say whether that sandbox was opened from in here: its kernel is named below this sandbox."""
        elsewhere = directory / OWNER
        kernel = elsewhere.read_text() if elsewhere.exists() else Order.load(directory).facts.get("kernel", "")
        return str(kernel).startswith(f"{self._sandbox}/")


async def _join(one: socket.socket, other: socket.socket, unjoined: contextlib.ExitStack) -> None:
    first, second = await asyncio.open_unix_connection(sock=one), await asyncio.open_unix_connection(sock=other)
    unjoined.pop_all()
    try:
        await asyncio.gather(_pass(first[0], second[1]), _pass(second[0], first[1]))
    finally:
        for writer in (first[1], second[1]):
            if not writer.is_closing():
                writer.transport.abort()


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_ROOM):
            target.write(data)
            await target.drain()
    target.close()
