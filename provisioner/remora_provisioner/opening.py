"""Somebody waits for a sandbox: hears what its image's build is doing, may give it up, and brings secrets for it.

Law: secrets are here for as long as somebody waits; nothing that is written down holds an Opening.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from remora.errors import RunEnded
from remora.states import EndReason
from remora.wire import Fields

T = TypeVar("T")
Ask = Callable[[str, bool], Awaitable[str | None]]
"""Asks whoever waits for what only a person can say: a text, and whether the answer is not to be seen. None: nobody answers."""


async def nobody(text: str, secret: bool) -> str | None:
    """Answer nothing."""


class Opening:
    """One wait for a sandbox."""

    def __init__(self, say: Callable[[str], None] = lambda _: None, secrets: Fields | None = None, ask: Ask = nobody) -> None:
        """Tell `say` what is going on; `secrets` are those of a request, see `remora.wire.OpenSession`."""
        self.say, self.ask = say, ask
        self.environment: dict[str, str] = (secrets or {}).get("environment") or {}
        """Variables for the sandbox alone."""
        self.registry: dict[str, str] = (secrets or {}).get("registry") or {}
        """Who asks the registry of its image, for the builder alone."""
        self._given_up = False
        self._task: asyncio.Task[Any] | None = None

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work that can be given up, all of it. Raises RunEnded with the reason "cancelled" if it is."""
        if self._task is not None:
            return await work
        task = asyncio.get_running_loop().create_task(work)
        self._task = task
        if self._given_up:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            raise RunEnded("cancelled before its sandbox was there", reason=EndReason.CANCELLED.value) from None
        finally:
            self._task = None

    def give_up(self) -> None:
        """End what is being waited for; what has been done by now is left as it is."""
        self._given_up = True
        if self._task is not None:
            self._task.cancel()
