"""The desk for function calls.

Keeps each call's input until a sandbox takes it, carries out the scheduler's instructions, and lets callers follow their
calls from the moment they are queued.

Law: a call is on disk before its caller is told that it is queued, so that no death of the backend loses one. What to do is
decided in scheduler.py.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from remora import frames
from remora.errors import Refused, RemoraError, RunEnded, StateError
from remora.states import EndReason, RunState
from remora.streams import Peer
from remora.wire import CancelRun, Fields, FollowRun, Record, RunId, SandboxId, StartRun, SubmitCall
from remora_provisioner import recovery
from remora_provisioner.machines.homecoming import coming_from
from remora_provisioner.runlog import Follower
from remora_provisioner.runs import LOG_NAME, run_folder

from . import turns
from .placement import Choice, choose_now, why
from .pools import Pools, Waiter
from .scheduler import Scheduler

if TYPE_CHECKING:
    from .fleet import Fleet

_INPUT = "input"
_SMALL = 1 << 14
"""Bytes: what is not larger is not read again when its turn comes."""


def _secrets_of(spec: Fields) -> list[str]:
    """Return the secrets that a spec names: for the sandbox, and for its image's registry."""
    return [*spec.get("secrets", ()), *filter(None, [spec["image"]["base"].get("secret")])]


def _secrets_lost(names: list[str]) -> RunEnded:
    text = f"the backend was away, and knows no more what the secrets {', '.join(names)} hold; call it again"
    return RunEnded(text, reason=EndReason.SECRETS_LOST.value)


