"""How far the contents of an exchange have come, for whoever waits for them.

Law: what is quickly done is not talked about, and nothing is said more often than a person reads. Two threads may count at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from remora.resources import format_bytes

_PAUSE = 0.5
"""Seconds before something is said, and between that and the next."""


class Moving:
    """Counts bytes of contents, both ways."""

    def __init__(self, machine: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Say in words how far it has come with this machine; `say` is called by the threads that move something."""
        self._machine, self._say, self._clock = machine, say, clock
        self._next = clock() + _PAUSE
        self._to_send = self._to_fetch = self._sent = self._fetched = 0

    def expect(self, send: int, fetch: int) -> None:
        """Know how many bytes go and come."""
        self._to_send, self._to_fetch = send, fetch

    def sent(self, count: int) -> None:
        """Take note of bytes that went."""
        self._sent += count
        self._tell()

    def fetched(self, count: int) -> None:
        """Take note of bytes that came."""
        self._fetched += count
        self._tell()

    def all_sent(self) -> None:
        """Take note that nothing more goes: what changed meanwhile was left."""
        self._to_send = self._sent

    def _tell(self) -> None:
        if (now := self._clock()) < self._next:
            return
        self._next = now + _PAUSE
        ways = (
            (f"sending files to {self._machine}", self._sent, self._to_send),
            (f"bringing files home from {self._machine}", self._fetched, self._to_fetch),
        )
        if said := [f"{words}: {format_bytes(done)} of {format_bytes(total)}" for words, done, total in ways if done < total]:
            self._say("; ".join(said))
