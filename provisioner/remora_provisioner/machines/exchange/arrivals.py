"""Contents of files that arrive, and what is expected.

Law: what arrives is written aside and gets its name only when it is whole and its digest is right. A large file that was cut off
stays aside, and goes on from there. All is done before the next letter is read: its room is used again.
"""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass

from blake3 import blake3
from remora.errors import ProtocolError

from .applying import CHANGED, Changes, write
from .entries import DIGEST, Entry
from .letters import Letters
from .parcels import COUNT, FILE, NOTHING, PART, PIECE, ZEROS, aside


@dataclass
class _Large:
    """A large file on its way in."""

    number: int
    aside: bytes
    descriptor: int
    hashed: blake3
    got: int


class Arrivals:
    """What is expected, by number, and what has come of it."""

    def __init__(self, changes: Changes, expected: list[tuple[bytes, Entry]], letters: Letters) -> None:
        self._changes, self._letters = changes, letters
        self._expected = dict(enumerate(expected))
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
                number, at, mtime = PART.unpack_from(content)
                self._piece(number, at, mtime, content[PART.size :])
            elif letter == b"Z":
                number, at, mtime, length = ZEROS.unpack(content)
                self._piece(number, at, mtime, length)
        except (struct.error, KeyError) as error:
            raise self._letters.nonsense() from error

    def end(self) -> None:
        """Note what did not come."""
        for path, _ in self._expected.values():
            self._changes.failures.setdefault(path, CHANGED)

    def close(self) -> None:
        """Leave what is half there for the next time; safe twice."""
        large, self._large = self._large, None
        if large is None:
            return
        os.close(large.descriptor)
        if large.got < PIECE:
            with contextlib.suppress(OSError):  # the next exchange sweeps it
                self._changes.top.remove(large.aside)

    # ---- small ones

    def _pack(self, content: memoryview) -> None:
        (count,) = COUNT.unpack_from(content)
        at = COUNT.size + count * FILE.size
        heads = [*FILE.iter_unpack(content[COUNT.size : at])]
        late = at
        at += DIGEST * sum(not self._expected[number][1].content for number, _, _ in heads)
        if len(heads) != count or at + sum(size for _, size, _ in heads) != len(content):
            raise self._letters.nonsense()
        for number, size, mtime in heads:
            path, entry = self._expected.pop(number)
            if not entry.content:
                entry = entry._replace(content=bytes(content[late : late + DIGEST]))
                late += DIGEST
            self._small(path, entry, content[at : at + size], mtime)
            at += size

    def _small(self, path: bytes, entry: Entry, data: memoryview, mtime: int) -> None:
        if len(data) != entry.size or blake3(data).digest() != entry.content:
            self._changes.failures[path] = CHANGED
            return
        try:
            self._changes.bring(path, entry, aside(path, entry), data, mtime)
            self.bytes += entry.size
        except OSError as error:
            self._changes.failed(path, error)

    # ---- large ones

    def _piece(self, number: int, at: int, mtime: int, data: memoryview | int) -> None:
        """Take a piece of a large file, or a number of zeros."""
        if number in self._refused:
            return
        path, entry = self._expected[number]
        size = data if isinstance(data, int) else len(data)
        with self._changes.attempt(path):
            large = self._opened(number, path, entry, at)
            if large.got != at or not 0 < size <= min(PIECE, entry.size - at):
                raise ProtocolError(f"{self._letters.name} sends other pieces than it announced; do not trust it")
            large.hashed.update(NOTHING[:size] if isinstance(data, int) else data)
            if not isinstance(data, int):
                write(large.descriptor, data, at)
            large.got += size
            if large.got == entry.size:
                self._complete(path, entry, mtime)
        if path in self._changes.failures:
            self._refused.add(number)
            self._expected.pop(number, None)

    def _opened(self, number: int, path: bytes, entry: Entry, at: int) -> _Large:
        if self._large is not None and self._large.number == number:
            return self._large
        self.close()
        temporary, top = aside(path, entry), self._changes.top
        hashed = blake3()
        descriptor = top.create_anew(temporary) if at == 0 else top.resume(temporary)
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
