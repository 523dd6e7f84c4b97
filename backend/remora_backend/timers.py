"""Named timers of one loop: setting one again takes the place of the one before. And how long a sandbox may be unused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from remora.settings import KERNEL_GRACE
from remora.wire import Fields

_FIRST_USE = 60.0
"""Seconds that a new sandbox waits for its first run, however short its idle time is."""


class Timers:
    """What is to happen later, by name."""

    def __init__(self) -> None:
        """Start with none."""
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        """Say whether a timer of this name was set and not dropped; it may have gone off."""
        return name in self._timers

    def set(self, name: str, seconds: float, act: Callable[[], object]) -> None:
        """Have `act` called in so many seconds."""
        self.drop(name)
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, act)

    def drop(self, name: str) -> None:
        """Have it not called; nothing happens if there is no such timer."""
        if name in self._timers:
            self._timers.pop(name).cancel()


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
