"""The process of a machine's agent: `python -m remora_provisioner.machines.gate STATE [FD]`, started by whoever comes first.

It serves one Unix socket. Whoever connects says in one line which backend it comes from and which version it is of, and is told
the agent's version in another one; what follows carries the link of that backend. An agent that is older than who connects ends
without a word, unless something would be lost by that: the newer one takes up what lives. A line on FD says that it serves, or
that another one does.
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
from ..timers import Timers
from .link import Link, Stream
from .relay import Relay
from .there import There
from .versions import newer, ours

AGENT_SOCKET = "agent"
_BACKEND = re.compile(r"[0-9a-f]{16}")
_LINE = 128
_LOG = logging.getLogger(__name__)


class Gate:
    """Serves the agent's socket: each connection carries the link of one backend."""

    def __init__(self, there: There) -> None:
        """Let backends in to `there`."""
        self._there = there
        self._links: dict[str, Link] = {}
        self._carrying: set[asyncio.Task[None]] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._away = Timers()
        self._relay: Relay | None = None

    def serve(self, path: Path) -> None:
        """Listen at a path, for this user alone."""
        self._relay = Relay(path, self._take)

    def mind_idle(self) -> None:
        """Leave when nobody has been connected, and nothing has lived here, for as long as a backend stays."""
        loop = asyncio.get_running_loop()
        (self._there.watching.attended if self._carrying else self._there.watching.unattended)()
        if self._idle is not None:
            self._idle.cancel()
        self._idle = None if self._carrying else loop.call_later(BACKEND_IDLE.seconds, self._leave_or_stay)

    def _leave_or_stay(self) -> None:
        self._there.leave("")
        self.mind_idle()

    def close(self) -> None:
        """Listen no more and end all links, so that whoever reads from them ends, too; safe twice."""
        self._listen_no_more()
        for link in self._links.values():
            link.close()

    def _listen_no_more(self) -> None:
        if self._relay is not None:
            self._relay.close()
            self._relay = None

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
            words, descriptors = await _line(sock)
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
            backend, _, version = words.partition(" ")
            if not _BACKEND.fullmatch(backend) or len(descriptors) != 2:
                return
            if newer(version, ours()) and self._there.quiet:
                _LOG.info("version %s makes room for %s", ours(), version)
                self._listen_no_more()
                self._there.over.set()
                return
            with contextlib.suppress(OSError):  # it has hung up already
                sock.send(f"{ours()}\n".encode())
            stack.pop_all()
            self._away.drop(backend)
            if backend not in self._links:
                self._links[backend] = Link(lambda target: self._there.accept(backend, target), first=False)
            carrying = asyncio.ensure_future(self._links[backend].carry(Stream.of_command(*descriptors)))
            with contextlib.suppress(RemoraError, OSError), self._there.visited(backend):
                await _until_hung_up(sock, carrying)  # when it breaks, it is carried by the next connection
            if not self._links[backend].carried:
                self._away.set(backend, BACKEND_IDLE.seconds, lambda: self._forget(backend))

    def _forget(self, backend: str) -> None:
        """Let go of the link of a backend that has been away for long, unless a sandbox of it lives here."""
        if self._there.living(backend):
            self._away.set(backend, BACKEND_IDLE.seconds, lambda: self._forget(backend))
        else:
            self._links.pop(backend).close()


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
    gate.serve(state / AGENT_SOCKET)
    _say_ready()
    gate.mind_idle()
    tidying = asyncio.create_task(there.keep_tidy())
    await there.over.wait()
    tidying.cancel()
    gate.close()


def _say_ready() -> None:
    if len(sys.argv) > 2:
        descriptor = int(sys.argv.pop(2))
        with contextlib.suppress(BrokenPipeError):  # whoever started us has gone; we serve all the same
            os.write(descriptor, b"ready\n")
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
