"""A process's connection to one sandbox, wherever that is: starts runs there and asks its guest.

Law: a connection to a sandbox elsewhere may break without the sandbox knowing of it, and comes back by itself; one to a sandbox
of this machine breaks when that ends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from . import streams
from .client import Client, Follow, Sink, Waiter
from .doors import Door, Waiting
from .errors import BackendError, Refused, RemoraError, RunEnded
from .states import SandboxState
from .streams import Peer
from .wire import (
    Answer,
    Ask,
    AskGuest,
    Buffer,
    CancelRun,
    Fields,
    FindSandbox,
    FollowRun,
    InputReply,
    InterruptRun,
    Message,
    Record,
    RunId,
    StartRun,
)

_AGAIN = 0.2
"""Seconds until it is tried again to come back to a sandbox that is not to be reached."""
_PATIENCE = 10.0
"""Seconds for which that is tried before it is said."""

_REMEMBERED = 1000
"""Runs whose late output is still taken; their supervisor remembers no more, either."""


class Connection:
    """Made by `connect`."""

    def __init__(self, client: Client, facts: Fields) -> None:
        """Take the sandbox's facts; `connect` opens the connection."""
        self.client, self.facts = client, facts
        self.ended = False
        """The sandbox is known to have ended, though its supervisor may not be gone yet."""
        self._peer: Peer | None = None
        self._follows: dict[RunId, Follow] = {}
        self._watched: set[asyncio.Task[None]] = set()
        self.elsewhere = facts.get("on", "here") != "here"
        self._back: asyncio.Task[None] | None = None
        self._door = Door((facts.get("endpoint") or {}).get("folder", ""))
        self._closed = False

    async def connect(self, patience: float = _PATIENCE) -> None:
        """Connect to the sandbox's supervisor. Raises RunEnded if it is gone, BackendError if it is not to be reached.

        One elsewhere may not be to be reached for a moment, while the agent there is started anew: `patience`, in seconds.
        """
        until = asyncio.get_running_loop().time() + patience
        while True:
            try:
                await self._connect()
                return
            except BackendError:
                if not self.elsewhere or asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(_AGAIN)

    async def _connect(self) -> None:
        try:
            path, role = Path(self.facts["endpoint"]["socket"]), f"client {os.getpid()}"
            self._peer = await streams.connect(path, role, self._receive, self._lost)
            if self._peer.gone.done():
                raise BackendError("the connection was closed")
        except (OSError, BackendError) as error:
            raise await self._unreached(error) from error

    async def _unreached(self, error: Exception) -> RemoraError:
        """Return why the sandbox is not to be reached: RunEnded if it is gone, BackendError if it may come back."""
        facts = (await self.client.request(FindSandbox(self.facts["id"]))).result
        if self.elsewhere and facts["state"] != SandboxState.ENDED.value:
            return BackendError(f"the sandbox on {self.facts['on']} cannot be reached: {error}")
        reason, text = facts.get("reason", "sandbox-failed"), facts.get("message", f"the sandbox cannot be reached: {error}")
        return RunEnded(text, reason=reason)

    def _lost(self, peer: Peer) -> None:
        """Come back to a sandbox elsewhere, which knows nothing of what has happened on the way."""
        if self.elsewhere and not self._closed and peer is self._peer:
            self._back = asyncio.get_running_loop().create_task(self._come_back())

    async def _come_back(self) -> None:
        while not self._closed:
            try:
                await self.connect()
                return
            except (RunEnded, Refused):
                self.ended = True
                return
            except RemoraError:
                await asyncio.sleep(_AGAIN)

    async def _reached(self) -> Peer:
        """Return the connection, when it is there again. Raises RunEnded if the sandbox has ended meanwhile."""
        if self._back is not None and not self._back.done():
            await asyncio.wait({self._back})
        if self.ended and self.elsewhere:
            await self._connect()
        assert self._peer is not None
        return self._peer

    @property
    def alive(self) -> bool:
        """True while the sandbox is taken for living."""
        coming = self._back is not None and not self._back.done()
        return self._peer is not None and (coming or not self._peer.gone.done()) and not self.ended

    def start(self, request: StartRun, sink: Sink) -> None:
        """Start a run, and feed its records to `sink` until its end and beyond: late output comes, too. Returns at once."""
        self.client.soon(self._start, request, sink)

    def _start(self, request: StartRun, sink: Sink) -> None:
        follow = self._follows[request.run] = Follow(request.run, sink)
        while len(self._follows) > _REMEMBERED and (oldest := next(iter(self._follows.values()))).ended:
            del self._follows[oldest.run]
        task = asyncio.get_running_loop().create_task(self._see_through(request, follow))
        self._watched.add(task)
        task.add_done_callback(self._watched.discard)

    async def _see_through(self, request: StartRun, follow: Follow) -> None:
        """Send the run off; if the connection breaks before the run's end, find it again wherever its log is."""
        try:
            sent = False
            while self.elsewhere and not (self.ended or self._closed or follow.ended):
                sent = await self._see_once(await self._reached(), request, follow, sent)
            if not self.elsewhere:
                await self._send_here(await self._reached(), request, follow)
            if not follow.ended:
                await self._follow_log(follow)
        except RemoraError as error:
            follow.fail(error)

    async def _follow_log(self, follow: Follow) -> None:
        try:
            await self.client.see_through(follow)
        except Refused:
            if self.ended:  # before the run had reached it
                await self._connect()
            raise

    async def _send_here(self, peer: Peer, request: StartRun, follow: Follow) -> None:
        try:
            await self._send_off(peer, request, follow)
        except BackendError as error:
            if not peer.gone.done():
                raise
            # it ended before it had all of the request: the backend knows why
            raise await self._unreached(error) from error

    async def _send_off(self, peer: Peer, request: StartRun, follow: Follow) -> None:
        await peer.request(request)
        await asyncio.wait({peer.gone, follow.over}, return_when=asyncio.FIRST_COMPLETED)

    async def _see_once(self, peer: Peer, request: StartRun, follow: Follow, sent: bool) -> bool:
        """Start a run elsewhere, or go on with it if it may have been `sent`, until its end or until the connection breaks."""
        try:
            if sent:
                await peer.request(FollowRun(request.run, follow.after))
            else:
                await self._send_off(peer, request, follow)
        except BackendError:
            if not peer.gone.done():
                raise
        except Refused as error:
            if not sent or error.reason != "no-such-run":
                raise
            return False  # it was lost on the way
        return True

    def _receive(self, _: Peer, message: Message) -> None:
        if isinstance(message, Record) and message.run in self._follows:
            self._follows[message.run].take(message)

    def send(self, message: Message) -> None:
        """Send a message to the supervisor, without waiting."""
        self.client.soon(self._send, message)

    def _send(self, message: Message) -> None:
        if self._back is not None and not self._back.done():
            self._back.add_done_callback(lambda _: self._send(message))
        elif self._peer is not None:
            self._peer.send(message)

    async def ask(self, op: str, args: Fields, buffers: tuple[Buffer, ...] = ()) -> Answer:
        """Ask the guest."""
        return await (await self._reached()).request(AskGuest(op, args, buffers=buffers))

    async def pull(self, names: list[str]) -> Answer:
        """Bring variables from the guest; asked again when the connection to one elsewhere breaks over it."""
        while True:
            peer = await self._reached()
            try:
                return await peer.request(AskGuest("pull", {"names": names}))
            except BackendError:
                if not self.elsewhere or not peer.gone.done() or self.ended or self._closed:
                    raise

    def is_at_rest(self, waiting: Waiting) -> bool:
        """Say whether the notebook's folder needs no exchange; from the cell's thread."""
        if not self.elsewhere:
            return True
        try:
            return self._door.ask() and self._door.answer(waiting)
        except OSError:
            return False
        except BaseException:  # between the question and the wait for its answer, too
            self._door.forget()
            raise

    def expect_files(self, run: RunId) -> bool:
        """Ask about the files that a run which is starting may make; say whether `files_are_home` will answer.

        Asked along with the start, so that the answer comes with the run's end and not a round trip later.
        """
        return self.elsewhere and self._door.ask(run)

    def files_are_home(self, waiting: Waiting, said: Callable[[str], None]) -> bool:
        """Wait for the end of that run; say whether nothing had to come home. Raises OSError; see `Door.answer`."""
        return self._door.answer(waiting, said)

    def leave_files(self) -> None:
        """Let nobody wait for them; from any thread."""
        self._door.leave()

    def forget_files(self) -> None:
        """Want no answer any more, from the cell's thread."""
        self._door.forget()

    async def exchange(self, waiter: Waiter, **how: object) -> Fields:
        """Bring the notebook's folder here and on the sandbox's machine to agreement; return what has moved.

        `line`, `sent`, `fetched`; nothing where both are the same folder. The machine is asked only if something has to be sent,
        unless `whole` says so.
        """
        if not self.elsewhere:
            return {}
        return await self.client.staged(Ask("files", "exchange", {"sandbox": self.facts["id"], **how}), waiter)

    def fetch(self, names: list[str]) -> tuple[tuple[Buffer, ...], Fields]:
        """Bring variables from the guest, from outside the client's loop.

        Return stream and buffers, and what could not travel.
        """
        answer = self.client.run(self.pull(names))
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
        self._closed = True
        self._door.forget()
        if self._peer is not None:
            self.client.soon(self._peer.close)
