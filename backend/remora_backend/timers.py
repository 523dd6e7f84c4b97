"""How long a sandbox may be unused, and its end when that time is over."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from remora.errors import Unavailable
from remora.settings import KERNEL_GRACE
from remora.states import SandboxState
from remora.wire import Fields, SandboxId
from remora_provisioner.timers import Timers

_FIRST_USE = 60.0
"""Seconds that a new sandbox waits for its first run, however short its idle time is."""
_AGAIN = 60.0
"""Seconds until it is tried again to end what is on a machine that could not be reached."""


class Unused:
    """Has sandboxes ended that have been unused for as long as they may be."""

    def __init__(self, end: Callable[[SandboxId], Coroutine[Any, Any, None]], soon: Callable[[Any], None]) -> None:
        """End one with `end`, beside what is being done: `soon`."""
        self._end, self._soon = end, soon
        self._timers = Timers()

    def mind(self, sandbox: SandboxId, known: Fields, at_least: float = 0.0) -> None:
        """Take note of what is known of a sandbox now: its time begins anew, or it is in use."""
        self._timers.drop(sandbox)
        span = may_idle(known)
        if known["state"] == SandboxState.READY.value and span is not None:
            self._timers.set(sandbox, max(span, at_least), lambda: self._soon(self._try(sandbox, known)))

    async def _try(self, sandbox: SandboxId, known: Fields) -> None:
        try:
            await self._end(sandbox)
        except Unavailable:
            self.mind(sandbox, known, at_least=_AGAIN)


def may_idle(sandbox: Fields) -> float | None:
    """Return the seconds that a sandbox, known by its facts, may be unused; None: for ever.

    A new one gets time for its first run. A pool's sandbox is ended by the scheduler alone, which knows what is on its way there.
    """
    idle = None if sandbox.get("pool") else (sandbox.get("spec") or {}).get("idle")
    spans = [] if idle is None else [float(idle)]
    if "kernel" in sandbox and not sandbox.get("clients"):
        spans.append(KERNEL_GRACE.seconds)
    if sandbox.get("leaving"):
        return 0.0
    return (min(spans) if sandbox.get("used") else max(min(spans), _FIRST_USE)) if spans else None
