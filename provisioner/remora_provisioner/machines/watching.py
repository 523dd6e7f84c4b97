"""Ends sandboxes of a machine elsewhere that nobody uses, and all of a rented one when nobody has been in touch for too long.

Law: time is the loop's, which no change of the clock touches. A sandbox in which something runs is in use, however long that
takes; the lease of a rented machine is what bounds it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from remora.states import EndReason, SandboxState
from remora.wire import Fields, SandboxId

from ..timers import Timers
from .terms import Terms

_LOG = logging.getLogger(__name__)
_FIRST_USE = 60.0
"""Seconds that a new sandbox waits for its first run, however short its idle time is."""
_LEASE = "lease"


class Watching:
    """The timers of one agent."""

    def __init__(
        self,
        stop: Callable[[SandboxId, EndReason], Awaitable[None]],
        living: Callable[[], Iterable[SandboxId]],
        over: Callable[[], None],
    ) -> None:
        """End one sandbox with `stop`, and all that are `living` when the lease is over; then say so to `over`."""
        self._stop, self._living, self._over = stop, living, over
        self.terms = Terms()
        self._timers = Timers()
        self._known: dict[SandboxId, Fields] = {}
        self._used: set[SandboxId] = set()
        self._ending: set[asyncio.Task[None]] = set()

    def sandbox_changed(self, sandbox: SandboxId, state: str, facts: Fields) -> None:
        """Take note of a sandbox's new state."""
        self._timers.drop(sandbox)
        known = self._known.setdefault(sandbox, {})
        known |= {name: facts[name] for name in ("spec", "pool") if name in facts}
        if state == SandboxState.ENDED.value:
            self._known.pop(sandbox)
            self._used.discard(sandbox)
        elif state == SandboxState.BUSY.value:
            self._used.add(sandbox)
        elif state == SandboxState.READY.value:
            span = self.terms.idle(known.get("spec") or {}, bool(known.get("pool")))
            if span is not None:
                span = span if sandbox in self._used else max(span, _FIRST_USE)
                self._timers.set(sandbox, span, lambda: self._soon(self._end([sandbox], EndReason.IDLE)))

    def attended(self) -> None:
        """Take note that a backend is connected: the lease is renewed for as long as it is."""
        self._timers.drop(_LEASE)

    def unattended(self) -> None:
        """Take note that no backend is connected: the lease of a rented machine runs from now on, if it does not run already."""
        if self.terms.rented and _LEASE not in self._timers:
            self._timers.set(_LEASE, self.terms.lease, lambda: self._soon(self._end_all()))

    async def _end_all(self) -> None:
        _LOG.warning("no backend was in touch for %g s, and the machine is rented: everything ends", self.terms.lease)
        await self._end(self._living(), EndReason.MACHINE_LOST)
        self._over()

    async def _end(self, sandboxes: Iterable[SandboxId], reason: EndReason) -> None:
        await asyncio.gather(*(self._stop(sandbox, reason) for sandbox in sandboxes))

    def _soon(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
