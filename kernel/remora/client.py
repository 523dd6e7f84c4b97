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
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from . import launch, streams
from .errors import BackendError, RemoraError, RunEnded
from .states import ENDED, RunState
from .streams import Peer
from .wire import (
    Answer,
    AskGuest,
    Buffer,
    CancelRun,
    Fields,
    FindRun,
    FindSandbox,
    FollowRun,
    GiveUp,
    InputReply,
    InterruptRun,
    Message,
    Record,
    Request,
    RunId,
    Stage,
    StartRun,
)

T = TypeVar("T")
Sink = Callable[["Record | RemoraError"], None]
"""Gets a run's records, on the client's loop, and an error if the run is lost sight of; must not block."""


def new_run() -> RunId:
    """Return a fresh run id."""
    return RunId(secrets.token_hex(5))


class Client:
    """The connection of this process."""

    def __init__(self) -> None:
        """Start the loop's thread; nothing is connected yet."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remora-client", daemon=True)
        self._thread.start()
        self._peer: Peer | None = None
        self._connecting = asyncio.Lock()
        self._stages: dict[int, Callable[[str, str], None]] = {}
        self._follows: dict[RunId, list[Follow]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the client's loop and return its result; KeyboardInterrupt cancels it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

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
                try:
                    self._peer = await self._connect()
                except BackendError:  # it may have been ending just then
                    self._peer = await self._connect()
            return self._peer

    async def _connect(self) -> Peer:
        await asyncio.to_thread(launch.ensure_backend)
        try:
            return await streams.connect(launch.backend_socket(), f"client {os.getpid()}", self._receive)
        except OSError as error:
            raise BackendError(f"the backend cannot be reached: {error}") from error

    async def request(self, message: Request) -> Answer:
        """Ask the backend; asked again, once, if it goes away over it."""
        peer = await self.backend()
        try:
            return await peer.request(message)
        except BackendError:
            if not peer.gone.done():
                raise
        return await (await self.backend()).request(message)

    async def tell(self, message: Request) -> None:
        """Tell the backend what matters only while it lives: none is started for it."""
        with contextlib.suppress(OSError, BackendError):
            if self._peer is not None and not self._peer.gone.done():
                await self._peer.request(message)
                return
            visit = await streams.connect(launch.backend_socket(), "visitor", lambda *_: None)
            with contextlib.closing(visit):
                await visit.request(message)

    def _receive(self, _: Peer, message: Message) -> None:
        if isinstance(message, Stage) and message.ask in self._stages:
            self._stages[message.ask](message.name, message.text)
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

    async def staged(self, request: Request, stage: Callable[[str, str], None]) -> Fields:
        """Ask for what takes its time and return the result; `stage` gets a stage's name and more in words. May be cancelled."""
        for last in (False, True):
            peer = await self.backend()
            asked = asyncio.ensure_future(peer.request(request))
            await asyncio.sleep(0)  # the request gets its number when it is sent
            with self.hearing(request, stage):
                try:
                    return (await asked).result
                except asyncio.CancelledError:
                    peer.send(GiveUp(request.ask))
                    raise
                except BackendError:  # a build that a dead backend took along goes on from its last whole step
                    if last or not peer.gone.done():
                        raise
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def hearing(self, request: Request, stage: Callable[[str, str], None]) -> Iterator[None]:
        """Hear of the stages of a request that has been sent."""
        self._stages[request.ask] = stage
        try:
            yield
        finally:
            self._stages.pop(request.ask, None)

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
        with self._listening(follow):
            while not follow.ended:
                await self._follow_once(follow, via)
                via = None

    async def _follow_once(self, follow: Follow, via: Peer | None) -> None:
        try:
            if via is None:
                facts = (await self.request(FindRun(follow.run))).result
                via = await self._reach(facts, follow)
            await via.request(FollowRun(follow.run, follow.after))
        except BackendError:
            if via is None or not via.gone.done():
                raise
        finally:
            self._leave(via)

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


