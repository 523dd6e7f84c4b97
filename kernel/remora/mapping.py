"""`f.map(…)`: one call for each input, many at once, results in order or as they come.

Law: inputs are taken only as results are asked for, and no more than WINDOW calls are on their way or waiting to be taken. When
the generator is left in whatever way, what has not ended is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from . import outcomes
from .calls import Call, End, cancel_all
from .errors import SendError
from .inbox import Inbox
from .packing import Packer
from .runs import unpack
from .wire import Record

WINDOW = 64
_NONE = object()


class Fan:
    """The calls of one map: which are on their way, and which results may be handed out."""

    def __init__(self, packer: Packer, kwargs: Mapping[str, Any] | None, ordered: bool, keep_errors: bool) -> None:
        """Map with these settings."""
        self.inbox: Inbox[Record | End] = Inbox()
        self._packer, self._kwargs, self._ordered, self._keep_errors = packer, dict(kwargs or {}), ordered, keep_errors
        self._calls: dict[Call, int] = {}
        self._ended: dict[int, End | SendError] = {}
        self._started = self._given = 0

    @property
    def room(self) -> bool:
        """True while another call may be started."""
        return len(self._calls) + len(self._ended) < WINDOW

    @property
    def waiting(self) -> bool:
        """True while a call is on its way."""
        return bool(self._calls)

    def start(self, args: tuple[Any, ...]) -> None:
        """Send off the next input."""
        number, self._started = self._started, self._started + 1
        try:
            call = Call(self._packer.pack(args, self._kwargs))
        except SendError as error:
            self._ended[number] = error
            return
        self._calls[call] = number
        call.begin(self.inbox.put)

    def feed(self, item: Record | End) -> None:
        """Take what came."""
        if isinstance(item, End):
            self._ended[self._calls.pop(item.call)] = item
        else:
            outcomes.show(item)

    def take(self) -> Iterator[Any]:
        """Yield what may be handed out now; raises the first failure unless failures are results."""
        while self._ended and (not self._ordered or self._given in self._ended):
            ended = self._ended.pop(self._given if self._ordered else next(iter(self._ended)))
            self._given += 1
            yield self._value(ended)

    def _value(self, ended: End | SendError) -> Any:
        __tracebackhide__ = True
        try:
            if isinstance(ended, SendError):
                raise ended
            return unpack(ended, self._packer.namespace).get("result")
        except Exception as error:  # whatever the function raised: it is the result if the user wants it so
            if not self._keep_errors:
                raise
            return error

    def stop(self) -> None:
        """Cancel what has not ended."""
        if self._calls:
            cancel_all(self._calls)


def results(fan: Fan, inputs: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield the results of a map."""
    __tracebackhide__ = True
    try:
        more = True
        while more or fan.waiting:
            while more and fan.room:
                args = next(inputs, None)
                if args is None:
                    more = False
                else:
                    fan.start(args)
            yield from fan.take()
            if fan.waiting and not (more and fan.room):
                fan.feed(fan.inbox.take())
        yield from fan.take()
    finally:
        fan.stop()


async def results_aio(fan: Fan, inputs: AsyncIterator[tuple[Any, ...]]) -> AsyncIterator[Any]:
    """Yield the results of a map to a task."""
    __tracebackhide__ = True
    try:
        more = True
        while more or fan.waiting:
            while more and fan.room:
                args = await anext(inputs, None)
                if args is None:
                    more = False
                else:
                    fan.start(args)
            for value in fan.take():
                yield value
            if fan.waiting and not (more and fan.room):
                fan.feed(await fan.inbox.take_aio())
        for value in fan.take():
            yield value
    finally:
        fan.stop()


async def zipped(iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...]) -> AsyncIterator[tuple[Any, ...]]:
    """Yield one item of each, until the first of them ends; plain and async iterables may be mixed."""
    turns = [aiter(one) if isinstance(one, AsyncIterable) else iter(one) for one in iterables]
    while True:
        found = []
        for turn in turns:
            item = await anext(turn, _NONE) if isinstance(turn, AsyncIterator) else next(turn, _NONE)
            if item is _NONE:
                return
            found.append(item)
        yield tuple(found)
