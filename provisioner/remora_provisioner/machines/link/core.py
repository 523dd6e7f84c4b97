"""A link: a bundle of connections over one byte stream at a time, which goes on over the next stream where the last one broke.

Law: pure: bytes in, bytes and events out, times handed in. Each connection is bytes both ways, half-closed or ended by either
side. Bounds, for one side: `pace.MOST` bytes under way; `BACKLOG` and a read for each connection that sends; `windows.FIRST` for
each that receives, and `windows.ALL` for all those together that are given more because they read fast; `CONNECTIONS` of them.
"""

from __future__ import annotations

import json
from collections import deque

from remora.errors import ProtocolError, Refused, RemoraError, Unavailable, from_dict
from remora.wire import Buffer

from . import linkframes as lf
from .events import Arrived, Broken, Closed, Event, Finished, Opened, Renewed
from .pace import CHUNK, Pace
from .passage import Counted, Passage
from .turns import Outgoing, Turns
from .windows import FIRST, Window, Windows

BACKLOG = 1 << 19
"""Bytes of one connection that wait to be sent; beyond them it takes no more."""
CONNECTIONS = 1024
TARGET = 4096
"""Bytes of a target's name at most."""
_REASON = 1 << 14


class _Connection(Outgoing):
    """One connection, seen from one side."""

    def __init__(self, number: int, window: Window, *, opened: bool) -> None:
        super().__init__(FIRST)
        self.number, self.window = number, window
        self.opened = opened  # whether the other side has been told of it, or has told of it
        self.finishing = self.finished = self.ended = self.gone = self.choked = False

    @property
    def ready(self) -> bool:
        """Whether it has something to send, and may."""
        if self.gone:
            return False
        return self.credit > 0 if self.backlog else self.finishing and not self.finished


