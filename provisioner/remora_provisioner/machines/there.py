"""The agent of a machine that is not the backend's, and what a backend reaches there over its link.

That is the agent itself ("agent"), its store, to which trees are sent ("store"), the logs of runs ("log"), and the supervisors of
the backend's own sandboxes ("sandbox/ID"), their folders ("folder/ID") and their ports ("port/ID/NUMBER").

Law: it decides nothing. It goes on when link, backend and laptop go; what became of a sandbox is on its disk until the backend
has heard of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from remora import streams
from remora.errors import Refused, RemoraError
from remora.resources import SandboxSpec
from remora.states import EndReason, SandboxState
from remora.streams import Peer
from remora.wire import Fields, FollowRun, Hello, Message, Record, RunId, SandboxId

from ..agent import Agent
from ..devices.inventory import require_devices
from ..images import transfer
from ..images.fitting import Fitting
from ..images.store import Store
from ..opening import Opening
from ..order import SOCKET, Order, write_whole
from ..runlog import Follower
from ..runs import LOG_NAME, run_folder
from ..view import shared_folder
from .exchange import serve
from .messages import AskEnd, AskPort, ExtendThere, Lack, Leave, OpenThere, StopThere, TakeUp
from .ports import check_port, connected, listens
from .threads import beside

_LOG = logging.getLogger(__name__)
_FILES, _AGREED = "files", "agreed"
_FAREWELL = 0.1
"""Seconds for the last answer to go out."""
_KEPT = 3600.0
"""Seconds for which an end is kept that a backend was told of: its answer may have been lost with it."""


class There:
    """The agent of this machine and the backends that use it."""

    def __init__(self, state: Path) -> None:
        """Keep everything below `state`."""
        self._state = state
        self.over = asyncio.Event()
        self.agent = Agent(state, (), self)
        self._store = Store(state / "images")
        self._ends = state / "ends"
        self._ends.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._runs: dict[SandboxId, dict[RunId, Fields]] = {}
        self._known: dict[SandboxId, Fields] = {}
        """What became of sandboxes that have ended."""
        self._buried: dict[SandboxId, asyncio.Future[None]] = {}
        self._sockets: set[asyncio.Task[None]] = set()
        self._transfers: set[asyncio.Task[None]] = set()
        self._leaving = False

    # ---- the agent's listener

    def sandbox_changed(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        """Keep the end of a sandbox until its backend has heard of it."""
        if state != SandboxState.ENDED.value:
            return
        self._known[sandbox] = {"state": state, "facts": facts, "runs": self._runs.setdefault(sandbox, {})}
        self._write_end(sandbox)

    def run_changed(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        """Keep what became of a run."""
        self._runs.setdefault(sandbox, {})[run] = {"state": state, "facts": facts}
        if sandbox in self._known:  # it ended with its sandbox
            self._write_end(sandbox)

    def _write_end(self, sandbox: SandboxId) -> None:
        with contextlib.suppress(OSError):  # a full disk: it is told from memory while this process lives
            write_whole(self._ends / f"{sandbox}.json", json.dumps(self._known[sandbox]))

    def recorded(self, record: Record) -> None:
        """Nothing is followed from here."""

    # ---- what a backend reaches

    def accept(self, backend: str, target: str) -> socket.socket:
        """Return a connected socket for what a backend dials. Raises Refused, or OSError if nobody is there."""
        kind, _, name = target.partition("/")
        if kind == "sandbox":
            return streams.dial(self._owned(backend, SandboxId(name)) / SOCKET)
        if kind == "store":
            return self._in_thread(self._receive)
        if kind == "folder":
            place = self._folder_of(self._owned(backend, SandboxId(name)))
            return self._in_thread(lambda sock: serve(place / _FILES, place / _AGREED, sock))
        if kind == "port":
            sandbox, _, port = name.partition("/")
            self._owned(backend, SandboxId(sandbox))
            return connected(check_port(port))
        if kind in ("agent", "log"):
            return self._in_loop(_Desk(self, backend))
        raise Refused(f"nothing here is called {target!r}; use the same version of Remora on both machines")

    def _owned(self, backend: str, sandbox: SandboxId) -> Path:
        directory = self._state / "sandboxes" / sandbox
        if not sandbox.isalnum() or Order.load(directory).facts.get("backend") != backend:
            raise Refused(f"there is no sandbox {sandbox} here", reason="no-such-sandbox")
        return directory

    def with_folder(self, backend: str, spec: SandboxSpec, fitting: Fitting) -> Fitting:
        """Return the fitting with a place for the notebook's folder, which all sandboxes of it share."""
        folder, _ = shared_folder(spec, self._state)
        if folder is None:
            return fitting
        place = (
            self._state / "folders" / hashlib.sha256(f"{backend} {folder}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
        )
        (place / _FILES).mkdir(mode=0o700, parents=True, exist_ok=True)
        return replace(fitting, places=(*fitting.places, (folder, str(place / _FILES))))

    def require_owned(self, backend: str, sandbox: SandboxId) -> None:
        """Raise Refused if there is no sandbox of that backend with this id."""
        try:
            self._owned(backend, sandbox)
        except (OSError, ValueError):
            raise Refused(f"there is no sandbox {sandbox} here", reason="no-such-sandbox") from None

    def _folder_of(self, directory: Path) -> Path:
        """Return the place of the notebook's folder of a sandbox. Raises Refused if it has none."""
        order = Order.load(directory)
        for source, target, _ in order.mounts:
            if target == order.folder and Path(source).name == _FILES:
                return Path(source).parent
        raise Refused("the notebook's folder is not there", reason="no-folder")

    def _in_loop(self, desk: _Desk) -> socket.socket:
        theirs, ours = socket.socketpair()
        task = asyncio.get_running_loop().create_task(_adopt(ours, desk))
        self._sockets.add(task)
        task.add_done_callback(self._sockets.discard)
        return theirs

    def _in_thread(self, work: Callable[[socket.socket], None]) -> socket.socket:
        theirs, ours = socket.socketpair()

        async def run() -> None:
            with ours, contextlib.suppress(RemoraError, OSError):  # the other side was told
                await beside(ours, work)

        task = asyncio.get_running_loop().create_task(run())
        self._transfers.add(task)
        task.add_done_callback(self._transferred)
        return theirs

    def _transferred(self, task: asyncio.Task[None]) -> None:
        self._transfers.discard(task)
        if self._leaving:
            self.leave()

    def _receive(self, sock: socket.socket) -> None:
        """Take trees in and make them real, until the other side has no more."""
        with sock.makefile("rb") as reader, sock.makefile("wb") as writer:
            while reader.peek(1):
                try:
                    self._store.farm(transfer.receive(self._store, reader, writer, system=True).digest)
                except RemoraError as error:
                    _LOG.warning("a tree was not taken: %s", error)
                    return
                writer.write(b"+")
                writer.flush()

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
        if sandbox in self._known:
            return self._known[sandbox]
        try:
            known: Fields = json.loads((self._ends / f"{sandbox}.json").read_text())
        except (OSError, ValueError):
            text = "the machine knows nothing of this sandbox any more"
            known = {"state": SandboxState.ENDED.value, "facts": {"reason": EndReason.CRASHED.value, "message": text}, "runs": {}}
        return known

    def leave(self) -> None:
        """End when nothing is transferred any more, unless there are sandboxes, whosever they are."""
        self._leaving = not self.agent.busy
        if self._leaving and not self._transfers:
            asyncio.get_running_loop().call_later(_FAREWELL, self.over.set)

    def forget(self, sandbox: SandboxId) -> None:
        """Forget an end that the backend has heard of."""
        if sandbox.isalnum():
            (self._ends / f"{sandbox}.json").unlink(missing_ok=True)
            self._runs.pop(sandbox, None)
            self._known.pop(sandbox, None)

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

    def log_of(self, run: RunId) -> Path:
        """Return where a run's log is."""
        return run_folder(self.agent.runs, run) / LOG_NAME


class _Desk:
    """Answers one connection of one backend."""

    def __init__(self, there: There, backend: str) -> None:
        self._there, self._backend = there, backend
        self.handlers: streams.Handlers = {
            Hello: streams.welcome,
            TakeUp: self._take_up,
            Lack: self._lack,
            OpenThere: self._open,
            ExtendThere: self._extend,
            StopThere: self._stop,
            AskEnd: self._ask_end,
            AskPort: self._ask_port,
            Leave: self._leave,
            FollowRun: self._follow,
        }

    def receive(self, peer: Peer, message: Message) -> None:
        peer.handle(self.handlers, message)

    async def _take_up(self, _: Peer, request: TakeUp) -> Fields:
        living = self._there.living(self._backend)
        ended = {sandbox: await self._there.end_of(sandbox) for sandbox in request.sandboxes if sandbox not in living}
        for sandbox in ended:
            asyncio.get_running_loop().call_later(_KEPT, self._there.forget, sandbox)
        farms = str(self._there.agent.images.farms)
        return {"living": living, "ended": ended, "farms": farms, "facts": _facts()}

    async def _lack(self, _: Peer, request: Lack) -> Fields:
        return {"lacking": await asyncio.to_thread(self._there.lacking, request.trees)}

    async def _open(self, _: Peer, request: OpenThere) -> Fields:
        spec = SandboxSpec.from_dict(request.spec)
        facts = request.facts | {"backend": self._backend}
        fitting = self._there.with_folder(self._backend, spec, Fitting.from_dict(request.fitting))
        opening = Opening(secrets=request.secrets)
        require_devices(spec, self._there.agent, spec.on)
        with self._there.agent.granted(SandboxId(request.sandbox), spec):
            return {"notices": await self._there.agent.open_fitted(SandboxId(request.sandbox), spec, fitting, facts, opening)}

    async def _extend(self, _: Peer, request: ExtendThere) -> Fields:
        self._there.require_owned(self._backend, SandboxId(request.sandbox))
        fitting, opening = Fitting.from_dict(request.fitting), Opening(secrets=request.secrets)
        return {"notices": await self._there.agent.extend_fitted(SandboxId(request.sandbox), fitting, opening)}

    async def _stop(self, _: Peer, request: StopThere) -> None:
        self._there.require_owned(self._backend, SandboxId(request.sandbox))
        await self._there.agent.stop(SandboxId(request.sandbox), EndReason(request.reason))

    async def _ask_end(self, _: Peer, request: AskEnd) -> Fields:
        known = await self._there.end_of(SandboxId(request.sandbox))
        if known:
            asyncio.get_running_loop().call_later(_KEPT, self._there.forget, request.sandbox)
        return known

    async def _ask_port(self, _: Peer, request: AskPort) -> Fields:
        self._there.require_owned(self._backend, SandboxId(request.sandbox))
        return {"listens": listens(check_port(request.port))}

    async def _leave(self, _: Peer, __: Leave) -> None:
        self._there.leave()

    async def _follow(self, peer: Peer, request: FollowRun) -> None:
        await Follower(peer, self._there.log_of(RunId(request.run)), request.after, lambda: True).run()


def _facts() -> Fields:
    disk = shutil.disk_usage("/")
    return {"cores": os.cpu_count(), "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "disk": disk.free}


async def _adopt(sock: socket.socket, desk: _Desk) -> None:
    peer = await streams.adopt(sock, desk.receive)
    await peer.gone
