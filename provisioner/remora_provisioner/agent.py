"""One per machine: makes that machine's sandboxes, knows them, and takes them up again after it was away.

Law: one body of code, inside the backend for its own machine and a process of its own elsewhere. It owns no sandbox: their
supervisors do. It reports what happens to its listener and decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from remora import streams
from remora.errors import PlaceError, Refused, RemoraError, StateError
from remora.resources import SandboxSpec
from remora.settings import JAIL
from remora.states import EndReason, SandboxState
from remora.streams import Peer
from remora.wire import AskGuest, Fields, Message, Record, RunChanged, RunId, SandboxChanged, SandboxId, StopSandbox, Watch

from . import jails, limits, recovery, view
from .endings import Evidence, explain
from .images.fitting import Fitting
from .images.keeping import Images
from .opening import Opening
from .order import ENDED, SCRATCH, SOCKET, Order
from .sandbox import FIRST_HOST_ID, Jail

_LOG = logging.getLogger(__name__)
_HOST_IDS = 0x0F000000
_PATIENCE = 0.5
"""Seconds that supervisors have to say what is new."""
_SAID = 2000
"""Characters of a dead supervisor's last words."""


class Listener(Protocol):
    """Who hears of what happens on a machine."""

    def sandbox_changed(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        """Take a sandbox's new state."""

    def run_changed(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        """Take a run's new state."""

    def recorded(self, record: Record) -> None:
        """Take one more entry in the log of a run that the agent follows."""


def _stronger(one: str | None, other: str | None) -> str | None:
    """Return the stronger of two demands for isolation; None demands nothing."""
    return max((name for name in (one, other) if name), key=lambda name: jails.named(name).strength, default=None)


class Agent:
    """The sandboxes of one machine."""

    def __init__(self, state: Path, doors: tuple[str, ...], listener: Listener) -> None:
        """Keep sandboxes and run logs below `state`; code in sandboxes may reach the sockets at `doors`."""
        self._sandboxes, self.runs, self._caches = state / "sandboxes", state / "runs", state / "caches"
        self._doors = (*doors, str(self._sandboxes))
        self._listener = listener
        self.images = Images(state / "images")
        self._openings: dict[SandboxId, Opening] = {}
        self._peers: dict[SandboxId, Peer] = {}
        self._children: dict[SandboxId, subprocess.Popen[bytes]] = {}
        self._open_runs: dict[SandboxId, set[RunId]] = {}
        self._chosen: dict[str | None, tuple[Jail, list[str]]] = {}
        self._burials: dict[SandboxId, asyncio.Task[None]] = {}
        self._over: set[SandboxId] = set()
        """Those whose end was reported and that are not buried yet."""

    def endpoint(self, sandbox: SandboxId) -> Fields:
        """Return how a client on this machine reaches the sandbox's supervisor."""
        return {"socket": str(self._sandboxes / sandbox / SOCKET)}

    def peer(self, sandbox: SandboxId) -> Peer:
        """Return the connection to a living sandbox's supervisor; StateError if there is none."""
        if sandbox not in self._peers:
            raise StateError(f"sandbox {sandbox} is not running", reason="sandbox-ended")
        return self._peers[sandbox]

    def has(self, sandbox: str) -> bool:
        """Say whether the sandbox's supervisor is connected."""
        return sandbox in self._peers

    # -- making

    async def fit(self, spec: SandboxSpec, opening: Opening) -> Fitting:
        """Return how a sandbox by this spec is fitted out, its image built if need be. ImageFailed; RunEnded if given up."""
        return await opening.during(self.images.fit(spec.image, dict(spec.environment), opening.say, opening.registry))

    async def open(self, sandbox: SandboxId, spec: SandboxSpec, facts: Fields, opening: Opening) -> list[str]:
        """Start a sandbox and return the lines that its user should read; the sandbox may still be starting."""
        directory = self._sandboxes / sandbox
        if spec.secrets and not opening.environment:
            names = ", ".join(spec.secrets)
            raise Refused(f"nobody has given the secrets {names} for this sandbox; run it again", reason="secrets-lost")
        self._openings[sandbox] = opening
        try:
            fitting = await self.fit(spec, opening)
        finally:
            del self._openings[sandbox]
        await self.images.hold(sandbox, fitting)
        try:
            directory.mkdir(mode=0o700, parents=True)
            self._caches.mkdir(mode=0o700, exist_ok=True)
            order, notices = self._order(sandbox, directory, spec, fitting, facts)
            owner = order.host_id if order.jail == "bubblewrap" else None  # the others stay who they are
            view.lend_caches(directory / SCRATCH / "home", self._caches, owner)
            order.save()
            self._listener.sandbox_changed(sandbox, SandboxState.STARTING.value, {"jail": order.jail})
            await self._take(sandbox, self._start(sandbox, directory, opening.environment))
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise StateError(f"{directory} cannot be used ({error.strerror}); free space or set REMORA_STATE_DIR") from error
        except RemoraError:
            if sandbox in self._burials:
                await asyncio.wait({self._burials[sandbox]})
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return notices

    async def extend(self, sandbox: SandboxId, spec: SandboxSpec, opening: Opening) -> list[str]:
        """Fit a living sandbox out with the image of this spec; return the lines that its user should read."""
        fitting = await self.fit(spec, opening)
        older = fitting.layers != Order.load(self._sandboxes / sandbox).layers
        await self.images.hold(sandbox, fitting)
        more = {"folders": fitting.folders, "programs": fitting.programs, "environment": dict(fitting.environment)}
        more["secrets"] = opening.environment
        answer = await opening.during(self.peer(sandbox).request(AskGuest("extend", more)))
        line = "files that the image adds are as they were when the sandbox started; --fresh starts one with the present ones"
        return [*answer.result["notices"], *([line] if older else [])]

    def _order(
        self, sandbox: SandboxId, directory: Path, spec: SandboxSpec, fitting: Fitting, facts: Fields
    ) -> tuple[Order, list[str]]:
        jail, lines = self._choose(_stronger(_stronger(spec.jail, JAIL.text or None), "bubblewrap" if fitting.layers else None))
        folder, why_not = view.shared_folder(spec, self._sandboxes.parent)
        interpreter = view.build_layer(directory, fitting)
        home = spec.home or "/"
        order = Order(
            sandbox=sandbox,
            directory=str(directory),
            runs=str(self.runs),
            jail=jail.name,
            argv=(str(interpreter), spec.image["guest"]),
            environment=view.environment(spec, fitting, interpreter, limits.thread_environment(spec.resources.cpu))
            | self.images.asks(fitting),
            folder=folder or spec.folder or home,
            home=home,
            mounts=view.mounts(spec, fitting, directory, folder, self._caches),
            host_id=self._host_id() if os.getuid() == 0 else None,
            memory=spec.resources.memory,
            cpu=spec.resources.cpu,
            layers=fitting.layers,
            whole=fitting.whole,
            doors=self._doors,
            facts=facts | {"jail": jail.name},
        )
        return order, [*lines, *([why_not] if why_not else [])]

    async def require_within(self, sandbox: SandboxId, spec: SandboxSpec, opening: Opening) -> None:
        """Raise Refused if a sandbox by this spec would see more of the machine than the one in which it is asked for."""
        order = Order.load(self._sandboxes / sandbox)
        fitting = await self.fit(spec, opening)
        folder, _ = view.shared_folder(spec, self._sandboxes.parent)
        wanted = view.mounts(spec, fitting, self._sandboxes / sandbox / "none", folder, self._caches)
        more = view.exceeds(wanted, order.mounts) or (spec.home if (spec.home or "/") != order.home else None)
        if more is not None:
            raise Refused(f"{more} is not all there in this sandbox, so it cannot be given to another one from in here")

    def _choose(self, demand: str | None) -> tuple[Jail, list[str]]:
        """Try the jails once; what a machine allows does not change while the agent lives."""
        if demand not in self._chosen:
            self._chosen[demand] = jails.choose(demand)
        return self._chosen[demand]

    def _host_id(self) -> int:
        return FIRST_HOST_ID + int.from_bytes(os.urandom(4), "big") % _HOST_IDS

    def _start(self, sandbox: SandboxId, directory: Path, secrets: dict[str, str]) -> socket.socket:
        """Start the supervisor; it reads the secrets, which are in no file, from its standard input."""
        mine, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "remora_provisioner.supervise", str(directory), str(theirs.fileno())]
        told, log_file = os.fdopen(os.memfd_create("remora-secrets"), "w+b"), directory / "supervisor.log"
        with theirs, told, log_file.open("ab") as log:
            told.write(json.dumps(secrets).encode())
            told.seek(0)
            self._children[sandbox] = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=told,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        return mine

    async def _take(self, sandbox: SandboxId, sock: socket.socket) -> Fields:
        peer = await streams.adopt(sock, lambda _, message: self._heard(sandbox, message), lambda _: self._lost(sandbox))
        self._peers[sandbox] = peer
        try:
            return (await peer.request(Watch())).result
        except RemoraError as error:
            if ended := self._ended(sandbox):
                raise PlaceError(ended["facts"]["message"], reason=ended["facts"]["reason"]) from error
            why = self._said(sandbox).splitlines()[-1:] or [str(error)]
            raise PlaceError(f"the sandbox's supervisor did not start: {why[0]}", reason="sandbox-failed") from error

    def _ended(self, sandbox: SandboxId) -> Fields | None:
        """Return what a supervisor wrote down when its sandbox had ended, if it could."""
        try:
            told: Fields = json.loads((self._sandboxes / sandbox / ENDED).read_text())
        except (OSError, ValueError):
            return None
        return told

    def _said(self, sandbox: SandboxId) -> str:
        try:
            return (self._sandboxes / sandbox / "supervisor.log").read_text(errors="replace").strip()
        except OSError:
            return ""

    # -- hearing

    def _heard(self, sandbox: SandboxId, message: Message) -> None:
        if isinstance(message, RunChanged):
            self._note_run(sandbox, message.run, message.state, message.facts)
        elif isinstance(message, SandboxChanged):
            if opened := message.facts.pop("opened", None):
                self.images.note_opened(opened)
            self._heard_sandbox(sandbox, message.state, message.facts)
        elif isinstance(message, Record):
            self._listener.recorded(message)

    def _heard_sandbox(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        if state == SandboxState.ENDED.value:
            self._over.add(sandbox)
        self._listener.sandbox_changed(sandbox, state, facts)

    def _note_run(self, sandbox: SandboxId, run: RunId, state: str, facts: Fields) -> None:
        unfinished = self._open_runs.setdefault(sandbox, set())
        (unfinished.add if state in recovery.UNFINISHED else unfinished.discard)(run)
        self._listener.run_changed(sandbox, run, state, facts)

    def _lost(self, sandbox: SandboxId) -> None:
        """Take note that the supervisor has gone, in order or not."""
        self._peers.pop(sandbox, None)
        task = self._burials[sandbox] = asyncio.get_running_loop().create_task(self._bury(sandbox))
        task.add_done_callback(lambda _: self._burials.pop(sandbox).cancelled())

    async def _bury(self, sandbox: SandboxId) -> None:
        """Take away what a sandbox left on the machine, and write the end that its supervisor could not."""
        child = self._children.pop(sandbox, None)
        code = await asyncio.to_thread(child.wait) if child else -9
        directory = self._sandboxes / sandbox
        if said := self._said(sandbox):
            _LOG.warning("supervisor of %s: %s", sandbox, said)
        ended = self._ended(sandbox)
        if ended is not None and sandbox not in self._over:
            self._tell(sandbox, ended)
        self.images.release(sandbox)
        self._finish(sandbox, explain(Evidence(asked=None, code=code, trouble=said[-_SAID:])), told=ended is not None)
        try:
            await asyncio.to_thread(recovery.remove, directory)
        except OSError as error:
            _LOG.warning("%s is not gone: %s", directory, error)  # the next start of the backend tries again

    def _tell(self, sandbox: SandboxId, known: Fields) -> None:
        """Report what a supervisor says of its sandbox and of all its runs."""
        self._heard_sandbox(sandbox, known["state"], known["facts"])
        for run, about in known["runs"].items():
            self._note_run(sandbox, RunId(run), about["state"], about["facts"])

    def _finish(self, sandbox: SandboxId, error: RemoraError, told: bool) -> None:
        """Bring the runs to an end that have none, and the sandbox unless its supervisor did."""
        unfinished = self._open_runs.pop(sandbox, set())
        if not told:  # it may have died before it could tell of the newest
            unfinished |= set(recovery.unfinished_runs(self.runs, self._sandboxes / sandbox))
        for run in unfinished:
            facts = recovery.finish(self.runs, run, error)
            self._listener.run_changed(sandbox, run, recovery.ENDED_STATE, facts)
        if sandbox not in self._over:
            self._listener.sandbox_changed(sandbox, SandboxState.ENDED.value, {"reason": error.reason, "message": str(error)})
        self._over.discard(sandbox)

    async def catch_up(self) -> None:
        """Hear at once what supervisors would tell in a moment: who asks for a run that has just begun should find it."""
        asked = [asyncio.ensure_future(peer.request(Watch())) for peer in self._peers.values()]
        if asked:
            _, late = await asyncio.wait(asked, timeout=_PATIENCE)  # one that is ending, or stuck, has nothing to say
            for one in late:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    # -- after having been away

    async def take_up(self) -> None:
        """Connect to every supervisor that lives, and bury the sandboxes of those that do not."""
        for directory in sorted(path for path in self._sandboxes.glob("*") if path.is_dir()):
            sandbox = SandboxId(directory.name)
            try:
                known = await self._take(sandbox, streams.dial(directory / SOCKET))
            except (OSError, RemoraError):
                if sandbox not in self._burials:
                    self._lost(sandbox)
                await asyncio.wait({self._burials[sandbox]})
                continue
            self._tell(sandbox, known)
        self.images.release_others({*self._peers})

    async def stop(self, sandbox: SandboxId, reason: EndReason) -> None:
        """End a sandbox, and return when nothing of it is left."""
        if sandbox in self._openings:
            self._openings[sandbox].give_up()
        peer = self._peers.get(sandbox)
        if peer is not None:
            with contextlib.suppress(RemoraError):  # it may end while we ask
                await peer.request(StopSandbox(reason.value))
        if sandbox in self._burials:
            await asyncio.wait({self._burials[sandbox]})
