"""Removes all of ours from a machine, itself too, and prints what came of it: `python -m …machines.clearing PLACE`.

Law: nothing is removed while a sandbox lives there, whosever it is; agents are told to end before anything goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
from pathlib import Path

from remora import streams

from ..images.work import remove
from .gate import AGENT_SOCKET
from .tidying import living, sizes

_FAREWELL = 20.0
"""Seconds that an agent may take to end."""


def clear(place: Path) -> dict[str, object]:
    """Return the bytes that were freed, or the sandboxes that stand in the way as `living`."""
    states = [*place.glob("state-*")]
    if found := [sandbox for state in states for sandbox in living(state)]:
        return {"living": found}
    for state in states:
        _end_agent(state / AGENT_SOCKET)
    freed = sum(sizes(place).values())
    for thing in place.iterdir():
        remove(thing)
        shutil.rmtree(thing, ignore_errors=True)
    with contextlib.suppress(OSError):
        place.rmdir()
        place.parent.rmdir()
    return {"freed": freed}


def _end_agent(path: Path) -> None:
    try:
        sock = streams.dial(path)
    except OSError:
        return
    with sock:
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            try:
                os.kill(pid, signal.SIGTERM)
                select.select([process], [], [], _FAREWELL)
            finally:
                os.close(process)


if __name__ == "__main__":
    print(json.dumps(clear(Path(sys.argv[1]))))