class Connection:
    """A process's connection to one sandbox: starts runs there and asks its guest. Made by `connect`."""

    def __init__(self, client: Client, facts: Fields) -> None:
        """Take the sandbox's facts; `connect` opens the connection."""
        self.client, self.facts = client, facts
        self.ended = False
        """The sandbox is known to have ended, though its supervisor may not be gone yet."""
        self._peer: Peer | None = None
        self._follows: dict[RunId, Follow] = {}
        self._watched: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Connect to the sandbox's supervisor. Raises RemoraError if it is gone."""
        try:
            self._peer = await streams.connect(Path(self.facts["endpoint"]["socket"]), f"client {os.getpid()}", self._receive)
        except (OSError, BackendError) as error:
            facts = (await self.client.request(FindSandbox(self.facts["id"]))).result
            reason, text = facts.get("reason", "sandbox-failed"), facts.get("message", f"the sandbox cannot be reached: {error}")
            raise RunEnded(text, reason=reason) from error

    @property
    def alive(self) -> bool:
        """True while the supervisor is connected."""
        return self._peer is not None and not self._peer.gone.done() and not self.ended

    def start(self, request: StartRun, sink: Sink) -> None:
        """Start a run, and feed its records to `sink` until its end and beyond: late output comes, too. Returns at once."""
        self.client.soon(self._start, request, sink)

    def _start(self, request: StartRun, sink: Sink) -> None:
        follow = self._follows[request.run] = Follow(request.run, sink)
        task = asyncio.get_running_loop().create_task(self._see_through(request, follow))
        self._watched.add(task)
        task.add_done_callback(self._watched.discard)

    async def _see_through(self, request: StartRun, follow: Follow) -> None:
        """Send the run off; if the connection breaks before the run's end, find it again wherever its log is."""
        assert self._peer is not None
        try:
            await self._peer.request(request)
            await asyncio.wait({self._peer.gone, follow.over}, return_when=asyncio.FIRST_COMPLETED)
            if not follow.ended:
                await self.client.see_through(follow)
        except RemoraError as error:
            follow.fail(error)

    def _receive(self, _: Peer, message: Message) -> None:
        if isinstance(message, Record) and message.run in self._follows:
            self._follows[message.run].take(message)

    def send(self, message: Message) -> None:
        """Send a message to the supervisor, without waiting."""
        self.client.soon(lambda: self._peer.send(message) if self._peer else None)

    async def ask(self, op: str, args: Fields, buffers: tuple[Buffer, ...] = ()) -> Answer:
        """Ask the guest."""
        assert self._peer is not None
        return await self._peer.request(AskGuest(op, args, buffers=buffers))

    def fetch(self, names: list[str]) -> tuple[tuple[Buffer, ...], Fields]:
        """Bring variables from the guest, from outside the client's loop.

        Return stream and buffers, and what could not travel.
        """
        answer = self.client.run(self.ask("pull", {"names": names}))
        return answer.buffers, answer.result

    def interrupt(self, run: RunId) -> None:
        """Interrupt a run, as a stop button does."""
        self.send(InterruptRun(run))

    def refuse_input(self, run: RunId) -> None:
        """Tell a run that nobody can be asked."""
        self.send(InputReply(run, error="nobody can be asked: the cell was detached"))

    def cancel(self, run: RunId, hard: bool = False) -> None:
        """End a run, if need be with its sandbox."""
        self.send(CancelRun(run, hard))

    def close(self) -> None:
        """Close the connection; safe twice."""
        if self._peer is not None:
            self.client.soon(self._peer.close)


_client: tuple[int, Client] | None = None
_making = threading.Lock()


def client() -> Client:
    """Return this process's client; a forked child gets one of its own."""
    global _client
    with _making:
        if _client is None or _client[0] != os.getpid():
            _client = (os.getpid(), Client())
        return _client[1]
