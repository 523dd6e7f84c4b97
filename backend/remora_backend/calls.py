"""The desk for function calls.

Keeps each call's input until a sandbox takes it, carries out the scheduler's instructions, and lets callers follow their
calls from the moment they are queued.

Law: a call is on disk before its caller is told that it is queued, so that no death of the backend loses one. What to do is
decided in scheduler.py.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from remora import frames
from remora.errors import Refused, RemoraError, RunEnded, StateError, Unavailable
from remora.resources import SandboxSpec
from remora.settings import POOL_IDLE
from remora.states import EndReason, RunState, SandboxState
from remora.streams import Peer
from remora.wire import CancelRun, Fields, FollowRun, Record, RunId, SandboxId, StartRun, SubmitCall
from remora_provisioner import recovery
from remora_provisioner.opening import Opening
from remora_provisioner.runlog import Follower
from remora_provisioner.runs import LOG_NAME, run_folder
from remora_provisioner.timers import Timers

from . import scheduler as plan
from .machines import HERE
from .placement import require

if TYPE_CHECKING:
    from .fleet import Fleet

Hear = Callable[[str], None]
_INPUT = "input"
_SMALL = 1 << 14
"""Bytes: what is not larger is not read again when its turn comes."""


@dataclass(frozen=True)
class _Waiting:
    """Whoever waits for a call: who hears of its pool's image, and what its sandbox is to be given, until it ends."""

    hear: Hear
    secrets: Fields = field(repr=False)


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
        self._scheduler = plan.Scheduler(float(os.cpu_count() or 1), new_sandbox)
        self._specs: dict[str, SandboxSpec] = {}
        self._followers: dict[RunId, set[Follower]] = {}
        self._known: dict[RunId, str] = {}
        """Calls that have not ended, with their pools."""
        self._handed: dict[RunId, SandboxId] = {}
        self._inputs: dict[RunId, StartRun] = {}
        self._pool: set[SandboxId] = set()
        self._timers = Timers()
        self._waiting: dict[RunId, _Waiting] = {}
        self._openings: dict[SandboxId, tuple[str, Opening]] = {}
        self._given_up: set[SandboxId] = set()
        self._salt = os.urandom(16)

    # -- taking calls

    async def submit(self, request: SubmitCall, inside: SandboxId | None = None, hear: Hear = lambda _: None) -> None:
        """Queue a call, asked for by code in the sandbox `inside`, if any; it is durable when this returns.

        While it is queued, `hear` gets words on the build of its image. Raises Unavailable, or StateError when it cannot be
        written down.
        """
        key, run = self._pool_of(request.spec, request.secrets), RunId(request.run)
        require(self._specs[key], self._fleet.machines)
        if self._specs[key].on != HERE:
            raise Unavailable("functions run on this machine in this version; leave on= out, or call them in a cell with on=")
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
        self._waiting[run] = _Waiting(hear, request.secrets)
        self._enqueue(run, key, request.body.get("within"))
        await asyncio.wrap_future(self._fleet.store.written())

    def _pool_of(self, spec: Fields, secrets: Fields) -> str:
        """Return the name of the pool of all sandboxes that are made so; nobody can tell secrets by it who guesses them."""
        text = json.dumps([spec, sorted(filter(None, secrets.values()), key=str)], sort_keys=True)
        key = hmac.new(self._salt, text.encode(), "sha256").hexdigest()
        if key not in self._specs:
            self._specs[key] = SandboxSpec.from_dict(spec)
        return key

    def _enqueue(self, run: RunId, key: str, within: str | None) -> None:
        self._known[run] = key
        cores = self._specs[key].resources.cpu or 1.0
        self.happened(plan.CallQueued(run, key, cores, RunId(within) if within else None))

    async def restore(self) -> None:
        """Queue again what was queued when the backend went away."""
        for run, facts in list(self._fleet.runs.items()):
            if facts["state"] == RunState.QUEUED.value and not facts.get("sandbox") and (self._runs / run / _INPUT).exists():
                if names := _secrets_of(facts["spec"]):
                    self._end(run, _secrets_lost(names))
                else:
                    self._enqueue(run, self._pool_of(facts["spec"], {}), facts.get("within"))

    # -- carrying out

    def happened(self, event: plan.Event) -> None:
        """Tell the scheduler, and do what it says."""
        for instruction in self._scheduler.handle(event):
            match instruction:
                case plan.Open(key, sandbox):
                    self._fleet.soon(self._open(key, sandbox))
                case plan.Assign(run, sandbox):
                    self._timers.drop(sandbox)
                    self._fleet.soon(self._assign(run, sandbox))
                case plan.Rest(sandbox):
                    self._rest(sandbox)
                case plan.Close(sandbox):
                    self._fleet.soon(self._fleet.machines.stop(sandbox, EndReason.IDLE))
                case plan.Fail(run):
                    self._fail(run)

    def _rest(self, sandbox: SandboxId) -> None:
        """Report a pool's sandbox as unused when it has had nothing to do for long."""
        if sandbox not in self._timers:
            idle = self._fleet.sandboxes[sandbox]["spec"].get("idle")
            span = POOL_IDLE.seconds if idle is None else float(idle)
            self._timers.set(sandbox, span, lambda: self.happened(plan.SandboxUnused(sandbox)))

    async def _open(self, key: str, sandbox: SandboxId) -> None:
        if held := self._fleet.machines.here.devices.held_up(self._specs[key].resources.gpu):
            self._say(key, held.text)
            self.happened(plan.SandboxHeldUp(sandbox, held.holders))
            return
        self._pool.add(sandbox)
        secrets = next((waiting.secrets for waiting in self._waiting_for(key)), None)
        opening = Opening(lambda words: self._say(key, words), secrets)
        self._openings[sandbox] = (key, opening)
        try:
            owner = {"pool": key[:12], "spec": self._specs[key].to_dict()}
            await self._fleet.open_sandbox(sandbox, self._specs[key], owner, opening)
        except RemoraError:
            return  # the fleet has noted the sandbox's end, and the scheduler heard of it
        finally:
            del self._openings[sandbox]
            self._given_up.discard(sandbox)

    def _say(self, key: str, words: str) -> None:
        for waiting in self._waiting_for(key):
            waiting.hear(words)

    def _waiting_for(self, key: str) -> Iterator[_Waiting]:
        return (waiting for run, waiting in self._waiting.items() if self._known.get(run) == key)

    def _give_up_builds(self, key: str) -> None:
        """End what is being built for a pool that has no calls any more."""
        for sandbox, (pool, opening) in self._openings.items():
            if pool == key and key not in self._known.values():
                self._given_up.add(sandbox)
                opening.give_up()

    async def _assign(self, run: RunId, sandbox: SandboxId) -> None:
        if run not in self._known:
            return  # cancelled meanwhile
        try:
            start = self._input(run)
            supervisor = self._fleet.machines.peer(sandbox)
            self._handed[run] = sandbox
            await supervisor.request(start)
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
            self.happened(plan.CallReturned(run))
        elif not self._fleet.runs.get(run, {}).get("sandbox"):  # else its sandbox has it, and whoever buries that ends it
            self._end(run, RunEnded(f"the call could not be handed over: {error}", reason=EndReason.SANDBOX_FAILED.value))

    def _fail(self, run: RunId) -> None:
        reasons = [str(f["message"]) for f in reversed(self._fleet.sandboxes.values()) if f.get("pool") and f.get("message")]
        self._end(run, RunEnded(reasons[0] if reasons else "no sandbox could be started", reason=EndReason.SANDBOX_FAILED.value))

    def _end(self, run: RunId, error: RunEnded) -> None:
        state, facts = recovery.finish(self._runs, run, error)
        (self._runs / run / _INPUT).unlink(missing_ok=True)
        self._fleet.run_changed(None, run, state, facts)

    # -- hearing

    def sandbox_changed(self, sandbox: SandboxId, before: str | None, state: str) -> None:
        """Pass on what matters of a pool's sandbox, and that devices are free again."""
        if state == SandboxState.ENDED.value and self._fleet.sandboxes[sandbox].get("devices"):
            self.happened(plan.DevicesFreed())
        if sandbox not in self._pool:
            self._retire_stranger(sandbox, state)
            return
        if state == SandboxState.READY.value and before == SandboxState.STARTING.value:
            self.happened(plan.SandboxReady(sandbox))
        elif state == SandboxState.ENDED.value:
            self._pool.discard(sandbox)
            # one that was given up is no sign that the next one will not start
            started = before != SandboxState.STARTING.value or sandbox in self._given_up
            self.happened(plan.SandboxGone(sandbox, started))

    def _retire_stranger(self, sandbox: SandboxId, state: str) -> None:
        """End a pool's sandbox that was made before the backend was away, once it has done its call."""
        if self._fleet.sandboxes[sandbox].get("pool") and state == SandboxState.READY.value:
            self._fleet.soon(self._fleet.machines.stop(sandbox, EndReason.IDLE))

    def run_ended(self, run: RunId) -> None:
        """Pass on the end of a run."""
        for follower in self._followers.get(run, ()):
            follower.wake()
        self._handed.pop(run, None)
        self._inputs.pop(run, None)
        self._waiting.pop(run, None)
        key = self._known.pop(run, None)
        if key is not None:
            self.happened(plan.CallEnded(run))
            self._give_up_builds(key)

    def recorded(self, record: Record) -> None:
        """Pass on an entry of a call's log."""
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

    async def cancel(self, request: CancelRun) -> None:
        """End a call, queued or running."""
        run = RunId(request.run)
        facts = self._fleet.runs.get(run)
        if facts is None:
            return
        sandbox = facts.get("sandbox") or self._handed.get(run)
        if sandbox:
            await self._fleet.machines.peer(sandbox).request(CancelRun(run, request.hard))
        else:
            self._end(run, RunEnded("cancelled before it began", reason=EndReason.CANCELLED.value))
