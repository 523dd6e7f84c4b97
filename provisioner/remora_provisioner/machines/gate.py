"""The process of a machine's agent: `python -m remora_provisioner.machines.gate STATE [FD]`, started by whoever comes first.

It serves one Unix socket. Whoever connects says in one line which backend it comes from; what follows carries the link of that
backend. A line on FD says that it serves, or that another one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
from pathlib import Path

from remora.errors import RemoraError
from remora.settings import BACKEND_IDLE

from ..single import the_one
from .link import Link, Stream
from .relay import Relay
from .there import There

AGENT_SOCKET = "agent"
_BACKEND = re.compile(r"[0-9a-f]{16}")
_LINE = 64


class Gate:
    """Serves the agent's socket: each connection carries the link of one backend."""

    def __init__(self, there: There) -> None:
        """Let backends in to `there`."""
        self._there = there
        self._links: dict[str, Link] = {}
        self._carrying: set[asyncio.Task[None]] = set()
        self._idle: asyncio.TimerHandle | None = None

    def serve(self, path: Path) -> Relay:
        """Listen at a path, for this user alone."""
        return Relay(path, self._take)

    def mind_idle(self) -> None:
        """Leave when nobody has been connected, and nothing has lived here, for as long as a backend stays."""
        loop = asyncio.get_running_loop()
        if self._idle is not None:
            self._idle.cancel()
        self._idle = None if self._carrying else loop.call_later(BACKEND_IDLE.seconds, self._leave_or_stay)

    def _leave_or_stay(self) -> None:
        self._there.leave()
        self.mind_idle()

    def close(self) -> None:
        """End all links, so that whoever reads from them ends, too."""
        for link in self._links.values():
            link.close()

    def _take(self, sock: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(sock))
        self._carrying.add(task)
        self.mind_idle()
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._carrying.discard(task)
        self.mind_idle()

    async def _carry(self, sock: socket.socket) -> None:
        with sock, contextlib.ExitStack() as stack:
            sock.setblocking(False)
            backend, descriptors = await _line(sock)
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
            if not _BACKEND.fullmatch(backend) or len(descriptors) != 2:
                return
            stack.pop_all()
            if backend not in self._links:
                self._links[backend] = Link(lambda target: self._there.accept(backend, target), first=False)
            carrying = asyncio.ensure_future(self._links[backend].carry(Stream.of_command(*descriptors)))
            with contextlib.suppress(RemoraError, OSError):  # it broke, and is carried by the next connection
                await _until_hung_up(sock, carrying)


async def _line(sock: socket.socket) -> tuple[str, list[int]]:
    """Read one short line, and the descriptors that come with it."""
    await _readable(sock)
    line, descriptors, _, _ = socket.recv_fds(sock, _LINE, 2)
    return line.decode("ascii", "replace").strip(), descriptors


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(sock, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(sock)


async def _until_hung_up(sock: socket.socket, work: asyncio.Future[None]) -> None:
    """Wait for the work, which is given up when the other end of the socket, that sends nothing more, is closed."""
    hung_up = asyncio.ensure_future(_readable(sock))
    try:
        await asyncio.wait({work, hung_up}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hung_up.cancel()
        work.cancel()
    await work


def main() -> int:
    """Serve until told to end."""
    state = Path(sys.argv[1])
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    with the_one(state / "agent.lock", state / AGENT_SOCKET) as alone:
        if alone:
            asyncio.run(_serve(state))
        else:
            _say_ready()
    return 0


async def _serve(state: Path) -> None:
    there = There(state)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, there.over.set)
    await there.agent.take_up()
    gate = Gate(there)
    relay = gate.serve(state / AGENT_SOCKET)
    _say_ready()
    gate.mind_idle()
    await there.over.wait()
    relay.close()
    gate.close()


def _say_ready() -> None:
    if len(sys.argv) > 2:
        descriptor = int(sys.argv.pop(2))
        with contextlib.suppress(BrokenPipeError):  # whoever started us has gone; we serve all the same
            os.write(descriptor, b"ready\n")
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
