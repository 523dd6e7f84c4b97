"""What a folder of this machine holds now: a walk, and the digests of files, which are read only if they have changed.

Law: a digest is believed as long as size, times and number of its file stay what they were when it was read, unless the file was
written at that very time (then another write need not show in its times). What cannot be read, what is no file, and what leads
out of the folder is held: named, never touched, and nothing below it is looked at.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
import time
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from .beneath import MOST, Beneath, Stamp, stamp_of
from .entries import FOLDER, Entries, Entry, Kind, is_arriving, is_being_written, is_plain, leads_inside, packed, unpacked
from .ignoring import ENVIRONMENT, IGNORED, NAME, Rules

LARGE, OUTSIDE, SPECIAL, UNREADABLE, DEEP, UNFINISHED = b"large", b"outside", b"special", b"unreadable", b"deep", b"unfinished"
"""Why something is held, beside what is ignored."""
_MARK, _MARKED = "user.remora.unfinished", 86400
"""What an output notebook bears while its run goes on (`remora.headless.paper`), and for how many seconds that is believed."""
_CHUNK = 1 << 20
_ENCODING = sys.getfilesystemencoding()
_DEPTH = 150
_SECOND = 1_000_000_000
_TICK, _COARSE = _SECOND // 20, 2 * _SECOND
"""Within how long two writes may get the same time; the latter where a disk keeps no fractions."""
_BATCH_FILES, _BATCH_BYTES = 64, 8 << 20


@dataclass
class Index:
    """What a folder held when it was looked at."""

    entries: Entries = field(default_factory=dict)
    stamps: dict[bytes, Stamp] = field(default_factory=dict)
    """Of files and links."""
    arriving: dict[bytes, int] = field(default_factory=dict)
    """Bytes that are there of what was cut off on its way in, by the path of its temporary file."""
    unread: dict[bytes, tuple[Entry, Stamp | None]] = field(default_factory=dict)
    """Files whose digest is not known, without it; with their stamps if they can certainly be read."""
    moment: int = 0
    """When it was begun to look, in nanoseconds."""
    news: bool = False
    """Whether a digest was found that was not known before."""

    def put(self, path: bytes, entry: Entry, stamp: Stamp | None = None) -> None:
        """Take note of what is at a path now."""
        self.entries[path] = entry
        if stamp is None:
            self.stamps.pop(path, None)
        else:
            self.stamps[path] = stamp
            self.news = self.news or entry.is_file

    def drop(self, path: bytes) -> None:
        """Take note that nothing is at a path any more."""
        self.entries.pop(path, None)
        self.stamps.pop(path, None)

    def to_bytes(self) -> bytes:
        """Return the digests that can be believed later: a write since it was looked would show."""
        old = (path for path, entry in self.entries.items() if entry.is_file and is_old(self.stamps.get(path), self.moment))
        files = {path: self.entries[path] for path in old}
        stamps = [number for path in files for number in self.stamps[path]]
        return struct.pack(f"<I{len(stamps)}q", len(files), *stamps) + packed(files)

    @classmethod
    def from_bytes(cls, data: bytes) -> Index:
        """Rebuild from `to_bytes`."""
        count = struct.unpack_from("<I", data)[0]
        numbers = struct.iter_unpack("<4q", data[4 : 4 + 32 * count])
        entries = unpacked(data[4 + 32 * count :], trusted=True)
        return cls(entries, dict(zip(entries, numbers, strict=True)))


def is_old(stamp: Stamp | None, now: int) -> bool:
    """Tell whether a write after `now` would show in the times of a file that has this stamp; it need not be known.

    A file from the future was made by another clock: of such, the time of its status counts, which is of the clock here.
    """
    written = MOST if stamp is None else stamp[1] if stamp[1] <= now else stamp[2]
    return -MOST < written < now - (_TICK if written % _SECOND else _COARSE)


def look(folder: Path, rules: Rules, most: int, before: Index) -> Index:
    """Return what a folder holds; files over `most` bytes are held, and those that are not known are `unread`.

    Raises OSError if the folder itself cannot be read.
    """
    moment = time.time_ns()
    with Beneath(folder) as top:
        walk = _Walk(rules, most, before)
        walk.inside(os.dup(top.top), b"", 0)
    walk.found.moment = moment
    return walk.found


def read(folder: Path, index: Index, but: Container[bytes] = ()) -> None:
    """Read what is unread in the folder of an index, `but` some. Raises OSError if the folder itself cannot be read."""
    sizes = [(path, entry.size) for path, (entry, _) in index.unread.items() if path not in but]
    for path, stamp, entry in _digests(folder, sizes):
        del index.unread[path]
        if entry is not None:
            index.put(path, entry, stamp)


class _Walk:
    """One walk over a folder."""

    def __init__(self, rules: Rules, most: int, before: Index) -> None:
        self._rules, self._most, self._before = rules, most, before
        self._stamps, self._asks = before.stamps, not rules.for_folders_only
        self._user = os.geteuid()
        self.found = Index()

    def inside(self, descriptor: int, prefix: bytes, depth: int) -> None:
        """Look at what lies in an open folder, and close it."""
        try:
            with os.scandir(descriptor) as listed:
                inside = list(listed)
            if prefix and any(entry.name == ENVIRONMENT for entry in inside):
                self._hold(prefix[:-1], IGNORED)
                return
            for entry in inside:
                path = prefix + entry.name.encode(_ENCODING, "surrogateescape")
                with contextlib.suppress(FileNotFoundError):  # it went while we looked
                    facts = entry.stat(follow_symlinks=False)
                    if not self._is_known(path, entry.name, facts):
                        self._one(descriptor, entry.name, path, facts, depth)
        except PermissionError:
            if not prefix:
                raise
            self._hold(prefix[:-1], UNREADABLE)
        finally:
            os.close(descriptor)

    def _is_known(self, path: bytes, name: str, facts: os.stat_result) -> bool:
        """Take a file for what it was; False unless it is one that has not changed and may travel."""
        stamp = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino & MOST)
        if self._stamps.get(path) != stamp or facts.st_size > self._most:
            return False
        if name == ".git" or path == NAME or (self._asks and self._rules.ignores(path, False)):
            return False
        self.found.entries[path] = self._before.entries[path]
        self.found.stamps[path] = stamp
        return True

    def _one(self, folder: int, name: str, path: bytes, facts: os.stat_result, depth: int) -> None:
        kind = stat.S_IFMT(facts.st_mode)
        if kind == stat.S_IFREG and name.startswith(".remora-") and self._is_ours(path, facts.st_size):
            return
        if self._rules.ignores(path, kind == stat.S_IFDIR):
            self._hold(path, IGNORED)
        elif not is_plain(path):
            self._hold(path, DEEP)
        elif kind == stat.S_IFREG:
            self._file(folder, name, path, facts)
        elif kind == stat.S_IFDIR:
            self._folder(folder, name, path, depth + 1)
        elif kind == stat.S_IFLNK:
            self._link(folder, name, path, facts)
        else:
            self._hold(path, SPECIAL)

    def _file(self, folder: int, name: str, path: bytes, facts: os.stat_result) -> None:
        if facts.st_size > self._most:
            self._hold(path, LARGE, facts.st_size)
        elif name.endswith(".ipynb") and _is_unfinished(folder, name, facts):
            self._hold(path, UNFINISHED)
        else:
            mine = facts.st_uid == self._user and bool(facts.st_mode & stat.S_IRUSR)
            self.found.unread[path] = Entry(_kind(facts), facts.st_size), stamp_of(facts) if mine else None

    def _is_ours(self, path: bytes, size: int) -> bool:
        """Tell whether a file gets its name in a moment, and note one that arrives."""
        if is_arriving(path):
            self.found.arriving[path] = size
        return path in self.found.arriving or is_being_written(path)

    def _hold(self, path: bytes, why: bytes, size: int = 0) -> None:
        self.found.put(path, Entry(Kind.HELD, size, why))

    def _folder(self, folder: int, name: str, path: bytes, depth: int) -> None:
        if depth > _DEPTH:
            self._hold(path, DEEP)
            return
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError:
            self._hold(path, UNREADABLE)
            return
        self.found.put(path, FOLDER)
        self.inside(descriptor, path + b"/", depth)

    def _link(self, folder: int, name: str, path: bytes, facts: os.stat_result) -> None:
        try:
            target = os.fsencode(os.readlink(name, dir_fd=folder))
        except OSError:  # it went while we looked
            return
        if leads_inside(path, target):
            self.found.put(path, Entry(Kind.LINK, 0, target), stamp_of(facts))
        else:
            self._hold(path, OUTSIDE)


# ---- digests -----------------------------------------------------------------------------------------------------------------

_Found = tuple[bytes, Stamp | None, Entry | None]


def _digests(folder: Path, sizes: list[tuple[bytes, int]]) -> Iterator[_Found]:
    """Yield stamp and entry of each file, or what is held in its place; neither if it is gone."""
    if not sizes:
        return
    threads = min(4, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads, thread_name_prefix="digests") as pool:
        for found in pool.map(lambda batch: _read_batch(folder, batch), _batches(sizes)):
            yield from found


def _batches(sizes: Iterable[tuple[bytes, int]]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    taken = 0
    for path, size in sizes:
        batch.append(path)
        taken += size
        if len(batch) == _BATCH_FILES or taken >= _BATCH_BYTES:
            yield batch
            batch, taken = [], 0
    if batch:
        yield batch


def _read_batch(folder: Path, batch: list[bytes]) -> list[_Found]:
    with Beneath(folder) as top:
        return [_read(top, path) for path in batch]


def _read(top: Beneath, path: bytes) -> _Found:
    try:
        descriptor = top.read(path)
    except FileNotFoundError:
        return path, None, None
    except OSError:
        return path, None, Entry(Kind.HELD, 0, UNREADABLE)
    try:
        facts = os.fstat(descriptor)
        digest, size = _hashed(descriptor, facts.st_size)
        stamp = stamp_of(facts)
        if stamp_of(os.fstat(descriptor)) != stamp:
            stamp = (-1, time.time_ns(), 0, 0)  # it was written meanwhile: what was read is no longer what is there
        return path, stamp, Entry(_kind(facts), size, digest)
    except OSError:
        return path, None, Entry(Kind.HELD, 0, UNREADABLE)
    finally:
        os.close(descriptor)


def _is_unfinished(folder: int, name: str, facts: os.stat_result) -> bool:
    """Tell whether a notebook is being written by a run, step by step, and nobody else has written it since."""
    if abs(time.time() - facts.st_mtime) > _MARKED:  # its run will not end any more
        return False
    try:
        mark = os.getxattr(f"/proc/self/fd/{folder}/{name}", _MARK, follow_symlinks=False)
    except OSError:
        return False
    return mark == b"%d" % facts.st_mtime_ns


def _kind(facts: os.stat_result) -> Kind:
    return Kind.PROGRAM if facts.st_mode & stat.S_IXUSR else Kind.FILE


def _hashed(descriptor: int, size: int) -> tuple[bytes, int]:
    """Return the digest of what is in a file, and how much that is; no more than it had in the beginning."""
    hashed = blake3()
    left = size
    while left and (chunk := os.read(descriptor, min(left, _CHUNK))):
        hashed.update(chunk)
        left -= len(chunk)
    return hashed.digest(), size - left
