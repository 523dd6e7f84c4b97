"""Whether a sandbox's supervisor lives, whoever has started it: the log that it writes to is locked for as long.

Law: the kernel is asked, never a number of a process, which comes again.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import signal
import socket
from pathlib import Path
from typing import BinaryIO

from remora import streams

from .order import SOCKET

SUPERVISOR_LOG = "supervisor.log"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
_PATIENCE, _GLANCE = 30.0, 0.02
"""Seconds that a supervisor may take to begin or to end, and between looks at it."""


def lock(log: BinaryIO) -> None:
    """Lock a new supervisor's log, where files can be locked; whoever inherits the open file holds the lock."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def lives(directory: Path) -> bool:
    """Tell whether the supervisor of a sandbox lives, be it only about to begin or to end, or may do so."""
    try:
        with (directory / SUPERVISOR_LOG).open("rb") as log:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.ENOENT, *_NO_LOCKS)
    return False


async def served(directory: Path) -> socket.socket:
    """Return the connection to a supervisor, when it serves; OSError if it does not live, or takes for ever."""
    for _ in range(round(_PATIENCE / _GLANCE)):
        try:
            return streams.dial(directory / SOCKET)
        except OSError:
            if not lives(directory):
                raise
        await asyncio.sleep(_GLANCE)
    raise TimeoutError(f"the supervisor of {directory.name} does not begin to serve")


async def outlived(directory: Path) -> int:
    """Wait until a supervisor has died, unless that takes for ever; return the exit code that stands for its unknown one."""
    for _ in range(round(_PATIENCE / _GLANCE)):
        if not lives(directory):
            break
        await asyncio.sleep(_GLANCE)
    return -signal.SIGKILL
