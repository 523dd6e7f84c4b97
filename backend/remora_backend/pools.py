"""The pools: sandboxes in which functions are called, made and ended as the scheduler says.

Law: nothing is decided here. What becomes of a sandbox that is being made is told when all is known of it: that it cannot be had
before others give their devices back is no failure.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from remora.errors import RemoraError
from remora.resources import SandboxSpec
from remora.settings import POOL_IDLE
from remora.states import EndReason, SandboxState
from remora.wire import Fields, RunId, SandboxId
from remora_provisioner.devices.grants import HELD
from remora_provisioner.opening import Ask, Opening, nobody
from remora_provisioner.timers import Timers

from . import turns

if TYPE_CHECKING:
    from .fleet import Fleet


@dataclass(frozen=True)
class Waiter:
    """Whoever waits for a call: hears of its pool's image, can be asked, has what its sandbox is to be given; until it ends."""

    hear: Callable[[str], None] = lambda _: None
    ask: Ask = nobody
    secrets: Fields = field(default_factory=dict, repr=False)


class Pools:
    """The sandboxes of one backend in which functions are called."""

    def __init__(self, fleet: Fleet, happened: Callable[[turns.Event], None]) -> None:
        """Tell `happened` what becomes of sandboxes."""
        self._fleet, self._happened = fleet, happened
        self.specs: dict[str, SandboxSpec] = {}
        self._salt = os.urandom(16)
        self._ready: dict[SandboxId, bool] = {}
        """The sandboxes that were made for a pool, and whether they were ever ready."""
        self._waiters: dict[RunId, tuple[str, Waiter]] = {}
        self._openings: dict[SandboxId, tuple[str, Opening]] = {}
        self._given_up: set[SandboxId] = set()
        self._timers = Timers()

    def name(self, spec: Fields, secrets: Fields) -> str:
        """Return the name of the pool of all sandboxes that are made so; nobody can tell secrets by it who guesses them."""
        text = json.dumps([spec, sorted(filter(None, secrets.values()), key=str)], sort_keys=True)
        key = hmac.new(self._salt, text.encode(), "sha256").hexdigest()
        if key not in self.specs:
            self.specs[key] = SandboxSpec.from_dict(spec)
        return key

    # -- who waits

    def expect(self, run: RunId, key: str, waiter: Waiter) -> None:
        """Take note of who waits for a call."""
        self._waiters[run] = (key, waiter)

    def dismiss(self, run: RunId) -> None:
        """Take note that nobody waits for a call any more; safe twice."""
        self._waiters.pop(run, None)

    def say(self, run: RunId, words: str) -> None:
        """Tell who waits for a call."""
        if run in self._waiters:
            self._waiters[run][1].hear(words)

    def _say(self, key: str, words: str) -> None:
        for waiter in self._waiting_for(key):
            waiter.hear(words)

    def _waiting_for(self, key: str) -> Iterator[Waiter]:
        return (waiter for pool, waiter in self._waiters.values() if pool == key)

    async def _ask(self, key: str, text: str, secret: bool) -> str | None:
        waiter = next(self._waiting_for(key), None)
        return None if waiter is None else await waiter.ask(text, secret)

    # -- making and ending

    async def open(self, key: str, sandbox: SandboxId, machine: str) -> None:
        """Make a sandbox for a pool, and tell what has become of it."""
        spec = replace(self.specs[key], on=machine)
        if held := self._fleet.machines.held_up(spec):
            self._say(key, held.text)
            self._happened(turns.SandboxHeldUp(sandbox, held.holders))
            return
        secrets = next((waiter.secrets for waiter in self._waiting_for(key)), None)
        opening = Opening(lambda words: self._say(key, words), secrets, lambda text, secret: self._ask(key, text, secret))
        self._ready[sandbox], self._openings[sandbox] = False, (key, opening)
        trouble: RemoraError | None = None
        try:
            owner = {"pool": key[:12], "on": machine, "spec": self.specs[key].to_dict()}
            await self._fleet.open_sandbox(sandbox, spec, owner, opening)
        except RemoraError as error:  # the fleet has noted the sandbox's end
            trouble = error
        finally:
            del self._openings[sandbox]
        if self._fleet.sandboxes[sandbox]["state"] == SandboxState.ENDED.value:
            self._ended(key, sandbox, trouble)

    def _ended(self, key: str, sandbox: SandboxId, trouble: RemoraError | None) -> None:
        """Tell of a sandbox that has ended, or of what holds up one that could not be made."""
        self._timers.drop(sandbox)
        # one that was given up is no sign that the next one will not start
        started = self._ready.pop(sandbox) or sandbox in self._given_up
        self._given_up.discard(sandbox)
        if trouble is not None and not started and not self.specs[key].on:
            self._say(key, f"not on {self._fleet.sandboxes[sandbox].get('on')}: {trouble}")
        holders = frozenset(trouble.facts.get("holders", ())) if trouble is not None and trouble.reason == HELD else frozenset()
        if holders & self._fleet.sandboxes.keys():
            self._say(key, str(trouble))
            self._happened(turns.SandboxHeldUp(sandbox, holders))
        else:
            self._happened(turns.SandboxGone(sandbox, started))

    def give_up(self, key: str) -> None:
        """End what is being made for a pool that has no calls any more."""
        for sandbox, (pool, opening) in self._openings.items():
            if pool == key:
                self._given_up.add(sandbox)
                opening.give_up()

    def rest(self, sandbox: SandboxId) -> None:
        """Report a sandbox as unused when it has had nothing to do for long."""
        if sandbox not in self._timers:
            idle = self._fleet.sandboxes[sandbox]["spec"].get("idle")
            span = POOL_IDLE.seconds if idle is None else float(idle)
            self._timers.set(sandbox, span, lambda: self._happened(turns.SandboxUnused(sandbox)))

    def busy(self, sandbox: SandboxId) -> None:
        """Take note that a sandbox is used."""
        self._timers.drop(sandbox)

    def end(self, sandbox: SandboxId) -> None:
        """End a sandbox that nobody uses."""
        self._fleet.soon(self._stop(sandbox))

    async def _stop(self, sandbox: SandboxId) -> None:
        try:
            await self._fleet.machines.stop(sandbox, EndReason.IDLE)
        except RemoraError as error:  # a machine that cannot be reached: what is there ends when that hears of it
            self._fleet.sandboxes[sandbox]["message"] = str(error)

    # -- hearing

    def changed(self, sandbox: SandboxId, before: str | None, state: str) -> None:
        """Pass on what matters of a pool's sandbox, and that devices are free again."""
        facts = self._fleet.sandboxes[sandbox]
        ended = state == SandboxState.ENDED.value
        if ended and facts.get("devices"):
            self._happened(turns.DevicesFreed())
        if sandbox not in self._ready:
            if facts.get("pool") and state == SandboxState.READY.value:
                self.end(sandbox)  # it was made before the backend was away, and has done its call
        elif state == SandboxState.READY.value and before == SandboxState.STARTING.value:
            self._ready[sandbox] = True
            self._happened(turns.SandboxReady(sandbox))
        elif ended and sandbox not in self._openings:
            self._ended(str(facts.get("pool")), sandbox, None)
