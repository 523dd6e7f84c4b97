"""Two sides of a link without sockets and without waiting: bytes are moved by hand, or by a simulated line with its own clock.

Law: no I/O, and no judgement; tests judge.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable

from remora.errors import RemoraError
from remora_provisioner.machines.link.core import Bundle
from remora_provisioner.machines.link.events import Arrived, Broken, Carried, Closed, Finished, Opened, Renewed


class Side:
    """One side, what it wrote on the stream, and what it heard."""

    def __init__(self, *, first: bool) -> None:
        """Start anew."""
        self.bundle = Bundle(first=first)
        self.first = first
        self.out = bytearray()
        self.got: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.targets: dict[int, str] = {}
        self.finished: Counter[int] = Counter()
        self.closed: dict[int, RemoraError | None] = {}
        self.unread: Counter[int] = Counter()
        self.carried = self.renewed = 0
        self.broken: list[Broken] = []

    def take(self, now: float) -> int:
        """Put on the stream what may go now, and return how many bytes that was."""
        data = b"".join(self.bundle.passage.take(now))
        self.out += data
        return len(data)

    def hear(self, data: bytes, now: float) -> None:
        """Take bytes off the stream."""
        while data:
            room = self.bundle.passage.writable()
            part, data = data[: len(room)], data[len(room) :]
            room[: len(part)] = part
            for event in self.bundle.wrote(len(part), now):
                self._note(event)

    def _note(self, event: object) -> None:
        if isinstance(event, Arrived):
            self.got[event.number] += event.data
            self.unread[event.number] += len(event.data)
        elif isinstance(event, Opened):
            assert event.number not in self.targets
            self.targets[event.number] = event.target
        elif isinstance(event, Finished):
            self.finished[event.number] += 1
        elif isinstance(event, Closed):
            assert event.number not in self.closed
            self.closed[event.number] = event.error
        elif isinstance(event, Broken):
            self.broken.append(event)
        self.carried += isinstance(event, Carried)
        self.renewed += isinstance(event, Renewed)

    def read_all(self, now: float) -> None:
        """Let everything that has arrived be read."""
        for number, count in self.unread.items():
            self.bundle.read(number, count, now)
        self.unread.clear()


class Pair:
    """Both sides, and a stream between them."""

    def __init__(self) -> None:
        """Start with nothing between them."""
        self.first, self.second = Side(first=True), Side(first=False)
        self.now = 0.0

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both."""
        return self.first, self.second

    def other(self, side: Side) -> Side:
        """Return the other one."""
        return self.second if side is self.first else self.first

    def carry(self) -> None:
        """Put a new stream between them; what was in the old one is lost."""
        for side in self.sides:
            side.out.clear()
            side.bundle.passage.start(self.now)

    def cut(self) -> None:
        """Take the stream away, and what is in it."""
        for side in self.sides:
            side.out.clear()
            side.bundle.passage.stop()

    def move(self, side: Side, count: int) -> None:
        """Let so many bytes of what that side wrote come through."""
        data = bytes(side.out[:count])
        del side.out[:count]
        self.other(side).hear(data, self.now)

    def settle(self, *, read: bool = True) -> None:
        """Let everything come through and be read, and time pass, until nothing moves any more."""
        quiet = 0
        while quiet < 3:
            self.now += 0.02
            moved = 0
            for side in self.sides:
                if read:
                    side.read_all(self.now)
                side.bundle.passage.tick(self.now)
                moved += side.take(self.now)
                self.move(side, len(side.out))
            quiet = 0 if moved else quiet + 1


class Line:
    """A simulated line: so many bytes a second each way, so many seconds until they are there, a queue without end before it."""

    def __init__(self, rate: float, round_trip: float) -> None:
        """Connect two new sides over it."""
        self.rate, self.round_trip = rate, round_trip
        self.pair = Pair()
        self.pair.carry()
        self.delivered: Counter[int] = Counter()
        """Bytes that came out, for each connection."""
        self.content: Callable[[], bytes] = lambda: bytes(1 << 15)
        self._free = {True: 0.0, False: 0.0}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._ticks: dict[bool, float] = {}
        self.carried = {True: 0, False: 0}
        """Bytes on the wire, from the first side and from the second."""

    @property
    def now(self) -> float:
        """The line's clock."""
        return self.pair.now

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do something when the clock says so."""
        heapq.heappush(self._events, (when, next(self._serial), what))

    def run(self, until: float) -> None:
        """Let time pass."""
        self._pump()
        while self._events and self._events[0][0] <= until:
            self.pair.now, _, what = heapq.heappop(self._events)
            what()
            self._pump()
        self.pair.now = until

    def transfer(self, side: Side | None = None) -> int:
        """Begin a transfer without end, from the first side unless another is given, and return its connection."""
        side = side or self.pair.first
        number = side.bundle.open("bulk")
        self._fill(side, number)
        return number

    def latency(self, number: int, data: bytes = b"x" * 200) -> float:
        """Send a small message from the first side, let it arrive, and return how long that took."""
        began, before = self.now, self.delivered[number]
        self.pair.first.bundle.send(number, data)
        while self.delivered[number] == before:
            self.run(self.now + 0.001)
        return self.now - began

    def _fill(self, side: Side, number: int) -> None:
        while side.bundle.send(number, self.content()):
            pass

    def _pump(self) -> None:
        for side in self.pair.sides:
            while side.take(self.now):
                data = bytes(side.out)
                side.out.clear()
                self._send(side, data)
                roomy, side.bundle.roomy = side.bundle.roomy, []
                for number in roomy:
                    self._fill(side, number)
            due = side.bundle.passage.next_at
            if due is not None and self._ticks.get(side.first) != due:
                self._ticks[side.first] = due
                self.at(max(due, self.now), lambda side=side: side.bundle.passage.tick(self.now))

    def _send(self, side: Side, data: bytes) -> None:
        self.carried[side.first] += len(data)
        other = self.pair.other(side)
        for at in range(0, len(data), 1 << 13):
            part = data[at : at + (1 << 13)]
            self._free[side.first] = max(self._free[side.first], self.now) + len(part) / self.rate
            self.at(self._free[side.first] + self.round_trip / 2, lambda part=part: self._arrive(other, part))

    def _arrive(self, side: Side, data: bytes) -> None:
        side.hear(data, self.now)
        for number, count in side.unread.items():
            self.delivered[number] += count
        side.read_all(self.now)
        for got in side.got.values():
            got.clear()
