"""The store's workshop: where things are made before they are renamed to where they are seen.

Law: on the store's own file system; a name tells which process works there, so what a dead one left can be cleared at any time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..jails import scratch

_numbers = itertools.count()


class Work:
    """The folder of half-made things."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self) -> str:
        """Return a new path that nobody else uses; nothing is there yet."""
        pid = os.getpid()
        return f"{self.root}/{pid}-{_born(pid)}-{next(_numbers)}"

    @contextlib.contextmanager
    def file(self) -> Iterator[str]:
        """Give a path for a new file, and see to it that nothing remains at it."""
        path = self.place()
        try:
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def throw_away(self, path: Path) -> None:
        """Move a folder here, so that it is gone at once, and empty it; nothing happens if it is not there."""
        place = self.place()
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, place)
            shutil.rmtree(place)

    def clear_stale(self) -> None:
        """Remove what processes left that have died."""
        for name in os.listdir(self.root):
            if not _alive(name):
                remove(self.root / name)


def remove(path: Path) -> None:
    """Remove a file or folder with all that is in it, whatever its modes; nothing happens if it is not there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):  # another process may clear at the same time; what stays is cleared by the next one
        scratch.clear(path)
        path.rmdir()


def _born(pid: int) -> str:
    """Return when a process began, in ticks since boot; a number of a process comes again, this pair does not."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[19].decode()


def _alive(name: str) -> bool:
    pid, _, rest = name.partition("-")
    try:
        return rest.partition("-")[0] == _born(int(pid))
    except (OSError, ValueError, IndexError):
        return False