class CallDesk:
    """All calls of one backend."""

    def __init__(self, fleet: Fleet, runs: Path, new_sandbox: Callable[[], SandboxId]) -> None:
        """Keep inputs and logs below `runs`."""
        self._fleet, self._runs = fleet, runs
        self._scheduler = Scheduler({turns.HERE: float(os.cpu_count() or 1)}, new_sandbox)
        self._pools = Pools(fleet, self.happened)
        self._followers: dict[RunId, set[Follower]] = {}
        self._known: dict[RunId, str] = {}
        """Calls that have not ended, with their pools."""
        self._handed: dict[RunId, SandboxId] = {}
        self._inputs: dict[RunId, StartRun] = {}

    # -- taking calls

    async def submit(self, request: SubmitCall, inside: SandboxId | None = None, waiter: Waiter | None = None) -> None:
        """Queue a call, asked for by code in the sandbox `inside`, if any; it is durable when this returns.

        While it is queued, `waiter` gets words on the build of its image. Raises Unavailable, or StateError when it cannot be
        written down.
        """
        key, run = self._pools.name(request.spec, request.secrets), RunId(request.run)
        choice = self._choose(key)
        start = StartRun(run, "call", request.name, request.body, buffers=request.buffers)
        folder, pieces = run_folder(self._runs, run), frames.encode(start)
        try:
            folder.mkdir(mode=0o700, parents=True)
            (folder / _INPUT).write_bytes(b"".join(pieces))
        except FileExistsError:
            raise Refused(f"there is a run {run} already", reason="run-exists") from None
        except OSError as error:
            raise StateError(
                f"the call cannot be written to {folder} ({error.strerror}); free space or set REMORA_STATE_DIR"
            ) from error
        facts = {"name": request.name, "form": "call", "queued": time.time(), "spec": request.spec}
        facts |= {"within": request.body.get("within"), "inside": inside}
        self._fleet.run_changed(None, run, RunState.QUEUED.value, facts)
        if sum(map(len, pieces)) <= _SMALL:
            self._inputs[run] = start
        self._pools.expect(run, key, waiter or Waiter(secrets=request.secrets))
        self._enqueue(run, key, request.body.get("within"), choice)
        await asyncio.wrap_future(self._fleet.store.written())

    def _choose(self, key: str) -> Choice:
        return choose_now(self._pools.specs[key], self._fleet.machines, self._fleet.sandboxes.values())

    def _enqueue(self, run: RunId, key: str, within: str | None, choice: Choice) -> None:
        self._known[run] = key
        spec = self._pools.specs[key]
        cores = spec.resources.cpu or 1.0
        if choice.line:
            self._pools.say(run, choice.line)
        self.happened(turns.CallQueued(run, key, cores, RunId(within) if within else None, choice.machines))

    async def restore(self) -> None:
        """Queue again what was queued when the backend went away; what may have been handed over elsewhere when that is known."""
        for run, facts in list(self._fleet.runs.items()):
            if facts["state"] == RunState.QUEUED.value and not facts.get("sandbox") and (self._runs / run / _INPUT).exists():
                if sandbox := coming_from(self._runs, run):
                    self._fleet.soon(self._requeue_when_heard(run, sandbox))
                else:
                    self._requeue(run)

    async def _requeue_when_heard(self, run: RunId, sandbox: SandboxId) -> None:
        await self._fleet.machines.heard(sandbox)
        if run in self._fleet.runs and not self._fleet.runs[run].get("sandbox"):
            self._requeue(run)

    def _requeue(self, run: RunId) -> None:
        facts = self._fleet.runs[run]
        if names := _secrets_of(facts["spec"]):
            self._end(run, _secrets_lost(names))
            return
        key = self._pools.name(facts["spec"], {})
        try:
            self._enqueue(run, key, facts.get("within"), self._choose(key))
        except RemoraError as error:  # what it needs is not there any more
            self._end(run, RunEnded(str(error), reason=EndReason.SANDBOX_FAILED.value))

    # -- carrying out

    def happened(self, event: turns.Event) -> None:
        """Tell the scheduler, and do what it says."""
        for instruction in self._scheduler.handle(event):
            match instruction:
                case turns.Open(key, sandbox, machine):
                    self._fleet.soon(self._pools.open(key, sandbox, machine))
                case turns.Assign(run, sandbox):
                    self._pools.busy(sandbox)
                    self._fleet.soon(self._assign(run, sandbox))
                case turns.Rest(sandbox):
                    self._pools.rest(sandbox)
                case turns.Close(sandbox):
                    self._pools.end(sandbox)
                case turns.Fail(run):
                    self._fail(run)

    async def _assign(self, run: RunId, sandbox: SandboxId) -> None:
        try:
            await self._fleet.machines.prepare(sandbox, run)
            if run not in self._known:
                return  # cancelled meanwhile
            self._handed[run] = sandbox
            await self._fleet.machines.hand_over(sandbox, self._input(run))
            self._inputs.pop(run, None)
            (self._runs / run / _INPUT).unlink()
        except RemoraError as error:
            self._not_taken(run, error)
        except OSError as error:
            self._end(run, RunEnded(f"the call could not be read again: {error}", reason=EndReason.SANDBOX_FAILED.value))

    def _input(self, run: RunId) -> StartRun:
        """Return what a call consists of: still at hand, or read again. Small ones are kept, so that many may wait."""
        start = self._inputs.get(run)
        if start is None:
            (read,) = frames.Decoder().feed((self._runs / run / _INPUT).read_bytes())
            assert isinstance(read, StartRun)
            return read
        return start

    def _not_taken(self, run: RunId, error: RemoraError) -> None:
        """Queue a call again whose sandbox ended before it took the call; end one that may have begun."""
        self._handed.pop(run, None)
        if run not in self._known:
            return  # it has ended with its sandbox
        if error.reason == "sandbox-ended":
            self.happened(turns.CallReturned(run))
        elif not self._fleet.runs.get(run, {}).get("sandbox"):  # else its sandbox has it, and whoever buries that ends it
            self._end(run, RunEnded(f"the call could not be handed over: {error}", reason=EndReason.SANDBOX_FAILED.value))

    def _fail(self, run: RunId) -> None:
        ended = [facts for facts in reversed(self._fleet.sandboxes.values()) if facts.get("pool") and facts.get("message")]
        last = ended[0] if ended else {"message": "no sandbox could be started"}
        stopped = last.get("reason") == EndReason.STOPPED.value  # while it was being opened
        reason = EndReason.STOPPED if stopped else EndReason.SANDBOX_FAILED
        self._end(run, RunEnded(str(last["message"]), reason=reason.value))

    def _end(self, run: RunId, error: RunEnded) -> None:
        state, facts = recovery.finish(self._runs, run, error)
        (self._runs / run / _INPUT).unlink(missing_ok=True)
        self._fleet.run_changed(None, run, state, facts)

    # -- hearing

    def sandbox_changed(self, sandbox: SandboxId, before: str | None, state: str) -> None:
        """Pass on what matters of a pool's sandbox, and that devices are free again."""
        self._pools.changed(sandbox, before, state)

    def handed_to(self, run: RunId) -> SandboxId | None:
        """Return the sandbox that was given a call, if one was."""
        return self._handed.get(run) or coming_from(self._runs, run)

    def learned(self, machine: str, facts: Fields) -> None:
        """Take note of what a machine has."""
        if facts.get("cores"):
            self.happened(turns.MachineHas(machine, float(facts["cores"])))

    def run_ended(self, run: RunId) -> None:
        """Pass on the end of a run."""
        for follower in self._followers.get(run, ()):
            follower.wake()
        self._handed.pop(run, None)
        self._inputs.pop(run, None)
        self._pools.dismiss(run)
        key = self._known.pop(run, None)
        if key is not None:
            self.happened(turns.CallEnded(run))
            if key not in self._known.values():
                self._pools.give_up(key)

    def recorded(self, record: Record) -> None:
        """Pass on an entry of a call's log; one with a number below 0 is a line for who waits for it."""
        if record.seq < 0:
            self._pools.say(record.run, str(record.content["text"]))
            return
        followers = self._followers.get(record.run)
        if followers:
            pieces = frames.encode(record)
            for follower in followers:
                follower.push(record, pieces)

    # -- callers

    async def follow(self, peer: Peer, request: FollowRun) -> None:
        """Send a call's records, or those of any run that has ended, until the last one."""
        run = RunId(request.run)
        path = run_folder(self._runs, run) / LOG_NAME
        follower = Follower(peer, path, request.after, lambda: run not in self._fleet.runs or not request.wait)
        self._followers.setdefault(run, set()).add(follower)
        try:
            await follower.run()
        finally:
            self._followers[run].discard(follower)
            if not self._followers[run]:
                del self._followers[run]

    def waits(self) -> dict[RunId, str]:
        """Return why each call waits that no sandbox has taken, in words."""
        return {wait.run: why(wait, self._pools.specs[self._known[wait.run]].resources) for wait in self._scheduler.waiting()}

    async def cancel(self, request: CancelRun) -> None:
        """End a call, queued or running."""
        run = RunId(request.run)
        facts = self._fleet.runs.get(run)
        if facts is None:
            return
        sandbox = facts.get("sandbox") or self._handed.get(run)
        if sandbox:
            await (await self._fleet.machines.heard(sandbox)).request(CancelRun(run, request.hard))
        else:
            self._end(run, RunEnded("cancelled before it began", reason=EndReason.CANCELLED.value))
