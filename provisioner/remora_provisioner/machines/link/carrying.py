"""The link at work: connections to Unix sockets on one side, one byte stream at a time on the other, on asyncio's loop.

Law: whoever is connected through a link sees an ordinary connected socket and knows nothing of it. All that is decided is decided
in `link.py`; here sockets are read and written, and one timer runs. Nothing polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

from remora.errors import BackendError, InternalError, RemoraError, Unavailable
from remora.wire import Buffer

from .core import CONNECTIONS, Bundle
from .ends import End
from .events import Arrived, Carried, Closed, Event, Finished, Opened, Renewed
from .figures import Figures
from .linkframes import behind
from .stream import Stream

_TAKES, _PIECES = 4, 1000
_LOG = logging.getLogger(__name__)


class Link:
    """One side of a link; use it on the loop that made it. The side with `first` is the one that dials the machine.

    On the machine there is one for each that dials it: a stream from somebody new ends the connections of whoever came before.
    """

    def __init__(
        self,
        accept: Callable[[str], socket.socket],
        *,
        first: bool,
        heartbeat: float = 5.0,
        changed: Callable[[bool], None] = lambda on: None,
        refused: Callable[[str, RemoraError], None] = lambda target, error: None,
        renewed: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve the other side's dialling with `accept`, which returns a connected socket or raises.

        A stream that is silent for three heartbeats (seconds, the same on both sides) is given up. Called on the loop: `changed`
        when the link is carried or no longer, `refused` with the target and the reason when the other side's `accept` has raised,
        `renewed` when all connections have ended because the other side was started anew or has closed its link.
        """
        self._accept, self._changed, self._refused, self._renewed = accept, changed, refused, renewed
        self._loop = asyncio.get_running_loop()
        self._bundle = Bundle(first=first, heartbeat=heartbeat)
        self._passage = self._bundle.passage
        self._ends: dict[int, End] = {}
        self._stream: Stream | None = None
        self._done: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._out: list[Buffer] = []
        self._writing = self._closed = self._shown = False
        self._sent = self._received = 0
        self._lost = ""

    @property
    def carried(self) -> bool:
        """Whether a stream carries the link, and the other side has answered on it."""
        return self._passage.carried

    @property
    def figures(self) -> Figures:
        """What is known of the link now."""
        pace, bundle = self._bundle.pace, self._bundle
        known = (pace.round_trip, pace.rate or None, self._sent, self._received)
        return Figures(*known, len(self._ends), bundle.buffered + sum(map(len, self._out)), self._lost)

    def dial(self, target: str) -> socket.socket:
        """Return a socket connected to what the other side reaches under `target`; at once, whatever the link is doing.

        It is closed when the other side refuses. Raises Unavailable when the link has too many connections, BackendError when it
        is closed.
        """
        mine, ours = socket.socketpair()
        try:
            self.join(target, ours)
        except BaseException:
            mine.close()
            raise
        return mine

    def join(self, target: str, sock: socket.socket) -> None:
        """Connect a socket that is there already, and own it; raises what `dial` does, and then has closed it."""
        try:
            if self._closed:
                raise BackendError("the link to this machine is closed")
            number = self._bundle.open(target)
        except BaseException:
            sock.close()
            raise
        self._add(number, sock).target = target
        self._pump()

    async def carry(self, sock: socket.socket | Stream) -> None:
        """Run over this connected socket or stream until it breaks, and close it. What carried the link before is given up.

        Raises ProtocolError when what comes is not the other side of a link of this version; all connections stay as they are.
        """
        stream = sock if isinstance(sock, Stream) else Stream.over(sock)
        if self._closed:
            stream.close()
            raise BackendError("the link to this machine is closed")
        self._lose("another stream has taken over")
        done = self._done = self._loop.create_future()
        self._stream = stream
        try:
            self._passage.start(self._loop.time())
            self._loop.add_reader(stream.reading, self._readable)
            self._pump()
            await done
        finally:
            if self._done is done:
                self._lose("given up")
            stream.close()

    def close(self) -> None:
        """End all connections, those over there when it hears of it; what has not gone yet is lost. Safe twice."""
        if self._closed:
            return
        self._closed = True
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.write([*self._out, *self._passage.farewell()][:_PIECES])
        self._lose("closed")
        for end in [*self._ends.values()]:
            end.close()
        self._ends.clear()
        self._passage.forget()

    # -- the stream

    def _lose(self, reason: str, error: Exception | None = None) -> None:
        """Let go of the stream, whose `carry` then returns."""
        if self._stream is None or self._done is None:
            return
        self._loop.remove_reader(self._stream.reading)
        self._watch_room(self._stream, wanted=False)
        if not self._done.done():
            self._done.set_result(None) if error is None else self._done.set_exception(error)
        self._stream = self._done = None
        self._out = []
        self._lost = reason
        self._passage.stop()
        self._arm()
        self._show()

    def _readable(self) -> None:
        assert self._stream is not None
        try:
            count = self._stream.read_into(self._passage.writable())
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(str(error))
            return
        if not count:
            self._lose("the other side has ended the stream")
            return
        self._received += count
        dirty: dict[int, End] = {}
        for event in self._bundle.wrote(count, self._loop.time()):
            self._do(event, dirty)
        for end in dirty.values():
            end.flush()
        self._pump()

    def _pump(self) -> None:
        """Write what may leave; called whenever there may be something new."""
        if not self._writing:
            self._write()
        self._arm()

    def _writable(self) -> None:
        self._write()
        self._arm()

    def _write(self) -> None:
        if self._stream is None:
            return
        try:
            blocked = self._write_some(self._stream)
        except (BlockingIOError, InterruptedError):
            blocked = True
        except OSError as error:
            self._lose(str(error))
            return
        self._watch_room(self._stream, wanted=blocked)
        roomy, self._bundle.roomy = self._bundle.roomy, []
        for number in roomy:
            if number in self._ends:
                self._ends[number].resume()

    def _write_some(self, stream: Stream) -> bool:
        """Write until there is nothing left; True when it is time to let others have the loop."""
        for _ in range(_TAKES):
            self._out = self._out or self._passage.take(self._loop.time())
            if not self._out:
                return False
            count = stream.write(self._out[:_PIECES])
            self._sent += count
            self._out = behind(self._out, count)
        return True

    def _watch_room(self, stream: Stream, *, wanted: bool) -> None:
        if wanted and not self._writing:
            self._loop.add_writer(stream.writing, self._writable)
        elif self._writing and not wanted:
            self._loop.remove_writer(stream.writing)
        self._writing = wanted

    # -- time

    def _arm(self) -> None:
        """Have one timer that goes off when the passage wants it, or a little early."""
        due = self._passage.next_at
        if self._timer is not None and (due is None or self._timer.when() > due):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and due is not None:
            self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._passage.tick(self._loop.time()):
            self._lose("the other side is silent")
        self._pump()

    # -- what the other side says

    def _do(self, event: Event, dirty: dict[int, End]) -> None:
        if isinstance(event, (Arrived, Finished, Closed)):
            self._tell_end(event, dirty)
        elif isinstance(event, Opened):
            self._answer(event)
        elif isinstance(event, Carried):
            self._show()
        elif isinstance(event, Renewed):
            self._renewed()
        else:
            self._lose(str(event.error or "the other side has closed the link"), event.error)

    def _tell_end(self, event: Arrived | Finished | Closed, dirty: dict[int, End]) -> None:
        end = self._ends.get(event.number)
        if end is None:
            return
        dirty[event.number] = end
        if isinstance(event, Arrived):
            end.arrived(event.data)
        elif isinstance(event, Finished):
            end.finish()
        else:
            end.close_soon()
            if event.error is not None:
                self._refused(end.target, event.error)

    def _answer(self, wanted: Opened) -> None:
        try:
            if len(self._ends) >= CONNECTIONS:  # those that have ended but were not read to their end count, too
                raise Unavailable(f"the link carries {CONNECTIONS} connections already; close some of them")
            self._add(wanted.number, self._accept(wanted.target))
        except RemoraError as error:
            self._bundle.drop(wanted.number, error)
        except OSError as error:
            self._bundle.drop(wanted.number, Unavailable(f"{wanted.target} cannot be reached on that machine: {error}"))
        except Exception as error:  # whatever a name from elsewhere does to `accept`, the other connections go on
            _LOG.exception("a connection to %r", wanted.target)
            self._bundle.drop(wanted.number, InternalError(f"{type(error).__name__}: {error}"))

    def _add(self, number: int, sock: socket.socket) -> End:
        end = self._ends[number] = End(number, sock, self._bundle, self._pump, self._gone)
        return end

    def _gone(self, number: int) -> None:
        self._ends.pop(number, None)

    def _show(self) -> None:
        if self._shown is not self.carried:
            self._shown = self.carried
            self._changed(self._shown)
