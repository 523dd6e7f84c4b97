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
from collections.abc import Iterator
from pathlib import Path

from remora.errors import PlaceError, Refused, RemoraError, StateError
from remora.resources import SandboxSpec
from remora.settings import JAIL
from remora.states import EndReason, SandboxState
from remora.wire import AskGuest, Fields, SandboxId, StopSandbox

from . import alive, jails, limits, recovery, view
from .devices.grants import Devices
from .devices.kinds import environment_of, mounts_of
from .endings import Evidence, explain
from .hearing import Hearing, Listener
from .images.fitting import Fitting
from .images.keeping import Images
from .opening import Opening
from .order import ENDED, SCRATCH, SOCKET, Order
from .sandbox import FIRST_HOST_ID, Jail

_LOG = logging.getLogger(__name__)
_HOST_IDS = 0x0F000000
_HIDES_NO_DEVICES = "jail process hides no devices: code sees those of other sandboxes, too, and is only told which are its own"
_SAID = 2000
"""Characters of a dead supervisor's last words."""
_FAREWELL = 10.0
"""Seconds that a supervisor may take to end which has hung up."""


def require_secrets(spec: SandboxSpec, opening: Opening) -> None:
    """Raise Refused if nobody gives the secrets that a spec names."""
    if spec.secrets and not opening.environment:
        names = ", ".join(spec.secrets)
        raise Refused(f"nobody has given the secrets {names} for this sandbox; run it again", reason="secrets-lost")


def _stronger(one: str | None, other: str | None) -> str | None:
    """Return the stronger of two demands for isolation; None demands nothing."""
    return max((name for name in (one, other) if name), key=lambda name: jails.named(name).strength, default=None)


@contextlib.contextmanager
def _usable(directory: Path) -> Iterator[None]:
    """Say so if a sandbox's directory cannot be made or written. Raises StateError."""
    try:
        yield
    except OSError as error:
        raise StateError(f"{directory} cannot be used ({error.strerror}); free space or set REMORA_STATE_DIR") from error


