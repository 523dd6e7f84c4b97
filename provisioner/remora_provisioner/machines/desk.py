"""What the agent of a machine answers to one connection of one backend.

Law: nothing is decided or kept here; that both speak one protocol is seen to by where the agent is found (versions.py).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

from remora import streams
from remora.errors import Refused
from remora.resources import SandboxSpec
from remora.states import EndReason
from remora.streams import Peer
from remora.wire import Fields, FollowRun, Message, RunId, SandboxId

from ..devices.inventory import require_devices
from ..images.fitting import Fitting
from ..opening import Opening
from ..runlog import Follower
from .messages import AskEnd, AskPort, ExtendThere, Lack, Leave, OpenThere, StopThere, TakeUp
from .ports import check_port, listens

if TYPE_CHECKING:
    from .there import There

_KEPT = 3600.0
"""Seconds for which an end is kept that a backend was told of: its answer may have been lost with it."""


class Desk:
    """Answers one connection of one backend."""

    def __init__(self, there: There, backend: str) -> None:
        """Answer for `there` to this backend."""
        self._there, self._backend = there, backend
        self.handlers: streams.Handlers = {
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
        """Take a message."""
        peer.handle(self.handlers, message)

    async def _take_up(self, _: Peer, request: TakeUp) -> Fields:
        self._there.agree(self._backend, request.terms)
        living = self._there.living(self._backend)
        ended = {sandbox: await self._there.end_of(sandbox) for sandbox in request.sandboxes if sandbox not in living}
        for sandbox in ended:
            asyncio.get_running_loop().call_later(_KEPT, self._there.ends.forget, sandbox)
        farms = str(self._there.agent.images.farms)
        facts = _facts() | {"devices": self._there.agent.devices.known()}
        return {"living": living, "ended": ended, "farms": farms, "facts": facts}

    async def _lack(self, _: Peer, request: Lack) -> Fields:
        obstacle = await asyncio.to_thread(self._there.obstacle)
        return {"lacking": await asyncio.to_thread(self._there.lacking, request.trees), "obstacle": obstacle}

    async def _open(self, _: Peer, request: OpenThere) -> Fields:
        spec = SandboxSpec.from_dict(request.spec)
        facts = request.facts | {"backend": self._backend, "lease": self._there.lease}
        fitting = self._there.copies.given(self._backend, spec, Fitting.from_dict(request.fitting))
        sandbox, opening = SandboxId(request.sandbox), Opening(secrets=request.secrets)
        if lacking := await asyncio.to_thread(self._there.lacking, [*fitting.trees]):
            return {"lacking": lacking}
        require_devices(spec, self._there.agent, spec.on)
        self._there.ends.forget(sandbox)
        with self._there.agent.granted(sandbox, spec), self._there.opening(self._backend, sandbox):
            notices = await self._there.agent.open_fitted(sandbox, spec, fitting, facts, opening)
        return {"notices": notices, "facts": self._there.facts_of(sandbox)}

    async def _extend(self, _: Peer, request: ExtendThere) -> Fields:
        self._there.require_owned(self._backend, SandboxId(request.sandbox))
        fitting, opening = Fitting.from_dict(request.fitting), Opening(secrets=request.secrets)
        return {"notices": await self._there.agent.extend_fitted(SandboxId(request.sandbox), fitting, opening)}

    async def _stop(self, _: Peer, request: StopThere) -> None:
        await self._there.stop(self._backend, SandboxId(request.sandbox), EndReason(request.reason))

    async def _ask_end(self, _: Peer, request: AskEnd) -> Fields:
        known = await self._there.end_of(SandboxId(request.sandbox))
        if known:
            asyncio.get_running_loop().call_later(_KEPT, self._there.ends.forget, request.sandbox)
        return known

    async def _ask_port(self, _: Peer, request: AskPort) -> Fields:
        self._there.require_owned(self._backend, SandboxId(request.sandbox))
        return {"listens": listens(check_port(request.port))}

    async def _leave(self, _: Peer, __: Leave) -> None:
        self._there.leave(self._backend)

    async def _follow(self, peer: Peer, request: FollowRun) -> None:
        log = self._there.log_of(RunId(request.run))
        if not log.exists():
            raise Refused(f"the log of run {request.run} is not kept there any more", reason="no-such-run")
        await Follower(peer, log, request.after, lambda: True).run()


def _facts() -> Fields:
    disk = shutil.disk_usage("/")
    return {"cores": os.cpu_count(), "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "disk": disk.free}