class Bundle:
    """One side of a link: the `first` one dials the machine, and says which link it is."""

    def __init__(self, *, first: bool, heartbeat: float = 5.0) -> None:
        """Start with no connection and no stream; a stream is taken for dead after three silent heartbeats (seconds)."""
        self.passage = Passage(self._supply, first=first, heartbeat=heartbeat)
        self._connections: dict[int, _Connection] = {}
        # Numbers of ours are never used twice; to those of the other side, which may begin anew, belongs how often it did.
        self._next, self._theirs = (1, 0) if first else (2, -1)
        self._age = 0
        self._turns: Turns[_Connection] = Turns()
        self._windows = Windows()
        self._control: deque[tuple[int, int, bytes]] = deque()
        self.roomy: list[int] = []
        """Connections that were full and take bytes again; whoever reads this empties it."""
        self._handlers = {
            lf.OPEN: self._on_open,
            lf.DATA: self._on_data,
            lf.END: self._on_end,
            lf.CLOSE: self._on_close,
            lf.CREDIT: self._on_credit,
        }

    @property
    def pace(self) -> Pace:
        """The measure of the stream that carries the link, or of the last one."""
        return self.passage.pace

    @property
    def buffered(self) -> int:
        """Bytes that are kept here: under way, waiting to be sent, arrived and not read."""
        waiting = sum(c.backlog + c.window.held for c in self._connections.values())
        return self.passage.kept + waiting

    # -- connections, for whoever holds their other ends

    def open(self, target: str) -> int:
        """Ask for a connection to `target`, and return its number; raises Unavailable for one too many, Refused for its name."""
        name = target.encode()
        if len(name) > TARGET:
            raise Refused(f"the name of what is to be reached is longer than {TARGET} bytes")
        if len(self._connections) >= CONNECTIONS:
            raise Unavailable(f"the link to this machine carries {CONNECTIONS} connections already; close some of them")
        number = self._next
        self._next += 2
        self._connections[number] = _Connection(number, Window(self._windows), opened=False)
        self._control.append((lf.OPEN, number, name))
        return number

    def send(self, number: int, data: Buffer) -> bool:
        """Send bytes, which must not change; False when it should be no more until the connection is among `roomy`."""
        connection = self._connections.get(number)
        if connection is None or connection.finishing:
            return True
        connection.add(data)
        connection.choked = connection.backlog >= BACKLOG
        self._join(connection)
        return not connection.choked

    def finish(self, number: int) -> None:
        """Say that no more bytes will be sent."""
        if (connection := self._connections.get(number)) is not None:
            connection.finishing = True
            self._join(connection)

    def drop(self, number: int, error: RemoraError | None = None) -> None:
        """End a connection both ways: what was not sent is forgotten, and the other side is told why."""
        connection = self._connections.get(number)
        if connection is None:
            return
        self._remove(connection)
        reason = b"" if error is None else json.dumps(error.to_dict()).encode()
        if not connection.opened:
            self._control = deque(c for c in self._control if c[1] != number)
        else:
            self._control.append((lf.CLOSE, number, reason if len(reason) <= _REASON else b""))

    def read(self, number: int, count: int, now: float) -> None:
        """Note that so many of the bytes that arrived have been read."""
        connection = self._connections.get(number)
        if connection is None:
            return
        granted = connection.window.read(count, self.pace.round_trip, now)
        if granted and not connection.ended:
            self._control.append((lf.CREDIT, number, lf.AMOUNT.pack(granted)))

    # -- the stream, for whoever holds it

    def wrote(self, count: int, now: float) -> list[Event]:
        """Return what the bytes written into `passage.writable()` mean; a broken stream is the last of the events."""
        events: list[Event] = []
        try:
            for said in self.passage.wrote(count, now):
                if isinstance(said, Counted):
                    event = self._handle(said)
                    events += () if event is None else (event,)
                    continue
                events.append(said)
                if isinstance(said, Renewed):
                    events += self._renew()
        except ProtocolError as error:
            events.append(Broken(error))
        return events

    # -- what goes out

    def _join(self, connection: _Connection) -> None:
        if connection.ready:
            self._turns.join(connection)

    def _supply(self, room: bool) -> list[Buffer] | None:
        if self._control:
            kind, number, body = self._control.popleft()
            if kind == lf.OPEN:
                self._connections[number].opened = True
            return lf.pieces(kind, number, body)
        while room and (connection := self._turns.next()) is not None:
            if connection.ready:
                return self._chunk(connection) if connection.backlog else self._end(connection)
        return None

    def _chunk(self, connection: _Connection) -> list[Buffer]:
        data = connection.cut(self.pace.chunk)
        packed = connection.packed(data, self.pace.rate) if self.pace.busy else None
        pieces = lf.pieces(lf.DATA, connection.number, packed or data, lf.PACKED if packed else 0)
        connection.tag += sum(map(len, pieces))
        if connection.choked and 2 * connection.backlog <= BACKLOG:
            connection.choked = False
            self.roomy.append(connection.number)
        self._join(connection)
        return pieces

    def _end(self, connection: _Connection) -> list[Buffer]:
        connection.finished = True
        self._settle(connection)
        return lf.pieces(lf.END, connection.number)

    def _settle(self, connection: _Connection) -> None:
        if connection.finished and connection.ended:
            self._remove(connection)

    def _remove(self, connection: _Connection) -> None:
        connection.gone = True
        connection.clear()
        connection.window.close()
        del self._connections[connection.number]

    def _renew(self) -> list[Event]:
        """End what the other side does not know; connections of which it was never told are asked for anew."""
        self._age += lf.NUMBERS
        self._theirs = self._age - (self._next % 2 == 0)
        self._control = deque(c for c in self._control if c[0] == lf.OPEN)
        void = [c for c in self._connections.values() if c.opened]
        for connection in void:
            self._remove(connection)
        return [Closed(connection.number, None) for connection in void]

    # -- what comes in; a frame that raises has changed nothing, since it will come again

    def _handle(self, frame: Counted) -> Event | None:
        kind, flags, number, body = frame
        handler = self._handlers.get(kind)
        if handler is None:
            raise ProtocolError(f"the other side sent a frame of kind {kind}, which this version does not know")
        is_ours = number % 2 == self._next % 2
        number += 0 if is_ours else self._age
        if kind != lf.OPEN and number not in self._connections:
            if number > (self._next - 2 if is_ours else self._theirs):
                raise ProtocolError(f"the other side speaks of connection {number}, which was never opened")
            return None  # it has ended here, and the other side does not know yet
        return handler(number, flags, body)

    def _on_open(self, number: int, flags: int, body: memoryview) -> Event | None:
        if number % 2 == self._next % 2 or number <= self._theirs:
            raise ProtocolError(f"the other side opens connection {number}, which is not its next")
        target = _text(body)
        self._theirs = number
        if len(self._connections) >= CONNECTIONS:
            full = Unavailable(f"this machine's link carries {CONNECTIONS} connections already; close some of them")
            self._control.append((lf.CLOSE, number, json.dumps(full.to_dict()).encode()))
            return None
        self._connections[number] = _Connection(number, Window(self._windows), opened=True)
        return Opened(number, target)

    def _on_data(self, number: int, flags: int, body: memoryview) -> Event | None:
        connection = self._connections[number]
        data: Buffer = lf.unpacked(body, CHUNK) if flags & lf.PACKED else body
        if connection.ended:
            raise ProtocolError("the other side sends on a connection that it has finished")
        connection.window.arrived(len(data))
        return Arrived(number, data)

    def _on_end(self, number: int, flags: int, body: memoryview) -> Event | None:
        connection = self._connections[number]
        if connection.ended:
            raise ProtocolError("the other side has finished a connection twice")
        connection.ended = True
        self._settle(connection)
        return Finished(number)

    def _on_close(self, number: int, flags: int, body: memoryview) -> Event | None:
        error = _error(body)
        self._remove(self._connections[number])
        return Closed(number, error)

    def _on_credit(self, number: int, flags: int, body: memoryview) -> Event | None:
        if len(body) != lf.AMOUNT.size:
            raise ProtocolError("the other side grants no number of bytes")
        connection = self._connections[number]
        connection.credit += lf.AMOUNT.unpack(body)[0]
        self._join(connection)
        return None


def _text(body: memoryview) -> str:
    try:
        return bytes(body).decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("the other side asks for a connection to what is no text") from error


def _error(body: memoryview) -> RemoraError | None:
    if not body:
        return None
    try:
        return from_dict(json.loads(bytes(body)))
    except (ValueError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"the other side gives a reason that cannot be read: {error}") from error
