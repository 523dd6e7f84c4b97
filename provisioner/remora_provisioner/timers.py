"""Named timers of one loop: setting one again takes the place of the one before.

Law: time is the loop's, which no change of the clock touches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


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
