"""Contents of files on their way: small ones together in packs, large ones in pieces, none waiting for an answer.

Law: what arrives is written aside and gets its name only when it is whole and its digest is right. A large file that was cut off
stays aside, and goes on from there. A file that is no longer what its index said is left for the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from remora.errors import ProtocolError
from remora.wire import Buffer

from .applying import CHANGED, Changes
from .beneath import MOST, Beneath
from .entries import Entry, arriving
from .letters import Letters

PIECE = 1 << 20
"""Bytes of a large file in one letter."""
_SMALL, _PACK, _FILES = 1 << 19, 1 << 20, 4096
_COUNT, _FILE, _PART, _ZEROS = struct.Struct("<I"), struct.Struct("<IIq"), struct.Struct("<IQq"), struct.Struct("<IQqQ")
_NOTHING = bytes(PIECE)


@dataclass(frozen=True)
class Parcel:
    """One file that goes: its number in the list that both sides have, and where it starts (some may have arrived before)."""

    number: int
    path: bytes
    entry: Entry
    start: int = 0


def resumes_at(path: bytes, entry: Entry, there: dict[bytes, int]) -> int:
    """Return from where a file goes on, by what is there of files that were cut off."""
    have = max(there.get(aside(path, entry), 0), 0)
    return 0 if entry.size <= _SMALL else min(have, entry.size - 1) // PIECE * PIECE


def aside(path: bytes, entry: Entry) -> bytes:
    """Return where a file is written before it has its name."""
    return arriving(path[: path.rfind(b"/") + 1], entry.content)


def send(folder: Path, parcels: Iterable[Parcel], letters: Letters, stopped: Callable[[], bool]) -> int:
    """Send contents, and say that no more comes; return how many bytes. Raises Unavailable if the connection broke."""
    with Beneath(folder) as top:
        sender = _Sender(top, letters)
        for parcel in parcels:
            if stopped():
                break
            with contextlib.suppress(OSError):  # it went, or cannot be read any more: the other side notes what did not come
                sender.send(parcel)
        sender.flush()
    letters.put(b"E")
    return sender.count


class _Sender:
    def __init__(self, top: Beneath, letters: Letters) -> None:
        self._top, self._letters = top, letters
        self._room = memoryview(bytearray(_PACK))
        self._heads: list[bytes] = []
        self._used = self.count = 0

    def send(self, parcel: Parcel) -> None:
        descriptor = self._top.read(parcel.path)
        try:
            facts = os.fstat(descriptor)
            if facts.st_size != parcel.entry.size:
                return
            mtime = max(-MOST, min(facts.st_mtime_ns, MOST))
            if parcel.entry.size > _SMALL:
                self._large(parcel, descriptor, mtime)
            else:
                self._small(parcel, descriptor, mtime)
        finally:
            os.close(descriptor)

    def _small(self, parcel: Parcel, descriptor: int, mtime: int) -> None:
        size = parcel.entry.size
        if self._used + size > len(self._room) or len(self._heads) == _FILES:
            self.flush()
        if _filled(descriptor, self._room[self._used : self._used + size]):
            self._heads.append(_FILE.pack(parcel.number, size, mtime))
            self._used += size

    def flush(self) -> None:
        if self._heads:
            head = _COUNT.pack(len(self._heads)) + b"".join(self._heads)
            self._letters.put(b"C", head, self._room[: self._used])
        self.count += self._used
        self._heads, self._used = [], 0

    def _large(self, parcel: Parcel, descriptor: int, mtime: int) -> None:
        self.flush()
        os.lseek(descriptor, parcel.start, os.SEEK_SET)
        for at in range(parcel.start, parcel.entry.size, PIECE):
            piece = self._room[: min(PIECE, parcel.entry.size - at)]
            if not _filled(descriptor, piece):
                return
            if piece == _NOTHING[: len(piece)]:
                self._letters.put(b"Z", _ZEROS.pack(parcel.number, at, mtime, len(piece)))
            else:
                self._letters.put(b"L", _PART.pack(parcel.number, at, mtime), piece)
                self.count += len(piece)


def _filled(descriptor: int, view: memoryview) -> bool:
    at = 0
    while at < len(view) and (count := os.readv(descriptor, [view[at:]])):
        at += count
    return at == len(view)


_Whole = tuple[bytes, Entry, memoryview, int]
"""A small file that arrived: where it belongs, what it is, its content and its time."""


@dataclass
class _Large:
    """A large file on its way in."""

    number: int
    aside: bytes
    descriptor: int
    hashed: hashlib._Hash
    got: int


class Arrivals:
    """What is expected, by number, and what has come of it."""

    def __init__(self, changes: Changes, expected: list[tuple[bytes, Entry]], letters: Letters) -> None:
        self._changes, self._letters = changes, letters
        self._expected = dict(enumerate(expected))
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="arrivals")
        self._writing: Future[None] | None = None
        self._large: _Large | None = None
        self._refused: set[int] = set()
        self.bytes = 0
        """Of contents that came and are in place."""

    def take(self, letter: bytes, content: memoryview) -> None:
        """Take in a letter of contents; ProtocolError if it is not as promised, StateError if the disk is full."""
        try:
            if letter == b"C":
                self._pack(content)
            elif letter == b"L":
                number, at, mtime = _PART.unpack_from(content)
                self._piece(number, at, mtime, content[_PART.size :])
            elif letter == b"Z":
                number, at, mtime, length = _ZEROS.unpack(content)
                self._piece(number, at, mtime, length)
        except (struct.error, KeyError) as error:
            raise self._letters.nonsense() from error

    def end(self) -> None:
        """Note what did not come; StateError if the disk is full."""
        self._wait()
        for path, _ in self._expected.values():
            self._changes.failures.setdefault(path, CHANGED)

    def close(self) -> None:
        """Leave what is half there for the next time; safe twice."""
        self._writer.shutdown()
        self._leave()

    def _leave(self) -> None:
        large, self._large = self._large, None
        if large is None:
            return
        os.close(large.descriptor)
        if large.got < PIECE:
            with contextlib.suppress(OSError):  # the next exchange sweeps it
                self._changes.top.remove(large.aside)

    def _pack(self, content: memoryview) -> None:
        (count,) = _COUNT.unpack_from(content)
        at = _COUNT.size + count * _FILE.size
        heads = [_FILE.unpack_from(content, _COUNT.size + n * _FILE.size) for n in range(count)]
        if at + sum(size for _, size, _ in heads) != len(content):
            raise self._letters.nonsense()
        whole = []
        for number, size, mtime in heads:
            path, entry = self._expected.pop(number)
            data = content[at : at + size]
            if size == entry.size and hashlib.sha256(data).digest() == entry.content:
                whole.append((path, entry, data, mtime))
            else:
                self._changes.failures[path] = CHANGED
            at += size
        self._wait()
        self._writing = self._writer.submit(self._put, whole)

    def _wait(self) -> None:
        """Wait until what was given to the other thread is in place; raises what went wrong there."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _put(self, whole: list[_Whole]) -> None:
        for path, entry, data, mtime in whole:
            self._put_one(path, entry, data, mtime)

    def _put_one(self, path: bytes, entry: Entry, data: memoryview, mtime: int) -> None:
        temporary = aside(path, entry)
        with self._changes.attempt(path):
            descriptor = self._create(temporary)
            try:
                _write(descriptor, data)
                self._changes.place(path, entry, temporary, descriptor, mtime)
                self.bytes += entry.size
            except OSError:
                self._changes.top.remove(temporary)
                raise
            finally:
                os.close(descriptor)

    def _create(self, temporary: bytes) -> int:
        try:
            return self._changes.top.create(temporary)
        except FileExistsError:
            self._changes.top.remove(temporary)
            return self._changes.top.create(temporary)

    def _piece(self, number: int, at: int, mtime: int, data: memoryview | int) -> None:
        """Take a piece of a large file, or a number of zeros."""
        if number in self._refused:
            return
        self._wait()
        path, entry = self._expected[number]
        size = data if isinstance(data, int) else len(data)
        with self._changes.attempt(path):
            large = self._opened(number, path, entry, at)
            if large.got != at or not 0 < size <= min(PIECE, entry.size - at):
                raise ProtocolError(f"{self._letters.name} sends other pieces than it announced; do not trust it")
            large.hashed.update(_NOTHING[:size] if isinstance(data, int) else data)
            if not isinstance(data, int):
                _write(large.descriptor, data, at)
            large.got += size
            if large.got == entry.size:
                self._complete(path, entry, mtime)
        if path in self._changes.failures:
            self._refused.add(number)
            self._expected.pop(number, None)

    def _opened(self, number: int, path: bytes, entry: Entry, at: int) -> _Large:
        if self._large is not None and self._large.number == number:
            return self._large
        self._leave()
        temporary = aside(path, entry)
        hashed = hashlib.sha256()
        descriptor = self._create(temporary) if at == 0 else self._changes.top.resume(temporary)
        self._large = _Large(number, temporary, descriptor, hashed, 0)
        while self._large.got < at and (chunk := os.read(descriptor, min(PIECE, at - self._large.got))):
            hashed.update(chunk)
            self._large.got += len(chunk)
        if self._large.got != at:
            raise OSError(CHANGED)
        return self._large

    def _complete(self, path: bytes, entry: Entry, mtime: int) -> None:
        large, temporary = self._large, aside(path, entry)
        assert large is not None
        self._large = None
        del self._expected[large.number]
        try:
            if large.hashed.digest() != entry.content:
                raise OSError(CHANGED)
            os.ftruncate(large.descriptor, entry.size)
            self._changes.place(path, entry, temporary, large.descriptor, mtime)
            self.bytes += entry.size
        except OSError:
            self._changes.top.remove(temporary)
            raise
        finally:
            os.close(large.descriptor)


def _write(descriptor: int, data: Buffer, at: int = 0) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, at)
        view, at = view[count:], at + count
