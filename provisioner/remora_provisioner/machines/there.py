"""The agent of a machine that is not the backend's, and what a backend reaches there over its link.

That is the agent itself ("agent"), its store, to which trees are sent ("store"), the logs of runs ("log"), and the supervisors of
the backend's own sandboxes ("sandbox/ID"), their folders ("folder/ID") and their ports ("port/ID/NUMBER").

Law: it decides nothing. It goes on when link, backend and laptop go; what became of a sandbox is on its disk until the backend
has heard of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from remora import streams
from remora.errors import Refused, RemoraError
from remora.states import EndReason, SandboxState
from remora.streams import Peer
from remora.wire import Fields, Record, RunId, SandboxId

from .. import jails
from ..agent import Agent
from ..images.store import Store
from ..order import SOCKET, Order
from ..runs import LOG_NAME, AwaitEnd, run_folder
from . import terms
from .copies import AGREED, FILES, Copies
from .desk import Desk
from .ends import Ends
from .exchange import serve, tell
from .luggage import receive
from .ports import check_port, connected
from .threads import apart, beside
from .tidying import Tidying
from .watching import Watching

_FIRST_TIDY, _NEXT_TIDY = 60.0, 6 * 3600.0
_JAIL = "bubblewrap"
"""What shows folders under the paths that they have on another machine."""
_REMEMBERED = 1000
_FAREWELL = 0.1
"""Seconds for the last answer to go out."""


class There:
    """The agent of this machine and the backends that use it."""

    def __init__(self, state: Path) -> None:
        """Keep everything below `state`."""
        self._state = state
        self.over = asyncio.Event()
        self.agent = Agent(state, (), self)
        self._store = Store(state / "images")
        self.ends = Ends(state)
        self.copies = Copies(state)
        self._shared: dict[SandboxId, tuple[str, Path]] = {}
        """Whose sandboxes shared a folder last, and where its copy is."""
        self._sockets: set[asyncio.Task[None]] = set()
        self._transfers = 0
        self._visits: list[str] = []
        self._opening: dict[SandboxId, tuple[str, asyncio.Task[Any]]] = {}
        self.watching = Watching(self.agent.stop, lambda: self.agent.living, lambda: self.leave(""))
        self.watching.terms = terms.kept(state)
        self._leaving: str | None = None
        self._able = False

    # ---- the agent's listener

    def sandbox_changed(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        """Keep the end of a sandbox until its backend has heard of it, and end one that is not used."""
        self.watching.sandbox_changed(sandbox, state, facts)
        if state == SandboxState.ENDED.value:
            self.ends.ended(sandbox, facts)

    def run_changed(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        """Keep what became of a run."""
        self.ends.run_changed(sandbox, run, state, facts)

    def recorded(self, record: Record) -> None:
        """Nothing is followed from here."""

    async def keep_tidy(self) -> None:
        """Put in order what is kept, a while after the start and then again and again."""
        pause = _FIRST_TIDY
        while True:
            await asyncio.sleep(pause)
            await apart(lambda: Tidying(self._state, self.copies.giving).run(self.watching.terms))
            pause = _NEXT_TIDY

    # ---- who is there

    def agree(self, backend: str, said: Fields) -> None:
        """Take note of what a backend wants of this machine."""
        if said:
            terms.note(self._state, backend, said)
            self.watching.terms = terms.kept(self._state)

    @property
    def lease(self) -> float | None:
        """Return for how many seconds this machine goes on without a backend; None: for ever."""
        return self.watching.terms.lease if self.watching.terms.rented else None

    @contextlib.contextmanager
    def visited(self, backend: str) -> Iterator[None]:
        """Know that a backend is connected."""
        self._visits.append(backend)
        try:
            yield
        finally:
            self._visits.remove(backend)

    @property
    def quiet(self) -> bool:
        """True while nothing is done that would be lost if another agent went on in the place of this one."""
        return not (self._transfers or self._opening or self.agent.changing)

    def leave(self, backend: str) -> None:
        """End when nothing is transferred any more, unless sandboxes live, whosever they are, or another backend is connected."""
        may = not self.agent.busy and not {*self._visits} - {backend}
        self._leaving = backend if may else None
        if may and not self._transfers:
            asyncio.get_running_loop().call_later(_FAREWELL, self.over.set)

    # ---- what a backend reaches

    def accept(self, backend: str, target: str) -> socket.socket:
        """Return a connected socket for what a backend dials. Raises Refused, or OSError if nobody is there."""
        kind, _, name = target.partition("/")
        if kind == "sandbox":
            return streams.dial(self._owned(backend, SandboxId(name)) / SOCKET)
        if kind == "store":
            return self._in_thread(lambda sock: receive(self._store, sock))
        if kind == "folder":
            return self._folder(backend, *name.partition("/")[::2])
        if kind == "port":
            sandbox, _, port = name.partition("/")
            self._owned(backend, SandboxId(sandbox))
            return connected(check_port(port))
        if kind in ("agent", "log"):
            return self._in_loop(Desk(self, backend))
        raise Refused(f"nothing here is called {target!r}; use the same version of Remora on both machines")

    def _folder(self, backend: str, sandbox: str, run: str) -> socket.socket:
        """Return what leads to one exchange of a sandbox's folder, or, with a run, to a look at it when that has ended."""
        place = self._copy(backend, SandboxId(sandbox))
        if not run:
            return self._in_thread(lambda sock: serve(place / FILES, place / AGREED, sock))
        supervisor, over = self.agent.peer(SandboxId(sandbox)), Future[None]()
        look = self._in_thread(lambda sock: tell(place / FILES, place / AGREED, sock, over.result), transfers=False)
        self._keep(_settle_at_end(supervisor, RunId(run), over))
        return look

    def _copy(self, backend: str, sandbox: SandboxId) -> Path:
        """Return the place of the copy of a sandbox's folder, of one that has ended too."""
        owner, place = self._shared.get(sandbox, ("", Path()))
        if owner == backend:
            with contextlib.suppress(FileNotFoundError):
                os.utime(place)
                return place
        place = self.copies.used(self._owned(backend, sandbox))
        self._shared[sandbox] = backend, place
        for old in [*self._shared][:-_REMEMBERED]:
            del self._shared[old]
        return place

    def _owned(self, backend: str, sandbox: SandboxId) -> Path:
        directory = self._state / "sandboxes" / sandbox
        if not sandbox.isalnum() or Order.load(directory).facts.get("backend") != backend:
            raise Refused(f"there is no sandbox {sandbox} here", reason="no-such-sandbox")
        return directory

    def facts_of(self, sandbox: SandboxId) -> Fields:
        """Return what is known of a sandbox that was just opened."""
        facts = Order.load(self._state / "sandboxes" / sandbox).facts
        return {name: facts[name] for name in ("jail", "devices") if name in facts}

    def require_owned(self, backend: str, sandbox: SandboxId) -> None:
        """Raise Refused if there is no sandbox of that backend with this id."""
        try:
            self._owned(backend, sandbox)
        except (OSError, ValueError):
            raise Refused(f"there is no sandbox {sandbox} here", reason="no-such-sandbox") from None

    def _in_loop(self, desk: Desk) -> socket.socket:
        theirs, ours = socket.socketpair()
        self._keep(_adopt(ours, desk))
        return theirs

    def _in_thread(self, work: Callable[[socket.socket], None], *, transfers: bool = True) -> socket.socket:
        """Return what leads to work in a thread; unless it `transfers` something, it keeps no newer agent from coming."""
        theirs, ours = socket.socketpair()

        async def run() -> None:
            held = self._transferring() if transfers else contextlib.nullcontext()
            with ours, contextlib.suppress(RemoraError, OSError), held:  # the other side was told
                await beside(ours, work)

        self._keep(run())
        return theirs

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._sockets.add(task)
        task.add_done_callback(self._sockets.discard)

    @contextlib.contextmanager
    def _transferring(self) -> Iterator[None]:
        self._transfers += 1
        try:
            yield
        finally:
            self._transfers -= 1
            if self._leaving is not None:
                self.leave(self._leaving)

    # ---- answers

    def living(self, backend: str) -> list[SandboxId]:
        """Return the sandboxes that live here and belong to a backend."""
        found = []
        for directory in (self._state / "sandboxes").glob("*"):
            with contextlib.suppress(OSError, ValueError):
                if self.agent.has(directory.name) and Order.load(directory).facts.get("backend") == backend:
                    found.append(SandboxId(directory.name))
        return found

    async def end_of(self, sandbox: SandboxId) -> Fields:
        """Return what became of a sandbox, when it is buried; nothing if it lives."""
        await self.agent.buried(sandbox)
        if self.agent.has(sandbox):
            return {}
        return self.ends.of(sandbox)

    @contextlib.contextmanager
    def opening(self, backend: str, sandbox: SandboxId) -> Iterator[None]:
        """Let `stop` end what is done inside."""
        task = asyncio.current_task()
        assert task is not None
        self._opening[sandbox] = backend, task
        try:
            yield
        finally:
            del self._opening[sandbox]

    async def stop(self, backend: str, sandbox: SandboxId, reason: EndReason) -> None:
        """End a sandbox of that backend, also one that is just being opened. Raises Refused if there is none."""
        owner, task = self._opening.get(sandbox, ("", None))
        if task is not None and owner == backend:
            task.cancel()
            await asyncio.wait({task})
            await self.agent.buried(sandbox)
            return
        self.require_owned(backend, sandbox)
        await self.agent.stop(sandbox, reason)

    def lacking(self, trees: list[str]) -> list[str]:
        """Return which trees are not real here; those that are become young, so that no collection takes them now."""
        lacking = []
        for tree in trees:
            try:
                os.utime(self._state / "images" / "trees" / tree)
                if not (self.agent.images.farms / tree).is_dir():
                    self._store.farm(tree)
            except (OSError, RemoraError):
                lacking.append(tree)
        return lacking

    def obstacle(self) -> str | None:
        """Return why this machine can have no sandbox; it is tried until there is nothing."""
        if not self._able:
            obstacle = jails.named(_JAIL).obstacle()
            self._able = obstacle is None
            return obstacle
        return None

    def log_of(self, run: RunId) -> Path:
        """Return where a run's log is."""
        return run_folder(self.agent.runs, run) / LOG_NAME


async def _settle_at_end(supervisor: Peer, run: RunId, over: Future[None]) -> None:
    """Let those go on who wait for the end of a run, which need not have begun; with an error if its supervisor goes."""
    try:
        await supervisor.request(AwaitEnd(run))
    except RemoraError as error:
        over.set_exception(error)
    else:
        over.set_result(None)


async def _adopt(sock: socket.socket, desk: Desk) -> None:
    peer = await streams.adopt(sock, desk.receive)
    await peer.gone
