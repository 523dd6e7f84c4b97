"""The handle of a run: wait for it, cancel it, read what it made, from the process that started it or from any other.

Law: a handle owns nothing. The run goes on when its handle is dropped or its process ends, and `Run.from_id` finds it again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable
from typing import Any

from . import outcomes
from .calls import Call, End, find
from .client import client
from .connection import Connection
from .errors import Refused, RunEnded
from .inbox import Inbox
from .states import ENDED, RunState
from .sync.codec import decode
from .twins import Twin
from .wire import Fields, Record, RunId


class Run:
    """A call, a detached cell or a notebook that runs somewhere, or did."""

    def __init__(self, call: Call, name: str = "", namespace: Fields | None = None) -> None:
        """Take a call that is on its way; `namespace` is where its functions live."""
        self.id: str = call.run
        self.name = name
        self._call = call
        self._namespace = vars(sys.modules["__main__"]) if namespace is None else namespace
        self._inbox: Inbox[Record | End] | None = None
        self._end: End | None = None
        self._values: Fields | None = None

    @classmethod
    def from_id(cls, run: str) -> Run:
        """Return the handle of a run by its id, or a beginning of it that no other has; Refused if there is none."""
        facts = client().run(find(run))
        return cls(Call(None, RunId(facts["id"])), str(facts.get("name", "")))

    def __repr__(self) -> str:
        """Return id, name and what is known of its state."""
        state = self._call.state
        return f"<remora.Run {self.id}{f' of {self.name}' if self.name else ''}{f': {state.value}' if state else ''}>"

    # -- waiting

    @property
    def get(self) -> Twin[..., Any, Awaitable[Any]]:
        """`get(timeout=None)`: wait, and return the value or raise what the code raised. TimeoutError leaves the run alone."""
        return Twin(self._get, self._get_aio)

    def _get(self, timeout: float | None = None) -> Any:
        __tracebackhide__ = True
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while self._end is None:
                self._feed(self.follow().take(None if deadline is None else max(0.0, deadline - time.monotonic())))
        except KeyboardInterrupt:
            self._call.cancel()
            raise
        except TimeoutError:
            raise self._late(timeout) from None
        return self._value()

    def _get_aio(self, timeout: float | None = None) -> Awaitable[Any]:
        return self._wait_aio(timeout)

    async def _wait_aio(self, seconds: float | None) -> Any:
        __tracebackhide__ = True
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while self._end is None:
                self._feed(await self.follow().take_aio(None if deadline is None else max(0.0, deadline - time.monotonic())))
        except TimeoutError:
            raise self._late(seconds) from None
        return self._value()

    def _late(self, seconds: float | None) -> TimeoutError:
        return TimeoutError(f"run {self.id} is not over after {seconds:g} s; it goes on, and get() waits for it again")

    def follow(self) -> Inbox[Record | End]:
        """Begin to follow the run, or go on; its records are in the inbox."""
        if self._inbox is None:
            self._inbox = Inbox()
            self._call.begin(self._inbox.put)
        return self._inbox

    def _feed(self, item: Record | End) -> None:
        if isinstance(item, End):
            self._end = item
            if self._inbox is not None:
                self._inbox.put(item)  # for another thread that waits for the same run
        else:
            outcomes.show(item)

    def _value(self) -> Any:
        return self._made().get("result")

    def _made(self) -> Fields:
        """Return what the run made; raises what it raised, the same each time."""
        assert self._end is not None
        if self._values is None:
            self._values = unpack(self._end, self._namespace)
        return self._values

    # -- cancelling and asking

    @property
    def cancel(self) -> Twin[[], None, Awaitable[None]]:
        """`cancel()`: end the run; one that is over stays as it is."""
        return Twin(self._call.cancel, self._cancel_aio)

    async def _cancel_aio(self) -> None:
        self._call.cancel()

    @property
    def state(self) -> RunState:
        """Return where the run stands now."""
        if self._call.state not in ENDED:
            self._call.state = RunState(client().run(find(self._call.run))["state"])
        return self._call.state or RunState.UNKNOWN

    # -- what it made

    def values(self) -> Fields:
        """Wait, and return the variables that the run made: those of a cell by name, that of a call as "result"."""
        self._get()
        made, end = self._made(), self._end
        away = [name for name in end.result.content.get("away") or () if name not in made] if end and end.result else []
        if away:
            made.update(client().run(self._fetch(away)))
        return made

    def __getitem__(self, name: str) -> Any:
        """Return a variable that the run made; KeyError if it made none of this name."""
        return self.values()[name]

    async def _fetch(self, names: list[str]) -> Fields:
        """Return variables that were too large to come along, from the sandbox while it lives."""
        facts = await find(self.id)
        if not facts.get("endpoint"):
            raise Refused(f"the sandbox of run {self.id} has ended, and {', '.join(names)} with it", reason="sandbox-ended")
        connection = Connection(client(), {"id": facts["sandbox"], "endpoint": facts["endpoint"]})
        await connection.connect()
        try:
            answer = await connection.ask("pull", {"names": names})
        finally:
            connection.close()
        stream, *buffers = answer.buffers
        return decode(bytes(stream), buffers, namespace=self._namespace)


def unpack(end: End, namespace: Fields) -> Fields:
    """Return the variables of a run that is over; raises what it raised there, or why it did not come to an end of its own."""
    if end.error is not None:
        raise end.error
    if end.result is None:
        raise RunEnded("the call was cancelled before it was sent", reason="cancelled")
    error = outcomes.failure(end.result, namespace)
    if error is not None:
        raise error
    return outcomes.values(end.result, namespace)
