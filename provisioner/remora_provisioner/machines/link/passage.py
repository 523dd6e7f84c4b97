"""Counted frames over one stream after another: what one side hands over the other gets once, in order, wherever streams are cut.

Law: pure: bytes in, bytes out, times handed in. Both sides count the frames that matter and keep those that the other side has
not acknowledged; at each stream they say how many they have. The first side names the link; a second side that does not know the
name (it was started anew) says so, and both begin at zero under a new one. Nothing here knows about connections.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from remora.errors import ProtocolError
from remora.wire import Buffer

from . import linkframes as lf
from .events import Broken, Carried, Renewed
from .linkframes import Greeting
from .pace import Pace, Stamp

_ACK_BYTES, _ACK_SECONDS = 1 << 13, 0.01
_MISSED = 3
_COST = 256  # what a frame counts for at least, so that what one `take` returns is within the pieces of a system call
_TAKE = 1 << 18


class Counted(NamedTuple):
    """A frame that has come; the body is a view that holds until more is read."""

    kind: int
    flags: int
    number: int
    body: memoryview


Said = Counted | Carried | Renewed | Broken
Supply = Callable[[bool], "list[Buffer] | None"]
"""Gives the next new frame, or None; told whether there is room for bulk."""


class _Frame:
    """A counted frame, kept until the other side has it."""

    __slots__ = ("pieces", "size", "stamp")

    def __init__(self, pieces: list[Buffer]) -> None:
        self.pieces, self.size = pieces, sum(map(len, pieces))
        self.stamp: Stamp | None = None


class Passage:
    """One side."""

    def __init__(self, supply: Supply, *, first: bool, heartbeat: float) -> None:
        """Send what `supply` gives; a stream is taken for dead after three silent heartbeats."""
        self._supply, self._first, self._heartbeat = supply, first, heartbeat
        self._incoming = lf.Incoming()
        self._loose: list[Buffer] = []
        self._kept: deque[_Frame] = deque()
        self._again: deque[_Frame] = deque()
        self.carried = False
        self.next_at: float | None = None
        """When `tick` wants to be called, at the latest."""
        self.forget()
        self._open(0.0)

    @property
    def kept(self) -> int:
        """Bytes that the other side is not known to have."""
        return sum(frame.size for frame in (*self._kept, *self._again))

    # -- one stream

    def start(self, now: float) -> None:
        """Begin with a new stream."""
        self._open(now)
        self._beat_at = self.next_at = now + self._heartbeat
        if self._first:
            self._greet(lf.FRESH if self._fresh else lf.AGAIN)

    def stop(self) -> None:
        """Let go of the stream; everything that counts stays."""
        self.carried, self.next_at = False, None

    def forget(self) -> None:
        """Void all that was sent or had come, and take another name."""
        self._identity = secrets.token_bytes(16) if self._first else b""
        self._fresh = True
        self._kept.clear()
        self._again.clear()
        self._acknowledged = self._received = 0

    def _open(self, now: float) -> None:
        self._again.extendleft(reversed(self._kept))
        self._kept.clear()
        self._incoming.restart()
        self._loose.clear()
        self._pong: list[Buffer] = []
        self.pace = Pace()
        self.carried = False
        self._missed, self._heard = 0, True
        self._unsaid_frames = self._unsaid_bytes = 0
        self._last_at = self._say_at = now
        self._say_now = False

    # -- time

    def tick(self, now: float) -> bool:
        """Do what is due, which `take` then returns; False when the other side has been silent for too long."""
        if self.next_at is None:
            return True
        if self._unsaid_frames and now >= self._say_at:
            self._say_now = True
        if now >= self._beat_at:
            self._missed = 0 if self._heard else self._missed + 1
            self._heard = False
            self._beat_at = now + self._heartbeat
            if self.carried:
                self._loose += lf.pieces(lf.PING, body=lf.BEAT.pack(now))
        self._plan()
        return self._missed < _MISSED

    def _plan(self) -> None:
        waits = self._unsaid_frames and not self._say_now
        self.next_at = min(self._say_at, self._beat_at) if waits else self._beat_at

    # -- out

    def take(self, now: float) -> list[Buffer]:
        """Return what is to be written now, a bounded amount; empty when there is nothing or no room."""
        out, self._loose, self._pong = self._loose + self._pong, [], []
        left = _TAKE
        while self.carried and left > 0 and (frame := self._next()) is not None:
            frame.stamp = self.pace.left(frame.size, now)
            self._kept.append(frame)
            out += frame.pieces
            left -= frame.size + _COST
        if self._unsaid_frames and (out or self._say_now):
            said = lf.ACKNOWLEDGED.pack(self._received, self._last_at, now - self._last_at)
            out[:0] = lf.pieces(lf.ACK, body=said)
            self._unsaid_frames = self._unsaid_bytes = 0
            self._say_now = False
            self._plan()
        return out

    def farewell(self) -> list[Buffer]:
        """Return what tells the other side that the link is closed."""
        return lf.pieces(lf.BYE) if self.carried else []

    def _next(self) -> _Frame | None:
        room = self.pace.room > 0
        if self._again:
            return self._again.popleft() if room else None
        pieces = self._supply(room)
        return None if pieces is None else _Frame(pieces)

    def _greet(self, word: int) -> None:
        self._loose.append(lf.greet(Greeting(word, self._identity, self._received)))

    # -- in

    def writable(self) -> memoryview:
        """Return where bytes of the stream are to be written; never empty."""
        return self._incoming.writable()

    def wrote(self, count: int, now: float) -> Iterator[Said]:
        """Yield what the bytes say; raises ProtocolError. A frame counts as received once the next one is asked for."""
        self._heard = True
        self._incoming.wrote(count)
        while not self.carried and (greeting := self._incoming.greeting()) is not None:
            yield from self._meet(greeting)
        if not self.carried:
            return
        for kind, flags, number, body in self._incoming.frames():
            if kind < lf.ACK:
                yield Counted(kind, flags, number, body)
                self._count(len(body), now)
            elif kind == lf.BYE:
                self.forget()
                yield Renewed()
                yield Broken(None)
                return
            else:
                self._take_loose(kind, body, now)

    def _count(self, size: int, now: float) -> None:
        self._received += 1
        self._last_at = now
        if not self._unsaid_frames:
            self._say_at = now + _ACK_SECONDS
        self._unsaid_frames += 1
        self._unsaid_bytes += size
        self._say_now |= self._unsaid_bytes >= _ACK_BYTES
        if self.next_at is not None:
            self._plan()

    def _take_loose(self, kind: int, body: memoryview, now: float) -> None:
        if kind == lf.ACK and len(body) == lf.ACKNOWLEDGED.size:
            expected, there, held = lf.ACKNOWLEDGED.unpack(body)
            self._acknowledge(expected, there, held, now)
        elif kind == lf.PING and len(body) == lf.BEAT.size:
            self._pong = lf.pieces(lf.PONG, body=body)  # the last one alone: whoever asks without end is answered once
        elif kind == lf.PONG and len(body) == lf.BEAT.size:
            self.pace.measured(max(now - lf.BEAT.unpack(body)[0], 0.0), now, quiet=self.pace.resting)
        else:
            raise ProtocolError(f"the other side sent a frame of kind {kind} and {len(body)} bytes, which is none")

    def _acknowledge(self, expected: int, there: float, held: float, now: float) -> None:
        count = expected - self._acknowledged
        if not 0 <= count <= len(self._kept):
            raise ProtocolError("the other side acknowledges what was not sent")
        if not count:
            return
        frames = [self._kept.popleft() for _ in range(count)]
        self._acknowledged = expected
        last = frames[-1].stamp
        assert last is not None
        self.pace.arrived(sum(frame.size for frame in frames), last, there, held, now)

    # -- greetings

    def _meet(self, greeting: Greeting) -> Iterator[Said]:
        yield from (self._answered(greeting) if self._first else self._asked(greeting))

    def _asked(self, greeting: Greeting) -> Iterator[Said]:
        """Be the second side: know the link, or adopt it if it has nothing to lose, or say that it is unknown."""
        if greeting.word not in (lf.FRESH, lf.AGAIN):
            raise ProtocolError("both sides of the link take themselves for the second")
        if greeting.identity != self._identity:
            if greeting.word == lf.AGAIN:
                self._greet(lf.UNKNOWN)
                return
            if self._identity:
                self.forget()
                yield Renewed()
            self._identity = greeting.identity
        self._greet(lf.WELCOME)
        yield from self._go_on(greeting.expected)

    def _answered(self, greeting: Greeting) -> Iterator[Said]:
        if greeting.word == lf.UNKNOWN and not self._fresh:
            self.forget()
            yield Renewed()
            self._greet(lf.FRESH)
        elif greeting.word == lf.WELCOME and greeting.identity == self._identity:
            self._fresh = False
            yield from self._go_on(greeting.expected)
        else:
            raise ProtocolError("both sides of the link take themselves for the first")

    def _go_on(self, expected: int) -> Iterator[Said]:
        known = expected - self._acknowledged
        if not 0 <= known <= len(self._again):
            raise ProtocolError("the other side has another count of what was sent; end its agent and try again")
        for _ in range(known):
            self._again.popleft()
        self._acknowledged = expected
        self.carried = True
        yield Carried()
