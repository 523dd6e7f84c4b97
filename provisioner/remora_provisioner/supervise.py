"""The process around a supervisor: `python -m remora_provisioner.supervise DIRECTORY [FD]`.

FD is the connection to the agent that started it; standard input has the secrets, as JSON. The process is its own session, so
that nothing done to the processes above reaches it; orphans of its sandbox become its children, so that none escapes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path

from remora import streams
from remora.states import EndReason
from remora.streams import Peer

from .order import ENDED, SOCKET, Order, write_whole
from .supervisor import Supervisor

_PR_SET_CHILD_SUBREAPER = 36
_FAREWELL = 2.0


class Unseen:
    """Ends the sandbox of a rented machine when nobody, not even an agent, has been connected for as long as its lease."""

    def __init__(self, supervisor: Supervisor, lease: float | None) -> None:
        """End it after so many seconds; None: never."""
        self._supervisor, self._lease = supervisor, lease
        self._connected = 0
        self._timer: asyncio.TimerHandle | None = None

    def accept(self) -> Peer:
        """Make the Peer of a new connection."""
        return Peer(self._supervisor.receive, self.met().left, self._supervisor.choose)

    def met(self) -> Unseen:
        """Take note of a connection."""
        self._connected += 1
        if self._timer is not None:
            self._timer.cancel()
        return self

    def left(self, peer: Peer) -> None:
        """Take note that a connection has ended."""
        self._supervisor.left(peer)
        self._connected -= 1
        if self._lease is not None and not self._connected:
            self._timer = asyncio.get_running_loop().call_later(self._lease, self._supervisor.end, EndReason.MACHINE_LOST)


async def live(directory: Path, agent: int | None, secrets: dict[str, str]) -> None:
    """Serve one sandbox, given these variables beside those of its order, until it has ended."""
    order = Order.load(directory)
    supervisor = Supervisor(order, secrets)
    unseen = Unseen(supervisor, order.facts.get("lease"))
    server = await streams.serve(directory / SOCKET, unseen.accept)
    if agent is not None:
        await streams.adopt(socket.socket(fileno=agent), supervisor.receive, unseen.met().left)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.end, EndReason.STOPPED)
    await supervisor.inhabit()
    with contextlib.suppress(OSError):  # a full disk: whoever watches was told, and the ends of the runs are in their logs
        write_whole(directory / ENDED, json.dumps(supervisor.describe()))
    server.close()
    (directory / SOCKET).unlink(missing_ok=True)
    await supervisor.farewell(_FAREWELL)


def main() -> None:
    """Read the command line and live."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    agent = int(sys.argv[2]) if len(sys.argv) > 2 else None
    asyncio.run(live(Path(sys.argv[1]), agent, _secrets()))


def _secrets() -> dict[str, str]:
    """Take the secrets from standard input, where nobody can read them a second time."""
    told = sys.stdin.buffer.read()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    secrets: dict[str, str] = json.loads(told or b"{}")
    return secrets


if __name__ == "__main__":
    main()
