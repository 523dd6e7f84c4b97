"""One process that serves a socket, however many are started: the first one takes a lock, the others leave when it serves."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from remora import streams

_AGAIN = 0.05
"""Seconds until it is looked again whether another one, that neither serves nor has ended, has done either."""


@contextlib.contextmanager
def the_one(lock: Path, socket: Path) -> Iterator[bool]:
    """Say whether to serve; the lock is held meanwhile. If another one serves, say no; if it is just ending, take its place."""
    with lock.open("w") as file:
        while not _locked(file):
            if serves(socket):
                yield False
                return
            time.sleep(_AGAIN)
        yield True


def serves(socket: Path) -> bool:
    """Say whether somebody listens at a path."""
    try:
        streams.dial(socket).close()
    except OSError:
        return False
    return True


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
