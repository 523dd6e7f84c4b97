"""One per sandbox: owns it and its run logs, and survives everything above it.

A process of its own, outside the jail. It opens the jail, queues runs, hands them to the guest one at a time, writes what
the guest emits into the run log and then to whoever follows. Kernel, backend and agent may come and go; it ends with its
sandbox.

Law: it decides nothing about which sandboxes there should be, and knows nothing of Jupyter beyond passing messages on.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from pathlib import Path

from remora import streams
from remora.errors import Refused, RemoraError, RunEnded
from remora.frames import AHEAD, Payload
from remora.states import SANDBOX_TABLE, EndReason, RunEvent, SandboxEvent, SandboxState, advance
from remora.streams import Peer, Reply
from remora.wire import (
    AskGuest,
    CancelRun,
    CommMessage,
    Emit,
    Fields,
    FollowRun,
    Hello,
    InputReply,
    Interrupt,
    InterruptRun,
    Message,
    Ready,
    RunChanged,
    RunId,
    SandboxChanged,
    SandboxId,
    ShellBytes,
    StartRun,
    StopSandbox,
    Watch,
)

from .endings import explain, explain_cut
from .masking import Mask
from .news import News
from .order import RUNS, SPARE, Order
from .payloads import Payloads
from .runs import AwaitEnd, SpareLog, SupervisedRun, run_folder
from .shells import Shells
from .uplink import Uplink
from .vessel import Vessel

_REACTION = 1.0
"""Seconds that code has to react to an interrupt before a timeout or a cancel ends its sandbox."""
_OURS = frozenset({"state", "notice"})
"""Records that the supervisor alone writes: a guest cannot say what became of a run."""
_REMEMBERED = 1000
"""Ended runs that stay known for late output; older ones are read from their logs."""


class Supervisor:
    """One sandbox and its runs."""

    def __init__(self, order: Order, secrets: dict[str, str] | None = None) -> None:
        """Take the order, and variables whose values nobody outside is to see; nothing is started yet."""
        self._order, self._mask = order, Mask(secrets or {})
        self._vessel = Vessel(order, self._mask)
        self._guest: Peer | None = None
        self._peers: set[Peer] = set()
        self._news = News()
        self._spare = SpareLog(Path(order.directory) / SPARE)
        self._runs: dict[RunId, SupervisedRun] = {}
        self._queue: list[SupervisedRun] = []
        self._active: SupervisedRun | None = None
        self._asked: EndReason | None = None
        self._ends = asyncio.Event()
        self._shells = Shells(lambda message: self._guest.send(message) if self._guest else None)
        self._payloads = Payloads()
        self.state = SandboxState.STARTING
        self.facts: Fields = {"supervisor": os.getpid(), "started": time.time()} | order.facts
        self.over = asyncio.Event()
        self.handlers: streams.Handlers = {
            Hello: self._welcome,
            Watch: self._watch,
            StartRun: self._start_run,
            FollowRun: self._follow_run,
            AwaitEnd: self._await_end,
            InterruptRun: self._interrupt_run,
            CancelRun: self._cancel_run,
            StopSandbox: self._stop_sandbox,
            AskGuest: self._ask_guest,
            InputReply: self._to_guest,
            CommMessage: self._to_guest,
            ShellBytes: self._shells.typed,
        }

    # -- the sandbox

    async def inhabit(self) -> None:
        """Open the jail, serve its runs, and return when it has ended and nothing of it is left."""
        code, trouble = None, ""
        try:
            guest, uplink_socket = self._vessel.open()
            uplink = Uplink(uplink_socket, self._order.doors, self._order.sandbox)
            self._guest = await streams.adopt(guest, self._from_guest, self._guest_left)
            self.facts |= self._vessel.facts
            code = await self._vessel.wait(lambda: self.end(EndReason.OUT_OF_MEMORY))
            uplink.close()
            # what the guest said last is still in its socket; all of it is here when the peer is gone
            await asyncio.wait({self._guest.gone}, timeout=_REACTION)
        except RemoraError as error:
            trouble = self._mask.text(str(error))
        self._end(code, trouble)

    def _guest_left(self, _: Peer) -> None:
        """See to it that a sandbox whose guest says nothing more ends, too; most are ending by themselves."""
        asyncio.get_running_loop().call_later(_REACTION, self._vessel.kill)

    def end(self, reason: EndReason) -> None:
        """End the sandbox for this reason; the first reason counts."""
        self._asked = self._asked or reason
        self._vessel.kill()

    def _end(self, code: int | None, trouble: str) -> None:
        evidence = self._vessel.evidence()
        evidence = dataclasses.replace(evidence, asked=self._asked, code=code, trouble=trouble or evidence.trouble)
        error = explain(evidence)
        self.facts |= {"reason": error.reason, "message": str(error), "peak": evidence.peak, "ended": time.time()}
        self._happened(SandboxEvent.ENDED)  # first, so that nobody is given this sandbox who has seen its run end
        for run in [self._active, *self._queue]:
            if run is not None:
                run.end(run.cut or EndReason(error.reason), error)
        self._active, self._queue = None, []
        self._news.flush()
        self._vessel.close()
        for run in self._runs.values():
            run.close()
        self._spare.close()
        self.over.set()

    def _happened(self, event: SandboxEvent) -> None:
        self.state = advance(SANDBOX_TABLE, self.state, event)
        passing = event in (SandboxEvent.TOOK_RUN, SandboxEvent.FREE)
        changed = SandboxChanged(SandboxId(self._order.sandbox), self.state.value, {} if passing else self.facts)
        self._news.tell(self.state, changed, soon=passing)

    # -- runs

    async def _start_run(self, peer: Peer, request: StartRun) -> Fields:
        try:
            return self._queue_run(peer, request)
        except RemoraError:
            self._payloads.void(request)
            raise

    def _queue_run(self, peer: Peer, request: StartRun) -> Fields:
        if self.state is SandboxState.ENDED:
            raise Refused(f"the sandbox has ended: {self.facts.get('message', '')}", reason="sandbox-ended")
        if request.run in self._runs:
            raise Refused(f"there is a run {request.run} already", reason="run-exists")
        run = self._take(request)
        self._queue.append(run)
        begins = self._hand_over()
        run.note_queued()
        if begins is not None:
            self._begun(begins)
        peer.attach(run.follow(peer, -1, lambda: False))  # beyond the run's end: late output comes, too
        return {"state": run.state.value}

    def _take(self, request: StartRun) -> SupervisedRun:
        folder = run_folder(Path(self._order.runs), request.run)
        with contextlib.suppress(OSError), (Path(self._order.directory) / RUNS).open("a") as taken:
            taken.write(f"{request.run}\n")  # a full disk: the run is known all the same for as long as this process lives
        run = self._runs[request.run] = SupervisedRun(request, self._spare.take(folder), self._run_changed, self._mask)
        return run

    def _next(self) -> None:
        begins = self._hand_over()
        if begins is not None:
            self._begun(begins)

    def _hand_over(self) -> SupervisedRun | None:
        """Give the guest the next run, if both are there; it works while the rest is written down."""
        if self._active is not None or not self._queue or self.state is not SandboxState.READY:
            return None
        run = self._active = self._queue.pop(0)
        assert self._guest is not None and run.request is not None
        self._guest.send(run.request)
        self._guest.flush()
        self._happened(SandboxEvent.TOOK_RUN)
        return run

    def _begun(self, run: SupervisedRun) -> None:
        run.advance(RunEvent.STARTED)
        if run.limit:
            run.call_after(run.limit, self._cut, run, EndReason.TIMEOUT)

    def _cut(self, run: SupervisedRun, reason: EndReason) -> None:
        """Interrupt the run; if it does not react, end its sandbox."""
        run.cut = run.cut or reason
        self._send_interrupt(run)
        run.call_after(_REACTION, self.end, reason)

    def _send_interrupt(self, run: SupervisedRun) -> None:
        if self._guest is not None and run is self._active:
            self._guest.send(Interrupt(run.id))

    def _run_changed(self, run: SupervisedRun) -> None:
        if run.ended:
            self._ends.set()  # wakes whoever waits now
            self._ends.clear()
        # whoever assigns calls waits for their ends; of cells and notebooks only listings know
        self._news.tell(run.id, RunChanged(run.id, run.state.value, run.facts), soon=run.form != "call")

    def _from_guest(self, _: Peer, message: Message) -> None:
        if isinstance(message, Ready):
            self.facts |= {"guest": message.facts}
            self._happened(SandboxEvent.READY)
            self._payloads.guest = self._guest if message.facts.get(AHEAD) else None
            self._next()
            self._spare.prepare()
        elif isinstance(message, Emit) and message.run in self._runs:
            self._emitted(self._runs[message.run], message)
        elif isinstance(message, ShellBytes):
            self._shells.printed(message)

    def _emitted(self, run: SupervisedRun, message: Emit) -> None:
        if message.type == "result":
            if run is self._active:
                self._finished(run, message)
        elif message.type not in _OURS:
            run.take(message.type, message.content, message.buffers)
            if message.type == "cell":
                run.time_cell(message.content, lambda: self._cut(run, EndReason.TIMEOUT))

    def _finished(self, run: SupervisedRun, message: Emit) -> None:
        opened = message.content.pop("opened", None)
        if run.cut is not None and not message.content.get("ok"):
            run.end(run.cut, explain_cut(run.cut, run.limit or run.cell_limit))
        else:
            run.finish(message.content, message.buffers)
        self._active = None
        self._happened(SandboxEvent.FREE)
        if opened:
            self._news.tell("opened", SandboxChanged(SandboxId(self._order.sandbox), self.state.value, {"opened": opened}))
        self._forget_old()
        self._next()
        asyncio.get_running_loop().call_soon(self._prepare)  # when the result is out

    def _prepare(self) -> None:
        if self.state is not SandboxState.ENDED:
            self._spare.prepare()

    def _forget_old(self) -> None:
        while len(self._runs) > _REMEMBERED:
            oldest = next(iter(self._runs))
            if not self._runs[oldest].ended:
                return
            self._runs.pop(oldest).close()

    def _find(self, run: RunId) -> SupervisedRun:
        if run not in self._runs:
            raise Refused(f"this sandbox knows no run {run}", reason="no-such-run")
        return self._runs[run]

    # -- what others ask

    async def _welcome(self, peer: Peer, request: Hello) -> Fields:
        answer = await streams.welcome(peer, request)
        self._count_clients()
        return answer

    def _count_clients(self) -> None:
        """Keep the number of kernels and command lines that are connected: nobody else knows when a kernel was killed."""
        count = sum(peer.role.startswith("client") for peer in self._peers)
        if count != self.facts.get("clients"):
            self.facts["clients"] = count
            self._news.tell("clients", SandboxChanged(SandboxId(self._order.sandbox), self.state.value, self.facts))

    async def _watch(self, peer: Peer, _: Watch) -> Fields:
        self._news.flush()
        self._news.watchers.add(peer)
        return self.describe()

    def describe(self) -> Fields:
        """Return the sandbox's facts and those of every run known."""
        runs = {r.id: {"state": r.state.value, "facts": r.facts} for r in self._runs.values()}
        return {"sandbox": self._order.sandbox, "state": self.state.value, "facts": self.facts, "runs": runs}

    async def _follow_run(self, peer: Peer, request: FollowRun) -> None:
        run = self._find(request.run)
        await run.follow(peer, request.after, lambda: run.ended or not request.wait)

    async def _await_end(self, _: Peer, request: AwaitEnd) -> None:
        while (run := self._runs.get(request.run)) is None or not run.ended:
            await self._ends.wait()

    async def _interrupt_run(self, _: Peer, request: InterruptRun) -> None:
        run = self._find(request.run)
        if run in self._queue:
            self._drop(run)
        self._send_interrupt(run)

    async def _cancel_run(self, _: Peer, request: CancelRun) -> None:
        run = self._find(request.run)
        if run in self._queue:
            self._drop(run)
        elif not run.ended:
            self._cut(run, EndReason.CANCELLED)
            if request.hard:
                self.end(EndReason.CANCELLED)

    def _drop(self, run: SupervisedRun) -> None:
        self._queue.remove(run)
        if run.request is not None:
            self._payloads.void(run.request)
        run.end(EndReason.CANCELLED, RunEnded("cancelled before it began", reason=EndReason.CANCELLED.value))

    async def _stop_sandbox(self, _: Peer, request: StopSandbox) -> None:
        self.end(EndReason(request.reason))
        await self.over.wait()

    async def _ask_guest(self, peer: Peer, request: AskGuest) -> Reply:
        if self._guest is None or self.state is SandboxState.ENDED:
            raise Refused("the sandbox is not running", reason="sandbox-ended")
        self._mask.add(request.args.get("secrets") or {})
        asked = self._guest.request(AskGuest(request.op, request.args, buffers=request.buffers))
        answer = await (self._shells.see_through(peer, request, asked) if request.op == "shell" else asked)
        return Reply(answer.result, answer.buffers)

    async def _to_guest(self, _: Peer, message: Message) -> None:
        if self._guest is not None:
            self._guest.send(message)

    # -- connections

    def accept(self) -> Peer:
        """Make the Peer of a new connection."""
        return Peer(self.receive, self.left, self.choose)

    def choose(self, peer: Peer, kind: str, body: Fields, sizes: list[int]) -> Payload | None:
        """Let the payload of a run that somebody sends go to the guest at once."""
        return self._payloads.choose(peer, kind, body, sizes)

    def receive(self, peer: Peer, message: Message) -> None:
        """Take a message from agent, kernel or command line."""
        self._peers.add(peer)
        peer.handle(self.handlers, message)

    def left(self, peer: Peer) -> None:
        """Forget a connection."""
        self._peers.discard(peer)
        self._news.watchers.discard(peer)
        self._count_clients()

    async def farewell(self, seconds: float) -> None:
        """Close every connection, giving what was sent so long to go out."""
        peers = set(self._peers)
        for peer in peers:
            peer.close()
        if peers:
            await asyncio.wait({p.gone for p in peers}, timeout=seconds)
