"""The backend as a service: its whole surface is the one table in `handlers`.

Law: a handler turns a message into calls of fleet or desk and their result into an answer; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from remora import streams
from remora.errors import Refused
from remora.resources import SandboxSpec
from remora.settings import BACKEND_IDLE, RUN_RETENTION
from remora.states import EndReason
from remora.streams import Peer
from remora.wire import (
    Ask,
    CancelRun,
    Fields,
    FindRun,
    FindSandbox,
    FollowRun,
    GiveUp,
    Hello,
    Inside,
    LeaveKernel,
    ListAll,
    Message,
    OpenSession,
    Question,
    Request,
    RunId,
    SandboxId,
    Stage,
    StopSandboxes,
    SubmitCall,
)
from remora_provisioner.images import within
from remora_provisioner.opening import Ask as AskPerson
from remora_provisioner.opening import Opening, nobody
from remora_provisioner.runs import run_folder

from . import placement
from .calls import CallDesk
from .fleet import Fleet, SessionKey
from .inside import Insider
from .machines import Machines, new_sandbox
from .pools import Waiter
from .store import Store


def _spec(asked: Fields) -> SandboxSpec:
    """Return the spec that somebody asks for, without what only the backend may put there."""
    spec = SandboxSpec.from_dict(asked)
    return replace(spec, image={name: value for name, value in spec.image.items() if name != within.BUILT_ON})


class Service:
    """One running backend."""

    def __init__(self, directory: Path) -> None:
        """Keep socket, database, sandboxes and run logs in `directory`."""
        self.socket = directory / "socket"
        self._runs = directory / "runs"
        self._store = Store(directory / "remora.db")
        self._fleet = Fleet(self._store)
        self._desk = CallDesk(self._fleet, self._runs, new_sandbox)
        self._fleet.connect(Machines(directory, self.socket, self._fleet), self._desk)
        self._fleet.machines.learned = self._desk.learned
        self._fleet.changed = self._note_activity
        self._peers: set[Peer] = set()
        self._insiders: dict[Peer, Insider] = {}
        self._admitting: dict[RunId, asyncio.Future[None]] = {}
        self._openings: dict[tuple[Peer, int], Opening] = {}
        self._idle: asyncio.TimerHandle | None = None
        self.over = asyncio.Event()
        self.handlers: streams.Handlers = {
            Hello: streams.welcome,
            OpenSession: self._open_session,
            GiveUp: self._give_up,
            Ask: self._ask,
            LeaveKernel: self._leave_kernel,
            SubmitCall: self._submit_call,
            ListAll: self._list_all,
            FindSandbox: self._find_sandbox,
            FindRun: self._find_run,
            FollowRun: self._follow_run,
            CancelRun: self._cancel_run,
            StopSandboxes: self._stop_sandboxes,
        }

    async def live(self, ready: asyncio.Event) -> None:
        """Take up what lives, then serve until there has been nothing to do for long, or everything was stopped."""
        await self._fleet.restore()
        server = await streams.serve(self.socket, self._accept)
        self._note_activity()
        ready.set()
        self._fleet.soon(asyncio.to_thread(self._drop_old_runs))
        await self.over.wait()
        server.close()
        self._fleet.machines.close()
        self.socket.unlink(missing_ok=True)
        for peer in set(self._peers):
            peer.close()
        if self._peers:
            await asyncio.wait({peer.gone for peer in self._peers}, timeout=1.0)
        self._store.close()

    def _accept(self) -> Peer:
        peer = Peer(self._receive, self._left)
        self._peers.add(peer)
        self._note_activity()
        return peer

    def _receive(self, peer: Peer, message: Message) -> None:
        if isinstance(message, Inside):
            self._insiders.setdefault(peer, Insider(self._fleet, message.sandbox))  # the first word is the supervisor's
        else:
            peer.handle(self.handlers, message)

    def _left(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._insiders.pop(peer, None)
        self._note_activity()

    def _note_activity(self) -> None:
        """Leave when nobody is connected, nothing lives and nothing happens for the time set."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._peers and not self._fleet.busy:
            self._idle = asyncio.get_running_loop().call_later(BACKEND_IDLE.seconds, self.over.set)

    def _drop_old_runs(self) -> None:
        for run in self._store.forget_before(time.time() - RUN_RETENTION.seconds):
            with contextlib.suppress(Refused):  # no folder of ours is called so
                shutil.rmtree(run_folder(self._runs, run), ignore_errors=True)

    # -- the surface

    async def _open_session(self, peer: Peer, request: OpenSession) -> Fields:
        spec = _spec(request.spec)
        kernel, insider = request.kernel, self._insiders.get(peer)
        if insider is not None:
            kernel = insider.kernel(kernel)
            for sandbox in filter(None, (request.instead_of, request.sandbox)):
                insider.require_sandbox(self._fleet.find_sandbox(sandbox))
        if request.instead_of is not None:
            await self._fleet.machines.stop(request.instead_of, EndReason.CRASHED)
        with self._opening(peer, request, request.secrets) as opening:
            spec = spec if insider is None else await insider.admit(spec, opening)
            sandboxes = self._fleet.sandboxes
            adopted = sandboxes.get(request.sandbox or SandboxId(""), {}).get("on", "")
            on = spec.on or str(adopted) or placement.present(spec, kernel, request.session, sandboxes)
            choice = placement.choose_now(replace(spec, on=on), self._fleet.machines, sandboxes.values())

            async def open_there(spec: SandboxSpec) -> Fields:
                key = SessionKey(kernel, request.session, spec.identity)
                return await self._fleet.open_session(key, spec, request.sandbox, opening)

            return await placement.open_first(spec, choice, opening, open_there)

    async def _ask(self, peer: Peer, request: Ask) -> Fields:
        if insider := self._insiders.get(peer):
            if request.about != "files":
                raise Refused(f"{request.about} are for whoever uses this machine, not for code in a sandbox")
            insider.require_sandbox(self._fleet.find_sandbox(SandboxId(str(request.args.get("sandbox")))))
        with self._opening(peer, request) as opening:
            return await opening.during(self._fleet.machines.ask(request.about, request.op, request.args, opening))

    @contextlib.contextmanager
    def _opening(self, peer: Peer, request: Request, secrets: Fields | None = None) -> Iterator[Opening]:
        """Let whoever asked hear how far it has come, and give it up."""
        began = time.monotonic()

        def say(stage: str, text: str = "") -> None:
            peer.send(Stage(request.ask, stage, time.monotonic() - began, text))

        say("sandbox")
        about = "files" if isinstance(request, Ask) and request.about == "files" else "image"
        self._openings[peer, request.ask] = Opening(lambda text: say(about, text), secrets, self._asking(peer, request))
        try:
            yield self._openings[peer, request.ask]
        finally:
            del self._openings[peer, request.ask]
        say("opened")

    def _asking(self, peer: Peer, request: Request) -> AskPerson:
        """Return what asks whoever waits for a request.

        Code is asked for no passphrase, and trusts no host in a person's name.
        """
        if peer in self._insiders:
            return nobody

        async def ask(text: str, secret: bool) -> str | None:
            return (await peer.request(Question(request.ask, text, secret))).result.get("value")

        return ask

    async def _give_up(self, peer: Peer, message: GiveUp) -> None:
        if opening := self._openings.get((peer, message.ask)):
            opening.give_up()

    async def _leave_kernel(self, peer: Peer, request: LeaveKernel) -> None:
        insider = self._insiders.get(peer)
        self._fleet.leave_kernel(insider.kernel(request.kernel) if insider else request.kernel)

    async def _submit_call(self, peer: Peer, request: SubmitCall) -> None:
        spec, insider = _spec(request.spec), self._insiders.get(peer)
        if insider is not None:
            admitted = self._admitting[request.run] = asyncio.get_running_loop().create_future()
            try:
                spec = await insider.admit(spec, Opening())
            finally:
                asyncio.get_running_loop().call_soon(admitted.set_result, None)  # when it is queued, or refused
                del self._admitting[request.run]

        def hear(words: str) -> None:
            peer.send(Stage(request.ask, "image", 0.0, words))

        waiter = Waiter(hear, self._asking(peer, request), request.secrets)
        await self._desk.submit(replace(request, spec=spec.to_dict()), insider.sandbox if insider else None, waiter)

    async def _list_all(self, peer: Peer, request: ListAll) -> Fields:
        listed, insider, waits = self._fleet.list_all(request.limit), self._insiders.get(peer), self._desk.waits()
        listed["runs"] = [run | {"waits": waits[run["id"]]} if run["id"] in waits else run for run in listed["runs"]]
        if insider is None:
            return listed
        return {"sandboxes": [*filter(insider.owns, listed["sandboxes"])], "runs": [*filter(insider.started, listed["runs"])]}

    async def _find_sandbox(self, peer: Peer, request: FindSandbox) -> Fields:
        facts, insider = self._fleet.find_sandbox(request.sandbox), self._insiders.get(peer)
        return insider.require_sandbox(facts) if insider else facts

    async def _find_run(self, peer: Peer, request: FindRun) -> Fields:
        try:
            facts = self._fleet.find_run(request.run)
        except Refused:
            await self._fleet.machines.catch_up()
            facts = self._fleet.find_run(request.run)
        insider = self._insiders.get(peer)
        return insider.require_run(facts) if insider else facts

    async def _follow_run(self, peer: Peer, request: FollowRun) -> None:
        if peer in self._insiders:
            if request.run in self._admitting:  # the call and the wish to follow it come in one breath
                await self._admitting[request.run]
            self._insiders[peer].require_run(self._fleet.find_run(request.run))
        facts = self._fleet.find_run(request.run)
        if facts.get("form") == "call" or not await self._fleet.machines.follow(peer, request, facts):
            await self._desk.follow(peer, request)

    async def _cancel_run(self, peer: Peer, request: CancelRun) -> None:
        if peer in self._insiders:
            self._insiders[peer].require_run(self._fleet.find_run(request.run))
        await self._desk.cancel(request)

    async def _stop_sandboxes(self, peer: Peer, request: StopSandboxes) -> Fields:
        if peer in self._insiders:
            if request.everything:
                raise Refused("code in a sandbox may end the sandboxes that it opened, by name, and no others")
            for sandbox in request.sandboxes:
                self._insiders[peer].require_sandbox(self._fleet.find_sandbox(SandboxId(sandbox)))
        stopped = await self._fleet.stop(request.sandboxes, request.everything)
        if request.everything:
            await self._fleet.machines.leave()
            asyncio.get_running_loop().call_soon(self.over.set)
        return stopped