class Agent(Hearing):
    """The sandboxes of one machine."""

    def __init__(self, state: Path, doors: tuple[str, ...], listener: Listener) -> None:
        """Keep sandboxes and run logs below `state`; code in sandboxes may reach the sockets at `doors`."""
        self._sandboxes, self.runs, self._caches = state / "sandboxes", state / "runs", state / "caches"
        self._doors = (*doors, str(self._sandboxes)) if doors else ()  # without a backend nobody opens sandboxes from in there
        super().__init__(listener)
        self.images = Images(state / "images")
        self.devices = Devices()
        self._openings: dict[SandboxId, Opening] = {}
        self._children: dict[SandboxId, subprocess.Popen[bytes]] = {}
        self._chosen: dict[str | None, tuple[Jail, list[str]]] = {}
        self._burials: dict[SandboxId, asyncio.Task[None]] = {}

    @property
    def busy(self) -> bool:
        """True while there is a sandbox, or one is being opened or buried."""
        return bool(self._peers) or self.changing

    @property
    def living(self) -> list[SandboxId]:
        """Return the sandboxes whose supervisors are connected."""
        return [*self._peers]

    @property
    def changing(self) -> bool:
        """True while a sandbox is being opened or buried."""
        return bool(self._openings or self._burials)

    def endpoint(self, sandbox: SandboxId) -> Fields:
        """Return how a client on this machine reaches the sandbox's supervisor."""
        return {"socket": str(self._sandboxes / sandbox / SOCKET)}

    # -- making

    async def fit(self, spec: SandboxSpec, opening: Opening) -> Fitting:
        """Return how a sandbox by this spec is fitted out, its image built if need be. ImageFailed; RunEnded if given up."""
        return await opening.during(self.images.fit(spec.image, dict(spec.environment), opening.say, opening.registry))

    async def open(self, sandbox: SandboxId, spec: SandboxSpec, facts: Fields, opening: Opening) -> list[str]:
        """Start a sandbox and return the lines that its user should read; the sandbox may still be starting.

        Raises Unavailable at once if others hold the devices that it asks for.
        """
        require_secrets(spec, opening)
        with self.granted(sandbox, spec):
            return await self._open(sandbox, spec, facts, opening)

    @contextlib.contextmanager
    def granted(self, sandbox: SandboxId, spec: SandboxSpec) -> Iterator[None]:
        """Hold the devices that a sandbox asks for; let go of them if it is not opened.

        Raises Unavailable; StateError if there is a sandbox of this name already, which keeps its own.
        """
        if sandbox in self._openings or (self._sandboxes / sandbox).exists():
            raise StateError(f"there is a sandbox {sandbox} already; run it again")
        with self.devices.granted(sandbox, spec.resources.gpu):
            if held := self.devices.facts(sandbox):
                self._listener.sandbox_changed(sandbox, SandboxState.STARTING.value, {"devices": held})
            yield

    async def _open(self, sandbox: SandboxId, spec: SandboxSpec, facts: Fields, opening: Opening) -> list[str]:
        self._openings[sandbox] = opening
        try:
            fitting = await self.fit(spec, opening)
        finally:
            self._openings.pop(sandbox, None)
        return await self.open_fitted(sandbox, spec, fitting, facts, opening)

    async def open_fitted(
        self, sandbox: SandboxId, spec: SandboxSpec, fitting: Fitting, facts: Fields, opening: Opening
    ) -> list[str]:
        """Start a sandbox whose image is here, as `open` does."""
        directory = self._sandboxes / sandbox
        self._openings.setdefault(sandbox, opening)
        try:
            with _usable(directory):
                await self.images.hold(sandbox, fitting)
                directory.mkdir(mode=0o700, parents=True)  # what is there already is another's, and stays
                return await self._inhabited(sandbox, spec, fitting, facts, opening)
        finally:
            self._openings.pop(sandbox, None)

    async def _inhabited(
        self, sandbox: SandboxId, spec: SandboxSpec, fitting: Fitting, facts: Fields, opening: Opening
    ) -> list[str]:
        """Start a sandbox in its new directory, which goes if that fails."""
        directory = self._sandboxes / sandbox
        try:
            self._caches.mkdir(mode=0o700, exist_ok=True)
            order, notices = self._order(sandbox, directory, spec, fitting, facts)
            owner = order.host_id if order.jail == "bubblewrap" else None  # the others stay who they are
            view.lend_caches(directory / SCRATCH / "home", self._caches, owner)
            order.save()
            self._listener.sandbox_changed(sandbox, SandboxState.STARTING.value, {"jail": order.jail})
            await self._take(sandbox, self._start(sandbox, directory, opening.environment))
        except (asyncio.CancelledError, OSError, RemoraError) as error:
            if child := self._children.get(sandbox):
                child.terminate()
                self._lost(sandbox)
            if not isinstance(error, asyncio.CancelledError):  # then nobody waits for it any more
                await self.buried(sandbox)
            if sandbox not in self._burials:
                shutil.rmtree(directory, ignore_errors=True)
            raise
        return notices

    async def extend(self, sandbox: SandboxId, spec: SandboxSpec, opening: Opening) -> list[str]:
        """Fit a living sandbox out with the image of this spec; return the lines that its user should read."""
        return await self.extend_fitted(sandbox, await self.fit(spec, opening), opening)

    async def extend_fitted(self, sandbox: SandboxId, fitting: Fitting, opening: Opening) -> list[str]:
        """Give a living sandbox what is here, as `extend` does."""
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
        shows = "bubblewrap" if fitting.layers or fitting.places else None  # what alone shows things where they are not
        jail, lines = self._choose(_stronger(_stronger(spec.jail, JAIL.text or None), shows))
        folder, why_not = view.shared_folder(spec, self._sandboxes.parent)
        interpreter = view.build_layer(directory, fitting)
        home, devices = spec.home or "/", self.devices.of(sandbox)
        lines = [*lines, *([_HIDES_NO_DEVICES] if devices and jail.name == "process" else [])]
        order = Order(
            sandbox=sandbox,
            directory=str(directory),
            runs=str(self.runs),
            jail=jail.name,
            argv=(str(interpreter), spec.image["guest"]),
            environment=environment_of(devices)
            | view.environment(spec, fitting, interpreter, limits.thread_environment(spec.resources.cpu))
            | self.images.asks(fitting),
            folder=folder or view.own_folder(spec),
            home=home,
            mounts=view.mounts(spec, fitting, directory, folder, self._caches)
            + view.device_mounts(mounts_of(devices, elsewhere=jail.name == "bubblewrap"), fitting),
            host_id=self._host_id() if os.getuid() == 0 else None,
            memory=spec.resources.memory,
            cpu=spec.resources.cpu,
            layers=fitting.layers,
            whole=fitting.whole,
            doors=self._doors,
            facts=facts | {"jail": jail.name, "devices": self.devices.facts(sandbox)},
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
        told, log_file = os.fdopen(os.memfd_create("remora-secrets"), "w+b"), directory / alive.SUPERVISOR_LOG
        with theirs, told, log_file.open("ab") as log:
            alive.lock(log)
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
        try:
            return await self._watch(sandbox, sock)
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
            return (self._sandboxes / sandbox / alive.SUPERVISOR_LOG).read_text(errors="replace").strip()
        except OSError:
            return ""

    # -- hearing

    def _heard_sandbox(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        opened = facts.pop("opened", None)
        if state == SandboxState.ENDED.value:
            self.devices.release(sandbox)  # no process of it is left that could use them
        super()._heard_sandbox(sandbox, state, facts)
        if opened:
            self.images.note_opened(opened)

    def _lost(self, sandbox: SandboxId) -> None:
        """Take note that the supervisor has gone, in order or not."""
        self._peers.pop(sandbox, None)
        if sandbox not in self._burials:
            task = self._burials[sandbox] = asyncio.get_running_loop().create_task(self._bury(sandbox))
            task.add_done_callback(lambda _: self._burials.pop(sandbox))

    async def _bury(self, sandbox: SandboxId) -> None:
        """Take away what a sandbox left on the machine, and write the end that its supervisor could not."""
        directory = self._sandboxes / sandbox
        code = await self._death(sandbox, self._children.pop(sandbox, None))
        if alive.lives(directory):  # another agent has started it: whoever comes next takes it up again
            _LOG.warning("sandbox %s stays as it is: its supervisor lives, and is not heard", sandbox)
            return
        if said := self._said(sandbox):
            _LOG.warning("supervisor of %s: %s", sandbox, said)
        ended, told = self._ended(sandbox), sandbox in self._over
        if ended is not None and not told:
            self._tell(sandbox, ended)
        self.images.release(sandbox)
        self.devices.release(sandbox)
        self._finish(sandbox, explain(Evidence(asked=None, code=code, trouble=said[-_SAID:])), told=told or ended is not None)
        try:
            await asyncio.to_thread(recovery.remove, directory)
        except OSError as error:
            _LOG.warning("%s is not gone: %s", directory, error)  # the next start of the backend tries again

    async def _death(self, sandbox: SandboxId, child: subprocess.Popen[bytes] | None) -> int:
        """Wait for the death of a supervisor that has hung up, and see to it; return its exit code."""
        if child is None:
            return await alive.outlived(self._sandboxes / sandbox)
        waiting = asyncio.ensure_future(asyncio.to_thread(child.wait))
        if not (await asyncio.wait({waiting}, timeout=_FAREWELL))[0]:
            child.terminate()
        return await waiting

    def _finish(self, sandbox: SandboxId, error: RemoraError, told: bool) -> None:
        """Bring the runs to an end that have none, and the sandbox unless its supervisor did."""
        unfinished = self._open_runs.pop(sandbox, set())
        if not told:  # it may have died before it could tell of the newest, and while nobody heard
            unfinished |= set(recovery.runs_of(self.runs, self._sandboxes / sandbox))
        for run in unfinished:
            self._listener.run_changed(sandbox, run, *recovery.finish(self.runs, run, error))
        if sandbox not in self._over:
            self._listener.sandbox_changed(sandbox, SandboxState.ENDED.value, {"reason": error.reason, "message": str(error)})
        self._over.discard(sandbox)

    # -- after having been away

    async def take_up(self) -> None:
        """Connect to every supervisor that lives, and bury the sandboxes of those that do not."""
        for directory in sorted(path for path in self._sandboxes.glob("*") if path.is_dir()):
            sandbox = SandboxId(directory.name)
            try:
                known = await self._watch(sandbox, await alive.served(directory))
            except (OSError, RemoraError):
                self._lost(sandbox)
                await self.buried(sandbox)
                continue
            self.devices.take_up(sandbox, known["facts"].get("devices") or [])
            self._tell(sandbox, known)
        self.images.release_others({*self._peers})

    def give_up(self, sandbox: SandboxId) -> None:
        """Bring to an end what was expected of a sandbox of which nothing is left."""
        self._finish(sandbox, explain(Evidence(asked=None, code=-9)), told=False)

    async def buried(self, sandbox: SandboxId) -> None:
        """Return when nothing is left of a sandbox whose supervisor has gone."""
        if sandbox in self._burials:
            await asyncio.wait({self._burials[sandbox]})

    async def stop(self, sandbox: SandboxId, reason: EndReason) -> None:
        """End a sandbox, and return when nothing of it is left."""
        if sandbox in self._openings:
            self._openings[sandbox].give_up()
        peer = self._peers.get(sandbox)
        if peer is not None:
            with contextlib.suppress(RemoraError):  # it may end while we ask
                await peer.request(StopSandbox(reason.value))
                await asyncio.wait({peer.gone})  # it is buried from then on
        await self.buried(sandbox)
