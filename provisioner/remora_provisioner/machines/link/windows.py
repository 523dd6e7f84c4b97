"""How much the other side may send on each connection before somebody here has read it.

Law: pure. A window begins small and doubles while its reader takes half of it within a round trip, since then the window is what
holds the link up; all that windows have grown by together stays below `ALL`.
"""

from __future__ import annotations

from remora.errors import ProtocolError

FIRST = 1 << 18
"""Bytes that each connection takes unasked."""
MOST = 1 << 25
ALL = 1 << 27
_SLACK = 0.01  # seconds beside a round trip in which a reader may be late
_UNKNOWN = 0.1  # what is taken for a round trip before one was measured


class Windows:
    """What the windows of one side have grown by together."""

    def __init__(self) -> None:
        """Start with none."""
        self.grown = 0


class Window:
    """What one connection takes."""

    def __init__(self, windows: Windows) -> None:
        """Open with the first window."""
        self._windows = windows
        self._size = FIRST
        self.held = 0
        """Bytes that have arrived and were not read."""
        self._ungranted = self._read = 0
        self._since = 0.0

    def arrived(self, count: int) -> None:
        """Note bytes that came in; raises ProtocolError when they are more than was granted."""
        if self.held + count + self._ungranted > self._size:
            raise ProtocolError("the other side sends more on a connection than it was told to")
        self.held += count

    def read(self, count: int, round_trip: float | None, now: float) -> int:
        """Note bytes that were read, and return how many more may now be sent; 0 while it is not worth a frame."""
        self.held -= count
        self._ungranted += count
        self._read += count
        if 2 * self._read >= self._size:
            if now - self._since < (_UNKNOWN if round_trip is None else round_trip) + _SLACK:
                self._grow()
            self._read, self._since = 0, now
        if 4 * self._ungranted < self._size:
            return 0
        granted, self._ungranted = self._ungranted, 0
        return granted

    def close(self) -> None:
        """Give back what it has grown by."""
        self._windows.grown -= self._size - FIRST
        self._size = FIRST

    def _grow(self) -> None:
        if self._size < MOST and self._windows.grown + self._size <= ALL:
            self._windows.grown += self._size
            self._ungranted += self._size
            self._size *= 2
