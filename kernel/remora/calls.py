"""One function call on its way: submitted, followed to its end, tried again where that may help.

Law: a call is a chain of runs, one for each attempt; its output goes to `put` as it comes, and last of all what came of the last
attempt. Whoever waits sits on another thread and never sees a run that is to be tried again end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .client import Client, Follow, client, new_run
from .errors import BackendError, Refused, RemoraError
from .states import EndReason, RunState
from .streams import Peer
from .terminal import AtTerminal
from .wire import Buffer, CancelRun, Fields, FindRun, Record, RunId, SubmitCall

Put = Callable[["Record | End"], None]
_LONGEST = 60.0
"""Seconds between two attempts at most."""
_FAREWELL = 0.5
"""Seconds that whoever gives up waits for the backend to have heard it."""
_AGAIN = frozenset(
    reason.value for reason in (EndReason.CRASHED, EndReason.OUT_OF_MEMORY, EndReason.MACHINE_LOST, EndReason.SANDBOX_FAILED)
)


@dataclass(frozen=True)
class Cargo:
    """What a call consists of, ready to be sent, and sent again."""

    name: str
    spec: Fields
    body: Fields
    buffers: tuple[Buffer, ...]
    retries: int = 0
    secrets: Fields = field(default_factory=dict, repr=False)
    """What the secrets hold that the spec names."""


@dataclass(frozen=True)
class End:
    """The last word of a call: the result of its last run, or why there is none."""

    call: Call
    result: Record | None
    error: RemoraError | None = None


class Call:
    """A call that this process made, or (without cargo) a run that somebody made, which is only followed."""

    def __init__(self, cargo: Cargo | None, run: RunId | None = None) -> None:
        """Take what is to be sent; nothing is sent yet."""
        self.run: RunId = run or new_run()
        self.state: RunState | None = None
        self._cargo = cargo
        self._submitted = cargo is None
        self._result: Record | None = None
        self._lost: RemoraError | None = None
        self._put: Put = lambda _: None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- from any thread

    def begin(self, put: Put) -> None:
        """Send the call if that has not been done, and feed `put`; returns at once."""
        self._put = put
        client().soon(self._start)

    def cancel(self) -> None:
        """End the call wherever it is, and return when that is on its way."""
        cancel_all([self])

    # -- on the client's loop

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._drive())
        _driven.add(self._task)
        self._task.add_done_callback(_driven.discard)

    async def submit(self) -> None:
        """Have the call queued; it is durable when this returns."""
        try:
            await client().request(self._request())
        except Refused as error:
            if error.reason != "run-exists":  # asked twice, since the backend went away over the first time
                raise
        self._submitted = True

    def _request(self) -> SubmitCall:
        assert self._cargo is not None
        cargo = self._cargo
        return SubmitCall(self.run, cargo.name, cargo.spec, cargo.body, cargo.secrets, buffers=cargo.buffers)

    async def _drive(self) -> None:
        left = self._cargo.retries if self._cargo else 0
        wait = 1.0
        try:
            while await self._attempt() and not self._stopping.is_set():
                if _lacked_secrets(self._result) and self._cargo is not None:  # the backend was away; it is told them again
                    self.run, self._submitted = new_run(), False
                    continue
                if not left or not _may_be_tried_again(self._result):
                    break
                left -= 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), wait)
                if self._stopping.is_set():
                    break
                self.run, self._submitted, wait = new_run(), False, min(2 * wait, _LONGEST)
            self._put(End(self, self._result, self._lost))
        except RemoraError as error:
            self._put(End(self, None, error))

    async def _attempt(self) -> bool:
        """Follow the run to its end; say whether it came to one."""
        peer = await client().backend()
        if self._submitted:
            await client().see_through(Follow(self.run, self._take), peer if self._cargo else None)
        elif self._stopping.is_set():
            return False
        else:
            await self._submit_and_follow(peer)
        return self._lost is None

    async def _submit_and_follow(self, peer: Peer) -> None:
        """Ask for the records in one breath with the call: a short one is over before the backend has said that it is queued."""
        follow, request = Follow(self.run, self._take), self._request()
        sending = asyncio.ensure_future(peer.request(request))
        await asyncio.sleep(0)  # the call goes first
        following = asyncio.ensure_future(client().see_through(follow, peer))
        try:
            with client().hearing(request, AtTerminal(self._heard)):
                await asyncio.wait({sending, following}, return_when=asyncio.FIRST_COMPLETED)
                if not follow.ended:
                    await sending
                await following
        except BackendError:
            if not peer.gone.done():
                raise
            await _let_go(following)
            await self.submit()
            await client().see_through(follow)
        finally:
            await _let_go(following)
            sending.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _take(self, item: Record | RemoraError) -> None:
        if isinstance(item, RemoraError):
            self._lost = item
        elif item.type == "result":
            self._result = item
        elif item.type == "state":
            self.state = RunState(item.content["state"])
        else:
            self._put(item)

    def _heard(self, words: str) -> None:
        """Pass on what the build of its sandbox's image is doing; calls that wait for the same one say it once."""
        if words != _heard_last[0]:
            _heard_last[0] = words
            self._put(Record(self.run, -1, time.time(), "notice", {"text": words}))

    async def stop(self, there: Client) -> None:
        """Cancel the present run, and try no other."""
        self._stopping.set()
        await there.request(CancelRun(self.run))


_heard_last = [""]
_driven: set[asyncio.Task[None]] = set()


def cancel_all(calls: Iterable[Call]) -> None:
    """End calls, and return when the backend has heard it or does not answer."""
    there = client()

    async def stop() -> None:
        with contextlib.suppress(TimeoutError, RemoraError):
            async with asyncio.timeout(_FAREWELL):
                await asyncio.gather(*(call.stop(there) for call in calls))

    there.run(stop())


async def _let_go(task: asyncio.Future[None]) -> None:
    """End a task, whatever comes of it."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def find(run: str) -> Fields:
    """Return what the backend knows of a run; Refused if nothing."""
    return (await client().request(FindRun(run))).result


def _lacked_secrets(result: Record | None) -> bool:
    """Tell a call that did not begin, since a backend that was away knew the secrets of its sandbox no more."""
    ended: Fields = (result.content.get("ended") if result is not None else None) or {}
    return ended.get("reason") == EndReason.SECRETS_LOST.value


def _may_be_tried_again(result: Record | None) -> bool:
    """Tell a failure of the code or of the place from one that somebody wanted."""
    if result is None or result.content.get("ok"):
        return False
    return "ended" not in result.content or result.content["ended"].get("reason") in _AGAIN
