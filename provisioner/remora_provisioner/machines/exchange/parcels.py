"""Contents of files on their way out: small ones together in packs, large ones in pieces, none waiting for an answer.

Law: a file that is no longer what its index said is left for the next time. What arrives is taken in by arrivals.py.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from .beneath import MOST, Beneath, Stamp, stamp_of
from .entries import SMALL, Entries, Entry, arriving
from .letters import Letters, Piece, Stretch
from .moving import Moving

PIECE = 1 << 20
"""Bytes of a large file in one letter."""
NOTHING = bytes(PIECE)
"""A piece of zeros."""
COUNT, FILE, PART, ZEROS = struct.Struct("<I"), struct.Struct("<IIq"), struct.Struct("<IQq"), struct.Struct("<IQqQ")
"""Heads: of a pack; of each file in it, number, size, time; of a piece, number, place, time; of zeros, and how many.

In a pack all heads come first, then the digests of files that went without one, then all contents.
"""
_LITTLE = 1 << 15
"""Bytes up to which a file is copied rather than sent out of the system's memory."""
_PACK, _FILES = 1 << 20, 4096


@dataclass(frozen=True)
class Parcel:
    """One file that goes: its number in the list that both sides have, and where it starts (some may have arrived before).

    One without a digest has the stamp that it had when it was looked at.
    """

    number: int
    path: bytes
    entry: Entry
    start: int = 0
    stamp: Stamp | None = None


def resumes_at(path: bytes, entry: Entry, there: dict[bytes, int]) -> int:
    """Return from where a file goes on, by what is there of files that were cut off."""
    have = max(there.get(aside(path, entry), 0), 0)
    return 0 if entry.size <= SMALL else min(have, entry.size - 1) // PIECE * PIECE


def aside(path: bytes, entry: Entry) -> bytes:
    """Return where a file is written before it has its name."""
    return arriving(path[: path.rfind(b"/") + 1], entry.content)


def send(
    folder: Path, parcels: Iterable[Parcel], letters: Letters, stopped: Callable[[], bool], found: Entries, moving: Moving | None
) -> int:
    """Send contents, and say that no more comes; return how many bytes. Raises Unavailable if the connection broke.

    Files without a digest are `found` with it there when they have gone.
    """
    with Beneath(folder) as top:
        sender = _Sender(top, letters, found, moving)
        for parcel in parcels:
            if stopped():
                break
            with contextlib.suppress(OSError):  # it went, or cannot be read any more: the other side notes what did not come
                sender.send(parcel)
        sender.flush()
    letters.put(b"E")
    return sender.count


class _Sender:
    """Sends one file after another; small ones wait until there are enough of them, those that are not copied stay open."""

    def __init__(self, top: Beneath, letters: Letters, found: Entries, moving: Moving | None) -> None:
        self._top, self._letters, self._found, self._moving = top, letters, found, moving
        self._room = memoryview(bytearray(_PACK))
        self._heads: list[bytes] = []
        self._digests: list[bytes] = []
        self._pieces: list[Piece] = []
        self._used = self._copied = self._gone = self.count = 0

    def send(self, parcel: Parcel) -> None:
        descriptor = self._top.read(parcel.path)
        kept = False
        try:
            facts = os.fstat(descriptor)
            if facts.st_size != parcel.entry.size:
                return
            if parcel.entry.size > SMALL:
                self._large(parcel, descriptor, _time(facts))
            else:
                kept = self._small(parcel, descriptor, facts)
        finally:
            if not kept:
                os.close(descriptor)

    def _small(self, parcel: Parcel, descriptor: int, facts: os.stat_result) -> bool:
        """Put a file into the pack; True if it is to stay open until that is sent."""
        size = parcel.entry.size
        if self._used + size > _PACK or len(self._heads) == _FILES:
            self.flush()
        late = not parcel.entry.content
        kept = size > _LITTLE and not late
        room = self._room[self._copied : self._copied + size]
        if not kept and not _filled(descriptor, room):
            return False
        if late:
            if stamp_of(os.fstat(descriptor)) != parcel.stamp:
                return False
            digest = blake3(room).digest()
            self._digests.append(digest)
            self._found[parcel.path] = parcel.entry._replace(content=digest)
        if kept:
            self._pieces += (self._together(), Stretch(descriptor, size))
        else:
            self._copied += size
        self._heads.append(FILE.pack(parcel.number, size, _time(facts)))
        self._used += size
        return kept

    def _together(self) -> memoryview:
        """Return the copies that are not yet among the pieces: they lie one behind the other."""
        start, self._gone = self._gone, self._copied
        return self._room[start : self._copied]

    def flush(self) -> None:
        """Send the pack."""
        pieces, self._pieces = [*self._pieces, self._together()], []
        try:
            if self._heads:
                self._letters.put_pieces(b"C", [COUNT.pack(len(self._heads)), *self._heads, *self._digests, *pieces])
        finally:
            for piece in pieces:
                if isinstance(piece, Stretch):
                    os.close(piece.descriptor)
        self._went(self._used)
        self._heads, self._digests = [], []
        self._used = self._copied = self._gone = 0

    def _large(self, parcel: Parcel, descriptor: int, mtime: int) -> None:
        self.flush()
        os.lseek(descriptor, parcel.start, os.SEEK_SET)
        for at in range(parcel.start, parcel.entry.size, PIECE):
            piece = self._room[: min(PIECE, parcel.entry.size - at)]
            if not _filled(descriptor, piece):
                return
            if piece == NOTHING[: len(piece)]:
                self._letters.put(b"Z", ZEROS.pack(parcel.number, at, mtime, len(piece)))
                self._went(len(piece), zeros=True)
            else:
                self._letters.put(b"L", PART.pack(parcel.number, at, mtime), piece)
                self._went(len(piece))

    def _went(self, count: int, *, zeros: bool = False) -> None:
        self.count += 0 if zeros else count
        if self._moving is not None:
            self._moving.sent(count)


def _time(facts: os.stat_result) -> int:
    return max(-MOST, min(facts.st_mtime_ns, MOST))


def _filled(descriptor: int, view: memoryview) -> bool:
    at = 0
    while at < len(view) and (count := os.readv(descriptor, [view[at:]])):
        at += count
    return at == len(view)
