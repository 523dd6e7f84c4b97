"""The one connection of a process to the backend, and through it to sandboxes. Asyncio inside, one synchronous door.

Law: everything here runs on one loop in a thread of its own, so that it works in a plain cell of any kernel, in a script
and under pytest, whatever loop runs there. `Client.run` is the only way in from outside; it waits where Ctrl-C can reach
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from . import launch, streams
from .errors import BackendError, RemoraError, RunEnded, Unavailable
from .states import ENDED, RunState
from .streams import Peer
from .wire import (
    Answer,
    CancelRun,
    Fields,
    FindRun,
    FollowRun,
    GiveUp,
    Message,
    Question,
    Record,
    Request,
    RunId,
    Stage,
)

T = TypeVar("T")
_AGAIN = 0.2
"""Seconds until it is asked again for the end of a run that nobody has heard of yet, and at first for a machine out of reach."""
_TRIES = 3
"""Times that backends are asked which go away over it, one after the other."""
_LATEST = 10.0
"""Seconds between two tries to reach a machine on which a run goes on, in the end."""
Sink = Callable[["Record | RemoraError"], None]
"""Gets a run's records, on the client's loop, and an error if the run is lost sight of; must not block."""


def new_run() -> RunId:
    """Return a fresh run id."""
    return RunId(secrets.token_hex(5))


class Waiter:
    """Who waits for something that takes its time; nobody in particular."""

    def stage(self, name: str, text: str) -> None:
        """Hear of a stage that has been reached, and more in words; on the client's loop, must not block."""

    def asked(self, text: str, secret: bool) -> Awaitable[str | None]:
        """Answer what only a person can say, on the client's loop; None if nobody can be asked."""
        return asyncio.sleep(0, None)

    async def answer(self, peer: Peer, question: Question) -> None:
        """Answer the backend."""
        peer.answer(question, {"value": await self.asked(question.text, question.secret)})


