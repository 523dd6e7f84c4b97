"""An answer that a person gives in one thread, and a loop waits for in another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator


class Reply:
    """One answer; await it on the loop that made it. None: nobody answers."""

    def __init__(self) -> None:
        """Wait for an answer on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._given: asyncio.Future[str | None] = self._loop.create_future()

    def __await__(self) -> Generator[object, None, str | None]:
        """Return what was answered."""
        return self._given.__await__()

    def give(self, value: str | None) -> None:
        """Answer, from any thread; the first answer counts."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._settle, value)

    def _settle(self, value: str | None) -> None:
        if not self._given.done():
            self._given.set_result(value)
