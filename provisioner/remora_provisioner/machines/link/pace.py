"""How much of a link may be under way at once: enough to fill it, and not so much that a print waits behind a transfer.

Law: pure. Sizes are bytes on the wire, times are seconds of one clock that is handed in; of the other side's clock only
differences count. Nothing is assumed about the stream but that it keeps the order: rate and times come from acknowledgements.
What is under way is at most what the link delivers in its least round-trip time and `_QUEUE` seconds more, so that the queues
below us (socket, SSH, TCP, router) are never longer than that for long, and a chunk is never more than a fraction of it.
"""

from __future__ import annotations

from dataclasses import dataclass

CHUNK = 1 << 18
"""The most that one connection sends before another has its turn, on the fastest link."""
_USUAL = 1 << 15
_SHARE = 0.0025  # seconds for which a link may be taken by a chunk above the usual size
MOST = 1 << 25
"""Bytes that may be under way on any link, and are kept until they are acknowledged."""
FIRST = 1 << 16
"""Bytes that may be under way before anything is known about the link."""
_LEAST = 1 << 14
_QUEUE = 0.04
_LONGEST = 0.06  # seconds that answers are believed to wait on their way back: the other side keeps its queue short, too
_CAUTION = 0.25
_CALM = 0.01  # a queue shorter than this means that the link can take more
_GAIN = 2.0
_ROUNDS, _MOMENT = 10, 0.5  # how long the best rate is believed: round trips, and at least seconds
_BASE_AGE = 30.0  # seconds after which the least round-trip time is measured anew, on a queue that was let run dry


@dataclass(frozen=True, slots=True)
class Stamp:
    """What was known when a frame left."""

    at: float
    flying: int
    """What was under way already."""
    delivered: int
    there: float | None
    """When the last of the delivered bytes came, by the other side's clock; None when the link was at rest."""
    after: float
    """When the last of the delivered bytes had left."""
    full: bool
    """Whether the link was kept busy, so that a low rate says something about the link and not about who sends."""


class Pace:
    """The measure of one stream; a link begins a new one with each stream that carries it."""

    def __init__(self) -> None:
        """Know nothing about the link."""
        self.flying = 0
        self.rate = 0.0
        """Bytes a second that the link is known to deliver; 0 until it has been kept busy."""
        self.round_trip: float | None = None
        self._cap = FIRST
        self._base: float | None = None
        self._base_at = 0.0
        self._drained_from: float | None = None
        self._delivered = self._round_end = self._rounds = 0
        self._there = self._left = self._rates_at = 0.0
        self._round_rate = self._rate_now = self._rate_before = 0.0
        self._delay_base = 0.0  # how much later it is over there when a frame arrives by an empty way
        self._queues: list[float] = []  # how long frames of this round waited on their way
        self._backs: list[float] = []  # and their answers on the way back
        self._waited = 0.0
        self._gain = _GAIN
        self._was_full = False

    @property
    def room(self) -> int:
        """How much more may leave."""
        return (self._cap if self._drained_from is None else _LEAST) - self.flying

    @property
    def busy(self) -> bool:
        """Whether the link, and not who sends, is what limits: there is time to make less of what is sent."""
        return 2 * self.flying >= self._cap

    @property
    def resting(self) -> bool:
        """Whether nothing is under way, and the least round-trip time is to be measured anew."""
        return self._drained_from is not None and not self.flying

    @property
    def chunk(self) -> int:
        """The most that one connection sends before another has its turn."""
        if not self.rate:
            return _USUAL
        usual = min(_USUAL, max(_USUAL // 4, int(self.rate * _QUEUE / 2)))
        return max(usual, min(CHUNK, int(self.rate * _SHARE)))

    def left(self, size: int, now: float) -> Stamp:
        """Note that a frame leaves."""
        there, after = (self._there, self._left) if self.flying else (None, now)
        stamp = Stamp(now, self.flying, self._delivered, there, after, 2 * (self.flying + size) >= self._cap)
        self.flying += size
        return stamp

    def arrived(self, size: int, last: Stamp, there: float, held: float, now: float) -> None:
        """Note that frames of that size have arrived.

        The last of them came when it was `there` by the other side's clock, and its answer was held back for `held` seconds.
        """
        self.flying -= size
        self._delivered += size
        self._there, self._left = there, last.at
        quiet = self._drained_from is not None and last.at >= self._drained_from and last.flying <= _LEAST
        round_trip = max(now - last.at - held, 0.0)
        empty = self.measured(round_trip, now, quiet=quiet)
        self._waits(round_trip, there - last.at, empty=empty)
        # Neither faster than it came, by the clock over there, since answers may come in heaps, nor than it left.
        took = max(round_trip if last.there is None else there - last.there, last.at - last.after, 1e-5)
        self._learn((self._delivered - last.delivered) / took, full=last.full, now=now)
        if last.delivered >= self._round_end:
            self._end_round()
        if self.rate and self._base is not None:
            most = self._gain * self.rate * (self._base + self._waited + _QUEUE)
            self._cap = int(min(max(most, _LEAST), MOST))

    def measured(self, round_trip: float, now: float, *, quiet: bool = False) -> bool:
        """Note a round-trip time, and say whether all queues were empty; `quiet`: nearly nothing was under way, on purpose."""
        self.round_trip = round_trip if self.round_trip is None else 0.75 * self.round_trip + 0.25 * round_trip
        if self._base is None or round_trip < self._base or quiet:
            self._base, self._base_at, self._drained_from = round_trip, now, None
        elif round_trip < self._base + _CALM / 10:
            self._base_at = now
        else:
            if now - self._base_at > _BASE_AGE and self._drained_from is None:
                self._drained_from = now
            return False
        return True

    def _waits(self, round_trip: float, delay: float, *, empty: bool) -> None:
        """Tell apart how long the queue there is and how long that of answers back, which others fill."""
        self._delay_base = delay if empty else min(self._delay_base, delay)
        queue = delay - self._delay_base
        self._queues.append(queue)
        self._backs.append(min(max(round_trip - (self._base or 0.0) - queue, 0.0), _LONGEST))

    def _learn(self, rate: float, *, full: bool, now: float) -> None:
        """Keep the best rate of late; one that was low because little was sent says nothing."""
        if not full and not self.rate:
            return
        self._was_full |= full
        self._round_rate = max(self._round_rate, rate)
        self._rate_now = max(self._rate_now, rate)
        if self._rounds >= _ROUNDS and now - self._rates_at > _MOMENT and self._was_full:
            self._rate_before, self._rate_now = self._rate_now, rate
            self._rounds, self._rates_at, self._was_full = 0, now, False
        self.rate = max(self._rate_now, self._rate_before)

    def _end_round(self) -> None:
        """Draw the conclusion of one round trip: more, as it is, or less at once because a queue has built up."""
        self._round_end = self._delivered
        self._rounds += 1
        mostly = sorted(self._queues)[len(self._queues) // 4]  # a packet that is lost holds up many, and is no queue
        self._gain = _GAIN if mostly < _CALM else 1.0
        back = sum(self._backs) / len(self._backs)
        self._waited += _CAUTION * (back - self._waited)  # or two sides that both send rock each other
        if min(self._queues) > 2 * _QUEUE and self._was_full and self._round_rate:
            self.rate = self._rate_now = self._rate_before = self._round_rate
        self._round_rate, self._queues, self._backs = 0.0, [], []