class Client:
    """The connection of this process."""

    def __init__(self) -> None:
        """Start the loop's thread; nothing is connected yet."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remora-client", daemon=True)
        self._thread.start()
        self._peer: Peer | None = None
        self._connecting = asyncio.Lock()
        self._waiting: dict[int, Waiter] = {}
        self._follows: dict[RunId, list[Follow]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the client's loop and return its result; KeyboardInterrupt cancels it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @property
    def connected(self) -> bool:
        """True while there is a connection to a backend: asking starts none."""
        return self._peer is not None and not self._peer.gone.done()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the client's loop, without waiting."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the client's loop, without waiting."""
        self._loop.call_soon_threadsafe(function, *arguments)

    # -- on the loop

    async def backend(self) -> Peer:
        """Return the connection to the backend, made or made again if need be."""
        async with self._connecting:
            if self._peer is None or self._peer.gone.done():
                self._peer = await self._connect()
            return self._peer

    async def _connect(self) -> Peer:
        for left in reversed(range(_TRIES)):
            try:
                await asyncio.to_thread(launch.ensure_backend)
                return await streams.connect(launch.backend_socket(), f"client {os.getpid()}", self._receive)
            except BackendError:  # it may have been ending just then
                if not left:
                    raise
            except OSError as error:
                if not left:
                    raise BackendError(f"the backend cannot be reached: {error}") from error
        raise AssertionError("unreachable")

    async def request(self, message: Request) -> Answer:
        """Ask the backend; asked again, a few times, if it goes away over it."""
        for left in reversed(range(_TRIES)):
            peer = await self.backend()
            try:
                return await peer.request(message)
            except BackendError:
                if not left or not peer.gone.done():
                    raise
        raise AssertionError("unreachable")

    async def tell(self, message: Request) -> None:
        """Tell the backend what matters only while it lives: none is started for it."""
        with contextlib.suppress(OSError, BackendError):
            if self._peer is not None and not self._peer.gone.done():
                await self._peer.request(message)
                return
            visit = await streams.connect(launch.backend_socket(), "visitor", lambda *_: None)
            with contextlib.closing(visit):
                await visit.request(message)

    def _receive(self, peer: Peer, message: Message) -> None:
        if isinstance(message, Stage) and message.ask in self._waiting:
            self._waiting[message.ask].stage(message.name, message.text)
        elif isinstance(message, Question):
            waiter = self._waiting.get(message.about, Waiter())
            peer.attach(waiter.answer(peer, message))
        elif isinstance(message, Record):
            for follow in tuple(self._follows.get(message.run, ())):
                follow.take(message)

    @contextlib.contextmanager
    def _listening(self, follow: Follow) -> Iterator[None]:
        """Hand the run's records to this follow, too, that come from the backend."""
        follows = self._follows.setdefault(follow.run, [])
        follows.append(follow)
        try:
            yield
        finally:
            follows.remove(follow)
            if not follows:
                self._follows.pop(follow.run, None)

    async def cancel(self, facts: Fields, hard: bool = False) -> None:
        """End a run, known by what FindRun says of it."""
        message = CancelRun(RunId(facts["id"]), hard)
        if facts.get("endpoint") and facts.get("form") != "call":
            peer = await streams.connect(Path(facts["endpoint"]["socket"]), "visitor", lambda *_: None)
            with contextlib.closing(peer):
                await peer.request(message)
        else:
            await self.request(message)

    async def staged(self, request: Request, waiter: Waiter) -> Fields:
        """Ask for what takes its time and return the result; `waiter` hears how far it has come. May be cancelled."""
        for left in reversed(range(_TRIES)):
            peer = await self.backend()
            asked = asyncio.ensure_future(peer.request(request))
            await asyncio.sleep(0)  # the request gets its number when it is sent
            with self.hearing(request, waiter):
                try:
                    return (await asked).result
                except asyncio.CancelledError:
                    peer.send(GiveUp(request.ask))
                    raise
                except BackendError:  # a build that a dead backend took along goes on from its last whole step
                    if not left or not peer.gone.done():
                        raise
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def hearing(self, request: Request, waiter: Waiter) -> Iterator[None]:
        """Hear of the stages of a request that has been sent."""
        self._waiting[request.ask] = waiter
        try:
            yield
        finally:
            self._waiting.pop(request.ask, None)

    async def follow(self, run: RunId, sink: Sink, after: int = -1) -> None:
        """Feed a run's records to `sink`, from `after` on, until its last one; through deaths of backend and connections."""
        await self.see_through(Follow(run, sink, after))

    async def replay(self, run: RunId, sink: Sink) -> None:
        """Feed the records that a run has by now to `sink`."""
        follow = Follow(run, sink)
        with self._listening(follow):
            via = await self._reach((await self.request(FindRun(run))).result, follow)
            try:
                await via.request(FollowRun(run, wait=False))
            finally:
                self._leave(via)

    async def see_through(self, follow: Follow, via: Peer | None = None) -> None:
        """Go on with a follow wherever the run's log is, until its end; `via` is tried first."""
        pause = _AGAIN
        with self._listening(follow):
            while not follow.ended:
                if await self._follow_once(follow, via):
                    pause = _AGAIN
                else:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LATEST)
                via = None

    async def _follow_once(self, follow: Follow, via: Peer | None) -> bool:
        """Follow a run until its end or that of the connection; False if the machine on which it goes on is out of reach."""
        facts: Fields = {}
        try:
            if via is None:
                facts = (await self.request(FindRun(follow.run))).result
                via = await self._reach(facts, follow)
            await via.request(FollowRun(follow.run, follow.after))
            if facts and not follow.ended and via is self._peer:
                await _mind_the_end(facts)
        except BackendError:
            if via is None or not via.gone.done():
                raise
        except Unavailable:  # a machine out of reach, on which the run goes on
            if RunState(facts.get("state", RunState.ENDED)) in ENDED:
                raise
            return False
        finally:
            self._leave(via)
        return True

    def _leave(self, via: Peer | None) -> None:
        """Close a connection that was made to follow one run."""
        if via is not None and via is not self._peer:
            via.close()

    async def _reach(self, facts: Fields, follow: Follow) -> Peer:
        """Return who knows the run's records: its supervisor while that lives, else the backend."""
        if facts.get("endpoint") and facts.get("form") != "call":
            with contextlib.suppress(OSError, BackendError):
                return await streams.connect(
                    Path(facts["endpoint"]["socket"]), "follower", lambda _, message: follow.take(message)
                )
        return await self.backend()


async def _mind_the_end(facts: Fields) -> None:
    """Raise RunEnded for a run that is over and whose log lacks an end; wait a moment for one that is just ending."""
    if RunState(facts["state"]) in ENDED:
        text = f"what run {facts['id']} printed is not all there any more; {facts.get('message') or 'it is ' + facts['state']}"
        raise RunEnded(text, reason=str(facts.get("reason") or "crashed"))
    await asyncio.sleep(_AGAIN)


class Follow:
    """How far a run's records have come. Made on the client's loop."""

    def __init__(self, run: RunId, sink: Sink, after: int = -1) -> None:
        """Feed `sink` with what comes after that number."""
        self.run, self.after = run, after
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sink = sink

    @property
    def ended(self) -> bool:
        """True when the run's last state has come."""
        return self.over.done()

    def take(self, message: Message) -> None:
        """Pass a record on, each once and in order, also where several follow the same run over one connection."""
        if isinstance(message, Record) and message.run == self.run and message.seq == self.after + 1:
            self.after = message.seq
            self._sink(message)
            if not self.ended and message.type == "state" and RunState(message.content["state"]) in ENDED:
                self.over.set_result(None)

    def fail(self, error: RemoraError) -> None:
        """Give up: the run is out of sight."""
        if not self.ended:
            self.over.set_result(None)
            self._sink(error)


_client: tuple[int, Client] | None = None
_making = threading.Lock()


def client() -> Client:
    """Return this process's client; a forked child gets one of its own."""
    global _client
    with _making:
        if _client is None or _client[0] != os.getpid():
            _client = (os.getpid(), Client())
        return _client[1]
