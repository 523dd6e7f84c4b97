"""What runs on a machine elsewhere for as long as it is reached: `python -m remora_provisioner.machines.bridge STATE BACKEND`.

It sees to it that the machine's agent serves, says which backend it comes from, and passes bytes between its standard input and
output and the agent. Law: it knows nothing and keeps nothing; it ends when either side does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from remora import streams

from .gate import AGENT_SOCKET

_ROOM = 1 << 18
_LOG = "agent.log"
_READY = b"ready\n"


def main() -> int:
    """Pass bytes until one side ends."""
    state, backend = Path(sys.argv[1]), sys.argv[2]
    with agent(state) as sock:
        sock.sendall(f"{backend}\n".encode())
        threading.Thread(target=_upwards, args=(sock,), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := sock.recv(_ROOM):
                _write(data)
    return 0


def agent(state: Path) -> socket.socket:
    """Return a connection to the machine's agent, which is started if need be. Raises OSError."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return streams.dial(state / AGENT_SOCKET)
    except OSError:
        _start(state)
    return streams.dial(state / AGENT_SOCKET)


def _start(state: Path) -> None:
    """Start the agent and wait until it serves; of two that are started at once one leaves when the other serves."""
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "remora_provisioner.machines.gate", str(state), str(writing)]
    with open(reading, "rb", buffering=0) as told, (state / _LOG).open("ab") as log:
        try:
            subprocess.Popen(
                command, pass_fds=[writing], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        finally:
            os.close(writing)
        if told.read(len(_READY)) != _READY:
            tail = (state / _LOG).read_text(errors="replace")[-500:]
            raise OSError(f"the agent does not start: {tail}")


def _upwards(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, _ROOM):
            sock.sendall(data)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.exit(main())
