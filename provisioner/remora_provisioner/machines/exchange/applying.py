"""Changing a folder as an exchange has decided: moves, deletions, folders, links, copies, and files that have arrived whole.

Law: nothing is overwritten or removed that is not as it was when the folder was looked at; what cannot be done is noted with its
reason and the rest goes on. A full disk ends it all, with what was done so far in place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from blake3 import blake3
from remora.errors import StateError
from remora.wire import Buffer

from .beneath import Beneath, Stamp, stamp_of
from .entries import FOLDER, Entries, Entry, Kind, arriving
from .folderindex import Index

CHANGED = "it was changed meanwhile"
_BARRED: Stamp = (-1, -1, -1, -1)
_OWN = 0o600
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Changes:
    """What is changed in one folder, and the index that tells how it was and, after each step, is."""

    def __init__(self, top: Beneath, index: Index) -> None:
        self.top, self.index = top, index
        self.failures: dict[bytes, str] = {}
        """Why something was not done; an empty reason need not be told."""
        self._staged: dict[bytes, tuple[bytes, Entry]] = {}
        self._umask = _umask()
        self._usual = 0o666 & ~self._umask

    @contextlib.contextmanager
    def attempt(self, path: bytes) -> Iterator[None]:
        """Note why something fails; StateError if the disk is full."""
        try:
            yield
        except OSError as error:
            self.failed(path, error)

    def failed(self, path: bytes, error: OSError) -> None:
        """Do the same where `attempt` would cost more than what is attempted."""
        if error.errno in _FULL:
            raise full() from error
        silent = error.errno in (errno.ENOTEMPTY, errno.EEXIST) and path not in self.index.stamps
        self.failures[path] = "" if silent else (os.strerror(error.errno) if error.errno else str(error))

    def move(self, moves: Mapping[bytes, bytes]) -> None:
        """Put things beside where they are; what could not be moved is not overwritten later either."""
        for old, new in moves.items():
            self.failures[old] = CHANGED
            with self.attempt(old):
                if self.top.facts(new) is not None:
                    raise OSError(CHANGED)
                self.top.rename(old, new)
                del self.failures[old]
                self._moved(old, new)
            if old in self.failures:
                self.index.stamps[old] = _BARRED

    def _moved(self, old: bytes, new: bytes) -> None:
        below = old + b"/"
        for path in [path for path in self.index.entries if path == old or path.startswith(below)]:
            entry, stamp = self.index.entries[path], self.index.stamps.get(path)
            self.index.drop(path)
            self.index.put(new + path[len(old) :], entry, stamp)
        if self.index.entries.get(new) != FOLDER and (now := self.top.stamp(new)) is not None:
            self.index.stamps[new] = now  # a change of name changes the time of the status

    def carry_out(self, entries: Entries, copies: Mapping[bytes, bytes], deletes: list[bytes]) -> None:
        """Do all that needs no contents from elsewhere: some files are copies of others that are here."""
        self._stage(entries, copies, set(deletes))
        self._delete(deletes)
        self._make(entries)
        self._place_staged()

    def _stage(self, entries: Entries, copies: Mapping[bytes, bytes], deleted: set[bytes]) -> None:
        """Take contents that are here under other names, before those names go."""
        sources = Counter(copies.values())
        for number, (path, source) in enumerate(copies.items()):
            entry = entries[path]
            with self.attempt(path):
                temporary = arriving(b"", entry.content, number)
                self.top.remove(temporary)
                if self.top.stamp(source) != self.index.stamps.get(source):
                    raise OSError(CHANGED)
                if source in deleted and sources[source] == 1:
                    self.top.rename(source, temporary)
                    self.index.drop(source)
                else:
                    self._copy(source, temporary)
                self._staged[path] = temporary, entry

    def _copy(self, source: bytes, temporary: bytes) -> None:
        descriptor = self.top.read(source)
        try:
            facts = os.fstat(descriptor)
            self._pour(descriptor, temporary, facts.st_mtime_ns)
            if stamp_of(os.fstat(descriptor)) != self.index.stamps.get(source):
                self.top.remove(temporary)
                raise OSError(CHANGED)
        finally:
            os.close(descriptor)

    def _pour(self, descriptor: int, temporary: bytes, mtime: int) -> None:
        """Copy an open file, from where it stands, to a new one."""
        target = self.top.create(temporary)
        try:
            while os.sendfile(target, descriptor, None, 1 << 30):
                pass
            os.utime(target, ns=(mtime, mtime))
        finally:
            os.close(target)

    def _place_staged(self) -> None:
        """Give the contents that were staged their names."""
        staged, self._staged = self._staged, {}
        for path, (temporary, entry) in staged.items():
            with self.attempt(path):
                self._place_one(path, entry, temporary)
            self.top.remove(temporary)

    def _place_one(self, path: bytes, entry: Entry, temporary: bytes) -> None:
        with self.opened(temporary) as descriptor:
            mtime = os.fstat(descriptor).st_mtime_ns
            try:
                self.place(path, entry, temporary, descriptor, mtime)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            nearer = arriving(path[: path.rfind(b"/") + 1], entry.content)  # another file system is mounted below the folder
            self.top.remove(nearer)
            self._pour(descriptor, nearer, mtime)
        with self.opened(nearer) as descriptor:
            self.place(path, entry, nearer, descriptor, mtime)

    @contextlib.contextmanager
    def opened(self, temporary: bytes) -> Iterator[int]:
        """Open a temporary file."""
        descriptor = self.top.resume(temporary)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _delete(self, paths: list[bytes]) -> None:
        """Remove what is as it was; folders only when they are empty."""
        for path in sorted(paths, reverse=True):
            with self.attempt(path):
                if self.index.entries.get(path) == FOLDER:
                    self.top.remove_folder(path)
                elif self.top.facts(path) is not None:
                    self._check(path)
                    self.top.remove(path)
                self.index.drop(path)

    def _make(self, entries: Entries) -> None:
        """Make folders and links, those above before those below."""
        for path, entry in sorted(entries.items()):
            with self.attempt(path):
                if entry.kind == Kind.FOLDER:
                    self._make_folder(path)
                elif entry.kind == Kind.LINK:
                    self._make_link(path, entry)

    def _make_folder(self, path: bytes) -> None:
        facts = self.top.facts(path)
        if facts is None or not stat.S_ISDIR(facts.st_mode):
            if facts is not None:
                self._check(path)
                self.top.remove(path)
            self.top.make_folder(path)
        self.index.put(path, FOLDER)

    def _make_link(self, path: bytes, entry: Entry) -> None:
        self._make_way(path)
        temporary = arriving(path[: path.rfind(b"/") + 1], blake3(entry.content).digest())
        self.top.remove(temporary)
        self.top.link(temporary, entry.content)
        self.top.rename(temporary, path)
        self.index.put(path, entry, self.top.stamp(path))

    def bring(self, path: bytes, entry: Entry, temporary: bytes, content: Buffer, mtime: int) -> None:
        """Write a file aside that is as small as to be here at once, and give it its name. Raises OSError."""
        made = _OWN if path in self.index.stamps else self._mode(self._usual, entry) & ~self._umask
        descriptor = self.top.create_anew(temporary, made)
        try:
            write(descriptor, content)
            self.place(path, entry, temporary, descriptor, mtime, made)
        except OSError:
            self.top.remove(temporary)
            raise
        finally:
            os.close(descriptor)

    def place(self, path: bytes, entry: Entry, temporary: bytes, descriptor: int, mtime: int, made: int = _OWN) -> None:
        """Give a file its name whose content is whole, with the permissions of the one that it replaces. Raises OSError.

        `made`: the permissions that it has.
        """
        mode = self._mode(self._make_way(path), entry)
        if mode != made:
            with contextlib.suppress(PermissionError):  # a disk that knows no permissions
                os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(mtime, mtime))
        self.top.rename(temporary, path)
        now = stamp_of(os.fstat(descriptor))
        untouched = now[:2] == (entry.size, mtime)  # else it was written meanwhile, or the disk keeps times less exactly
        self.index.put(path, entry, now if untouched else None)

    def _mode(self, mode: int, entry: Entry) -> int:
        """Return permissions for a file that may be executed, or may not, by whoever may read it."""
        return mode & 0o666 | ((mode & 0o444) >> 2 if entry.kind == Kind.PROGRAM else 0)

    def _make_way(self, path: bytes) -> int:
        """See to it that a file may take this path, and return the permissions that it should have."""
        facts = self.top.facts(path)
        if facts is None:
            return self._usual
        if stat.S_ISDIR(facts.st_mode):
            self.top.remove_folder(path)
            return self._usual
        self._check(path)
        return stat.S_IMODE(facts.st_mode) & 0o777 if stat.S_ISREG(facts.st_mode) else self._usual

    def _check(self, path: bytes) -> None:
        if self.top.stamp(path) != self.index.stamps.get(path):
            raise OSError(CHANGED)


def write(descriptor: int, content: Buffer, at: int = 0) -> None:
    """Write all of the content to a file, from `at` on. Raises OSError."""
    view = memoryview(content)
    while view:
        count = os.pwrite(descriptor, view, at)
        view, at = view[count:], at + count


def full() -> StateError:
    """Return the error of a full disk."""
    return StateError(
        "no room is left on the disk of the notebook's folder: free some and run it again; what arrived is kept",
        reason="disk-full",
    )


def _umask() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o077
