"""Large pieces of frames on their way out: written from where they are, past whoever would copy what does not go at once.

Law: bytes to a descriptor that does not block, and nothing else. Standard library only.
"""

from __future__ import annotations

import collections
import os

from .wire import Buffer

_SLICE, _PIECES = 1 << 18, 64
"""Bytes and pieces that are written at a time."""


class Bulk:
    """Pieces in the order in which they are to go; they must not change."""

    def __init__(self) -> None:
        """Start with none."""
        self._pieces: collections.deque[Buffer] = collections.deque()
        self.held = 0
        """Bytes that wait."""

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self._pieces)

    def add(self, pieces: list[Buffer]) -> None:
        """Append pieces of bytes."""
        self._pieces += pieces
        self.held += sum(map(len, pieces))

    def write(self, descriptor: int) -> int:
        """Write the next slice and return how much of it has gone: nothing where there is no room, or nobody who reads."""
        pieces: list[Buffer] = []
        room = _SLICE
        for piece in self._pieces:
            pieces.append(memoryview(piece)[:room])
            room -= len(pieces[-1])
            if not room or len(pieces) == _PIECES:
                break
        try:
            written = left = os.writev(descriptor, pieces)
        except OSError:
            return 0
        while left:
            left -= len(self.cut(left))
        return written

    def cut(self, most: int) -> memoryview:
        """Take out the next bytes, at most so many and all of one piece."""
        view = memoryview(self._pieces.popleft())
        if len(view) > most:
            self._pieces.appendleft(view[most:])
        self.held -= min(len(view), most)
        return view[:most]

    def clear(self) -> None:
        """Forget what waits."""
        self._pieces.clear()
        self.held = 0
