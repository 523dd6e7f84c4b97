"""Large payloads of runs on their way to the guest: it gets them part by part, while the rest is still coming in.

Law: a run is handed over when the guest has all of its payload, which nobody keeps here meanwhile. Where a guest does not take
parts, or is not ready yet, payloads are kept until their run is handed over.
"""

from __future__ import annotations

import itertools

from remora.frames import AHEAD, Part, Payload
from remora.streams import Peer
from remora.wire import Buffer, Fields, StartRun

_LARGE = 1 << 20
_PART = 1 << 19
_PATIENCE = 1.0
"""Seconds for which a guest may take nothing, as when its code keeps Python to itself, before the sender is held up no more."""


class Payloads:
    """The way to one guest."""

    def __init__(self) -> None:
        """Start with no guest that takes parts."""
        self.guest: Peer | None = None
        self._numbers = itertools.count(1)

    def choose(self, peer: Peer, kind: str, body: Fields, sizes: list[int]) -> Payload | None:
        """Return where the payload of a message goes; a run's body then names it."""
        inner = body.get("body") if kind == StartRun.__name__ else None
        if not isinstance(inner, dict):
            return None
        inner.pop(AHEAD, None)
        if self.guest is None or sum(sizes) < _LARGE:
            return None
        inner[AHEAD] = number = next(self._numbers)
        return _Passing(peer, self.guest, number, sizes)

    def void(self, request: StartRun) -> None:
        """Have the guest forget the payload of a run that will not be handed over."""
        if self.guest is not None and (number := request.body.get(AHEAD)):
            self.guest.send(Part(number, void=True))


class _Passing(Payload):
    """The payload that a connection sends."""

    def __init__(self, peer: Peer, guest: Peer, number: int, sizes: list[int]) -> None:
        self._peer, self._guest, self._number = peer, guest, number
        self.left = sum(sizes)
        self._held = False
        self._begin()
        guest.send(Part(number, sizes=sizes))

    def _begin(self) -> None:
        self._part, self._filled = bytearray(min(_PART, self.left)), 0

    def writable(self) -> memoryview:
        return memoryview(self._part)[self._filled :]

    def wrote(self, count: int) -> None:
        self._filled += count
        self.left -= count
        if self._filled == len(self._part):
            self._guest.send(Part(self._number, buffers=(self._part,)))
            self._begin()
            if self._guest.congested and not self._held:
                self._held = True
                self._peer.attach(self._wait())

    async def _wait(self) -> None:
        """Let the guest keep up; what comes for one that does not is kept here, since a cancel may come behind it."""
        self._held = not await self._peer.hold(self._guest, _PATIENCE)

    def buffers(self) -> tuple[Buffer, ...]:
        return ()

    def broken(self) -> None:
        self._guest.send(Part(self._number, void=True))
