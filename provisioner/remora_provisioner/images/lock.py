"""The lock of a store: who adds or links holds it shared, who collects holds it alone. And that of the builders' caches.

Law: a thread may take it again while it has it, in whatever way, and then keeps what it has; so never ask for it alone while
holding it shared.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path


class StoreLock:
    """An advisory lock on a file, between processes and threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mine = threading.local()

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with others that share it."""
        with self._held(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock alone; waits until nobody else has it."""
        with self._held(fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def _held(self, way: int) -> Iterator[None]:
        if getattr(self._mine, "held", False):
            yield
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, way)
            self._mine.held = True
            yield
        finally:
            self._mine.held = False
            os.close(descriptor)


@contextlib.contextmanager
def building(root: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold the lock of the caches, as one of several builders or, to empty them, alone: BlockingIOError if others have it."""
    folder = root / "builds"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "caches.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        yield
