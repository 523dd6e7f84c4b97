"""A folder, reached in ways that never leave it.

Law: a path is opened folder by folder from the top, and no link on the way is followed, whoever puts one there meanwhile. One
thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from types import TracebackType

Stamp = tuple[int, int, int, int]
"""What changes when a file changes: size, times of content and status in nanoseconds, number."""
_AS_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_TO_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

MOST = (1 << 63) - 1
"""The largest number that a stamp can hold, and a time that can be told."""


def stamp_of(facts: os.stat_result) -> Stamp:
    """Return the stamp of a file by its facts."""
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino & MOST


class Beneath:
    """The top folder, held open, and the folder below it that was used last."""

    def __init__(self, top: Path) -> None:
        """Open the folder; raises OSError."""
        self.top = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._at, self._descriptor = b"", self.top

    def close(self) -> None:
        """Close what is open; safe twice."""
        self.forget()
        top, self.top = self.top, -1
        if top >= 0:
            os.close(top)

    def __enter__(self) -> Beneath:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def forget(self) -> None:
        """Do not use a folder again that may have been moved."""
        if self._at:
            os.close(self._descriptor)
        self._at, self._descriptor = b"", self.top

    def place(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of the folder in which a path lies, good until the next call, and the name in it."""
        folder, _, name = path.rpartition(b"/")
        if folder != self._at:
            self._go(folder)
        return self._descriptor, name

    def _go(self, folder: bytes) -> None:
        self.forget()
        if not folder:
            return
        descriptor = self.top
        for part in folder.split(b"/"):
            above = descriptor
            try:
                descriptor = os.open(part, _AS_FOLDER, dir_fd=above)
            finally:
                if above != self.top:
                    os.close(above)
        self._at, self._descriptor = folder, descriptor

    def facts(self, path: bytes) -> os.stat_result | None:
        """Return what the disk says of a path itself, None if nothing is there."""
        try:
            folder, name = self.place(path)
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def stamp(self, path: bytes) -> Stamp | None:
        """Return the stamp of what is at a path, None if nothing is there."""
        facts = self.facts(path)
        return None if facts is None else stamp_of(facts)

    def read(self, path: bytes) -> int:
        """Open a regular file; OSError for anything else."""
        folder, name = self.place(path)
        descriptor = os.open(name, _TO_READ, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("it is no file")
        return descriptor

    def create(self, path: bytes, mode: int = 0o600) -> int:
        """Make a file that is not there yet, unless told otherwise for its owner alone, and open it for writing."""
        folder, name = self.place(path)
        return os.open(name, _TO_MAKE, mode, dir_fd=folder)

    def create_anew(self, path: bytes, mode: int = 0o600) -> int:
        """Do the same in the place of what may have been left there."""
        try:
            return self.create(path, mode)
        except FileExistsError:
            self.remove(path)
            return self.create(path, mode)

    def resume(self, path: bytes) -> int:
        """Open a file for reading and writing that was made by `create`."""
        folder, name = self.place(path)
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            os.close(descriptor)
            raise OSError("it is no file of its own")
        return descriptor

    def rename(self, old: bytes, new: bytes) -> None:
        """Give something another path, in the place of a file that may be there."""
        folder, name = self.place(new)
        above, _, before = old.rpartition(b"/")
        if above == self._at:
            os.rename(before, name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        kept = os.dup(folder)
        try:
            source, before = self.place(old)
            os.rename(before, name, src_dir_fd=source, dst_dir_fd=kept)
        finally:
            os.close(kept)
            self.forget()

    def link(self, path: bytes, target: bytes) -> None:
        """Make a symlink."""
        folder, name = self.place(path)
        os.symlink(target, name, dir_fd=folder)

    def make_folder(self, path: bytes) -> None:
        """Make a folder."""
        folder, name = self.place(path)
        os.mkdir(name, dir_fd=folder)

    def remove(self, path: bytes) -> None:
        """Remove a file or link; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            folder, name = self.place(path)
            os.unlink(name, dir_fd=folder)

    def remove_folder(self, path: bytes) -> None:
        """Remove an empty folder; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            folder, name = self.place(path)
            os.rmdir(name, dir_fd=folder)
        self.forget()
