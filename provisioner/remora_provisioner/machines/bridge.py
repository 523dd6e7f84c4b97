"""What runs on a machine elsewhere for as long as it is reached: `python -m remora_provisioner.machines.bridge STATE BACKEND`.

It sees to it that the machine's agent serves, says which backend it comes from and which version it is of, and hands its standard
input and output over to the agent. Law: it knows nothing and keeps nothing; it ends when the agent lets go, and the agent lets go
when it ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

from remora import streams

from .gate import AGENT_SOCKET
from .versions import ours, state_of

_LOG = "agent.log"
_READY = b"ready\n"
_TRIES = 5
"""Agents that are asked: one may be ending, or make room for this version."""
_PATIENCE = 60.0
"""Seconds until an agent that says nothing is given up."""


def main() -> int:
    """Hand over, and wait. What is said on standard error is shown to the user who could not reach this machine."""
    state = state_of(Path(sys.argv[1]))
    try:
        reached = agent(state, sys.argv[2])
    except OSError as error:
        print(f"{state}: {error}", file=sys.stderr)
        return 1
    with reached as sock, contextlib.suppress(OSError):
        sock.recv(1)
    return 0


def agent(state: Path, backend: str) -> socket.socket:
    """Return a connection to the machine's agent, which is started if need be and has taken over. Raises OSError."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _ in range(_TRIES):
        sock = _dial(state)
        with contextlib.suppress(OSError):
            socket.send_fds(sock, [f"{backend} {ours()}\n".encode()], [0, 1])
            if _answers(sock):
                return sock
        sock.close()
    raise OSError("the agent ends as soon as it is asked for")


def _answers(sock: socket.socket) -> bool:
    """Say whether the agent serves us; it says so in a line, which is taken, and not a byte more."""
    byte = b""
    while byte != b"\n":
        if not select.select([sock], [], [], _PATIENCE)[0] or not (byte := sock.recv(1)):
            return False
    return True


def _dial(state: Path) -> socket.socket:
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


if __name__ == "__main__":
    sys.exit(main())
