"""What one connection has to send, whose turn it is, and whether what goes is worth compressing.

Law: pure. Turns are start-time fair queueing over bytes: the one that has sent least goes first, and whoever has been silent
comes before everybody else with its next `_BONUS` bytes, never with more than its share; so a small message waits for no
transfer, and no transfer starves. Compression is per chunk, so that a chunk can be sent again as it is.
"""

from __future__ import annotations

import heapq
import itertools
import zlib
from collections import deque
from typing import Generic, TypeVar

from remora.wire import Buffer

_BONUS = 1 << 14
_SMALL = 1 << 12  # bytes below which nothing is compressed: it would not arrive sooner
_SPEED = 50e6  # bytes a second that the first level of zlib compresses at least
_WORTH = 0.9
_PATIENCE = 64  # chunks that go untried at most after some that did not pay


class Outgoing:
    """The bytes that a connection has to send, and how many of them the other side takes."""

    def __init__(self, credit: int) -> None:
        """Start with nothing to send and what the other side takes unasked."""
        self.backlog = 0
        self.credit = credit
        self.tag = 0
        self.queued = False
        self._pieces: deque[Buffer] = deque()
        self._tries = _Tries()

    def add(self, data: Buffer) -> None:
        """Add bytes, which are not copied and must not change."""
        self._pieces.append(data)
        self.backlog += len(data)

    def clear(self) -> None:
        """Forget what has not been sent."""
        self._pieces.clear()
        self.backlog = 0

    def cut(self, most: int) -> Buffer:
        """Take the next bytes, as many as may go."""
        most = min(most, self.credit)
        taken: list[Buffer] = []
        room = most
        while room and self._pieces:
            piece = self._pieces.popleft()
            if len(piece) > room:
                if taken:  # copying the whole of it is dearer than a chunk that is not full
                    self._pieces.appendleft(piece)
                    break
                view = memoryview(piece)
                self._pieces.appendleft(view[room:])
                piece = view[:room]
            taken.append(piece)
            room -= len(piece)
        data = taken[0] if len(taken) == 1 else b"".join(taken)
        self.backlog -= len(data)
        self.credit -= len(data)
        return data

    def packed(self, data: Buffer, rate: float) -> bytes | None:
        """Return the chunk compressed if that pays on a link that is kept busy and delivers `rate` bytes a second."""
        return self._tries.packed(data, rate) if len(data) > _SMALL and 0 < rate < _SPEED else None


_Sender = TypeVar("_Sender", bound=Outgoing)


class _Tries:
    """What samples of a connection's bytes have said."""

    def __init__(self) -> None:
        self._skip = self._after_next = 0

    def packed(self, data: Buffer, rate: float) -> bytes | None:
        if self._skip:
            self._skip -= 1
            return None
        packed = zlib.compress(data, 1)
        ratio = len(packed) / len(data)
        if ratio < _WORTH and (1 - ratio) / rate > 1 / _SPEED:
            self._after_next = 0
            return packed
        self._skip = self._after_next = min(2 * self._after_next + 1, _PATIENCE)
        return None


class Turns(Generic[_Sender]):
    """The connections that have something to send and may, in the order of their turns."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._heap: list[tuple[int, int, _Sender]] = []
        self._serial = itertools.count()
        self._now = 0

    def join(self, sender: _Sender) -> None:
        """Let a sender wait for its turn, if it does not yet."""
        if not sender.queued:
            sender.queued = True
            sender.tag = max(sender.tag, self._now - _BONUS)
            heapq.heappush(self._heap, (sender.tag, next(self._serial), sender))

    def next(self) -> _Sender | None:
        """Take out the sender whose turn it is."""
        if not self._heap:
            return None
        tag, _, sender = heapq.heappop(self._heap)
        self._now = max(self._now, tag)
        sender.queued = False
        return sender
